"""Trials that are given up: `sweep.pruner`."""

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from goldilocks.callbacks.checkpoint import is_last_epoch

Report = Callable[[int, float], bool]


def go_on(epochs: int, value: float) -> bool:
    """A report to nobody: of the processes that train together, the first one tells."""
    return False


class Pruning(Checkpoint):
    """Reports the objective after each epoch, and ends the run if it is given up.

    No exception is raised: the run ends as others do, with its checkpoints and its result. It is a
    `Checkpoint` to Lightning, so that it sees the metrics of a whole epoch, and comes before those
    that save what it has decided.

    Args:
        report: Called with the number of epochs and the objective's value;
            returns whether to give up.
        metric: The objective.
    """

    def __init__(self, report: Report, metric: str) -> None:
        self.report, self.metric = report, metric
        self.pruned = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        value = pl_module.epoch_metrics.get(self.metric)
        if value is None or not math.isfinite(value):
            return
        epochs = trainer.current_epoch + 1
        stop = trainer.is_global_zero and self.report(epochs, value)
        if trainer.strategy.reduce_boolean_decision(stop, all=False) and not is_last_epoch(trainer):
            self.pruned = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pruned = state_dict["pruned"]


def was_pruned(trainer: pl.Trainer) -> bool:
    """Whether a run was given up."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(callback.pruned for callback in callbacks if isinstance(callback, Pruning))
