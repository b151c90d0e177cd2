"""Callbacks of your own: the options in conf/callbacks/ name them beside goldilocks'."""

from typing import Any

import pytorch_lightning as pl
import torch


class WeightNorm(pl.Callback):
    """Logs the Euclidean norm of all weights together as `weight_norm`."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        norms = [parameter.detach().norm() for parameter in pl_module.network.parameters()]
        pl_module.epoch_metrics["weight_norm"] = torch.stack(norms).norm().item()
