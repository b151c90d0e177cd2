"""Regression, binary, multiclass: the loss, the output function and the metrics of each.

Legend: B batch, C outputs.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
)

from goldilocks.data.spec import Spec
from goldilocks.errors import Refused, near_miss
from goldilocks.metric_names import BETTER, STAGES

LossName = Literal["auto", "mse", "mae", "huber", "bce", "cross_entropy"]

# The first loss of a task is its default.
LOSSES: dict[str, dict[str, Callable[..., Tensor]]] = {
    "regression": {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss},
    "binary": {"bce": F.binary_cross_entropy_with_logits},
    "multiclass": {"cross_entropy": F.cross_entropy},
}


class StandardisedR2(R2Score):
    """R2 of standardised values: the same number, without the cancellation in single precision far from zero."""

    def compute(self) -> Tensor:
        """Not a number for a single row, where the library raises."""
        return super().compute() if self.total > 1 else torch.tensor(math.nan)


# The metrics of a task; the first is also computed in training. All take predictions [B] or [B, C] and targets.
METRICS: dict[str, dict[str, Callable[[Spec], Metric]]] = {
    "regression": {
        "rmse": lambda spec: MeanSquaredError(squared=False),
        "mae": lambda spec: MeanAbsoluteError(),
        "r2": lambda spec: StandardisedR2(),
    },
    "binary": {
        "accuracy": lambda spec: BinaryAccuracy(validate_args=False),
        "auroc": lambda spec: BinaryAUROC(validate_args=False),
        "f1": lambda spec: BinaryF1Score(validate_args=False),
    },
    "multiclass": {
        "accuracy": lambda spec: MulticlassAccuracy(spec.num_outputs, average="micro", validate_args=False),
        "f1": lambda spec: MulticlassF1Score(spec.num_outputs, average="macro", validate_args=False),
    },
}


class Objective:
    """The one metric by which checkpoints, early stopping, the plateau schedule and sweeps decide.

    Args:
        metric: Stage, slash, metric: `val/loss`.
        mode: Whether less or more is better.
    """

    def __init__(self, metric: str, mode: Literal["min", "max"]) -> None:
        stage, _, name = metric.partition("/")
        known = [f"{stage}/{name}" for stage in ("train", "val") for name in BETTER]
        if stage == "test":
            raise Refused(f"objective.metric={metric}: the test set must not decide; write val/{name}")
        if metric not in known:
            raise Refused(f"objective.metric={metric}: no such metric; {near_miss(metric, known)}")
        if mode != BETTER[name]:
            raise Refused(f"objective.mode={mode}: {BETTER[name]} is better for {name}; leave objective.mode out")
        self.metric, self.mode = metric, mode

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value beats the best so far. On a tie the later epoch wins: better on small validation sets."""
        return best is None or (value <= best if self.mode == "min" else value >= best)


class Task(nn.Module):
    """What is learnt: from raw outputs and targets to a loss, predictions and metrics.

    Args:
        spec: Of the data.
        loss: The loss's name; `auto` takes the task's first.
        label_smoothing: Share of a class target spread over all classes, in training only.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(self, spec: Spec, loss: LossName = "auto", label_smoothing: float = 0.0) -> None:
        super().__init__()
        losses = LOSSES[spec.task]
        if loss != "auto" and loss not in losses:
            raise Refused(f"task.loss={loss}: is not for {spec.task}; write one of: auto, {', '.join(losses)}")
        if label_smoothing and spec.task == "regression":
            raise Refused(
                f"regularization.label_smoothing={label_smoothing}: smooths class targets, and these data are a"
                " regression; leave it out"
            )
        self.spec = spec
        self.loss_function = losses[next(iter(losses)) if loss == "auto" else loss]
        self.label_smoothing = label_smoothing
        self.register_buffer("target_mean", torch.tensor(spec.target_mean or (0.0,)))
        self.register_buffer("target_std", torch.tensor(spec.target_std or (1.0,)))
        names = metric_names(spec.task)
        # Not registered as submodules: they are no part of a checkpoint, and switching every one of them between
        # training and evaluation takes longer than a small network's step.
        self.metrics: dict[str, dict[str, Metric]] = {
            stage: {name: METRICS[spec.task][name](spec) for name in names[stage]} for stage in STAGES
        }

    def loss(self, output: Tensor, target: Tensor, *, smooth: bool = False) -> Tensor:
        """The mean loss of a batch. output: [B, C]; target: [B] class indices, else [B, C]. `smooth` in training."""
        amount = self.label_smoothing if smooth else 0.0
        if self.spec.task == "multiclass":
            return self.loss_function(output, target, label_smoothing=amount)
        return self.loss_function(output, smooth_binary(target, amount) if amount else target)

    def predict(self, output: Tensor) -> Tensor:
        """Predictions in the target's own units: probabilities for classes, [B, C] ([B, 1] for binary)."""
        if self.spec.task == "multiclass":
            return output.softmax(-1)
        if self.spec.task == "binary":
            return output.sigmoid()
        return output * self.target_std + self.target_mean

    @torch.no_grad()
    def update_metrics(self, stage: str, output: Tensor, target: Tensor) -> None:
        """Takes raw outputs [B, C] and targets of a stage into its metrics."""
        output = output.float()
        scaled = (output.squeeze(-1), target.squeeze(-1))
        if self.spec.task == "regression":
            output, target = self.predict(output).squeeze(-1), self.predict(target).squeeze(-1)
        elif self.spec.task == "binary":
            output, target = output.sigmoid().squeeze(-1), target.squeeze(-1).long()
        for metric in self.metrics[stage].values():
            if metric.device != output.device:
                metric.to(output.device)
            metric.update(*(scaled if isinstance(metric, StandardisedR2) else (output, target)))

    def compute_metrics(self, stage: str) -> dict[str, float]:
        """The stage's metrics since they were reset, by `stage/name`."""
        return {f"{stage}/{name}": metric.compute().item() for name, metric in self.metrics[stage].items()}

    def reset_metrics(self, stage: str) -> None:
        for metric in self.metrics[stage].values():
            metric.reset()


def smooth_binary(target: Tensor, amount: float) -> Tensor:
    """Moves targets of 0 and 1 towards a half: target * (1 - amount) + amount / 2.

    >>> smooth_binary(torch.tensor([0.0, 1.0]), 0.1)
    tensor([0.0500, 0.9500])
    """
    return target * (1 - amount) + amount / 2


def metric_names(task: str) -> dict[str, list[str]]:
    """The metrics' names by stage, the loss aside. Training has the first only: it is computed on the way."""
    names = list(METRICS[task])
    return {"train": names[:1], "val": names, "test": names}


def check_objective(metric: str, spec: Spec, where: str = "objective.metric") -> None:
    """Refuses a followed metric that the task or the split does not have."""
    stage = metric.partition("/")[0]
    if stage == "val" and spec.num_rows.get("val", 0) == 0:
        raise Refused(
            f"{where}={metric}: data.val_fraction=0 leaves no validation set;"
            " write objective.metric=train/loss or a data.val_fraction above 0"
        )
    names = metric_names(spec.task)
    known = [f"{stage}/{name}" for stage in ("train", "val") for name in ["loss", *names[stage]]]
    if metric not in known:
        raise Refused(f"{where}={metric}: {spec.task} has no such metric; write one of: {', '.join(known)}")
