"""The network's graph in TensorBoard."""

import sys
import warnings
from typing import Any

import pytorch_lightning as pl
import torch

from goldilocks.callbacks.probe import at_rest, has_board, probe_rows, show
from goldilocks.config import one_line


class NetworkGraph(pl.Callback):
    """Draws the network's operations, once, from the passage of two training rows in evaluation mode."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch > 0 or not has_board(trainer, "log_network"):
            return  # a resumed run has it already
        network, rows = pl_module.network, probe_rows(trainer, 2)[0]
        try:
            with warnings.catch_warnings(), at_rest(network), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")  # about what the rows decide: they are two of many
                # Without check_trace, which would trace twice more and takes most of the time.
                traced = torch.jit.trace(network, rows, check_trace=False)
                show(trainer, "log_network", traced, rows)
        except Exception as error:  # whatever a forward pass does that cannot be traced
            why = f"{type(error).__name__}: {one_line(error)}"
            print(f"note: TensorBoard gets no graph of the network, nothing else is missing ({why})", file=sys.stderr)
