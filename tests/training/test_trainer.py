import math
import signal

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks as library
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger

from fitting import Watcher, fit, gradients, make, sgd, vector
from goldilocks.callbacks import (
    EarlyStopping,
    EvaluationFigures,
    LastCheckpoint,
    LearningRateMonitor,
    ProgressBar,
)
from goldilocks.config.build import build
from goldilocks.data.loaders import epoch_seed
from goldilocks.errors import Refused
from goldilocks.machine.devices import plan
from goldilocks.training.components import prepare
from goldilocks.training.trainer import (
    AUTO_STEPS,
    STEP_HOOKS,
    SignalsLeftAlone,
    Trainer,
    ValidationLoop,
    check_precision,
    installed,
    try_trainer,
)

NODE = {"_target_": "goldilocks.training.trainer.Trainer", "accelerator": "cpu"}


def make_trainer(**options):
    live = {"callbacks": options.pop("callbacks", []), "shuffle_seed": 0}
    return build({**NODE, **options}, Trainer, "trainer", **live)


# --- counting steps -------------------------------------------------------------------------------


class Counters(pl.Callback):
    """Lightning's private progress counters at the end of each epoch's validation."""

    def __init__(self):
        self.seen = []

    def on_validation_end(self, trainer, pl_module):
        loop = trainer.fit_loop.epoch_loop
        progress = loop.manual_optimization.optim_step_progress
        counts = [progress.total.ready, progress.total.completed, loop._batches_that_stepped + 1]
        self.seen.append((trainer.global_step, counts))


@pytest.mark.parametrize("several", [1, 7, 64])
@pytest.mark.parametrize(("accumulate", "steps"), [(1, 22), (3, 8)])
def test_lightnings_private_counters_exist_and_count_optimizer_steps(accumulate, steps, several):
    counters = Counters()
    options = {"steps_per_execution": several, "accumulate_grad_batches": accumulate}
    fitted, wrapped = fit(callbacks=[counters], **options), fit(callbacks=[Watcher()], **options)
    expected = [steps, 2 * steps, 3 * steps]
    assert [step for step, _ in counters.seen] == expected
    assert [counts for _, counts in counters.seen] == [[step] * 3 for step in expected]
    ours, theirs = (
        made.trainer.fit_loop.epoch_loop.manual_optimization for made in (fitted, wrapped)
    )
    assert ours.optim_step_progress == theirs.optim_step_progress  # what Lightning counts by itself
    assert ours.optim_step_progress.total.completed == 3 * steps


class StepsLogger(Logger):
    """Remembers at which step each metric was logged."""

    name, version = "steps", 0

    def __init__(self):
        super().__init__()
        self.steps = {}

    def log_metrics(self, metrics, step=None):
        for key in metrics:
            self.steps.setdefault(key, []).append(step)

    def log_hyperparams(self, *_, **__):
        pass


class UserMetric(pl.Callback):
    """Logs the way a user does."""

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("mine", 1.0)


@pytest.mark.parametrize("several", [1, 7, 64])
@pytest.mark.parametrize(("accumulate", "steps"), [(1, 22), (3, 8)])
def test_the_x_axis_of_loggers_is_the_number_of_optimizer_steps(accumulate, steps, several):
    logger = StepsLogger()
    made = make(
        steps_per_execution=several, accumulate_grad_batches=accumulate, callbacks=[UserMetric()]
    )
    made.trainer.loggers = [logger]
    made.trainer.fit(made.module, made.data)
    last_of_each_epoch = [steps - 1, 2 * steps - 1, 3 * steps - 1]
    assert logger.steps["val/loss"] == last_of_each_epoch
    assert logger.steps["mine"] == last_of_each_epoch


@pytest.mark.parametrize("several", [1, 7, 64])
def test_limits_count_batches_of_the_batch_size(several):
    limits = {"limit_train_batches": 3, "limit_val_batches": 2, "limit_test_batches": 1}
    made = fit(steps_per_execution=several, **limits)
    assert made.trainer.global_step == 9
    assert made.history.seen == [[8, 8, 8]] * 3
    assert made.module.evaluated_rows == 16
    assert made.recorder.rows == 72
    made.trainer.test(made.module, made.data, verbose=False)
    assert made.module.evaluated_rows == 8


def test_a_limited_epoch_has_windows_and_a_schedule_of_its_own_length():
    """10 batches in windows of 4: 3 steps, the last over 2 batches;
    the schedule is drawn over 3 epochs of 3 steps.
    """
    schedule = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "interval": "step"}
    made = fit(limit_train_batches=10, accumulate_grad_batches=4, schedule=schedule)
    assert made.trainer.global_step == 9
    assert made.module.schedule.scheduler.total_steps == 9
    reference = fit(accumulate_grad_batches=4, max_epochs=1)
    assert len(reference.log.gradients) == 6
    torch.testing.assert_close(made.log.gradients[0], reference.log.gradients[0])


def test_limits_above_what_there_is_change_nothing():
    limits = {"limit_train_batches": 1000, "limit_val_batches": 1000}
    limited, unlimited = fit(**limits), fit()
    assert limited.trainer.global_step == unlimited.trainer.global_step == 66
    assert torch.equal(vector(limited.network), vector(unlimited.network))
    assert limited.module.evaluated_rows == unlimited.module.evaluated_rows == 46


@pytest.mark.parametrize(
    ("epochs", "steps", "planned"), [(3, None, 3), (3, 30, 2), (3, 22, 1), (3, 23, 2), (3, 900, 3)]
)
def test_planned_epochs_follow_the_smaller_limit(epochs, steps, planned):
    assert make_trainer(max_epochs=epochs, max_steps=steps).planned_epochs(22) == planned


def test_steps_left():
    assert make_trainer().steps_left(5) is None
    assert [make_trainer(max_steps=7).steps_left(done) for done in (0, 5, 7, 9)] == [7, 2, 0, 0]


# --- who watches single steps ---------------------------------------------------------------------


@pytest.mark.parametrize("hook", STEP_HOOKS)
def test_a_callback_with_a_hook_of_a_step_gets_it_at_every_step(hook):
    calls = []
    callback = type("Mine", (pl.Callback,), {hook: lambda self, *_: calls.append(1)})()
    fitted = fit(callbacks=[callback], max_epochs=1, steps_per_execution=16)
    assert fitted.trainer.step_watchers() == ["Mine"]
    assert len(calls) == 22


def test_our_callbacks_and_those_that_count_for_themselves_leave_the_fast_path(tmp_path):
    ours = [
        EarlyStopping("val/loss", "min"),
        LastCheckpoint(str(tmp_path)),
        LearningRateMonitor(),
        ProgressBar(),
    ]
    ours.append(EvaluationFigures(str(tmp_path)))
    theirs = [library.Timer(), library.ModelSummary(), library.ModelCheckpoint(dirpath=tmp_path)]
    trainer = make_trainer(callbacks=[*ours, *theirs])
    assert trainer.step_watchers() == []
    assert trainer.batches_per_item == AUTO_STEPS == 64
    assert make_trainer(steps_per_execution=5).batches_per_item == 5
    watchers = [library.LearningRateMonitor(logging_interval="step"), library.EMAWeightAveraging()]
    trainer = make_trainer(callbacks=watchers, steps_per_execution=5)
    assert trainer.step_watchers() == ["LearningRateMonitor", "EMAWeightAveraging"]
    assert trainer.batches_per_item == 1


# --- clipping -------------------------------------------------------------------------------------


def before_and_after(**options):
    """The gradients of every step before and after clipping."""
    watcher = Watcher()
    fitted = fit(callbacks=[watcher], max_epochs=2, **options)
    assert len(watcher.gradients) == len(fitted.log.gradients) == 44
    return watcher.gradients, fitted.log.gradients


def test_without_clipping_gradients_are_left_alone():
    before, after = before_and_after()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_clipping_by_norm_shortens_long_gradients_and_keeps_their_direction():
    before, after = before_and_after(gradient_clip_val=1.2)
    norms = torch.stack(before).norm(dim=1)
    assert norms.min() < 1.2 < norms.max()  # both kinds occur
    expected = torch.stack(before) * (1.2 / norms).clamp(max=1.0)[:, None]
    torch.testing.assert_close(torch.stack(after), expected, rtol=1e-5, atol=1e-7)
    assert torch.stack(after).norm(dim=1).max() == pytest.approx(1.2, rel=1e-5)


def test_clipping_by_value_cuts_each_number():
    before, after = before_and_after(gradient_clip_val=0.01, gradient_clip_algorithm="value")
    assert torch.stack(before).abs().max() > 0.01
    assert torch.equal(torch.stack(after), torch.stack(before).clamp(-0.01, 0.01))


@pytest.mark.parametrize(("algorithm", "limit"), [("norm", 0.05), ("value", 0.01)])
def test_on_the_fast_path_a_step_of_rate_one_is_the_clipped_gradient(algorithm, limit):
    options = {
        "optimizer": lambda groups: sgd(groups, lr=1.0),
        "limit_train_batches": 1,
        "max_epochs": 1,
    }
    made = make(**options, gradient_clip_val=limit, gradient_clip_algorithm=algorithm)
    start, (x, y) = vector(made.network), made.data.tensors["train"]
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch_seed(3, 0)))[:8]
    torch.nn.functional.cross_entropy(made.network(x[rows]), y[rows]).backward()
    free = gradients(made.network)
    made.network.zero_grad()
    made.trainer.fit(made.module, made.data)
    assert made.module.raw
    moved = start - vector(made.network)
    expected = free * (limit / free.norm()) if algorithm == "norm" else free.clamp(-limit, limit)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-7)
    assert free.norm() > 2 * moved.norm()


def test_penalties_are_clipped_with_the_rest():
    """The pull of a strong L2 alone is longer than what is left after clipping."""
    fitted = fit(regularization={"l2": 10.0}, gradient_clip_val=0.1, max_epochs=1)
    norms = torch.stack(fitted.log.gradients).norm(dim=1)
    assert norms.tolist() == pytest.approx([0.1] * 22, rel=1e-4)


# --- loops and devices ----------------------------------------------------------------------------


def test_lightnings_private_validation_loop_takes_ours():
    fitted = fit()
    loop = fitted.trainer.fit_loop.epoch_loop.val_loop
    assert isinstance(loop, ValidationLoop)
    assert loop._verified  # Lightning still asks
    assert len(fitted.history.metrics) == 3
    assert all("val/loss" in metrics for metrics in fitted.history.metrics)


class Handlers(pl.Callback):
    """The handlers of signals in the middle of training."""

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen = {number: signal.getsignal(number) for number in signal.valid_signals()}


def test_lightning_registers_no_handlers_of_signals():
    before, handlers = (
        {number: signal.getsignal(number) for number in signal.valid_signals()},
        Handlers(),
    )
    fitted = fit(callbacks=[handlers])
    assert handlers.seen == before
    assert isinstance(fitted.trainer._signal_connector, SignalsLeftAlone)
    assert not fitted.trainer.received_sigterm


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trainer=gpu"],
            r"^trainer\.accelerator=gpu: no GPU was found; write trainer=auto or trainer=cpu$",
        ),
        (
            ["trainer=cpu", "trainer.precision=16-mixed"],
            r"^trainer\.precision=16-mixed: needs a GPU; write .*bf16-mixed",
        ),
        (
            ["trainer=auto", "trainer.precision=16"],
            r"^trainer\.precision=16: needs a GPU; write .*bf16-mixed",
        ),
    ],
)
@pytest.mark.usefixtures("no_gpu")
def test_what_needs_a_gpu_is_refused_without_one(words, message, compose):
    with pytest.raises(Refused, match=message):
        prepare(compose("data=iris", *words))


@pytest.mark.parametrize("found", [torch.cuda, torch.backends.mps])
@pytest.mark.usefixtures("no_gpu")
def test_with_a_gpu_it_is_not_refused(found, monkeypatch):
    monkeypatch.setattr(found, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_precision("16-mixed", plan({"accelerator": "gpu"}))
    check_precision(16, plan({"accelerator": "auto"}))
    with pytest.raises(Refused, match="needs a GPU"):
        check_precision(16, plan({"accelerator": "cpu"}))


WRONG = [
    ("max_epochs", 0),
    ("max_epochs", -7),
    ("max_epochs", 2.5),
    ("max_steps", 0),
    ("max_steps", -1),
    *(("max_time", time) for time in ("soon", "10", "-5m", "0s", 0, -3.0, math.inf, "5 m", True)),
    ("devices", 0),
    ("precision", 8),
    ("gradient_clip_val", 0.0),
    ("gradient_clip_val", -1.0),
    ("gradient_clip_val", math.nan),
    ("gradient_clip_algorithm", "length"),
    ("accumulate_grad_batches", 0),
    ("steps_per_execution", 0),
    ("steps_per_execution", "all"),
    ("threads", 0),
    ("deterministic", 2),
    ("check_val_every_n_epoch", 0),
    ("limit_train_batches", 0),
    ("limit_val_batches", 0.5),
    ("accelerator", "abacus"),
    ("min_epochs", 3),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_values_out_of_range_are_refused_in_one_line(key, value):
    with pytest.raises(Refused, match=rf"^trainer\.{key}") as caught:
        try_trainer({**NODE, key: value})
    assert "\n" not in str(caught.value)


def test_clipping_and_accumulation_are_kept_from_lightning():
    """The keywords that Lightning refuses under manual optimization never reach it."""
    trainer = make_trainer(gradient_clip_val=0.5, accumulate_grad_batches=4)
    assert (trainer.gradient_clip_val, trainer.accumulate_grad_batches) == (None, 1)
    assert (trainer.clip_value, trainer.accumulate_batches) == (0.5, 4)


# --- a limit of time ------------------------------------------------------------------------------


class TimeOver(Checkpoint):
    """Lets the time be over with a step of the optimizer."""

    def __init__(self, step):
        self.step = step

    def on_train_start(self, trainer, pl_module):
        def after(*_):
            self.step -= 1
            if self.step == 0:
                trainer.deadline = -math.inf

        trainer.optimizers[0].register_step_post_hook(after)


@pytest.mark.parametrize("validated", [1, 5])
@pytest.mark.parametrize(("step", "epochs"), [(30, 2), (44, 2), (3, 1)])
def test_the_epoch_in_which_the_time_is_over_is_cut_and_validated(step, epochs, validated):
    """22 steps an epoch, four in a call of the training step."""
    made = fit(
        callbacks=[TimeOver(step)],
        max_epochs=9,
        max_time="2h",
        steps_per_execution=4,
        check_val_every_n_epoch=validated,
    )
    assert made.trainer.global_step == {30: 30, 44: 44, 3: 4}[step]
    assert len(made.history.metrics) == epochs
    assert "val/loss" in made.history.metrics[-1]
    assert sum(made.history.seen[-1]) == {30: 64, 44: 171, 3: 32}[step]


def test_without_a_limit_the_clock_is_not_looked_at():
    assert fit(callbacks=[TimeOver(3)], max_epochs=2).trainer.global_step == 44


def test_the_time_of_all_parts_of_a_run_counts(tmp_path):
    """A run that is resumed has what is left; one whose time is over is not trained again."""
    options = {"max_epochs": 10_000, "max_time": 1000}
    first = make(**options, callbacks=[LastCheckpoint(str(tmp_path)), TimeOver(44)])
    first.recorder.total_seconds = 700.0
    first.trainer.fit(first.module, first.data)
    assert first.trainer.deadline == -math.inf
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    over = make(**options)
    over.trainer.fit(over.module, over.data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert over.trainer.global_step == 44
    state["loops"]["fit_loop"]["state_dict"]["stopped"] = False  # as if killed before
    torch.save(state, tmp_path / "half.ckpt")
    resumed, used = make(**{**options, "max_epochs": 3}), []
    resumed.trainer.start_clock = used.append
    path = tmp_path / "half.ckpt"
    resumed.trainer.fit(resumed.module, resumed.data, ckpt_path=path, weights_only=True)
    assert 700 < used[0] < 800


def test_entry_points_are_read_once_for_all_trainers(monkeypatch):
    """Private name of Lightning's: it has to ask what we have put in its place."""
    asked = []
    installed.cache_clear()
    monkeypatch.setattr(
        "goldilocks.training.trainer.entry_points", lambda group: asked.append(group) or ()
    )
    for _ in range(2):
        make_trainer()
    installed.cache_clear()
    assert len(asked) == 1
    assert asked[0].endswith("callbacks_factory")
