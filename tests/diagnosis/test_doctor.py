"""The health check names what is broken, each by the line that is meant for it,
and leaves what is sound alone.
"""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

from conftest import ROOT
from goldilocks.config.compose import compose, prepare_hydra
from goldilocks.config.options import options
from goldilocks.data.base import Table, TableData
from goldilocks.data.checks import check_equal_rows, check_signal
from goldilocks.data.verdict import Verdict
from goldilocks.diagnosis.before import examine, look_at_data, mend_memory, scale_first
from goldilocks.diagnosis.network_checks import (
    constant_loss,
    distinct_batch,
    judge_gradients,
    overfit_batch,
    probe_gradients,
)
from goldilocks.training.components import prepare
from yours import YOURS

SCRIPT = ROOT / "scripts" / "doctor.py"
EMBEDDED = ("iris", "wine", "digits", "breast_cancer", "diabetes")


class Broken(TableData):
    """A data set of scikit-learn with something done to it."""

    def __init__(self, name: str, damage: str, **options) -> None:
        super().__init__(**options)
        self.name, self.damage = name, damage

    def load(self) -> Table:
        bunch = getattr(datasets, f"load_{self.name}")()
        x, y, random = bunch.data, bunch.target, np.random.default_rng(0)
        if self.damage == "shuffled":
            y = random.permutation(y)
        elif self.damage == "constant":
            x = np.column_stack([x, np.full(len(x), 7.0)])
        elif self.damage == "repeated":
            x = np.column_stack([x, 2 * x[:, 1]])
        elif self.damage == "leaked":
            x = np.column_stack([x, (y - y.mean()) / y.std() + 0.05 * random.normal(size=len(y))])
        elif self.damage == "doubled":
            x, y = np.concatenate([x, x[::2]]), np.concatenate([y, y[::2]])
        elif self.damage == "rare":
            kept = (y > 0) | (np.arange(len(y)) % 20 == 0)
            x, y = x[kept], y[kept]
        elif self.damage == "huge":
            x = np.column_stack([x, 1e300 * random.normal(size=len(x))])
        elif self.damage == "outlier":
            y = np.where(np.arange(len(y)) % 100 == 0, 1e5, y)
        names = tuple(f"f{column}" for column in range(x.shape[1]))
        return Table(x, y, names)


def configuration(*words: str):
    prepare_hydra()
    return compose(list(words))[0]


def broken(name: str, damage: str, *words: str) -> list[str]:
    """The overrides of data that are damaged."""
    own = ["+data.damage=" + damage, f"data._target_={__name__}.Broken", f"packages=[{__name__}]"]
    return [f"data={name}", *own, *words]


def by_name(verdicts) -> dict[str, Verdict]:
    return {verdict.name: verdict for verdict in verdicts}


def data_verdicts(*words: str) -> dict[str, Verdict]:
    return by_name(look_at_data(prepare(configuration(*words), warn=False)))


def not_ok(verdicts: dict[str, Verdict]) -> dict[str, str]:
    return {name: verdict.status for name, verdict in verdicts.items() if verdict.status != "ok"}


# --- what is sound --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDED)
def test_in_the_embedded_sets_nothing_fails(name):
    verdicts = by_name(examine(configuration(f"data={name}")))
    assert len(verdicts) >= 15
    # iris has two equal rows, and this split puts one of them on either side
    assert not_ok(verdicts) == ({"rows in two splits": "warning"} if name == "iris" else {})


@pytest.mark.parametrize(
    "model", sorted(set(options("model")) - {"pretrained", "linear", *(name for _, name in YOURS)})
)
def test_every_network_starts_at_the_loss_of_a_guess_and_learns_a_batch(model):
    parts = prepare(configuration("data=digits", f"model={model}"), warn=False)
    x, y = distinct_batch(*parts.data.tensors["train"], 32)
    network, loss = parts.module.network, parts.module.task.loss
    guess = constant_loss(parts.module.task, y)[0]
    assert loss(network.eval()(x), y).item() == pytest.approx(math.log(10), rel=0.03)
    assert overfit_batch(network, loss, guess, x, y, 60).last < 0.05 * guess
    assert judge_gradients(probe_gradients(network, loss, x, y)).status == "ok"


# --- what is broken -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage", "line", "status"),
    [
        ("breast_cancer", "shuffled", "something to learn", "failed"),
        ("diabetes", "shuffled", "something to learn", "failed"),
        ("wine", "constant", "constant features", "warning"),
        ("wine", "repeated", "repeated features", "warning"),
        ("breast_cancer", "leaked", "single features", "failed"),
        ("wine", "leaked", "single features", "failed"),
        ("iris", "leaked", "single features", "failed"),
        ("diabetes", "leaked", "single features", "failed"),
        ("wine", "doubled", "rows in two splits", "failed"),
        ("breast_cancer", "rare", "classes", "warning"),
        ("diabetes", "outlier", "target", "warning"),
    ],
)
def test_damaged_data_are_named_by_the_line_that_is_meant_for_them(name, damage, line, status):
    others = {"rows in two splits"} if name == "iris" else set()
    found = not_ok(data_verdicts(*broken(name, damage)))
    assert {key: value for key, value in found.items() if key not in others} == {line: status}


def test_columns_are_named_as_the_data_name_them():
    assert "f13" in data_verdicts(*broken("wine", "constant"))["constant features"].measured
    assert "f13 is f1" in data_verdicts(*broken("wine", "repeated"))["repeated features"].measured
    assert (
        "f30 alone: 100%"
        in data_verdicts(*broken("breast_cancer", "leaked"))["single features"].measured
    )


def test_features_on_scales_of_their_own_are_named_where_nothing_scales_them():
    verdict = data_verdicts("data=wine", "data.scaling=none")["scale of features"]
    assert verdict.status == "warning"
    assert "most in proline" in verdict.measured
    assert "data.scaling=standard" in verdict.advice


def test_no_rate_is_advised_before_the_scale_is_right():
    verdicts = list(examine(configuration("data=wine", "data.scaling=none", "optimizer.lr=1")))
    advice = {verdict.name: verdict.advice for verdict in verdicts}
    told = "the scale comes first: write data.scaling=standard, then check the rate"
    assert advice["the run's own steps"] == advice["learning rate"] == told
    assert not [text for text in advice.values() if "optimizer.lr" in text]


def test_a_rate_is_advised_where_nothing_is_said_of_scales():
    rate = Verdict("learning rate", "failed", "1", "far too large: write optimizer.lr=0.1")
    target = Verdict("first loss", "warning", "9", "far off: write data.target_scaling=standard")
    assert list(scale_first([rate])) == [rate]
    assert [verdict.advice for verdict in scale_first([rate, target, rate])] == [
        rate.advice,
        target.advice,
        "the scale comes first: write data.target_scaling=standard, then check the rate",
    ]


def test_a_target_without_a_scale_is_not_put_down_to_features():
    words = ["data=diabetes", "data.scaling=none", "data.target_scaling=none"]
    parts = prepare(configuration(*words), warn=False)
    assert "data.target_scaling=standard" in mend_memory(parts)


def test_balanced_classes_are_no_longer_warned_of():
    verdict = data_verdicts(*broken("breast_cancer", "rare", "task.class_weight=balanced"))[
        "classes"
    ]
    assert verdict.status == "ok"


def test_a_huber_loss_takes_outliers():
    assert data_verdicts(*broken("diabetes", "outlier", "loss=huber"))["target"].status == "ok"


@pytest.mark.filterwarnings("ignore:overflow")
def test_numbers_that_are_too_large_end_the_check():
    verdicts = list(examine(configuration(*broken("wine", "huge", "data.scaling=none"))))
    assert [verdict.status for verdict in verdicts if verdict.name == "missing values"] == [
        "failed"
    ]
    assert not {"first loss", "time"} & by_name(verdicts).keys()


def test_thirty_layers_of_sigmoids_pass_no_gradient():
    words = [
        "data=iris",
        "model=deep",
        "model.depth=30",
        "model.activation=sigmoid",
        "model.width=16",
    ]
    verdicts = by_name(examine(configuration(*words)))
    gradients = verdicts["gradients by layer"]
    assert (gradients.status, verdicts["overfits one batch"].status) == ("failed", "failed")
    assert float(gradients.measured.split(" is ")[1].split()[0]) < 1e-9
    assert "of the largest, in layer 30 of 31" in gradients.measured
    assert "vanishing" in gradients.advice and "model.activation=relu" in gradients.advice


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_rate_a_thousand_times_too_high_is_named(name):
    default = configuration(f"data={name}").optimizer.lr
    verdicts = by_name(examine(configuration(f"data={name}", f"optimizer.lr={1000 * default}")))
    assert verdicts["the run's own steps"].status == "failed"
    assert f"optimizer.lr, such as {10 * default:g}" in verdicts["the run's own steps"].advice
    assert verdicts["overfits one batch"].status == "ok"


def test_a_rate_that_hardly_moves_the_weights_is_named():
    verdicts = by_name(examine(configuration("data=digits", "optimizer.lr=1e-7")))
    assert verdicts["the run's own steps"].status == verdicts["learning rate"].status == "warning"


def test_a_linear_model_cannot_overfit_one_batch():
    verdict = by_name(examine(configuration("data=diabetes", "model=linear")))["overfits one batch"]
    assert verdict.status == "warning"
    assert verdict.advice.endswith("write model=shallow")


def test_weights_that_start_too_large_are_named():
    words = ["data=digits", "model=deep", "model.depth=10", "model.init=normal"]
    verdicts = by_name(examine(configuration(*words)))
    assert verdicts["first loss"].status == verdicts["gradients by layer"].status == "failed"
    assert "model.init=auto" in verdicts["first loss"].advice


def test_what_a_run_would_warn_of_is_a_warning():
    verdict = next(examine(configuration("regularization=l2")))
    assert (verdict.name, verdict.status) == ("configuration", "warning")
    assert verdict.advice.startswith("write optimizer=adamw")


def test_the_rate_that_is_found_is_used():
    verdicts = by_name(examine(configuration("data=iris", "optimizer.lr=auto")))
    found = verdicts["learning rate"].measured.split(",")[0]
    assert float(found) != 0.001
    assert f"at a rate of {float(found):.1g}"[:16] in verdicts["the run's own steps"].measured


def test_equal_rows_of_few_possible_values_are_no_leak():
    random = np.random.default_rng(0)
    parts = {
        stage: (random.integers(0, 2, (200, 3)).astype(np.float32), np.zeros(200))
        for stage in ("train", "val")
    }
    verdict = check_equal_rows(parts)
    assert (verdict.status, "by coincidence" in verdict.measured) == ("ok", True)


@pytest.mark.parametrize(
    ("seed", "weight"), [(seed, weight) for seed in range(5) for weight in (0.0, 0.5)]
)
def test_a_weak_signal_is_told_from_none(seed, weight):
    """Of 500 rows, with an R2 of a fifth or of nothing."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(500, 10))
    y = (weight * x[:, 0] + random.normal(size=500))[:, None]
    assert check_signal(x, y, "regression").status == ("ok" if weight else "failed")


# --- the command ----------------------------------------------------------------------------------


def start(folder: Path, *words: str) -> subprocess.CompletedProcess:
    path = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(
        path, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )


def test_the_command_prints_a_line_each_and_writes_nothing(tmp_path, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")  # where matplotlib keeps its list of fonts
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    words = [
        "data=iris",
        "trainer=cpu",
        "model=deep",
        "model.width=400",
    ]  # enough work for threads to be measured
    done = start(tmp_path, *words, "optimizer.lr=5", "data.batch_size=64")
    assert (done.returncode, done.stderr) == (1, "")
    assert list(tmp_path.iterdir()) == [] and not (cache / "goldilocks").exists()
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines[:-1]} == {"ok", "warning", "failed", "->"}
    assert any(line.startswith("failed   the run's own steps ") for line in lines)
    assert lines[-1].endswith("nothing was written")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("optimizer=nadm", "error: optimizer=nadm: no such option; did you mean nadam?"),
        (
            "resume=last",
            "error: resume=last: is for python train.py alone; leave it out",
        ),
    ],
)
def test_a_wrong_word_is_refused_in_a_line(tmp_path, word, line):
    done = start(tmp_path, word)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_nothing_failed_is_exit_code_0(tmp_path):
    assert start(tmp_path, "data=wine", "trainer=cpu").returncode == 0
