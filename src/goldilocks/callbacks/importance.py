"""Which columns a network relies on:
how much worse it does where a column's values are shuffled among the rows.

Legend: N rows, F inputs, C columns, R repeats.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from goldilocks.callbacks.predictions import can_inspect
from goldilocks.callbacks.recorder import recorder_of
from goldilocks.data.base import EVALUATION_ROWS_ON_CPU
from goldilocks.errors import one_line
from goldilocks.figures import charts
from goldilocks.machine.interrupts import uninterrupted
from goldilocks.tasks.task import Task
from goldilocks.training.outcome import best_network

Array = NDArray[Any]

MOST_SHOWN = 25  # columns in the figure; the file has all
MOST_ROWS = (
    150_000  # that pass the network in all: with many columns fewer validation rows are taken
)
FEWEST_ROWS = 50  # of the validation rows, or all of them: fewer tell nothing


class FeatureImportance(pl.Callback):
    """Permutation importance of a table's columns, once, after training (Breiman, 2001).

    With the best weights, on the validation rows: the rise of the loss, or the fall of the
    objective's metric, when the values of a column are shuffled among the rows. All inputs that
    come from a column are shuffled together. Of two columns that say the same the network may need
    neither, and both seem unimportant.

    Images have none; nor has a run that trained on so few rows, or has so many columns, that this
    would take long in comparison.

    Args:
        save_dir: Live: the run folder.
        repeats: Times that each column is shuffled. 0: none.
        trials: Whether the trials of a sweep do it too.
        is_trial: Live: whether this run is one.
    """

    def __init__(
        self,
        save_dir: str,
        repeats: Annotated[int, Field(ge=0)] = 5,
        trials: bool = False,
        is_trial: bool = False,
    ) -> None:
        self.folder, self.repeats = Path(save_dir), repeats
        self.measures = repeats > 0 and (trials or not is_trial)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.measures or not can_inspect(pl_module):
            return
        try:
            self.measure(trainer, pl_module)
        except Exception as error:
            print(
                f"warning: the importance was not measured: {type(error).__name__}:"
                f" {one_line(error)}",
                file=sys.stderr,
            )

    def measure(self, trainer: Any, module: Any) -> None:
        """Shuffles every column and writes what comes of it."""
        data, recorder = trainer.datamodule, recorder_of(trainer)
        owners = data.owners() if "val" in data.tensors else ()
        columns = list(dict.fromkeys(owners))
        if not columns:
            return
        count, most = len(data.tensors["val"][0]), min(MOST_ROWS, recorder.rows)
        taken = min(count, most // (self.repeats * len(columns)))
        if taken < min(FEWEST_ROWS, count):
            return
        draws = torch.Generator().manual_seed(module.seed)
        rows = torch.randperm(count, generator=draws)[:taken].sort().values.to(module.device)
        orders = torch.stack(
            [torch.randperm(taken, generator=draws) for _ in range(self.repeats)]
        ).to(module.device)
        x, y = (tensor[rows.to(tensor.device)].to(module.device) for tensor in data.tensors["val"])
        groups = [
            [place for place, owner in enumerate(owners) if owner == column] for column in columns
        ]
        network = best_network(module, self.folder / "checkpoints" / "best.ckpt")
        name, sinks = recorder.objective.metric.partition("/")[2], recorder.objective.mode == "max"
        plugin = trainer.precision_plugin
        with plugin.val_step_context():
            grown = shuffled_scores(
                module.task, network, (plugin.convert_input(x), y), groups, orders, name
            )
        with uninterrupted():
            label = f"{'fall' if sinks else 'rise'} of val/{name}"
            self.write(trainer, columns, -grown if sinks else grown, label, taken)

    def write(
        self, trainer: Any, columns: Sequence[str], worse: Array, label: str, rows: int
    ) -> None:
        """The file and the figure, the most important column first; `worse` is [C, R]."""
        means, spreads = (
            worse.mean(1),
            worse.std(1, ddof=1) if self.repeats > 1 else np.zeros(len(worse)),
        )
        order = np.argsort(-means, kind="stable")
        lines = [f"column,{label},standard deviation"]
        lines += [
            f"{quoted(columns[place])},{means[place]:.6g},{spreads[place]:.6g}" for place in order
        ]
        (self.folder / "figures").mkdir(parents=True, exist_ok=True)
        (self.folder / "figures" / "importance.csv").write_text(
            "\n".join([*lines, ""]), encoding="utf-8"
        )
        shown, step = order[:MOST_SHOWN], trainer.global_step
        title = f"Importance: {rows:,} validation rows, shuffled {self.repeats} times"
        names = [columns[place] for place in shown]
        figure = charts.draw_importance(names, means[shown], spreads[shown], label, title)
        charts.save_figure(figure, self.folder, "evaluation/importance", trainer.loggers, step)


@torch.no_grad()
def shuffled_scores(
    task: Task,
    network: nn.Module,
    rows: tuple[Tensor, Tensor],
    groups: Sequence[Sequence[int]],
    orders: Tensor,
    metric: str,
) -> Array:
    """How much a metric grows when groups of inputs are shuffled, [C, R].

    Args:
        task: What is learnt.
        network: In evaluation mode.
        rows: Inputs [N, F] and targets.
        groups: Of each column, its inputs.
        orders: [R, N], of the rows.
        metric: Its name, or `loss`.
    """
    x, y = rows
    inputs = x.repeat(len(orders), 1)
    whole, order = inputs.clone(), orders.flatten()
    before = task.score(metric, forward(network, x), y)
    found = []
    for group in groups:
        inputs[:, group] = x[:, group][order]
        outputs = forward(network, inputs).split(len(x))
        found.append([task.score(metric, output, y) - before for output in outputs])
        inputs[:, group] = whole[:, group]
    return np.array(found)


def forward(network: nn.Module, inputs: Tensor) -> Tensor:
    """Raw outputs, in batches that the processor's cache holds."""
    return torch.cat([network(part).float() for part in inputs.split(EVALUATION_ROWS_ON_CPU)])


def quoted(name: str) -> str:
    """A name as a cell of a CSV file."""
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n\r') else name
