"""Regression, binary, multiclass: the loss, the output function and the metrics of each.

Legend: B batch, C outputs, K members of an ensemble.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from goldilocks.config.metric_directions import STAGES
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused
from goldilocks.tasks.losses import LOSSES, LossName, balanced_weights, smooth_binary
from goldilocks.tasks.metrics import CentredR2, make_metric, metric_names, of_all_rows
from goldilocks.tasks.outputs import OUTPUTS, Output, check_output
from goldilocks.tasks.pooled_metrics import Pooled


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
