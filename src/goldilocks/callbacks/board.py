"""Writes to TensorBoard once, at the start:
the network's graph, and which charts are shown together.
"""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from goldilocks.callbacks.probe import at_rest, has_board, probe_rows, show
from goldilocks.config.metric_directions import FIRST, board_tag
from goldilocks.errors import one_line

Layout = dict[str, dict[str, list[Any]]]


class NetworkGraph(pl.Callback):
    """Draws the network's operations, once, from the passage of two
    training rows in evaluation mode.

    Args:
        trials: Whether in the trials of a sweep too: most of them have the same.
        is_trial: Live: whether the run is one.
    """

    def __init__(self, trials: bool = False, is_trial: bool = False) -> None:
        self.shown = trials or not is_trial

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.shown:
            return
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
            print(
                f"note: TensorBoard gets no graph of the network, nothing else is missing ({why})",
                file=sys.stderr,
            )


class Charts(pl.Callback):
    """Arranges the custom scalars tab: loss and metrics of training beside those of validation,
    then rate and momentum, then the layers' gradients, dead and saturated units, each in one chart.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 0:  # a resumed run has it already
            show(trainer, "log_layout", layout(pl_module.task.names()))


def layout(names: Sequence[str]) -> Layout:
    """By category and chart, the tags as regular expressions; `names` are the metrics'.

    All runs have the same categories, for TensorBoard puts the runs' charts together by them.
    """
    metrics = {
        name: [f"{board_tag(stage + name)}$" for stage in FIRST] for name in ("loss", *names)
    }
    steps = {"learning rate": ["learning_rate$"], "momentum": ["momentum$"]}
    steps["gradient norm"] = ["gradient_norm$", "gradient_norm_clipped$"]
    layers = {
        "gradients": ["gradients/"],
        "dead units": ["dead_units/"],
        "saturated": ["saturated/"],
    }
    categories = {"training and validation": metrics, "optimizer": steps, "layers": layers}
    return {
        category: {chart: ["Multiline", tags] for chart, tags in charts.items()}
        for category, charts in categories.items()
    }
