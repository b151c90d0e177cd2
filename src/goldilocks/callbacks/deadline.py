"""Trials that end in time: of a sweep with a budget."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from goldilocks.callbacks.checkpoint import is_last_epoch


class Deadline(Checkpoint):
    """Ends a run with the epoch in which its time is over; it ends as others do.

    It is a `Checkpoint` to Lightning, as `Pruning` is, so that it comes before those that save what
    it has decided.

    Args:
        until: Of the clock, in seconds since 1970, which several machines share.
    """

    def __init__(self, until: float) -> None:
        self.until = until

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        over = trainer.is_global_zero and time.time() >= self.until
        if trainer.strategy.reduce_boolean_decision(over, all=False) and not is_last_epoch(trainer):
            trainer.should_stop = True
