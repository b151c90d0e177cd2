"""What happened in a run: the one judge of which epoch was best. Every run has it."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from goldilocks.config.metric_directions import STAGES
from goldilocks.machine import devices
from goldilocks.machine.interrupts import uninterrupted
from goldilocks.tasks.objective import Objective

# Between two times that the loggers' files are written, which takes as long as a few small steps.
SAVE_SECONDS = 1.0


class Recorder(Checkpoint):
    """Keeps the best epoch's metrics and the time;
    writes each epoch to the loggers, `best/...` when the best changes.

    It is a `Checkpoint` to Lightning, and first among them, so that it sees the metrics of a whole
    epoch and a checkpoint holds its state. The state is plain numbers; the history, which grows, is
    in a file of `LastCheckpoint`.

    Args:
        objective: Decides which epoch is best.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.best_value: float | None = None
        self.best_epoch: int | None = None
        self.best_metrics: dict[str, float] = {}
        self.epochs = 0
        self.rows = 0
        self.history: list[dict[str, float]] = []  # an epoch's metrics, for the diagnosis
        self.train_seconds = 0.0
        self.compile_seconds = 0.0
        self.total_seconds = 0.0
        self.start_seconds: float | None = None  # from the call until training began
        self._training_ended: float | None = None
        self._epoch_ended: float | None = None
        self.tell_time(time.perf_counter)
        self._saved = -math.inf

    def tell_time(self, clock: Callable[[], float]) -> None:
        """Begins to count seconds by a clock: of a run among others, its own."""
        self._clock = clock
        self._began = clock()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.trainer.start_clock(self.elapsed())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_began = self._clock()
        self._validation_seconds = 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_began = self._clock()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_seconds += self._clock() - self._validation_began

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        now = self._clock()
        self.train_seconds += (
            now - self._epoch_began - self._validation_seconds - self.compiled_now(pl_module)
        )
        self.epochs += 1
        self.rows += pl_module.rows_in_epoch
        metrics, step = dict(pl_module.epoch_metrics), trainer.global_step - 1
        value = metrics.get(self.objective.metric)
        scalars = {**metrics, "epoch": float(trainer.current_epoch)}
        if (
            value is not None
            and math.isfinite(value)
            and self.objective.better(value, self.best_value)
        ):
            self.best_value, self.best_epoch = value, trainer.current_epoch
            self.best_metrics = {
                key: metrics[key] for key in metrics if key.partition("/")[0] in STAGES
            }
            scalars |= {f"best/{key}": metric for key, metric in self.best_metrics.items()}
        self.history.append(metrics)
        with uninterrupted():
            for logger in trainer.loggers:
                logger.log_metrics(scalars, step=step)
        if now - self._saved >= SAVE_SECONDS:
            save_logs(trainer)
            self._saved = now
        self._epoch_ended = now

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not now: Lightning tells checkpoints last, after what figures and baselines have taken.
        self._training_ended = self._epoch_ended

    def compiled_now(self, module: Any) -> float:
        """Seconds that this epoch has spent on compiling, which are counted by themselves."""
        if getattr(module, "compiled", None) is None:
            return 0.0
        seconds, module.compiled.seconds = module.compiled.seconds, 0.0
        if seconds and devices.is_first():
            print(f"torch.compile: {seconds:.1f} s for the first step", file=sys.stderr)
        self.compile_seconds += seconds
        return seconds

    def is_best(self, epoch: int) -> bool:
        """Whether an epoch that has just ended is the best so far."""
        return self.best_epoch == epoch

    def elapsed(self) -> float:
        """Seconds since the run began, its interrupted parts included."""
        return self.total_seconds + self._clock() - self._began

    def outcome(self, steps: int) -> dict[str, Any]:
        """The result of the run so far, as result.json says it."""
        seconds = self.train_seconds
        return {
            "objective": {
                "metric": self.objective.metric,
                "mode": self.objective.mode,
                "value": self.best_value,
            },
            "metrics": dict(self.best_metrics),
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "steps": steps,
            "seconds": self.spent(),
            "examples_per_second": round(self.rows / seconds, 1) if seconds else None,
        }

    def spent(self) -> dict[str, float]:
        """Seconds of the whole run from the end of its start, of training without validation,
        and of the rest.
        """
        found = {"total": self.elapsed(), "train": self.train_seconds}
        if self.compile_seconds:
            found["compile"] = self.compile_seconds
        if self.start_seconds is not None:
            found["start"] = self.start_seconds
        if self._training_ended is not None:  # figures, diagnosis, test
            found["after"] = self._clock() - self._training_ended
        return {key: round(value, 3) for key, value in found.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "best_metrics": self.best_metrics,
            "epochs": self.epochs,
            "rows": self.rows,
            "train_seconds": self.train_seconds,
            "compile_seconds": self.compile_seconds,
            "total_seconds": self.elapsed(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


def recorder_of(trainer: pl.Trainer) -> Recorder:
    """The Recorder that every run has."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next(callback for callback in callbacks if isinstance(callback, Recorder))


def save_logs(trainer: pl.Trainer) -> None:
    """Writes to the disk what the loggers hold."""
    with uninterrupted():
        for logger in trainer.loggers:
            logger.save()
