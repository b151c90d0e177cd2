"""docs/options.md: every option of ours has a row, every row holds,
and fails where its option does nothing.
"""

import shutil

import pytest
import torch

from conftest import ROOT
from goldilocks.callbacks import EarlyStopping, EvaluationFigures, Recorder
from goldilocks.data import base
from goldilocks.models import mlp
from goldilocks.optimizers import optimizer
from goldilocks.optimizers.muon import MuonWithAdamW
from goldilocks.regularization.augmentation import Augmentation
from goldilocks.regularization.averaging import WeightAverage
from goldilocks.regularization.gradient_noise import GradientNoise
from goldilocks.schedulers import schedule
from goldilocks.tasks import task
from goldilocks.tasks.task import Task
from goldilocks.training import layer_health, step
from goldilocks.training.clipping import Gradients
from proofs import page, table
from proofs.guide import ADVICE, LATER
from yours import YOURS

ROWS = table.rows()
PAGE = ROOT / "docs" / "options.md"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.option)
def test_every_row_holds(row, record_property):
    measured, holds = row.result()
    record_property("option", row.option)
    record_property("measured", measured)
    assert holds, f"{row.option}: {row.observable}: {measured}"


def test_every_option_of_ours_has_a_row():
    needed = table.needed()
    assert len(needed) > 100
    assert table.without_row(needed, ROWS, table.may_wait(needed)) == []


def test_an_option_without_a_row_is_found():
    known, may_wait = table.needed(), table.may_wait(table.needed())
    needed = {**known, "optimizer=new": {"optimizer.lr"}}
    assert table.without_row(needed, ROWS, may_wait) == ["optimizer=new: has no row"]
    rest = [row for row in ROWS if row.option != "model.init=he_normal"]
    assert table.without_row(known, rest, may_wait) == ["model.init=he_normal: has no row"]
    gone = {option: keys for option, keys in known.items() if option != "logger=csv"}
    assert table.without_row(gone, ROWS, may_wait) == ["logger=csv: has a row but is no option"]


# What a new option file holds, and whether its row may wait.
NEW = {
    "optimizer/new": ("_target_: torch.optim.ASGD\nlr: 0.1\nzeal: 2\n", True),
    "scheduler/new": ("_target_: torch.optim.lr_scheduler.LinearLR\nzeal: 2\n", True),
    "callbacks/new": (
        "defaults: [default, _self_]\nzeal:\n  _target_: pytorch_lightning.callbacks.Timer\n",
        True,
    ),
    "model/new": ("_target_: project.model.Mine\nzeal: 2\n", True),
    "experiment/new": ("# @package _global_\nseed: 1\n", True),
    "sweep/new": ("defaults: [default, _self_]\nn_trials: 3\n", True),
    "optimizer/newer": ("_target_: goldilocks.optimizers.muon.MuonWithAdamW\nzeal: 2\n", False),
    "regularization/new": ("zeal: 0.5\n", False),
    "trainer/new": ("defaults: [auto, _self_]\nzeal: 3\n", False),
}


def test_an_option_of_a_library_may_wait_for_its_row(tmp_path, monkeypatch):
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    for path, (text, _) in NEW.items():
        (conf / f"{path}.yaml").write_text(text)
    monkeypatch.setattr("goldilocks.config.places.CONF", conf)
    needed = table.needed.__wrapped__()
    missing = table.without_row(needed, ROWS, table.may_wait(needed))
    may_not = {path.replace("/", "=") for path, (_, waits) in NEW.items() if not waits}
    keys = {key for option in may_not for key in needed[option] if key.endswith(".zeal")}
    assert {
        line.removesuffix(": has no row") for line in missing if "does not change" not in line
    } == may_not | keys
    may = {path.replace("/", "=") for path, (_, waits) in NEW.items() if waits}
    yours = {f"{group}={option}" for group, option in YOURS}
    assert set(table.not_yet_shown(needed, ROWS)) - yours == may


@pytest.mark.parametrize(
    "key",
    ["sweep.n_trials", "trainer.max_epochs", "callbacks.early_stopping", "regularization=l2"],
)
def test_a_key_of_ours_may_not_wait(key):
    assert key in table.needed()
    assert key not in table.may_wait(table.needed())


def test_the_page_names_what_is_not_yet_shown():
    measured = {row.option: "" for row in ROWS}
    made = [
        page.whole_page(measured, ROWS, waiting, ADVICE, LATER) for waiting in ([], ["scheduler=x"])
    ]
    assert made[1].startswith(made[0])
    assert made[1].endswith("\n- `scheduler=x`\n")
    assert "Not yet shown" not in made[0]


def test_the_page_lists_these_rows():
    """Not the digits, which may differ from machine to machine."""
    expected = {
        (row.option, " ".join(row.guide), row.observable.replace("|", "\\|")) for row in ROWS
    }
    assert page.listed(PAGE) == expected
    assert PAGE.read_text(encoding="utf-8").startswith(page.HEAD)


def test_every_row_of_the_guide_names_its_options():
    assert list(ADVICE) == [f"G{number}" for number in range(1, 31)]
    carried = {guide for row in ROWS for guide in row.guide}
    assert carried <= ADVICE.keys()
    assert ADVICE.keys() - carried <= LATER.keys()
    assert all(words.startswith("Not there yet") for words in LATER.values())
    lines = page.summary(ROWS, ADVICE, LATER)
    assert all(line in PAGE.read_text(encoding="utf-8") for line in lines)


def test_the_links_of_the_page_lead_to_its_rows():
    anchors = [page.anchor(row.option) for row in ROWS]
    assert len(set(anchors)) == len(anchors)
    text = PAGE.read_text(encoding="utf-8")
    assert all(f'<a id="{anchor}"></a>' in text for anchor in anchors)


# --- the table can fail ---------------------------------------------------------------------------


def nothing(*_, **__):
    """What an option does that does nothing."""


BROKEN = {
    "trainer.gradient_clip_val": (Gradients, "clip", nothing),
    "trainer.gradient_clip_algorithm=norm": (Gradients, "clip", nothing),
    "regularization=l2": (step, "add_penalty_gradients", nothing),
    "scheduler=cosine": (schedule.Schedule, "on_step", nothing),
    "scheduler=step": (schedule.Schedule, "on_epoch_end", nothing),
    "callbacks.best_checkpoint": (Recorder, "is_best", lambda *_: True),
    "callbacks.evaluation": (EvaluationFigures, "draw", nothing),
    "regularization=mixup": (Augmentation, "__call__", lambda self, x, y: (x, y)),
    "regularization=gradient_noise": (GradientNoise, "__call__", nothing),
    "regularization=ema": (WeightAverage, "update", nothing),
    "regularization=max_norm": (step, "limit_norms", nothing),
    "model=realmlp": (optimizer, "factors_of", lambda network: {}),
    "optimizer=muon": (MuonWithAdamW, "group_keys", lambda network: {}),
    "task.class_weight=balanced": (
        task,
        "balanced_weights",
        lambda counts: torch.ones(len(counts)),
    ),
    "task.output=sigmoid": (Task, "combine", lambda self, output: output),
    "data.scaling=standard": (
        base,
        "apply_scaler",
        lambda features, scaler, rows: features[rows].astype("float32"),
    ),
    "data.batch_size": (base.TableData, "limit", lambda *_: 1),
    "model.init=he_normal": (mlp, "init_linear", nothing),
    "regularization=label_smoothing": (
        Task,
        "loss",
        lambda self, output, target, smooth: self.mean_loss(output, target),
    ),
    "callbacks.health": (
        layer_health,
        "layer_health",
        lambda name, pairs: layer_health.LayerHealth(name, 1.0, 1.0),
    ),
    "callbacks.early_stopping": (EarlyStopping, "_run_early_stopping_check", nothing),
}


@pytest.mark.parametrize("option", BROKEN)
def test_an_option_that_does_nothing_fails(option, monkeypatch):
    table.rows()
    monkeypatch.setattr(*BROKEN[option])
    assert not table.ROWS[option].result()[1]


def test_decaying_biases_fail(monkeypatch):
    """Every parameter taken for a weight."""
    monkeypatch.setattr(
        "goldilocks.optimizers.optimizer.split_parameters",
        lambda network: (list(network.parameters()), []),
    )
    assert not table.ROWS["optimizer.weight_decay"].result()[1]
    assert not table.ROWS["optimizer=adamw"].result()[1]
