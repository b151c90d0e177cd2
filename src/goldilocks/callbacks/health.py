"""What the layers do, in TensorBoard:
gradients, dead and saturated units, histograms of weights and activations.
"""

from typing import Any

import pytorch_lightning as pl

from goldilocks.callbacks.probe import Every, has_board, is_due, probe, show
from goldilocks.training.layer_health import Health


class NetworkHealth(pl.Callback):
    """Shows whether gradients vanish or explode from layer to layer,
    and which units have stopped to learn.

    A probe of up to 256 training rows passes the network once forward and once back in evaluation
    mode, so training is neither watched nor changed. The scalars are `gradients/<layer>`, the L2
    norm of the gradient of its weights; `dead_units/<layer>`, the share of a ReLU layer's units
    that are zero on every row; and `saturated/<layer>`, the share of the outputs of tanh and
    logistic functions that are on a flat side.

    Args:
        every_n_epochs: Epochs between two probes;
            `auto`: all of the first 4, then ever fewer, and the last; in a trial of a sweep 0, 1,
            2, 4, 8 and so on, and the last.
        is_trial: Live: whether the run is a trial.
    """

    def __init__(self, every_n_epochs: Every = "auto", is_trial: bool = False) -> None:
        self.every = every_n_epochs
        self.dense = 1 if is_trial else 4

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if has_board(trainer, "log_scalars") and is_due(trainer, self.every, self.dense):
            show(
                trainer, "log_scalars", scalars(probe(trainer, pl_module)), trainer.global_step - 1
            )


class Histograms(pl.Callback):
    """Shows the distribution of every trained parameter, `weights/<parameter>`, and of what every
    activation function gives on the probe's rows, `activations/<layer>`.

    Args:
        every_n_epochs: Epochs between two looks; `auto`: 0, 1, 2, 4, 8 and so on, and the last. A
            look takes as long as a quarter of a small network's epoch, and early epochs change the
            most.
        trials: Whether in the trials of a sweep too. TensorBoard can hardly show hundreds of them.
        is_trial: Live: whether the run is one.
    """

    DENSE = 2

    def __init__(
        self, every_n_epochs: Every = "auto", trials: bool = False, is_trial: bool = False
    ) -> None:
        self.every = every_n_epochs
        self.shown = trials or not is_trial

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not (self.shown and has_board(trainer, "log_histograms")):
            return
        if not is_due(trainer, self.every, self.DENSE):
            return
        trained = pl_module.network.named_parameters()
        found = {
            f"weights/{name}": parameter.detach()
            for name, parameter in trained
            if parameter.requires_grad
        }
        activations = probe(trainer, pl_module).activations
        found |= {
            f"activations/{activation.name}": activation.outputs for activation in activations
        }
        show(trainer, "log_histograms", found, trainer.global_step - 1)


def scalars(health: Health) -> dict[str, float]:
    """By tag, what a layer has."""
    found = {f"gradients/{layer.name}": layer.gradient_norm for layer in health.layers}
    found |= {f"dead_units/{activation.name}": activation.dead for activation in health.activations}
    found |= {
        f"saturated/{activation.name}": activation.saturated for activation in health.activations
    }
    return {tag: value for tag, value in found.items() if value is not None}
