"""Regression, binary, multiclass: the loss, the output function and the metrics of each.

Legend: B batch, C outputs, K members of an ensemble.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

from goldilocks import devices
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused, near_miss
from goldilocks.metric_names import BETTER, STAGES
from goldilocks.metrics import Pooled, auroc, balanced_accuracy, calibration_error, f1

LossName = Literal["auto", "mse", "mae", "huber", "bce", "cross_entropy"]
Output = Literal["identity", "tanh", "sigmoid", "softplus"]

# The first loss of a task is its default.
LOSSES: dict[str, dict[str, Callable[..., Tensor]]] = {
    "regression": {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss},
    "binary": {"bce": F.binary_cross_entropy_with_logits},
    "multiclass": {"cross_entropy": F.cross_entropy},
}
# Output functions of a regression, each with the values that it can give.
OUTPUTS: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "tanh": (torch.tanh, -1.0, 1.0),
    "sigmoid": (torch.sigmoid, 0.0, 1.0),
    "softplus": (F.softplus, 0.0, math.inf),
}


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
            raise Refused(
                f"objective.metric={metric}: the test set must not decide; write val/{name}"
            )
        if metric not in known:
            raise Refused(f"objective.metric={metric}: no such metric; {near_miss(metric, known)}")
        if mode != BETTER[name]:
            raise Refused(
                f"objective.mode={mode}: {BETTER[name]} is better for {name}; leave objective.mode out"
            )
        self.metric, self.mode = metric, mode

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value beats the best so far. On a tie the later epoch wins: better on small validation sets."""
        return best is None or (value <= best if self.mode == "min" else value >= best)


class Task(nn.Module):
    """What is learnt: from raw outputs and targets to a loss, predictions and metrics.

    A network that is an ensemble gives raw outputs [B, K, C]. Each member is trained on its own loss; everywhere else
    the members are one: the mean of their probabilities, or of their values.

    Args:
        spec: Of the data.
        loss: The loss's name; `auto` takes the task's first.
        class_weight: `balanced`: a row of a class counts as n / (C * rows of the class), of the training rows, as in
            scikit-learn's compute_class_weight. In the training loss only: val/loss is that of the rows as they are.
        output: What a regression's raw outputs go through before they are compared with the scaled target. Classes
            have theirs by task, when predicting.
        label_smoothing: Share of a class target spread over all classes, in training only.
    """

    target_shift: Tensor
    target_scale: Tensor
    target_centre: Tensor
    target_log: Tensor
    class_weight: Tensor

    def __init__(
        self,
        spec: Spec,
        loss: LossName = "auto",
        class_weight: Literal["none", "balanced"] = "none",
        output: Output = "identity",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        losses = LOSSES[spec.task]
        if loss != "auto" and loss not in losses:
            raise Refused(
                f"task.loss={loss}: is not for {spec.task}; write one of: auto, {', '.join(losses)}"
            )
        if label_smoothing and spec.task == "regression":
            raise Refused(
                f"regularization.label_smoothing={label_smoothing}: smooths class targets, and these data are a"
                " regression; leave it out"
            )
        if class_weight != "none" and spec.task == "regression":
            raise Refused(
                f"task.class_weight={class_weight}: weights classes, and these data are a regression; leave it out"
            )
        check_output(output, spec)
        self.spec = spec
        self.loss_function = losses[next(iter(losses)) if loss == "auto" else loss]
        self.output_function = OUTPUTS[output][0] if output in OUTPUTS else None
        self.label_smoothing = label_smoothing
        self.register_buffer("target_shift", torch.tensor(spec.target_shift or (0.0,)))
        self.register_buffer("target_scale", torch.tensor(spec.target_scale or (1.0,)))
        # Known from the spec, so no part of a checkpoint.
        self.register_buffer(
            "target_centre", torch.tensor(spec.target_centre or (0.0,)), persistent=False
        )
        self.logged = any(spec.target_log)
        self.register_buffer(
            "target_log", torch.tensor(spec.target_log or (False,)), persistent=False
        )
        self.weighted = class_weight == "balanced"
        weights = balanced_weights(spec.class_counts) if self.weighted else torch.ones(1)
        self.register_buffer("class_weight", weights, persistent=False)
        names = metric_names(spec.task)
        # Not registered as submodules: they are no part of a checkpoint, and switching every one of them between
        # training and evaluation takes longer than a small network's step.
        self.metrics: dict[str, dict[str, Metric | Pooled]] = {
            stage: {name: make_metric(name, spec) for name in names[stage]} for stage in STAGES
        }

    def loss(self, output: Tensor, target: Tensor, *, smooth: bool = False) -> Tensor:
        """The mean loss of a batch.

        Args:
            output: Raw, [B, C] or [B, K, C].
            target: [B] class indices or [B, C] class probabilities for classes; [B, 1] from 0 to 1 for binary; else
                [B, C].
            smooth: The training loss: smoothed labels, weighted classes, the mean of the members' losses.
        """
        if smooth and output.ndim == 3:
            target = target.repeat_interleave(output.shape[1], 0)
            output = output.flatten(0, 1)
        output = self.combine(output)
        amount = self.label_smoothing if smooth else 0.0
        weight = self.class_weight if smooth and self.weighted else None
        if self.spec.task == "multiclass":
            if weight is None:
                return self.loss_function(output, target, label_smoothing=amount)
            # The mean over rows. torch's divides by the sum of the batch's weights, which undoes them in small batches.
            total = self.loss_function(
                output, target, weight=weight, label_smoothing=amount, reduction="sum"
            )
            return total / len(output)
        if amount:
            target = smooth_binary(target, amount)
        if weight is None:
            return self.loss_function(output, target)
        return weight[0] * self.loss_function(output, target, pos_weight=weight[1] / weight[0])

    def row_losses(self, values: Tensor, target: Tensor) -> Tensor:
        """The loss of each row, [B], from what `combine` gives; a regression's is the mean over its targets."""
        return self.loss_function(values, target, reduction="none").reshape(len(target), -1).mean(1)

    def combine(self, output: Tensor) -> Tensor:
        """From raw outputs [B, C] or [B, K, C] to [B, C]: logits, or a regression's values in the target's scale."""
        if self.output_function is not None:
            output = self.output_function(output)
        if output.ndim == 2:
            return output
        if self.spec.task == "regression":
            return output.mean(1)
        if self.spec.task == "binary":  # the logit of the mean probability
            return F.logsigmoid(output).logsumexp(1) - F.logsigmoid(-output).logsumexp(1)
        return output.log_softmax(-1).logsumexp(1) - math.log(output.shape[1])

    def predict(self, output: Tensor) -> Tensor:
        """Predictions in the target's own units: probabilities for classes, [B, C] ([B, 1] for binary)."""
        output = self.combine(output)
        if self.spec.task == "multiclass":
            return output.softmax(-1)
        if self.spec.task == "binary":
            return output.sigmoid()
        return self.unscale(output)

    def unscale(self, values: Tensor) -> Tensor:
        """A regression's scaled values, [B, C], in the target's own units."""
        values = values * self.target_scale + self.target_shift
        return torch.where(self.target_log, values.exp(), values) if self.logged else values

    def centre(self, values: Tensor) -> Tensor:
        """A regression's scaled values, [B, C], around zero, in proportion to the target's own units."""
        centred = values - self.target_centre
        return (
            torch.where(self.target_log, (centred * self.target_scale).expm1(), centred)
            if self.logged
            else centred
        )

    @torch.no_grad()
    def update_metrics(self, stage: str, output: Tensor, target: Tensor) -> None:
        """Takes raw outputs, [B, C] or [B, K, C], and targets of a stage into its metrics."""
        self.give(self.metrics[stage].values(), output, target)

    def score(self, name: str, output: Tensor, target: Tensor, *, combined: bool = False) -> float:
        """One metric, or the loss, of raw outputs, [B, C] or [B, K, C], and targets; `combined`: see `combine`."""
        if name == "loss":
            return self.loss(output, target).item()
        metric = make_metric(name, self.spec)
        self.give([metric], output, target, combined)
        return metric.compute().item()

    def give(
        self,
        metrics: Iterable[Metric | Pooled],
        output: Tensor,
        target: Tensor,
        combined: bool = False,
    ) -> None:
        """Hands outputs and targets to metrics, in the form that they take."""
        output = centred = output if combined else self.combine(output.float())
        centred_target = target
        if self.spec.task == "regression":
            centred, centred_target = (
                self.centre(values).squeeze(-1) for values in (output, target)
            )
            output, target = self.unscale(output).squeeze(-1), self.unscale(target).squeeze(-1)
        elif self.spec.task == "binary":
            output, target = output.sigmoid().squeeze(-1), target.squeeze(-1).round().long()
        elif target.ndim == 2:  # probabilities
            target = target.argmax(1)
        for metric in metrics:
            if isinstance(metric, Metric) and metric.device != output.device:
                metric.to(output.device)
            metric.update(
                *((centred, centred_target) if isinstance(metric, CentredR2) else (output, target))
            )

    def compute_metrics(self, stage: str) -> dict[str, float]:
        """The stage's metrics since they were reset, by `stage/name`."""
        return {
            f"{stage}/{name}": of_all_rows(metric).item()
            for name, metric in self.metrics[stage].items()
        }

    def reset_metrics(self, stage: str) -> None:
        for metric in self.metrics[stage].values():
            metric.reset()


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


def smooth_binary(target: Tensor, amount: float) -> Tensor:
    """Moves targets of 0 and 1 towards a half: target * (1 - amount) + amount / 2.

    >>> smooth_binary(torch.tensor([0.0, 1.0]), 0.1)
    tensor([0.0500, 0.9500])
    """
    return target * (1 - amount) + amount / 2


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """A weight for each class, n / (C * count), so that every class has the same share in the loss.

    >>> balanced_weights((6, 2))
    tensor([0.6667, 2.0000])
    """
    rows = torch.tensor(counts, dtype=torch.float32)
    return rows.sum() / (
        len(counts) * rows.clamp(min=1)
    )  # a class may have no rows in a split of somebody else's


def check_output(output: str, spec: Spec) -> None:
    """Refuses an output function that cannot give the scaled targets of the training rows."""
    if output not in OUTPUTS:
        return
    if spec.task != "regression":
        raise Refused(
            f"task.output={output}: is for a regression, and {spec.task} has its probabilities by itself;"
            " write task.output=identity"
        )
    low, high = OUTPUTS[output][1:]
    least, most = spec.target_range
    if not low <= least <= most <= high:
        values = f"from {low:g} to {high:g}" if high < math.inf else f"above {low:g}"
        raise Refused(
            f"task.output={output}: gives values {values}, but the scaled targets go from {least:.3g} to {most:.3g};"
            " write data.target_scaling=minmax, or none if the target itself is within"
        )


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
        raise Refused(
            f"{where}={metric}: {spec.task} has no such metric; write one of: {', '.join(known)}"
        )


def check_defined(metrics: Mapping[str, str], spec: Spec, judged: Sequence[Tensor]) -> None:
    """Refuses a followed metric that validation rows do not define, whatever is predicted for them.

    Args:
        metrics: Those that are followed, by the keys that say so.
        spec: Of the data.
        judged: Targets of the validation rows, of each network that a run trains, as its loss takes them.
    """
    for where, metric in metrics.items():
        stage, _, name = metric.partition("/")
        for fold, target in enumerate(judged if stage == "val" else []):
            if is_defined(name, spec, target):
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


def is_defined(name: str, spec: Spec, target: Tensor) -> bool:
    """Whether a metric, or the loss, is a number for some rows' targets, and tells predictions apart."""
    if name == "r2" and bool((target == target[0]).all()):  # the library has 0 for any prediction
        return False
    value = Task(spec).score(name, torch.zeros(len(target), spec.num_outputs), target)
    return math.isfinite(value)
