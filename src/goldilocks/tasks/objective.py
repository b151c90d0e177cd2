"""The one metric that decides, and whether the validation rows define it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from goldilocks.config.metric_directions import AUTO, directions
from goldilocks.errors import Refused, near_miss
from goldilocks.tasks.task import Task


class Objective:
    """The one metric by which checkpoints, early stopping, the plateau schedule and sweeps decide.

    Args:
        metric: Stage, slash, metric: `val/loss`.
        mode: Whether less or more is better.
        metrics: The configuration's; None: the task's own.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"],
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        stage, _, name = metric.partition("/")
        better = directions({AUTO: True} if metrics is None else metrics)
        known = [f"{stage}/{name}" for stage in ("train", "val") for name in better]
        if stage == "test":
            raise Refused(
                f"objective.metric={metric}: the test set must not decide; write val/{name}"
            )
        if metric not in known:
            raise Refused(f"objective.metric={metric}: no such metric; {near_miss(metric, known)}")
        if mode != better[name]:
            raise Refused(
                f"objective.mode={mode}: {better[name]} is better for {name}; leave objective.mode"
                " out"
            )
        self.metric, self.mode = metric, mode

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value beats the best so far.
        On a tie the later epoch wins: better on small validation sets.
        """
        return best is None or (value <= best if self.mode == "min" else value >= best)


def check_objective(metric: str, task: Task, where: str = "objective.metric") -> None:
    """Refuses a followed metric that the task or the split does not have."""
    stage, spec = metric.partition("/")[0], task.spec
    if stage == "val" and spec.num_rows.get("val", 0) == 0:
        raise Refused(
            f"{where}={metric}: data.val_fraction=0 leaves no validation set;"
            " write objective.metric=train/loss or a data.val_fraction above 0"
        )
    stages = ("train", "val")
    known = [f"{stage}/{name}" for stage in stages for name in ["loss", *task.names(stage)]]
    if metric not in known:
        raise Refused(
            f"{where}={metric}: {spec.task} has no such metric; write one of: {', '.join(known)}"
        )


def check_defined(metrics: Mapping[str, str], task: Task, judged: Sequence[Tensor]) -> None:
    """Refuses a followed metric that validation rows do not define, whatever is predicted for them.

    Args:
        metrics: Those that are followed, by the keys that say so.
        task: Whose metrics they are.
        judged: Targets of the validation rows, of each network that a run trains,
            as its loss takes them.
    """
    for where, metric in metrics.items():
        stage, _, name = metric.partition("/")
        for fold, target in enumerate(judged if stage == "val" else []):
            if is_defined(name, task, target):
                continue
            of_fold = f" of fold {fold}" if len(judged) > 1 else ""
            rows = f"all {len(target)} validation rows{of_fold} have the same target"
            if len(target) == 1:
                rows = f"there is a single validation row{of_fold}"
            more = "fewer data.folds" if of_fold else "a larger data.val_fraction"
            raise Refused(
                f"{where}={metric}: is not defined where {rows}; write {where}=val/loss, {more}"
                " or another data.seed"
            )


def is_defined(name: str, task: Task, target: Tensor) -> bool:
    """Whether a metric, or the loss, is a number for some rows' targets,
    and tells predictions apart.
    """
    if name == "r2" and bool((target == target[0]).all()):  # the library has 0 for any prediction
        return False
    outputs = task.spec.num_outputs
    constant = torch.zeros(len(target), outputs)
    # A correlation is not defined for equal predictions, but is for these.
    right = nn.functional.one_hot(target, outputs).float() if target.ndim == 1 else target
    guesses = (task.score(name, output, target, combined=True) for output in (constant, right))
    return any(map(math.isfinite, guesses))
