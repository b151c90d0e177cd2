"""What is known of a run that has ended: its curves, its best weights on rows, its layers.

Legend: N rows, C outputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from goldilocks.data.verdict import Verdict
from goldilocks.tasks.task import Task, constant_prediction
from goldilocks.training.layer_health import Health

MOST_ROWS = 4096  # of a stage that are looked at
GROUPS = 20  # of rows that a jackknife leaves out in turn


@dataclass(frozen=True)
class Rows:
    """A network's loss on some rows of a stage, in evaluation mode.

    Attributes:
        count: Of the rows.
        loss: Their mean.
        error: Its standard error: with other rows of the same kind it
            would differ by about so much.
        chance: The loss of a constant prediction on the same rows:
            the training rows' class shares, mean or median.
        gain_error: The standard error of `chance - loss`, row by row.
    """

    count: int
    loss: float
    error: float
    chance: float
    gain_error: float


@dataclass(frozen=True)
class ClassRows:
    """How a network does on the rows of one class.

    Attributes:
        name: Of the class.
        times: As many training rows has the commonest class, by those of this one.
        count: Of the rows that were looked at:
            validation rows, or training rows where those are few.
        recall: Share of them that are taken for it.
    """

    name: str
    times: float
    count: int
    recall: float


@dataclass(frozen=True)
class Comparison:
    """A plain network on the same rows, none of which it was trained on; see `reference.py`.

    Attributes:
        loss: Its mean.
        lead: By how much the run's own network is worse on these rows.
        error: The standard error of `lead`, row by row.
    """

    loss: float
    lead: float
    error: float


def unknown() -> None:
    """For what was not measured."""


@dataclass(frozen=True)
class Evidence:
    """A run that has ended.

    Attributes:
        task: `regression`, `binary`, `multiclass`.
        status: `done`, or `diverged`.
        history: The metrics of each epoch.
        best_epoch: By the objective; None where none was finite.
        planned_epochs: Where nothing stops the run before.
        rate: `optimizer.lr`; None where the optimizer has none.
        clip: `trainer.gradient_clip_val`.
        train: The best weights on training rows; None where there are none.
        val: The best weights on validation rows; None where there are none.
        health: The last weights on training rows; None where they are not finite.
        steps: Of the optimizer.
        alike: The loss of a guess that gives all classes alike, as an untrained network does;
            0 for a regression.
        weighted: Whether train/loss weighs the classes.
        classes: How the best weights do on each class; () for a regression.
        compare: Trains a plain network on the same rows, which takes a second;
            None where that would take long.
        signal: Whether the features tell anything about the target, which takes a second;
            None where that would take long.
        baselines: The network beside plain models on the validation rows, see
            `goldilocks.callbacks.comparison`; {} where it was not compared.
        time_ran_out: Whether `trainer.max_time` has ended it.
        error: The standard error of the objective: with other rows of the same kind it would differ
            by about so much. None where it is not known.
    """

    task: str
    status: str
    history: Sequence[Mapping[str, float]]
    best_epoch: int | None
    planned_epochs: int
    rate: float | None
    clip: float | None
    train: Rows | None = None
    val: Rows | None = None
    health: Health | None = None
    steps: int = 0
    alike: float = 0.0
    weighted: bool = False
    classes: Sequence[ClassRows] = ()
    compare: Callable[[], Comparison | None] = unknown
    signal: Callable[[], Verdict | None] = unknown
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    time_ran_out: bool = False
    error: float | None = None

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """The epochs that have a metric, and its values."""
        found = [
            (epoch, metrics[name]) for epoch, metrics in enumerate(self.history) if name in metrics
        ]
        return [epoch for epoch, _ in found], [value for _, value in found]

    @property
    def guess(self) -> float:
        """About what train/loss is of an untrained network; there must be training rows."""
        assert self.train is not None
        return max(self.train.chance, self.alike)

    @property
    def ran_out(self) -> bool:
        """Whether the run ended because its epochs, or its time, did."""
        return self.time_ran_out or len(self.history) >= self.planned_epochs


def spread(rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Up to 4,096 rows, spread evenly: inputs [N, ...] and targets."""
    x, y = rows
    every = -(-len(x) // MOST_ROWS)
    return x[::every], y[::every]


@torch.no_grad()
def values_of(task: Task, network: nn.Module, x: Tensor) -> Tensor:
    """What a network in evaluation mode says of inputs [N, ...]:
    logits or a regression's values, [N, C].
    """
    return torch.cat([task.combine(network(part).float()) for part in x.split(512)])


def look_at_rows(task: Task, values: Tensor, y: Tensor, train_targets: Tensor) -> Rows | None:
    """The loss of rows; None where it is not finite.

    Args:
        task: Whose loss it is.
        values: What a network says of them, see `values_of`.
        y: Their targets as the loss takes them.
        train_targets: Those of the training rows, from which the constant prediction is made.
    """
    losses = row_losses(task, values, y)
    if not losses.isfinite().all():
        return None
    constant = constant_prediction(task, train_targets.to(y.device)).expand(len(y), -1)
    chances = row_losses(task, constant, y)
    return Rows(
        len(losses),
        float(losses.mean()),
        standard_error(losses),
        float(chances.mean()),
        standard_error(chances - losses),
    )


def row_losses(task: Task, values: Tensor, y: Tensor) -> Tensor:
    """The loss of each row, [N], in double precision on the CPU."""
    return task.row_losses(values, y).cpu().double()


def standard_error(values: Tensor) -> float:
    """Of the mean of values [N]."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def look_at_classes(
    task: Task, rows: Mapping[str, tuple[Tensor, Tensor]], least: int
) -> list[ClassRows]:
    """How a network does on each class; [] for a regression.

    Args:
        task: Whose classes they are.
        rows: By stage, what a network says of rows, and their targets.
        least: Validation rows of a class, below which its training rows are looked at.
    """
    spec = task.spec
    if spec.task == "regression":
        return []
    most, found = max(spec.class_counts), []
    for place, (name, count) in enumerate(zip(spec.class_names, spec.class_counts, strict=True)):
        for stage in [stage for stage in ("val", "train") if stage in rows]:
            values, y = rows[stage]
            said = values.argmax(1) if spec.task == "multiclass" else values.reshape(-1) > 0
            own = said[y.reshape(-1) == place] == place
            if len(own) >= least:
                recall = float(own.float().mean())
                found.append(ClassRows(name, most / max(count, 1), len(own), recall))
                break
    return found


@torch.no_grad()
def error_of_metric(task: Task, values: Tensor, y: Tensor, name: str, total: int) -> float | None:
    """The standard error of any metric of all rows,
    by the jackknife that leaves out a group of them at a time.

    See Efron and Tibshirani (1993), chapter 11. None where there are fewer than two rows, or the
    metric of some of them is NaN. Where all rows are right it is that of one wrong row: so many
    rows cannot show less.

    Args:
        task: Whose metric it is.
        values: What a network says of rows spread evenly over all, see `values_of`.
        y: Their targets as the loss takes them.
        name: Of the metric, such as `accuracy`.
        total: How many rows there are in all.
    """
    groups = min(GROUPS, len(y))
    if groups < 2:
        return None
    # Rows may be sorted, and no other random numbers are touched.
    own = torch.Generator().manual_seed(0)
    group = (torch.randperm(len(y), generator=own) % groups).to(y.device)
    kept = [group != left_out for left_out in range(groups)]
    scores = torch.tensor(
        [task.score(name, values[some], y[some], combined=True) for some in kept]
    ).double()
    error = float(scores.std(correction=0)) * math.sqrt(groups - 1)
    if not error and task.spec.task != "regression":  # all rows right, or all wrong
        error = 1 / len(y)
    return error * math.sqrt(len(y) / total) if math.isfinite(error) else None
