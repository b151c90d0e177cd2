"""Permutation importance: as scikit-learn computes it,
with the inputs of a column shuffled together.
"""

import csv

import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.inspection import permutation_importance

from drawing import make
from goldilocks.callbacks import importance
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.components import prepare
from tables import cars, write

QUIET = [
    "trainer=cpu",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
    "logger=none",
    "callbacks.evaluation=null",
]


@pytest.fixture
def train(compose, tmp_path):
    """Trains in a folder; returns the parts and the rows of importance.csv, None without one."""

    def trained(*words):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        cfg = compose(*QUIET, *words)
        parts = prepare(cfg)
        assert run(RunRequest(cfg, folder), parts)["status"] == "done"
        path = folder / "figures" / "importance.csv"
        assert path.exists() == (folder / "figures" / "importance.png").exists()
        return parts, list(
            csv.reader(path.read_text(encoding="utf-8").splitlines())
        ) if path.exists() else None

    return trained


class Regressor(BaseEstimator):
    """A network as scikit-learn sees it."""

    def __init__(self, network):
        self.network = network

    def fit(self, x, y):
        return self

    def predict(self, x):
        with torch.no_grad():
            return self.network(torch.from_numpy(x).float()).numpy()


def test_importance_is_scikit_learns():
    """Mean and deviation over many shuffles; the same draws are out of reach."""
    torch.manual_seed(0)
    network, x = torch.nn.Linear(4, 1), torch.randn(80, 4)
    with torch.no_grad():
        network.weight[:] = torch.tensor([2.0, 0.5, 0.0, -1.0])
    y = network(x).detach() + 0.1 * torch.randn(80, 1)
    orders = torch.stack([torch.randperm(80) for _ in range(400)])
    found = importance.shuffled_scores(
        make("regression"), network, (x, y), [[0], [1], [2], [3]], orders, "loss"
    )
    expected = permutation_importance(
        Regressor(network),
        x.numpy(),
        y.numpy(),
        scoring="neg_mean_squared_error",
        n_repeats=400,
        random_state=0,
    )
    assert found.shape == (4, 400)
    assert found.mean(1) == pytest.approx(expected.importances_mean, rel=0.05, abs=1e-6)
    assert found.std(1) == pytest.approx(expected.importances_std, rel=0.15, abs=1e-6)
    assert found[2] == pytest.approx(0, abs=1e-6)


def test_inputs_of_a_column_are_shuffled_together():
    """Their sum is always one, so a network that takes the sum needs neither,
    as long as they stay together.
    """
    torch.manual_seed(0)
    network, share = torch.nn.Linear(2, 1, bias=False), torch.rand(50, 1)
    torch.nn.init.ones_(network.weight)
    x, y = torch.cat([share, 1 - share], 1), torch.ones(50, 1)
    orders = torch.stack([torch.randperm(50) for _ in range(3)])
    together, apart = (
        importance.shuffled_scores(make("regression"), network, (x, y), groups, orders, "loss")
        for groups in ([[0, 1]], [[0], [1]])
    )
    assert together == pytest.approx(0, abs=1e-9)
    assert (apart > 0.05).all()


@pytest.mark.parametrize("metric", ["loss", "accuracy", "auroc", "ece"])
def test_a_run_tells_the_fall_or_rise_of_its_objective(metric, train):
    parts, rows = train(
        "data=breast_cancer", f"objective.metric=val/{metric}", "trainer.max_epochs=60"
    )
    header, *lines = rows
    word = "rise" if metric in ("loss", "ece") else "fall"
    assert header == ["column", f"{word} of val/{metric}", "standard deviation"]
    assert {line[0] for line in lines} == set(parts.data.spec.feature_names)
    means = [float(line[1]) for line in lines]
    assert means == sorted(means, reverse=True)
    assert metric == "ece" or means[0] > 0


def test_the_columns_of_a_table_are_the_users(train, tmp_path):
    path = write(tmp_path / "cars.csv", cars(300))
    words = [
        "data=table",
        f"data.path={path}",
        "data.target=price",
        "optimizer.lr=0.01",
        "data.columns.id=drop",
    ]
    parts, (_, *lines) = train(*words, "data.pieces=4", "trainer.max_epochs=60")
    assert {line[0] for line in lines} == {"size", "age", "make", "fuel", "colour", "sold"}
    assert {line[0] for line in lines[:3]} == {"size", "age", "make"}, (
        "the price follows from these"
    )
    assert len(parts.data.owners()) > 15


@pytest.mark.parametrize("precision", ["64", "bf16-mixed", "bf16-true"])
def test_every_precision_is_measured(precision, train, capsys):
    rows = train("data=iris", f"trainer.precision={precision}", "trainer.max_epochs=8")[1]
    assert len(rows) == 5
    assert "warning" not in capsys.readouterr().err


def test_neither_weights_nor_random_numbers_are_touched(train):
    words = ["data=wine", "trainer.max_epochs=30"]
    found = [
        torch.cat(
            [p.detach().flatten() for p in train(*words, *more)[0].module.network.parameters()]
        )
        for more in ((), ("callbacks.importance=null",))
    ]
    assert torch.equal(*found)
    again, once_more = train(*words)[1], train(*words)[1]
    assert len(again) == 14
    assert again == once_more


@pytest.mark.parametrize(
    "words",
    [
        ("data=digits", "trainer.max_epochs=1"),  # images
        ("data=iris", "trainer.max_epochs=1"),  # 90 rows were trained on
        ("data=wine", "trainer.max_epochs=30", "callbacks.importance.repeats=0"),
        (
            "data=wine",
            "trainer.max_epochs=30",
            "data.val_fraction=0",
            "objective.metric=train/loss",
        ),
    ],
    ids=["images", "short", "none asked", "no validation rows"],
)
def test_without_what_it_needs_there_is_none(words, train):
    assert train(*words)[1] is None


def test_a_run_does_not_fail_by_it(train, monkeypatch, capsys):
    def broken(*given):
        raise RuntimeError("no")

    monkeypatch.setattr(importance, "shuffled_scores", broken)
    assert train("data=wine", "trainer.max_epochs=30")[1] is None
    assert "warning: the importance was not measured: RuntimeError: no" in capsys.readouterr().err
