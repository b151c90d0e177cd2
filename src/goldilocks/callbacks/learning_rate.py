"""The learning rate in TensorBoard."""

from typing import Any

import pytorch_lightning as pl

from goldilocks.optimizers import learning_rate


class LearningRateMonitor(pl.Callback):
    """Logs the `learning_rate` of an epoch's end, under one name for every optimizer, so that runs can be compared."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.epoch_metrics["learning_rate"] = learning_rate(trainer.optimizers[0])
