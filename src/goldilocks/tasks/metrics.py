"""The metrics of each task."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

from goldilocks.data.spec import Spec
from goldilocks.machine import devices
from goldilocks.tasks.pooled_metrics import Pooled, auroc, balanced_accuracy, calibration_error, f1


class CentredR2(R2Score):
    """R2 of values around the training rows' mean: the same number, without cancellation in single precision."""

    def compute(self) -> Tensor:
        """Not a number for a single row, where the library raises."""
        return super().compute() if self.total > 1 else torch.tensor(math.nan)


# Log-loss is none of them: it is val/loss, which is of the rows as they are, neither smoothed nor weighted.
CLASS_METRICS: dict[str, Callable[[Spec], Metric | Pooled]] = {
    "balanced_accuracy": lambda spec: Pooled(balanced_accuracy),
    "auroc": lambda spec: Pooled(auroc),
    "f1": lambda spec: Pooled(f1),
    "ece": lambda spec: Pooled(calibration_error),
}
# The metrics of a task; the first is also computed in training, so it keeps no rows. Of a regression they take
# predictions and targets, [B] or [B, C]; of two classes probabilities, [B], and of more raw outputs, [B, C].
METRICS: dict[str, dict[str, Callable[[Spec], Metric | Pooled]]] = {
    "regression": {
        "rmse": lambda spec: MeanSquaredError(squared=False),
        "mae": lambda spec: MeanAbsoluteError(),
        "r2": lambda spec: CentredR2(),
    },
    "binary": {
        "accuracy": lambda spec: BinaryAccuracy(validate_args=False),
        **CLASS_METRICS,
    },
    "multiclass": {
        "accuracy": lambda spec: MulticlassAccuracy(
            spec.num_outputs, average="micro", validate_args=False
        ),
        **CLASS_METRICS,
    },
}


def make_metric(name: str, spec: Spec) -> Metric | Pooled:
    """A metric of the rows that it is given: one process may look at some by itself."""
    metric = METRICS[spec.task][name](spec)
    if isinstance(metric, Metric):
        metric.distributed_available_fn = alone
    return metric


def alone() -> bool:
    return False


def together() -> bool:
    return True


def of_all_rows(metric: Metric | Pooled) -> Tensor:
    """A metric's value over the rows of all processes that train together."""
    if devices.size() == 1:
        return metric.compute()
    if isinstance(metric, Pooled):
        with metric.sync_context():
            return metric.compute()
    metric.distributed_available_fn = together
    try:
        return metric.compute()
    finally:
        metric.distributed_available_fn = alone


def metric_names(task: str) -> dict[str, list[str]]:
    """The metrics' names by stage, the loss aside. Training has the first only: it is computed on the way."""
    names = list(METRICS[task])
    return {"train": names[:1], "val": names, "test": names}
