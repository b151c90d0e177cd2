"""Regression, binary, multiclass: the loss, the output function and the metrics of each.

Legend: B batch, C outputs, K members of an ensemble.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from goldilocks.config.metric_directions import AUTO, STAGES
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused
from goldilocks.tasks.decisions import Calibration, Cost, Decisions, Threshold
from goldilocks.tasks.losses import AUTO as OWN_LOSS
from goldilocks.tasks.losses import Loss, balanced_weights
from goldilocks.tasks.metrics import (
    Maker,
    metric_makers,
    of_all_rows,
    taken_by,
    try_metric,
    value_of,
)
from goldilocks.tasks.outputs import OUTPUTS, Output, check_output


class Task(nn.Module):
    """What is learnt: from raw outputs and targets to a loss, predictions and metrics.

    A network that is an ensemble gives raw outputs [B, K, C]. Each member is trained on its own
    loss; everywhere else the members are one: the mean of their probabilities, or of their values.

    Args:
        spec: Of the data.
        loss: None: the task's own.
        makers: Of the metrics, by name; None: the task's own.
            Training has the first only: it is computed on the way.
        class_weight: `balanced`: a row of a class counts as n / (C * rows of the class), of the
            training rows, as in scikit-learn's compute_class_weight. In the training loss only:
            val/loss is that of the rows as they are.
        output: What a regression's raw outputs go through before they are compared with the scaled
            target. Classes have theirs by task, when predicting.
        label_smoothing: Share of a class target spread over all classes, in training only.
        calibration: Whether a temperature is fitted on kept predictions when training is over:
            `auto` where they show that it gains.
        threshold: Of two classes: the probability above which the second one is predicted, or by
            what it is chosen on kept predictions: its F1, the balanced accuracy, the mean cost.
        false_positive_cost: Of a row that is wrongly taken for the second class.
        false_negative_cost: Of a row of the second class that is taken for the first.
    """

    target_shift: Tensor
    target_scale: Tensor
    target_centre: Tensor
    target_log: Tensor
    class_weight: Tensor
    first_quantiles: Tensor

    def __init__(
        self,
        spec: Spec,
        loss: Loss | None = None,
        makers: Mapping[str, Maker] | None = None,
        class_weight: Literal["none", "balanced"] = "none",
        output: Output = "identity",
        label_smoothing: float = 0.0,
        calibration: Calibration = "none",
        threshold: Threshold = 0.5,
        false_positive_cost: Cost = 1.0,
        false_negative_cost: Cost = 1.0,
    ) -> None:
        super().__init__()
        if label_smoothing and spec.task == "regression":
            raise Refused(
                f"regularization.label_smoothing={label_smoothing}: smooths class targets, and"
                " these data are a"
                " regression; leave it out"
            )
        if class_weight != "none" and spec.task == "regression":
            raise Refused(
                f"task.class_weight={class_weight}: weights classes, and these data are a"
                " regression; leave it out"
            )
        check_output(output, spec)
        costs = (false_positive_cost, false_negative_cost)
        self.decisions = Decisions(calibration, threshold, costs)
        self.decisions.check(spec)
        self.spec = spec
        self.criterion = OWN_LOSS[spec.task]() if loss is None else loss
        self.quantiles: tuple[float, ...] = getattr(self.criterion, "quantiles", ())
        self.outputs = spec.num_outputs * max(len(self.quantiles), 1)  # of the network
        first = first_quantiles(self.quantiles, spec)
        self.register_buffer("first_quantiles", first, persistent=False)
        self.mean_loss = self.criterion.mean  # a module's attributes are slow
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
        self.makers = metric_makers({AUTO: True}, spec) if makers is None else dict(makers)
        # Not registered as submodules: they are no part of a checkpoint, and switching every one of
        # them between training and evaluation takes longer than a small network's step.
        self.metrics: dict[str, dict[str, Metric]] = {
            stage: {name: self.makers[name]() for name in self.names(stage)} for stage in STAGES
        }
        self.scored: dict[str, Metric] = {}  # apart from those of the stages

    def names(self, stage: str = "val") -> list[str]:
        """The metrics' names of a stage, the loss aside."""
        return list(self.makers)[: 1 if stage == "train" else None]

    def loss(self, output: Tensor, target: Tensor, *, smooth: bool = False) -> Tensor:
        """The mean loss of a batch.

        Args:
            output: Raw, [B, C] or [B, K, C].
            target: [B] class indices or [B, C] class probabilities for classes;
                [B, 1] from 0 to 1 for binary; else [B, C].
            smooth: The training loss: smoothed labels, weighted classes,
                the mean of the members' losses.
        """
        if not smooth:
            return self.mean_loss(self.combine(output), target)
        return self.training_loss(output, target, self.class_weight if self.weighted else None)

    def training_loss(
        self,
        output: Tensor,
        target: Tensor,
        weight: Tensor | None,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        """The mean loss of a batch that is trained on; see `loss`.

        Args:
            output: As for `loss`.
            target: As for `loss`.
            weight: Of each class; None: 1.
            smoothing: Share of label smoothing, in place of the task's.
        """
        if output.ndim == 3:
            target = target.repeat_interleave(output.shape[1], 0)
            output = output.flatten(0, 1)
        output = self.combine(output)
        if smoothing is not None:
            return Loss.mean(self.criterion, output, target, weight, smoothing)
        return self.mean_loss(output, target, weight, self.label_smoothing)

    def row_losses(self, values: Tensor, target: Tensor) -> Tensor:
        """The loss of each row, [B], from what `combine` gives;
        a regression's is the mean over its targets.
        """
        return self.criterion(values, target)

    def combine(self, output: Tensor) -> Tensor:
        """From raw outputs [B, C] or [B, K, C] to [B, C]:
        logits, or a regression's values in the target's scale.
        """
        if self.quantiles and output.shape[-1] == self.outputs:
            output = output + self.first_quantiles
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
        """Predictions in the target's own units:
        probabilities for classes, [B, C] ([B, 1] for binary).
        """
        output = self.combine(output)
        if self.spec.task == "multiclass":
            return output.softmax(-1)
        if self.spec.task == "binary":
            return output.sigmoid()
        return self.unscale(self.middle(output))

    def middle(self, values: Tensor) -> Tensor:
        """Of a regression's quantiles, [..., T * Q], the median, [..., T]; others as they are."""
        if not self.quantiles or values.shape[-1] == self.spec.num_outputs:
            return values
        return values[..., self.quantiles.index(0.5) :: len(self.quantiles)]

    def of_each(self, known: Tensor, values: Tensor) -> Tensor:
        """What is known of each target, [T], for each of the values: of quantiles [T * Q]."""
        targets = len(known)
        several = targets > 1 and values.shape[-1] > targets
        return known.repeat_interleave(values.shape[-1] // targets) if several else known

    def unscale(self, values: Tensor) -> Tensor:
        """A regression's scaled values, [B, C], in the target's own units."""
        scale, shift = (self.of_each(of, values) for of in (self.target_scale, self.target_shift))
        values = values * scale + shift
        if not self.logged:
            return values
        return torch.where(self.of_each(self.target_log, values), values.exp(), values)

    def scale(self, values: Tensor) -> Tensor:
        """The inverse of `unscale`: values in the target's own units, [B, C], as the network gives
        them.
        """
        if self.logged:
            values = torch.where(self.of_each(self.target_log, values), values.log(), values)
        scale, shift = (self.of_each(of, values) for of in (self.target_scale, self.target_shift))
        return (values - shift) / scale

    def centre(self, values: Tensor) -> Tensor:
        """A regression's scaled values, [B, C], around zero,
        in proportion to the target's own units.
        """
        centred = values - self.target_centre
        return (
            torch.where(self.target_log, (centred * self.target_scale).expm1(), centred)
            if self.logged
            else centred
        )

    @torch.no_grad()
    def update_metrics(
        self, stage: str, output: Tensor, target: Tensor, *, combined: bool = False
    ) -> None:
        """Takes raw outputs, [B, C] or [B, K, C], and targets of a stage into its metrics; see
        `score`.
        """
        self.update(self.metrics[stage].values(), output, target, combined)

    def score(self, name: str, output: Tensor, target: Tensor, *, combined: bool = False) -> float:
        """One metric, or the loss, of raw outputs, [B, C] or [B, K, C], and targets;
        `combined`: see `combine`.
        """
        if name == "loss":
            return self.loss(output, target).item()
        if name not in self.scored:
            self.scored[name] = self.makers[name]()
        metric = self.scored[name]
        metric.reset()
        self.update([metric], output, target, combined)
        return value_of(metric)

    def try_metrics(self) -> None:
        """Refuses metrics that cannot take the task's rows."""
        output, target = self.made_up_rows()
        for name, make in self.makers.items():
            rows = self.form(taken_by(make()), output, target)
            try_metric(name, make, *rows, self.spec.task)

    def made_up_rows(self) -> tuple[Tensor, Tensor]:
        """Raw outputs, [B, C], and targets of a few rows, which are predicted well."""
        outputs = self.spec.num_outputs
        if self.spec.task == "multiclass":
            target = torch.arange(2 * outputs) % outputs
            return 2 * F.one_hot(target, outputs).float(), target
        if self.spec.task == "regression":  # no whole numbers, which might be classes
            target = torch.tensor([0.3, 1.2, 0.9, 0.1, 1.4])[:, None].expand(-1, outputs)
            return target, target
        target = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])[:, None]
        return 2 * target - 1, target

    def update(
        self, metrics: Iterable[Metric], output: Tensor, target: Tensor, combined: bool = False
    ) -> None:
        """Hands outputs and targets to metrics, in the form that they take."""
        output = self.middle(output if combined else self.combine(output.float()))
        forms: dict[str, tuple[Tensor, Tensor]] = {}
        for metric in metrics:
            if isinstance(metric, nn.Module) and metric.device != output.device:
                metric.to(output.device)
            takes = taken_by(metric)
            if takes not in forms:
                forms[takes] = self.form(takes, output, target)
            metric.update(*forms[takes])

    def form(self, takes: str, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs, as `combine` gives them, and targets in the form that a metric takes.

        Args:
            takes: `predictions`, which the library's take: probabilities, [B, C] or of the second
                class of two, [B], and class indices, [B]; or a regression's values and targets, [B]
                or [B, C], in the target's units. `raw`: instead of probabilities of many classes
                the logits. `centred`: a regression's around zero.
            output: [B, C].
            target: As the loss takes it.
        """
        if takes == "centred":
            return self.centre(output).squeeze(-1), self.centre(target).squeeze(-1)
        if self.spec.task == "regression":
            return self.unscale(output).squeeze(-1), self.unscale(target).squeeze(-1)
        if self.spec.task == "binary":
            return output.sigmoid().squeeze(-1), target.squeeze(-1).round().long()
        target = target.argmax(1) if target.ndim == 2 else target  # probabilities
        return (output if takes == "raw" else output.softmax(-1)), target

    def compute_metrics(self, stage: str) -> dict[str, float]:
        """The stage's metrics since they were reset, by `stage/name`."""
        return {
            f"{stage}/{name}": of_all_rows(metric) for name, metric in self.metrics[stage].items()
        }

    def reset_metrics(self, stage: str) -> None:
        for metric in self.metrics[stage].values():
            metric.reset()


def first_quantiles(shares: Sequence[float], spec: Spec) -> Tensor:
    """What is added to the outputs for quantiles, [T * Q], so that an untrained network, whose
    outputs are near zero, begins with those of a normal distribution.
    """
    least, most = spec.target_range or (0.0, 0.0)
    deviation = min(1.0, (most - least) / 4)  # 1 is that of a target that is standardized
    quantiles = torch.special.ndtri(torch.tensor(shares, dtype=torch.double)) * deviation
    return quantiles.float().repeat(spec.num_outputs)


def constant_prediction(task: Task, targets: Tensor) -> Tensor:
    """The best constant prediction for targets as the loss takes them:
    logits, or scaled values, [1, C].

    Every class counts as if it had a row more, so that one without any has a finite loss.
    """
    if task.spec.task == "multiclass":
        counts = torch.bincount(targets.long().reshape(-1), minlength=task.spec.num_outputs) + 1
        return counts.float().log()[None]
    if task.spec.task == "binary":
        share = (targets.float().sum(0, keepdim=True) + 1) / (len(targets) + 2)
        return share.reshape(1, 1).logit()
    return task.criterion.constant(targets)
