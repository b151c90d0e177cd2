"""The learning rate and the momentum in TensorBoard."""

from typing import Any

import pytorch_lightning as pl

from goldilocks.callbacks.probe import show
from goldilocks.optimizers.optimizer import rates

POINTS = 100  # an epoch at most, of a schedule of steps


class LearningRateMonitor(pl.Callback):
    """Logs `learning_rate` and `momentum` of an epoch's end, under one name for every optimizer, so
    that runs can be compared. An optimizer without a momentum has none.

    Where the schedule moves by step, TensorBoard also shows points within an epoch, one for each
    call of the training step (64 batches, or `trainer.steps_per_execution`), up to a hundred.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        passed = pl_module.rates[:-1]  # the last is the epoch's end
        for step, values in passed[:: len(passed) // POINTS + 1]:
            show(trainer, "log_scalars", values, step)
        pl_module.epoch_metrics |= rates(trainer.optimizers[0])
