"""Metrics of an epoch are there before the first callback asks for them."""

from typing import Any

import pytorch_lightning as pl


class PublishedMetrics(pl.Callback):
    """Has the module publish its metrics at the end of a stage.

    Lightning calls the module's own hooks after those of most callbacks. This callback comes before
    all others, so that any of them finds `train/loss` and the rest in `pl_module.epoch_metrics`.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.publish_training()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.publish_evaluation("val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.publish_evaluation("test")
