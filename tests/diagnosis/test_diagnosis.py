"""The diagnosis: networks trained to have each illness get that finding, healthy ones none."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import ROOT, SMALL, read_result
from goldilocks.callbacks import recorder_of
from goldilocks.config.compose import compose, prepare_hydra
from goldilocks.data.base import Table
from goldilocks.data.sources.synthetic import SyntheticData
from goldilocks.data.spec import Spec
from goldilocks.diagnosis.advice import ADVICE, advise
from goldilocks.diagnosis.advice import command as next_command
from goldilocks.diagnosis.after import examine, gather
from goldilocks.diagnosis.evidence import (
    ClassRows,
    Comparison,
    Evidence,
    Rows,
    error_of_metric,
    look_at_rows,
    values_of,
)
from goldilocks.diagnosis.findings import RULES, Finding, diagnose, summary
from goldilocks.runs.assembly import build_trainer
from goldilocks.tasks.losses import MAE, MSE
from goldilocks.tasks.task import Task, constant_prediction
from goldilocks.training.components import prepare
from goldilocks.training.layer_health import ActivationHealth, Health, LayerHealth
from tables import cars, write

BARE = [
    "logger=none",
    "callbacks.progress_bar=null",
    "callbacks.evaluation=null",
    "trainer.accelerator=cpu",
]


class Rare(SyntheticData):
    """Rows of which one in 25 is of the second class, a little off the others."""

    def load(self) -> Table:
        random = np.random.default_rng(0)
        y = (np.arange(self.rows) % 25 == 0).astype(int)
        return Table(random.standard_normal((self.rows, 4)) + 0.7 * y[:, None], y)


class Wide(SyntheticData):
    """A line of many numbers, with noise."""

    def load(self) -> Table:
        random = np.random.default_rng(0)
        x = random.standard_normal((self.rows, self.features))
        slopes = random.standard_normal(self.features) / self.features**0.5
        return Table(x, x @ slopes + 0.3 * random.standard_normal(self.rows))


class Stairs(SyntheticData):
    """Jumps along two of the numbers."""

    def load(self) -> Table:
        random = np.random.default_rng(0)
        x = random.standard_normal((self.rows, self.features))
        steps = np.floor(3 * x[:, 0]) % 2 + 2 * (x[:, 1] > 0.5)
        return Table(x, steps + 0.1 * random.standard_normal(self.rows))


# By the name of a finding: runs that must have it, and no other.
ILL = {
    "diverged": ["data=digits model=deep optimizer=sgd optimizer.lr=2"],
    "nothing to learn": [
        "data=synthetic data.rows=400 data.features=4 data.classes=0 data.noise=1e5"
        " trainer.max_epochs=12"
    ],
    "exploding gradients": [
        "data=digits model=deep model.depth=20 model.init=normal optimizer.lr=1e-5"
        " trainer.max_epochs=3"
    ],
    "vanishing gradients": [
        "data=digits model=deep model.depth=10 model.activation=sigmoid optimizer=sgd"
        " trainer.max_epochs=4",
        "data=iris model=deep model.depth=12 model.activation=sigmoid trainer.max_epochs=30",
    ],
    "rate too high": [
        "data=diabetes model=shallow model.activation=silu optimizer.lr=1 trainer.max_epochs=20",
        "data=digits model=linear optimizer=sgd optimizer.lr=30 trainer.max_epochs=10",
    ],
    "dead units": [
        "data=digits model=deep model.width=2 trainer.max_epochs=20",
    ],
    "saturated units": [
        "data=digits model=shallow model.activation=tanh data.scaling=none model.init=normal"
        " trainer.max_epochs=30"
    ],
    "clipped": [
        "data=digits model=linear trainer.gradient_clip_val=0.01 trainer.max_epochs=20",
        "data=digits model=deep optimizer=sgd trainer.gradient_clip_val=0.001"
        " trainer.max_epochs=20",
    ],
    "rate too low": [
        "data=digits model=deep optimizer=sgd optimizer.lr=3e-4 trainer.max_epochs=20",
        "data=diabetes model=deep optimizer.lr=3e-6 trainer.max_epochs=40",
        "data=digits model=deep optimizer.lr=3e-6 scheduler=onecycle trainer.max_epochs=20",
    ],
    "still improving": [
        "data=breast_cancer trainer.max_epochs=4",
        "data=iris model=linear trainer.max_epochs=200",
    ],
    "underfitting": ["data=digits optimizer=sgd regularization.l2=1 trainer.max_epochs=15"],
    "overfitting": [
        "data=diabetes model=wide",
        "data=digits model=deep data.val_fraction=0.4 data.test_fraction=0.55"
        " callbacks.early_stopping=null",
    ],
    "below linear": [
        f"data=synthetic data._target_={__name__}.Wide packages=[{__name__}] data.rows=400"
        " data.features=60 model=wide callbacks.early_stopping.patience=2"
    ],
    "trees far ahead": [
        f"data=synthetic data._target_={__name__}.Stairs packages=[{__name__}] data.rows=1500"
        " data.features=10 model=deep callbacks.early_stopping.patience=4"
    ],
    "rare class missed": [
        f"data=synthetic data._target_={__name__}.Rare packages=[{__name__}] data.rows=900"
        " trainer.max_epochs=12 callbacks.early_stopping.patience=3"
    ],
    "noise": ["data=diabetes data.val_fraction=0.02 trainer.max_epochs=40"],
}
HEALTHY = [
    "data=iris",
    "data=wine",
    "data=digits",
    "data=breast_cancer",
    "data=diabetes",
    "data=digits model=resnet optimizer=adamw",
    "data=digits model=deep scheduler=onecycle trainer.max_epochs=30",
    "data=breast_cancer model=deep regularization=[dropout] seed=3",
    "data=wine model=selfnorm optimizer=momentum",
    "data=digits trainer.gradient_clip_val=1",
    "data=diabetes model=linear seed=2",
]


def trained(words: str, folder):
    """What is known of a run."""
    prepare_hydra()
    parts = prepare(compose([*BARE, *words.split()])[0], warn=False)
    (folder / "checkpoints").mkdir()
    trainer = build_trainer(parts, folder)
    trainer.fit(parts.module, parts.data)
    status = (
        "diverged" if parts.module.diverged or recorder_of(trainer).best_epoch is None else "done"
    )
    return SimpleNamespace(parts=parts, trainer=trainer, status=status)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "words"), [(name, words) for name, runs in ILL.items() for words in runs]
)
def test_an_illness_is_named_and_nothing_else(name, words, tmp_path):
    made = trained(words, tmp_path)
    before = {key: tensor.clone() for key, tensor in made.parts.module.state_dict().items()}
    random = torch.get_rng_state()
    evidence = gather(made.trainer, made.parts, tmp_path, made.status)
    found = diagnose(evidence)
    assert [finding.name for finding in found] == [name], found
    for key, tensor in made.parts.module.state_dict().items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(random, torch.get_rng_state())
    told, overrides = advise(found[0], evidence, made.parts.settings)
    assert told
    # What is advised is a configuration that a run would take.
    prepare(compose([*BARE, *next_command(words.split(), overrides).split()[2:]])[0], warn=False)


def test_every_finding_has_a_run_an_advice_and_a_section():
    sections = re.findall(
        r"^## (.+)$", (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [section.lower() for section in sections if section != "How often it is right"] == list(
        RULES
    )
    assert list(ILL) == list(RULES) == list(ADVICE)


@pytest.mark.parametrize("words", HEALTHY)
def test_the_healthy_are_left_alone(words, tmp_path):
    made = trained(words, tmp_path)
    evidence = gather(made.trainer, made.parts, tmp_path, made.status)
    assert diagnose(evidence) == []
    assert evidence.val.loss == pytest.approx(recorder_of(made.trainer).best_value, rel=1e-4)


def test_the_advice_mends_what_it_says(tmp_path):
    """A rate that is too high, and too low, is answered with one that learns much more."""
    for number, words in enumerate([ILL["rate too high"][0], ILL["rate too low"][0]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = trained(words, folder)
        evidence = gather(made.trainer, made.parts, folder, made.status)
        _, overrides = advise(diagnose(evidence)[0], evidence, made.parts.settings)
        (folder / "again").mkdir()
        again = trained(
            next_command(words.split(), overrides).removeprefix("python train.py "),
            folder / "again",
        )
        better = gather(again.trainer, again.parts, folder / "again", again.status)
        assert better.val.loss < 0.8 * evidence.val.loss


# --- evidence -------------------------------------------------------------------------------------


def test_rows_against_formulas():
    task = Task(Spec("multiclass", (2,), 3, class_names=("a", "b", "c"), class_counts=(2, 1, 1)))
    x, y = torch.randn(7, 2), torch.tensor([0, 1, 2, 0, 0, 1, 1])
    network = torch.nn.Linear(2, 3)
    values = values_of(task, network, x)
    rows = look_at_rows(task, values, y, torch.tensor([0, 0, 1, 2]))
    losses = F.cross_entropy(network(x), y, reduction="none").detach().double()
    assert rows.count == 7
    assert rows.loss == pytest.approx(float(losses.mean()), rel=1e-6)
    assert rows.error == pytest.approx(float(losses.std()) / math.sqrt(7), rel=1e-6)
    # Every class counts a row more: 3/7, 2/7, 2/7.
    assert rows.chance == pytest.approx(-(3 * math.log(3 / 7) + 4 * math.log(2 / 7)) / 7, rel=1e-6)


def test_the_standard_error_of_a_metric_is_a_share_of_rows_own():
    task = Task(Spec("multiclass", (2,), 3, class_names=("a", "b", "c"), class_counts=(2, 1, 1)))
    network, targets = torch.nn.Linear(2, 3), torch.tensor([0, 1, 2, 0, 0, 1, 1, 2, 2, 0])
    rows = torch.randn(10, 2), targets
    right = (network(rows[0]).argmax(1) == targets).double()
    values = values_of(task, network, rows[0])
    error = error_of_metric(task, values, targets, "accuracy", total=10)
    assert error == pytest.approx(float(right.std()) / math.sqrt(10), rel=1e-5)
    many = values.repeat(300, 1), targets.repeat(300)  # half of the rows there are
    error = error_of_metric(task, *many, "accuracy", total=6000)
    assert error == pytest.approx(float(right.std()) / math.sqrt(6000), rel=0.5)
    assert error_of_metric(task, values[:1], targets[:1], "accuracy", total=1) is None
    for right in (targets, (targets + 1) % 3):  # all rows, or none
        sure = 9.0 * torch.nn.functional.one_hot(right, 3)
        assert error_of_metric(task, sure, targets, "accuracy", total=10) == pytest.approx(0.1)


def test_constant_predictions_of_the_other_tasks():
    binary = Task(Spec("binary", (2,), 1, class_names=("a", "b"), class_counts=(3, 1)))
    assert constant_prediction(
        binary, torch.tensor([[0.0], [0], [0], [1]])
    ).sigmoid().item() == pytest.approx(2 / 6)
    values = torch.tensor([[0.0], [1], [8]])
    squared, absolute = (Task(Spec("regression", (2,), 1), loss) for loss in (MSE(), MAE()))
    assert constant_prediction(squared, values).item() == 3
    assert constant_prediction(absolute, values).item() == 1


def test_rows_that_are_not_finite_are_none():
    task = Task(Spec("regression", (1,), 1))
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, math.inf)
    values = values_of(task, network, torch.ones(2, 1))
    assert look_at_rows(task, values, torch.ones(2, 1), torch.ones(2, 1)) is None


@pytest.mark.parametrize("name", ["still improving", "overfitting", "noise", "rare class missed"])
def test_a_few_steps_are_not_judged(name):
    """Whatever their curves look like."""
    few = known(
        steps=6,
        history=[{"train/loss": 1 / n, "val/loss": 1.0 + n} for n in range(1, 9)],
        classes=[ClassRows("b", 20.0, 30, 0.0)],
        val=Rows(30, 0.95, 0.02, 1.0, 0.5),
    )
    assert diagnose(few) == []
    assert summary(few).endswith("; 6 steps are too few to judge")
    assert summary(replace(few, steps=1)).endswith("; 1 step is too few to judge")
    assert diagnose(replace(few, steps=600)) != []


def test_a_training_loss_that_falls_far_below_is_no_underfitting():
    """Though another network does better:
    then the weights that are kept are best for another reason.
    """
    better = {
        "compare": lambda: Comparison(0.3, 0.6, 0.01),
        "train": Rows(90, 0.9, 0.01, 1.0, 0.01),
    }
    flat, falls = (
        [{"train/loss": loss, "val/loss": 0.9} for loss in losses]
        for losses in ([0.95, 0.9, 0.9], [0.95, 0.9, 0.5])
    )
    assert [found.name for found in diagnose(known(history=flat, **better))] == ["underfitting"]
    assert diagnose(known(history=falls, **better)) == []
    noise = better | {"compare": lambda: Comparison(0.88, 0.02, 0.01)}
    assert diagnose(known(history=flat, **noise)) == []


def gradients(*sizes: float, dead: float = 0.0) -> Health:
    """Of layers with weights of norm 1, and of one activation; the last layer is the output."""
    layers = [LayerHealth(str(number), size, 1.0) for number, size in enumerate(sizes)]
    return Health(1.0, layers, [ActivationHealth("1", "ReLU", torch.zeros(1, 1), dead, None)])


def test_a_gradient_too_large_for_its_precision_explodes():
    found = diagnose(known(health=gradients(math.inf, math.inf, 1.0)))
    assert [(each.name, each.measured) for each in found] == [
        ("exploding gradients", "in layer 0 the gradient is infinite")
    ]
    assert diagnose(known(health=gradients(math.nan, 1.0, 1.0))) == []


def test_a_gradient_that_dead_units_stop_does_not_vanish():
    found = [diagnose(known(health=gradients(0.0, 1.0, 1.0, dead=dead))) for dead in (1.0, 0.2)]
    assert [[each.name for each in some] for some in found] == [
        ["dead units"],
        ["vanishing gradients"],
    ]


# --- words ----------------------------------------------------------------------------------------


def known(**given) -> Evidence:
    values = {
        "task": "multiclass",
        "status": "done",
        "best_epoch": 1,
        "planned_epochs": 9,
        "rate": 0.1,
        "clip": None,
        "steps": 100,
    }
    rows = {"train": Rows(90, 0.2, 0.01, 1.0, 0.01), "val": Rows(30, 0.25, 0.02, 1.0, 0.02)}
    return Evidence(
        **{"history": [{"train/loss": 0.4, "val/loss": 0.5}] * 3, **values, **rows, **given}
    )


@pytest.mark.parametrize(
    ("early", "late", "told"),
    [
        (0.42, 0.40, "0.42 to 0.4 in the last 2 epochs of 9, 3 % of the way from chance level, 1"),
        (0.415, 0.40, None),  # 2.5 % of the way
        (1.5, 0.40, "1.5 to 0.4 in the last 2 epochs of 9, 100 % of the way from chance level, 1"),
        (0.9, 0.896, None),  # 4 % of the way, and less than half a percent of chance level
    ],
)  # fmt: skip
def test_what_counts_as_still_improving(early, late, told):
    losses = [*[early + 0.1] * 6, early, late, late]
    history = [{"train/loss": 0.4, "val/loss": loss} for loss in losses]
    found = diagnose(known(history=history, best_epoch=7))
    assert [each.name for each in found] == ["still improving"] * (told is not None)
    if told:
        assert told in found[0].measured and found[0].measured.endswith("from 3 % on it is told")


def test_the_summary_is_about_the_rows_that_decide():
    expected = "epoch 1 of 3 has a validation loss of 0.25 ± 0.02, 25 % of chance level (1)"
    assert summary(known()) == f"{expected}; on the training rows it is 0.2"
    assert summary(known(val=None)).startswith(
        "epoch 1 of 3 has a training loss of 0.2 ± 0.01, 20 %"
    )
    assert "no finite loss" in summary(known(status="diverged", train=None, val=None))
    assert diagnose(known(val=None, train=None)) == []


@pytest.mark.parametrize(
    ("overrides", "words", "expected"),
    [
        (["model=deep", "optimizer.lr=9"], ["optimizer.lr=0.1"], "model=deep optimizer.lr=0.1"),
        (["model=deep", "model.depth=9", "name=x"], ["model=resnet"], "model=resnet"),
        (["+model.x=1", "seed=1"], ["model.y=2"], "+model.x=1 seed=1 model.y=2"),
        (["data.path=a b.csv"], ["seed=1"], "'data.path=a b.csv' seed=1"),
    ],
)
def test_the_command_to_try(overrides, words, expected):
    assert next_command(overrides, words) == f"python train.py {expected}"


def test_an_optimizer_without_a_rate_gets_another():
    _, words = advise(Finding("rate too low", ""), known(rate=None), SimpleNamespace())
    assert words == ["optimizer=nadam"]


# --- from end to end ------------------------------------------------------------------------------


def test_a_run_is_told_on_the_screen_in_its_folder_and_in_its_result(command):
    done = command(
        "model=linear",
        "optimizer=sgd",
        "optimizer.lr=30",
        *SMALL,
        "data=digits",
        "trainer.max_epochs=6",
    )
    result = read_result(done.folder)
    finding = result["diagnosis"]["findings"][0]
    assert finding["name"] == "rate too high"
    assert result["diagnosis"]["summary"] in done.out
    assert (
        f"rate too high: {finding['measured']}; {finding['advice']}: {finding['overrides'][0]}"
        in done.out
    )
    page = (done.folder / "diagnosis.md").read_text(encoding="utf-8")
    assert "## Rate too high" in page
    assert "    python train.py model=linear optimizer=sgd" in page
    assert "optimizer.lr=30" not in page


def test_a_diagnosis_that_fails_does_not_fail_the_run(tmp_path, capsys):
    made = trained("data=iris trainer.max_epochs=2", tmp_path)
    made.parts.module.network.forward = None
    assert examine(made.trainer, made.parts, tmp_path, "done", []) is None
    assert capsys.readouterr().err.startswith("warning: the run was not diagnosed: TypeError")
    assert not (tmp_path / "diagnosis.md").exists()


def test_what_the_data_card_warns_of_comes_first(command, tmp_path):
    head, *rows = cars(300)
    rows = [f"{row},{1.19 * float(row.rpartition(',')[2]):.3f}" for row in rows]
    path = write(tmp_path / "cars.csv", [f"{head},gross", *rows])
    words = [
        "data=table",
        f"data.path={path}",
        "data.target=price",
        "trainer=cpu",
        "trainer.max_epochs=2",
    ]
    done = command(*words)
    first = read_result(done.folder)["diagnosis"]["findings"][0]
    assert (first["name"], first["overrides"]) == ("single features", ["data.columns.gross=drop"])
    assert first["measured"].startswith("in the data, gross alone: ")
    assert (
        "## Single features\n\nIn the data, gross alone: "
        in (done.folder / "diagnosis.md").read_text()
    )
    assert "single features: in the data, gross alone" in done.out
