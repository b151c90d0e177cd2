"""Several quantiles at once: the loss, what is kept, and intervals whose width follows the row."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss

import goldilocks
from conftest import read_result
from drawing import make
from finished import command_of, finished
from goldilocks.errors import Refused
from goldilocks.inference.export import export, matrix_of
from goldilocks.runs.ensembles import kept, members_of
from goldilocks.runs.ensembling import make_ensemble
from goldilocks.runs.evaluate import evaluate_run
from goldilocks.tasks.losses import Quantile
from goldilocks.tasks.task import Task

SHARES = [0.05, 0.5, 0.95]
WORDS = [
    *("loss=quantile", "loss.q=[0.05,0.5,0.95]", "optimizer.lr=0.01"),
    *("trainer.max_epochs=60", "callbacks.early_stopping=null"),
]
predict = command_of("predict")
pytestmark = pytest.mark.filterwarnings("ignore::goldilocks.data.tables.preparation.StrangeValues")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A file whose noise grows with |a|; `z` is positive, and as a logarithm twice as noisy."""
    draws = np.random.default_rng(0)
    frame = pd.DataFrame(draws.uniform(-2, 2, size=(400, 2)), columns=["a", "b"])
    noise = draws.normal(size=400) * (0.05 + 0.6 * frame["a"].abs())
    frame["y"] = frame["b"] + noise
    frame["z"] = np.exp(2 * frame["b"] + noise)
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def runs(table, tmp_path_factory):
    """Runs by name."""
    folder = tmp_path_factory.mktemp("runs")
    data = ["data=table", f"data.path={table}", *WORDS]
    one = [*data, "data.target=y", "data.columns.z=drop"]
    both = [*data, "data.target=[y,z]", "data.target_log=false"]
    logged = [*data, "data.target=z", "data.target_log=true", "data.columns.y=drop"]
    return {
        "one": finished(folder, *one),
        "folds": finished(folder, *one, "data.folds=3"),
        "members": finished(folder, *one, "model=tabm", "model.k=4"),
        "both": finished(folder, *both),
        "logged": finished(folder, *logged),
        "other seed": finished(folder, *one, "seed=1"),
    }


NAMES = ["one", "folds", "members", "both", "logged"]


# --- the loss -------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_of_scikit_learns_and_its_constant_the_quantiles():
    draws = np.random.default_rng(0)
    output, target = draws.normal(size=(50, 6)), draws.normal(size=(50, 2))
    loss = Quantile(SHARES)
    expected = np.mean(
        [
            mean_pinball_loss(target[:, place], output[:, 3 * place + at], alpha=share)
            for place in range(2)
            for at, share in enumerate(SHARES)
        ]
    )
    values, truth = torch.from_numpy(output), torch.from_numpy(target)
    assert float(loss(values, truth).mean()) == pytest.approx(expected)
    assert float(loss.mean(values, truth)) == pytest.approx(expected)
    constant = loss.constant(truth)
    assert np.allclose(constant, np.quantile(target, SHARES, axis=0).T.reshape(1, -1), atol=1e-5)


@pytest.mark.parametrize(
    "q", [[0.1, 0.9], [0.9, 0.5, 0.1], [0.1, 0.5], [0.5], [0.1, 0.5, 0.5, 0.9]], ids=str
)
def test_quantiles_without_a_median_between_others_are_refused(q):
    with pytest.raises(Refused, match=r"^loss.q=\[.*\]: .*, such as loss.q=\[0.05,0.5,0.95\]$"):
        Quantile(q)


def test_metrics_are_those_of_the_median():
    task = Task(make("regression", 2, (1.0, 5.0), (2.0, 3.0)).spec, Quantile(SHARES))
    output, target = torch.randn(30, 6), torch.randn(30, 2)
    medians, values = output[:, [1, 4]], task.combine(output)
    first = norm.ppf(SHARES) * 0.25  # the scaled targets go from 0 to 1
    assert np.allclose(values - output, [*first, *first], atol=1e-6)
    plain = Task(task.spec)
    for name in ("rmse", "mae", "r2"):
        assert task.score(name, output, target) == pytest.approx(plain.score(name, medians, target))
    assert torch.equal(task.predict(output), plain.predict(medians))
    whole = task.unscale(values)
    assert torch.allclose(whole[:, 3:], values[:, 3:] * 3 + 5)
    assert torch.allclose(task.scale(whole), values, atol=1e-5)


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_gives_the_loss_and_the_metrics_of_the_result(name, runs):
    own, metrics = kept(runs[name]), read_result(runs[name])["metrics"]
    targets = own.true.shape[1]
    assert own.quantiles.shape == (len(own.rows), 3 * targets)
    assert np.array_equal(own.quantiles[:, 1::3], own.predicted)
    if name != "folds":  # there each fold has a scale of its own
        assert own.losses.mean() == pytest.approx(metrics["val/loss"], rel=1e-4)
        mae = np.abs(own.true - own.predicted).mean()
        assert mae == pytest.approx(metrics["val/mae"], rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_intervals_are_quantiles_moved_by_what_kept_rows_need(name, runs, table):
    rows = pd.read_csv(table)
    model, own = goldilocks.load(runs[name]), kept(runs[name])
    values, lower, upper = model.predict(rows, interval=0.9)
    whole = model.whole(rows)
    assert np.array_equal(values.reshape(len(rows), -1), whole[:, 1::3])
    known = np.log if name == "logged" else np.asarray
    back = np.exp if name == "logged" else np.asarray
    for place in range(own.true.shape[1]):
        ends = [known(own.quantiles[:, 3 * place + at].astype(float)) for at in (0, 2)]
        low, high = np.minimum(*ends), np.maximum(*ends)
        true = known(own.true[:, place].astype(float))
        missed = np.sort(np.maximum(low - true, true - high))
        margin = missed[int(np.ceil((len(missed) + 1) * 0.9)) - 1]
        ends = [known(whole[:, 3 * place + at].astype(float)) for at in (0, 2)]
        low, high = np.minimum(*ends), np.maximum(*ends)
        centre = (low + high) / 2  # no end is moved beyond it
        for found, end in (
            (lower, np.minimum(low - margin, centre)),
            (upper, np.maximum(high + margin, centre)),
        ):
            assert np.allclose(found.reshape(len(rows), -1)[:, place], back(end), 1e-3, 1e-3)


def test_the_width_follows_the_row(runs, table):
    rows = pd.read_csv(table)
    order = rows["a"].abs().argsort().to_numpy()
    for name in ("one", "folds"):
        _, lower, upper = goldilocks.load(runs[name]).predict(rows, interval=0.9)
        width = (upper - lower)[order]
        assert width[-133:].mean() > 1.5 * width[:133].mean()


def test_the_coverage_of_the_result_is_that_of_the_predictions(runs, table):
    model = goldilocks.load(runs["one"])
    there = pd.read_csv(table).iloc[kept(runs["one"], "test").rows]
    _, lower, upper = model.predict(there, interval=0.9)
    known = read_result(runs["one"])["coverage"]
    assert known["reached"] == pytest.approx(there["y"].between(lower, upper).mean())
    assert known["targets"]["y"]["width"] == pytest.approx((upper - lower).mean(), rel=1e-4)
    assert read_result(runs["one"])["baselines"] is None


def test_a_file_gets_the_same_ends(runs, table, tmp_path, monkeypatch):
    output = tmp_path / "out.csv"
    assert predict(monkeypatch, runs["both"], table, "--output", output, "--interval", 0.8) == 0
    found = pd.read_csv(output)
    values, lower, upper = goldilocks.load(runs["both"]).predict(pd.read_csv(table), interval=0.8)
    for place, name in enumerate("yz"):
        for word, each in (("predicted", values), ("lower", lower), ("upper", upper)):
            assert np.allclose(found[f"{word}_{name}"], each[:, place], rtol=1e-4, atol=1e-5)


def test_an_ensemble_has_the_mean_of_its_members_quantiles(runs, table, tmp_path):
    result = make_ensemble([runs["one"], runs["other seed"]], tmp_path / "ensemble", members=2)
    rows, model = pd.read_csv(table), goldilocks.load(tmp_path / "ensemble")
    members = members_of(tmp_path / "ensemble")
    whole = sum(weight * goldilocks.load(own).whole(rows) for own, weight in members)
    assert np.allclose(model.whole(rows), whole, atol=1e-4)
    own = kept(tmp_path / "ensemble")
    assert own.losses.mean() == pytest.approx(result["metrics"]["val/loss"], rel=1e-4)
    assert len(model.predict(rows, interval=0.9)) == 3
    assert "test/rmse" in evaluate_run(tmp_path / "ensemble")["metrics"]


def test_a_graph_gives_the_median(runs, table, tmp_path):
    model, rows = goldilocks.load(runs["both"]), pd.read_csv(table)
    done = export(model, tmp_path, "torch_export")
    assert done.difference <= 1e-5
    program = torch.export.load(done.file).module()
    found = program(torch.from_numpy(matrix_of(model.preparation, rows))).numpy()
    assert np.allclose(found, model.predict(rows), atol=1e-4)
