import io
import itertools
import json
import math
import re
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from rich.console import Console

from fitting import LR, fit, make, make_network, sgd, vector
from goldilocks.callbacks import (
    BestCheckpoint,
    EarlyStopping,
    LastCheckpoint,
    LearningRateMonitor,
    ProgressBar,
    Recorder,
    checkpoint,
    progress,
    recorder,
)
from goldilocks.config.build import check_arguments
from goldilocks.errors import Refused
from goldilocks.loggers import CSVLogger
from goldilocks.tasks.objective import Objective

nan, inf = math.nan, math.inf


class Fails(pl.Callback):
    """Ends training with an error in its second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise RuntimeError("as asked")


# --- Recorder -------------------------------------------------------------------------------------


def judge(values, metric="val/loss", mode="min", loggers=()):
    """A Recorder that has seen these values; None: the metric was not computed in that epoch."""
    judged = Recorder(Objective(metric, mode))
    for epoch, value in enumerate(values):
        trainer = SimpleNamespace(
            global_step=10 * (epoch + 1), current_epoch=epoch, loggers=loggers
        )
        metrics = {
            "train/loss": 1.0,
            "learning_rate": 0.1,
            **({} if value is None else {metric: value}),
        }
        judged.on_train_epoch_start(trainer, None)
        judged.on_train_epoch_end(trainer, SimpleNamespace(epoch_metrics=metrics, rows_in_epoch=19))
    return judged


@pytest.mark.parametrize(
    ("values", "metric", "mode", "best"),
    [
        ([0.5, 0.4, 0.6], "val/loss", "min", 1),
        ([0.5, 0.4, 0.6], "val/accuracy", "max", 2),
        ([0.5, 0.4, 0.4, 0.6], "val/loss", "min", 2),  # on a tie the later
        ([0.9, 0.9, 0.8, 0.9], "val/accuracy", "max", 3),
        ([nan, 0.4, nan], "val/loss", "min", 1),
        ([-inf, 0.4, inf], "val/loss", "min", 1),
        ([nan, inf], "val/accuracy", "max", None),
        ([None, 0.5, None, 0.4, None], "val/loss", "min", 3),
        ([], "val/loss", "min", None),
    ],
)
def test_the_best_epoch(values, metric, mode, best):
    judged = judge(values, metric, mode)
    assert judged.best_epoch == best
    assert judged.best_value == (None if best is None else values[best])
    assert judged.best_metrics == (
        {} if best is None else {"train/loss": 1.0, metric: values[best]}
    )
    assert [judged.is_best(epoch) for epoch in range(len(values))] == [
        epoch == best for epoch in range(len(values))
    ]
    assert judged.epochs == len(values)
    assert judged.rows == 19 * len(values)


def test_only_what_a_stage_measures_is_a_metric():
    judged = Recorder(Objective("val/loss", "min"))
    metrics = {
        "train/loss": 2.0,
        "val/loss": 1.0,
        "learning_rate": 0.1,
        "gradients/1": 3.0,
        "best/val/loss": 0.5,
    }
    judged.on_train_epoch_start(None, None)
    trainer = SimpleNamespace(global_step=1, current_epoch=0, loggers=[])
    judged.on_train_epoch_end(trainer, SimpleNamespace(epoch_metrics=metrics, rows_in_epoch=8))
    assert judged.outcome(1)["metrics"] == {"train/loss": 2.0, "val/loss": 1.0}


def test_epochs_without_validation_are_not_judged():
    made = fit(check_val_every_n_epoch=2, max_epochs=7)
    validated = {
        epoch: m["val/loss"] for epoch, m in enumerate(made.history.metrics) if "val/loss" in m
    }
    assert list(validated) == [1, 3, 5]
    assert made.recorder.best_value == min(validated.values())
    assert made.recorder.best_epoch == max(
        epoch for epoch in validated if validated[epoch] == made.recorder.best_value
    )
    assert made.recorder.rows == 7 * 171


def test_an_epochs_metrics_are_written_once_and_the_best_when_it_changes():
    written = []
    logger = SimpleNamespace(
        log_metrics=lambda metrics, step: written.append((step, metrics)), save=lambda: None
    )
    judge([0.5, 0.6, 0.4], loggers=[logger])
    assert [step for step, _ in written] == [9, 19, 29]
    assert [metrics["epoch"] for _, metrics in written] == [0.0, 1.0, 2.0]
    assert [metrics.get("best/val/loss") for _, metrics in written] == [0.5, None, 0.4]
    assert [metrics["val/loss"] for _, metrics in written] == [0.5, 0.6, 0.4]
    assert all("best/learning_rate" not in metrics for _, metrics in written)


def test_seconds_of_training_are_without_validation(monkeypatch):
    now = iter([0, 100, 103, 107, 110, 200, 201, 202, 204, 300])
    monkeypatch.setattr(recorder, "time", SimpleNamespace(perf_counter=lambda: float(next(now))))
    judged = Recorder(Objective("val/loss", "min"))  # at 0
    module = SimpleNamespace(epoch_metrics={}, rows_in_epoch=4)
    for epoch in range(2):
        trainer = SimpleNamespace(global_step=1, current_epoch=epoch, loggers=[])
        judged.on_train_epoch_start(trainer, module)  # at 100 and 200
        judged.on_validation_start(trainer, module)
        judged.on_validation_end(trainer, module)  # 4 seconds, 1 second
        judged.on_train_epoch_end(trainer, module)  # at 110 and 204
    assert judged.train_seconds == (10 - 4) + (4 - 1)
    assert judged.elapsed() == 300


def test_seconds_of_an_interrupted_run_go_on(monkeypatch):
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(recorder, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    before = judge([0.5])
    clock.now = 57.0
    state = before.state_dict()
    clock.now = 1000.0
    after = judge([])
    after.load_state_dict(state)
    clock.now = 1003.0
    assert (before.state_dict()["total_seconds"], after.elapsed()) == (953.0, 10.0)


def test_the_state_is_plain_and_goes_round():
    judged = judge([0.5, 0.4, 0.6])
    state = judged.state_dict()
    again = Recorder(Objective("val/loss", "min"))
    again.load_state_dict(json.loads(json.dumps(state)))
    copied = again.state_dict()
    assert copied.pop("total_seconds") >= state.pop("total_seconds")
    assert copied == state
    assert state["best_epoch"] == 1
    assert {type(value) for value in state.values()} <= {int, float, dict, list}


# --- checkpoints ----------------------------------------------------------------------------------


def load(folder, name):
    return torch.load(folder / f"{name}.ckpt", weights_only=True)


def network_of(saved, **options):
    network = make_network(seed=99, **options)
    network.load_state_dict(
        {k.removeprefix("network."): v for k, v in saved["state_dict"].items() if "network." in k}
    )
    return network.eval()


def overfits(groups):
    return torch.optim.Adam(groups, lr=0.05)


def test_the_best_checkpoint_holds_the_weights_of_the_best_epoch(tmp_path):
    made = fit(
        optimizer=overfits,
        callbacks=[BestCheckpoint(str(tmp_path))],
        max_epochs=12,
        network={"norm": "batch"},
    )
    losses = [metrics["val/loss"] for metrics in made.history.metrics]
    best = losses.index(min(losses))
    assert 0 < best < 11  # neither the first nor the last
    saved = load(tmp_path, "best")
    assert saved["epoch"] == best
    x, y = made.data.tensors["val"]
    assert F.cross_entropy(network_of(saved, norm="batch")(x), y).item() == pytest.approx(
        losses[best], rel=1e-6
    )
    assert made.recorder.best_value == losses[best]
    assert "optimizer_states" not in saved


def test_without_a_judged_epoch_there_is_no_best_checkpoint(tmp_path):
    fit(
        callbacks=[BestCheckpoint(str(tmp_path))],
        max_epochs=5,
        max_steps=1,
        check_val_every_n_epoch=5,
    )
    assert not list(tmp_path.iterdir())


class Saves(LastCheckpoint):
    """Remembers the epochs after which it saved."""

    def __init__(self, *given):
        super().__init__(*given)
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.path.unlink(missing_ok=True)
        super().on_train_epoch_end(trainer, pl_module)
        if self.path.exists():
            self.epochs.append(trainer.current_epoch)


@pytest.mark.parametrize(
    ("min_seconds", "expected"),
    [(0.0, [0, 1, 2, 3, 4, 5]), (2.0, [1, 3, 5]), (2.5, [2, 5]), (1e9, [5])],
)
def test_the_last_checkpoint_is_saved_at_most_so_often_and_after_the_last_epoch(
    min_seconds, expected, tmp_path, monkeypatch
):
    """By a clock that shows one second more after every epoch."""
    seconds = SimpleNamespace(now=0.0)

    class Clock(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            seconds.now += 1.0

    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: seconds.now))
    saves = Saves(str(tmp_path), min_seconds)
    fit(callbacks=[Clock(), saves], max_epochs=6)
    assert saves.epochs == expected


def test_a_checkpoint_that_takes_long_is_saved_so_seldom_that_it_takes_a_fiftieth(
    tmp_path, monkeypatch
):
    """An epoch takes 1 second and a save 0.05: at least 2.5 seconds lie between two.
    0 still means every epoch.
    """
    for min_seconds, expected in ((1.0, [0, 3, 6, 7]), (0.0, list(range(8)))):
        seconds = SimpleNamespace(now=0.0)
        monkeypatch.setattr(
            checkpoint, "time", SimpleNamespace(monotonic=lambda now=seconds: now.now)
        )

        class Clock(pl.Callback):
            def on_train_epoch_start(self, trainer, pl_module, now=seconds):
                now.now += 1.0

        saves = Saves(str(tmp_path), min_seconds)
        made = make(callbacks=[Clock(), saves], max_epochs=8)
        save = made.trainer.save_checkpoint

        def slow(path, save=save, now=seconds):
            now.now += 0.05
            save(path)

        made.trainer.save_checkpoint = slow
        made.trainer.fit(made.module, made.data)
        assert saves.epochs == expected


def test_logs_are_written_once_a_second_and_before_the_last_checkpoint(tmp_path, monkeypatch):
    """Epochs of 0.3 seconds: rows reach the disk in every fourth,
    and with the checkpoint of the last.
    """
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(recorder, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    seen = []

    class Clock(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            path = tmp_path / "metrics.csv"
            seen.append(len(path.read_text().splitlines()) - 1 if path.exists() else 0)
            clock.now += 0.3

    last = LastCheckpoint(str(tmp_path), 1e9)
    save = last.__class__.on_train_epoch_end

    def saved(self, trainer, pl_module):
        save(self, trainer, pl_module)
        if trainer.current_epoch == 6:
            seen.append(len((tmp_path / "metrics.csv").read_text().splitlines()) - 1)

    monkeypatch.setattr(LastCheckpoint, "on_train_epoch_end", saved)
    fit(callbacks=[Clock(), last], max_epochs=7, logger=[CSVLogger(str(tmp_path))])
    assert seen == [0, 1, 1, 1, 1, 5, 5, 7]


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({"max_epochs": 4}, 3),
        ({"max_epochs": 4, "max_steps": 44}, 1),
        ({"max_epochs": 4, "max_steps": 30}, 1),  # in the middle of an epoch
        (
            {
                "max_epochs": 9,
                "callbacks": [EarlyStopping("val/loss", "min", patience=1, min_delta=1e9)],
            },
            1,
        ),
        (
            {"max_epochs": 9, "task": "regression", "optimizer": lambda p: sgd(p, lr=1e9)},
            None,
        ),  # diverges
    ],
)
def test_the_last_epoch_is_saved_whatever_ends_the_run(options, last, tmp_path):
    made = make(
        **{**options, "callbacks": [*options.get("callbacks", []), Saves(str(tmp_path), 1e9)]}
    )
    made.trainer.fit(made.module, made.data)
    saved = load(tmp_path, "last")
    assert saved["epoch"] == (made.recorder.epochs - 1 if last is None else last)
    assert saved["global_step"] == made.trainer.global_step
    assert saved["optimizer_states"] and saved["lr_schedulers"]
    if last is not None:
        assert torch.equal(vector(network_of(saved)), vector(made.network))


# --- early stopping -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patience", -1),
        ("patience", 2.5),
        ("min_delta", -0.1),
        ("min_delta", nan),
        ("patience_starts_at", -1),
        ("mode", "best"),
    ],
)
def test_early_stopping_refuses_values_out_of_range(key, value):
    given = {"monitor": "val/loss", "mode": "min", key: value}
    with pytest.raises(Refused, match=rf"^callbacks\.early_stopping\.{key}"):
        check_arguments(EarlyStopping, given, "callbacks.early_stopping")


def test_the_last_checkpoint_refuses_a_negative_time():
    with pytest.raises(Refused, match=r"^callbacks\.last_checkpoint\.min_seconds=-1"):
        check_arguments(
            LastCheckpoint, {"min_seconds": -1.0}, "callbacks.last_checkpoint", given=("dirpath",)
        )


@pytest.mark.parametrize(("patience", "epochs"), [(0, 2), (1, 2), (3, 4), (20, 9)])
def test_patience_is_the_number_of_epochs_without_improvement(patience, epochs):
    """Nothing counts as an improvement on the first epoch.
    The library stops after the first bad one at the least.
    """
    stopping = EarlyStopping("val/loss", "min", patience=patience, min_delta=1e9)
    assert fit(callbacks=[stopping], max_epochs=9).recorder.epochs == epochs


@pytest.mark.parametrize(("patience", "start", "epochs"), [(0, 4, 5), (1, 4, 5), (3, 4, 7)])
def test_patience_starts_at_an_epoch_and_goes_on_when_resumed(patience, start, epochs, tmp_path):
    """Nothing counts as an improvement on the first epoch."""

    def options():
        limits = {"patience": patience, "patience_starts_at": start}
        kept = LastCheckpoint(str(tmp_path), min_seconds=0)
        return {"callbacks": [EarlyStopping("val/loss", "min", min_delta=1e9, **limits), kept]}

    assert fit(**options(), max_epochs=9).recorder.epochs == epochs
    fit(**options(), max_epochs=3)
    resumed = make(**options(), max_epochs=9)
    resumed.trainer.fit(
        resumed.module, resumed.data, ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert resumed.recorder.epochs == epochs


@pytest.mark.parametrize("every", [1, 2])
def test_early_stopping_follows_a_training_metric_whatever_the_validation(every):
    stopping = EarlyStopping("train/loss", "min", patience=2, min_delta=1e9)
    made = fit(
        callbacks=[stopping],
        max_epochs=9,
        check_val_every_n_epoch=every,
        objective=("train/loss", "min"),
    )
    assert made.recorder.epochs == 3


def test_early_stopping_counts_epochs_with_validation():
    stopping = EarlyStopping("val/loss", "min", patience=2, min_delta=1e9)
    assert fit(callbacks=[stopping], max_epochs=9, check_val_every_n_epoch=2).recorder.epochs == 6


# --- learning rate --------------------------------------------------------------------------------


def test_the_learning_rate_of_an_epochs_end_is_one_scalar():
    schedule = {"_target_": LR + "ExponentialLR", "interval": "epoch", "gamma": 0.5}
    made = fit(optimizer=sgd, schedule=schedule, callbacks=[LearningRateMonitor()])
    assert [metrics["learning_rate"] for metrics in made.history.metrics] == [0.1, 0.05, 0.025]
    assert "learning_rate" not in made.recorder.best_metrics


def test_of_a_schedule_of_steps_it_is_the_rate_after_the_epochs_last_step():
    schedule = {"_target_": LR + "CosineAnnealingLR", "interval": "step"}
    made = fit(optimizer=sgd, schedule=schedule, callbacks=[LearningRateMonitor()])
    rates = [metrics["learning_rate"] for metrics in made.history.metrics]
    assert rates[:2] == made.log.rates[22::22]
    assert rates[2] == pytest.approx(0.0, abs=1e-9)


# --- progress bar ---------------------------------------------------------------------------------


def terminal(monkeypatch):
    """The progress bar's console, a terminal of text."""
    screen = io.StringIO()
    options = {"file": screen, "force_terminal": True, "width": 120, "color_system": None}
    monkeypatch.setattr(progress, "Console", lambda **_: Console(**options))
    return screen


def test_outside_of_a_terminal_a_short_run_prints_nothing(capfd):
    fit(callbacks=[ProgressBar()])
    assert capfd.readouterr() == ("", "")


def lines_of(capfd):
    out, err = capfd.readouterr()
    assert out == ""
    return err.splitlines()


def test_outside_of_a_terminal_a_long_run_prints_a_line_now_and_then(capfd, monkeypatch):
    monkeypatch.setattr(ProgressBar, "LOG_SECONDS", -1.0)
    made = fit(callbacks=[ProgressBar()], max_epochs=6)
    values = [metrics["val/loss"] for metrics in made.history.metrics]
    best = itertools.accumulate(values, min)
    shown = [
        f"epoch {n}/6 val/loss {v:.4g} (best {b:.4g})"
        for n, (v, b) in enumerate(zip(values, best, strict=True), 1)
    ]
    assert lines_of(capfd) == shown


def test_a_training_metric_is_shown_from_the_first_epoch_on(capfd, monkeypatch):
    monkeypatch.setattr(ProgressBar, "LOG_SECONDS", -1.0)
    made = fit(callbacks=[ProgressBar()], objective=("train/loss", "min"))
    values = [metrics["train/loss"] for metrics in made.history.metrics]
    assert [line.split()[:4] for line in lines_of(capfd)] == [
        ["epoch", f"{n}/3", "train/loss", f"{value:.4g}"] for n, value in enumerate(values, 1)
    ]


@pytest.mark.parametrize("several", [1, 64])
def test_in_a_terminal_the_bar_ends_at_the_last_epoch(several, monkeypatch):
    screen, bar = terminal(monkeypatch), ProgressBar()
    made = fit(callbacks=[bar], steps_per_execution=several)
    last = [
        line
        for line in re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", screen.getvalue())
        if line.strip()
    ][-1]
    assert "3/3" in last
    assert f"val/loss {made.history.metrics[-1]['val/loss']:.4g}" in last
    assert bar._progress is None


def test_an_error_ends_the_bar_too(monkeypatch):
    screen, bar = terminal(monkeypatch), ProgressBar()
    with pytest.raises(RuntimeError, match="as asked"):
        fit(callbacks=[bar, Fails()])
    assert bar._progress is None
    assert "1/3" in screen.getvalue()


def test_a_disabled_bar_shows_nothing(monkeypatch):
    screen, bar = terminal(monkeypatch), ProgressBar()
    bar.disable()
    fit(callbacks=[bar])
    assert screen.getvalue() == ""
