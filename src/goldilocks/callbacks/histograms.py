"""How weights and activations are distributed, in TensorBoard."""

from typing import Any

import pytorch_lightning as pl

from goldilocks.callbacks.probe import Every, has_board, is_due, probe, show


class Histograms(pl.Callback):
    """Shows the distribution of every trained parameter, `weights/<parameter>`, and of what every activation function
    gives on the probe's rows, `activations/<layer>`.

    Args:
        every_n_epochs: Epochs between two looks; `auto`: 0, 1, 2, 4, 8 and so on, and the last. A look takes as long as
            a quarter of a small network's epoch, and early epochs change the most.
    """

    DENSE = 2

    def __init__(self, every_n_epochs: Every = "auto") -> None:
        self.every = every_n_epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not has_board(trainer, "log_histograms") or not is_due(trainer, self.every, self.DENSE):
            return
        trained = pl_module.network.named_parameters()
        found = {f"weights/{name}": parameter.detach() for name, parameter in trained if parameter.requires_grad}
        activations = probe(trainer, pl_module).activations
        found |= {f"activations/{activation.name}": activation.outputs for activation in activations}
        show(trainer, "log_histograms", found, trainer.global_step - 1)
