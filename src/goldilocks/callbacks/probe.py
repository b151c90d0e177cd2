"""What the callbacks that explain a network share:
when they look, at which rows, and which loggers get it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from torch import Tensor, nn

from goldilocks.callbacks.checkpoint import is_last_epoch
from goldilocks.loggers import takers
from goldilocks.machine.interrupts import uninterrupted
from goldilocks.training.layer_health import PROBE_ROWS, Health, measure_health
from goldilocks.training.sharding import is_sharded

PROBE_ELEMENTS = 2**18  # of inputs: 256 rows of 1,024
Every = Annotated[int, Field(ge=1)] | Literal["auto"]


def is_due(trainer: pl.Trainer, every: int | Literal["auto"], dense: int) -> bool:
    """Whether the epoch that ends is one to look at.

    A small network's epoch takes a few milliseconds, so looking at all of them would cost more than
    they do. By number rather than by the clock, a run that is repeated or resumed shows the same
    epochs.

    Args:
        trainer: Of the run.
        every: Epochs between two looks; `auto`: all epochs below `dense`, every second one until
            twice that, every fourth until four times that, and so on, and the last.
        dense: See there; a power of two.
    """
    epoch = trainer.current_epoch
    if every != "auto":
        return epoch % every == 0
    return epoch % (1 << (epoch // dense).bit_length()) == 0 or is_last_epoch(trainer)


def has_board(trainer: pl.Trainer, method: str) -> bool:
    """Whether any logger has a place for what a network does; metrics.csv has none.
    A sharded one is in no process.
    """
    return not is_sharded(trainer.lightning_module) and bool(takers(trainer.loggers, method))


def show(trainer: pl.Trainer, method: str, *given: Any) -> None:
    """Hands something to the loggers that have a place for it."""
    with uninterrupted():
        for logger in takers(trainer.loggers, method):
            getattr(logger, method)(*given)


def probe_rows(trainer: Any, rows: int = PROBE_ROWS) -> tuple[Tensor, Tensor]:
    """Training rows at fixed positions, spread evenly:
    [B, ...] and [B, ...], as the network gets them in training.

    Of large images they are as few as a training batch has: more might not fit where training does.
    """
    data = trainer.datamodule
    x, y = data.tensors["train"]
    rows = min(rows, len(x), max(data.batch_size, PROBE_ELEMENTS // x[0].numel()))
    positions = torch.arange(rows, device=x.device) * len(x) // rows
    device = next(trainer.lightning_module.network.parameters()).device
    return trainer.precision_plugin.convert_input(
        (x[positions].to(device), y[positions].to(device))
    )


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Within the block the network is in evaluation mode;
    after it every layer is in its own again.
    """
    modes = [(layer, layer.training) for layer in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def probe(trainer: pl.Trainer, pl_module: Any) -> Health:
    """The trained network on the probe's rows.
    The weights that are evaluated may be an average of its own.
    """
    with at_rest(pl_module.network), torch.random.fork_rng(devices=[]):
        return measure_health(pl_module.network, pl_module.task.loss, *probe_rows(trainer))
