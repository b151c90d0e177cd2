"""What an option of conf/loss names: the losses, and what any other class needs to be one.

A loss is an `nn.Module` whose `forward(output, target)` gives the loss of each row, [B]. That is
all that one of your own must have; torch's losses do it with `reduction="none"`, which they are
given.

Legend: B rows of a batch, C outputs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from goldilocks.config.build import build
from goldilocks.data.spec import Spec, TaskName
from goldilocks.errors import Refused, one_line

REGRESSION = ("regression",)
TWO_CLASSES, CLASSES = ("binary",), ("binary", "multiclass")
SQUARED = ("Auto", "MSE", "MSELoss")  # classes by which the largest errors decide
LOOKED_AT = 4096  # rows among which a constant prediction is sought
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Loss(nn.Module):
    """The base of the losses here. One of your own gains from it: it may say for which tasks it is.

    Attributes:
        tasks: For which it is.
        centre: The target's value that is the best constant prediction of a regression, in words.
        estimate: What is learnt, in words: networks that learn the same may predict together.
            Empty: the loss itself says.
    """

    tasks: Sequence[str] = (*REGRESSION, *CLASSES)
    centre = "best constant"
    estimate = ""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each row, [B].

        Args:
            output: [B, C]: logits, or a regression's values in the target's scale.
            target: [B] class indices; [B, C] class probabilities with mixup, cutmix or label
                smoothing; [B, 1] from 0 to 1 of two classes; [B, C] scaled values of a regression.
        """
        raise NotImplementedError

    def mean(
        self,
        output: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        smoothing: float | Tensor = 0.0,
    ) -> Tensor:
        """The mean over the rows.

        Args:
            output: As for `forward`.
            target: As for `forward`.
            weight: Of each class.
            smoothing: Share of a class target that is spread over all classes.
        """
        if isinstance(smoothing, Tensor) or smoothing:
            target = smooth(target, smoothing, output.shape[1])
        rows = self(output, target)
        return (rows if weight is None else rows * row_weights(target, weight)).mean()

    def constant(self, target: Tensor) -> Tensor:
        """The best constant prediction for a regression's targets, [N, C],
        among their mean and percentiles: [1, C].
        """
        target = target.float()[:: -(-len(target) // LOOKED_AT)]
        percentiles = target.quantile(torch.linspace(0, 1, 101, device=target.device), 0)
        best = target.mean(0, keepdim=True)
        for place in range(target.shape[1]):
            guesses = best.repeat(len(percentiles) + 1, 1)
            guesses[1:, place] = percentiles[:, place]
            losses = [float(self(guess.expand_as(target), target).mean()) for guess in guesses]
            best = guesses[losses.index(min(losses))][None]
        return best

    def facts(self) -> list[tuple[str, dict[str, Any]]]:
        """The classes that it is made of, and their settings."""
        return [
            (type(part).__qualname__, {k: v for k, v in vars(part).items() if k[0] != "_"})
            for part in self.modules()
        ]


class OfRows(Loss):
    """A loss of another class: of a library, or of your own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.tasks = getattr(inner, "tasks", Loss.tasks)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return by_row(self.inner(output, target), target)


class Auto(Loss):
    """The task's own loss, which is known with the data: see `AUTO`."""


# --- of a regression ------------------------------------------------------------------------------


class Elementwise(Loss):
    """A regression's loss that adds up over its targets; that of a row is their mean."""

    tasks = REGRESSION
    estimate = "values in the middle"

    def elements(self, output: Tensor, target: Tensor, reduction: str) -> Tensor:
        """Of each element, [B, C], for the reduction `none`; for `mean` their mean."""
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return by_row(self.elements(output, target, "none"), target)

    def mean(
        self,
        output: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        smoothing: float | Tensor = 0.0,
    ) -> Tensor:
        return self.elements(output, target, "mean")


class MSE(Elementwise):
    """The squared error. Its best constant is the mean."""

    centre = "mean"

    def elements(self, output: Tensor, target: Tensor, reduction: str) -> Tensor:
        return F.mse_loss(output, target, reduction=reduction)

    def constant(self, target: Tensor) -> Tensor:
        return target.float().mean(0).reshape(1, -1)


class MAE(Elementwise):
    """The absolute error. Its best constant is the median."""

    centre = "median"

    def elements(self, output: Tensor, target: Tensor, reduction: str) -> Tensor:
        return F.l1_loss(output, target, reduction=reduction)

    def constant(self, target: Tensor) -> Tensor:
        return target.float().quantile(0.5, 0).reshape(1, -1)


class Huber(Elementwise):
    """e^2 / 2 up to delta, delta * (|e| - delta / 2) beyond (Huber 1964).

    Args:
        delta: Of the scaled target, above 0.
    """

    def __init__(self, delta: Positive = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def elements(self, output: Tensor, target: Tensor, reduction: str) -> Tensor:
        return F.huber_loss(output, target, delta=self.delta, reduction=reduction)


class LogCosh(Elementwise):
    """log(cosh(e)): e^2 / 2 near zero, |e| - log(2) far from it, and smooth in every derivative."""

    def elements(self, output: Tensor, target: Tensor, reduction: str) -> Tensor:
        size = (output - target).abs()
        values = size + F.softplus(-2 * size) - math.log(2)  # without the overflow of cosh
        return values.mean() if reduction == "mean" else values


class Quantile(Elementwise):
    """q * e above the prediction, (q - 1) * e below,
    where e is target - prediction (Koenker and Bassett 1978).

    The network then predicts the value below which a share q of the targets is. With several q it
    has an output for each, of each target in turn; their mean loss is descended, and the median is
    what is predicted and judged by metrics.

    Args:
        q: The share, between 0 and 1; or several, 0.5 and one on each side of it among them.
    """

    shares: Tensor

    def __init__(self, q: Share | list[Share] = 0.5) -> None:
        super().__init__()
        if isinstance(q, list):
            check_quantiles(q)
        self.q = q
        self.quantiles = tuple(q) if isinstance(q, list) else ()
        self.centre = "quantiles" if self.quantiles else f"{q:g} quantile"
        if q != 0.5:
            self.estimate = f"{in_words(q)} quantiles"
        shares = torch.tensor(self.quantiles or (float(q),))  # type: ignore[arg-type]
        self.register_buffer("shares", shares, persistent=False)

    def elements(self, output: Tensor, target: Tensor, reduction: str) -> Tensor:
        """Of outputs [B, C] for targets [B, T]: C is T, where a value stands for all quantiles, or
        T times as many as there are quantiles.
        """
        several = len(self.shares)
        if output.shape[1] == target.shape[1]:
            output = output.repeat_interleave(several, 1)
        error = target.repeat_interleave(several, 1) - output
        q = self.shares.repeat(target.shape[1])
        values = torch.maximum(q * error, (q - 1) * error)
        return values.mean() if reduction == "mean" else values

    def constant(self, target: Tensor) -> Tensor:
        """[1, C], of each target in turn."""
        return target.float().quantile(self.shares, 0).T.reshape(1, -1)


def check_quantiles(q: Sequence[float]) -> None:
    """Refuses quantiles that are no median with others on both sides, in order."""
    if sorted(set(q)) != q or 0.5 not in q or not q[0] < 0.5 < q[-1]:
        raise Refused(
            f"loss.q={in_words(list(q))}: rising shares with 0.5, which is predicted, and others"
            " on both sides are expected, such as loss.q=[0.05,0.5,0.95]"
        )


def in_words(q: float | list[float]) -> str:
    """A share, or several, as the command line has them.

    >>> in_words(0.9), in_words([0.05, 0.5])
    ('0.9', '[0.05,0.5]')
    """
    return f"[{','.join(f'{one:g}' for one in q)}]" if isinstance(q, list) else f"{q:g}"


def outputs_for(loss: Mapping[str, Any], targets: int) -> int:
    """How many outputs a network needs for a loss's option.

    >>> outputs_for({"_target_": "goldilocks.tasks.losses.Quantile", "q": [0.1, 0.5, 0.9]}, 2)
    6
    """
    q = loss.get("q") if loss["_target_"].endswith(f".{Quantile.__name__}") else None
    return targets * (len(q) if isinstance(q, list) else 1)


# --- of classes -----------------------------------------------------------------------------------


class BCE(Loss):
    """The binary cross-entropy: -log of the true class's probability, of two."""

    estimate = "probabilities"
    tasks = TWO_CLASSES

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        return by_row(losses, target)

    def mean(
        self,
        output: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        smoothing: float | Tensor = 0.0,
    ) -> Tensor:
        if smoothing:
            target = smooth_binary(target, smoothing)
        if weight is None:
            return F.binary_cross_entropy_with_logits(output, target)
        return weight[0] * F.binary_cross_entropy_with_logits(
            output, target, pos_weight=weight[1] / weight[0]
        )


class CrossEntropy(Loss):
    """The cross-entropy: -log of the true class's probability."""

    estimate = "probabilities"
    tasks = ("multiclass",)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="none")

    def mean(
        self,
        output: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        smoothing: float | Tensor = 0.0,
    ) -> Tensor:
        assert not isinstance(smoothing, Tensor)
        if weight is None:
            return F.cross_entropy(output, target, label_smoothing=smoothing)
        # The mean over rows. torch's divides by the sum of the batch's weights,
        # which undoes them in small batches.
        total = F.cross_entropy(
            output, target, weight=weight, label_smoothing=smoothing, reduction="sum"
        )
        return total / len(output)


class Focal(Loss):
    """The cross-entropy times (1 - p)^gamma, p the true class's probability:
    sure rows count less (Lin et al. 2017).

    Args:
        gamma: 0 or more; 0 is the cross-entropy.
        alpha: Of two classes: the weight of the second, 1 - alpha that of the first.
            None: 1 for both.
    """

    estimate = "probabilities"
    tasks: Sequence[str] = CLASSES

    def __init__(
        self, gamma: Annotated[float, Field(ge=0)] = 2.0, alpha: Share | None = None
    ) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha
        if alpha is not None:
            self.tasks = TWO_CLASSES

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if output.shape[1] == 1:
            first, second = self.terms(F.logsigmoid(-output)), self.terms(F.logsigmoid(output))
            if self.alpha is not None:
                first, second = (1 - self.alpha) * first, self.alpha * second
            return by_row(target * second + (1 - target) * first, target)
        losses = self.terms(output.log_softmax(1))
        if target.ndim == 1:
            return losses.gather(1, target[:, None]).squeeze(1)
        return (target * losses).sum(1)

    def terms(self, log_probability: Tensor) -> Tensor:
        """The loss of a row of each class, [B, C]."""
        rest = -torch.expm1(log_probability)
        # A power below 1 has an infinite slope at 0.
        return -(rest.clamp(min=torch.finfo(rest.dtype).tiny) ** self.gamma) * log_probability


# The task's own loss, and the names of conf/loss, for messages.
AUTO: dict[str, type[Loss]] = {"regression": MSE, "binary": BCE, "multiclass": CrossEntropy}
NAMES: dict[type[Loss], str] = {
    MSE: "mse",
    MAE: "mae",
    Huber: "huber",
    LogCosh: "log_cosh",
    Quantile: "quantile",
    BCE: "bce",
    CrossEntropy: "cross_entropy",
    Focal: "focal",
}


# --- from an option to a loss ---------------------------------------------------------------------


def build_loss(node: Mapping[str, Any], spec: Spec, packages: Iterable[str] = ()) -> Loss:
    """Builds the loss that an option names.

    Raises:
        Refused: if it is not for the task.
    """
    found = build(node, nn.Module, "loss", packages=packages, offered={"reduction": "none"})
    if isinstance(found, Auto):
        found = AUTO[spec.task]()
    loss = found if isinstance(found, Loss) else OfRows(found)
    if spec.task not in loss.tasks:
        name = NAMES.get(type(loss), node["_target_"].rpartition(".")[2])
        alpha = ".alpha" if isinstance(loss, Focal) and loss.alpha is not None else ""
        given = f"loss={name}" if not alpha else f"loss.alpha={loss.alpha:g}"
        raise not_for(given, spec.task, "task.class_weight=balanced" if alpha else "")
    return loss


def not_for(given: str, task: str, instead: str = "") -> Refused:
    """The refusal of a loss that is for other tasks."""
    fitting = [name for kind, name in NAMES.items() if task in kind.tasks]
    instead = instead or f"one of: {', '.join(['auto', *fitting])}"
    return Refused(f"{given}: is not for {task}; write {instead}")


def try_loss(loss: Loss, spec: Spec, where: str, *, probabilities: bool) -> None:
    """Refuses a class that is no loss of this task, before anything is trained by it.

    Args:
        loss: Which is given made-up rows.
        spec: Of the data.
        where: What the configuration says of it, for messages.
        probabilities: Whether classes are given as probabilities, as mixup and label smoothing do.
    """
    if any(p.requires_grad for p in loss.parameters()):
        raise Refused(f"{where}: has weights of its own, which no optimizer trains")
    classes = spec.num_outputs
    shares = max(len(getattr(loss, "quantiles", ())), 1)
    rows = 3 if classes != 3 else 4
    output = torch.zeros(rows, classes * shares, requires_grad=True)
    target = torch.full((rows, classes), 1 / classes)
    if spec.task == "multiclass" and not probabilities:
        target = torch.zeros(rows, dtype=torch.long)
    try:
        found = loss(output, target)
    except Exception as error:  # whatever a class does that is no loss
        if takes_others(loss, spec.task):
            raise not_for(where, spec.task) from error
        taken = "probabilities [B, C]" if target.ndim == 2 else "class indices [B]"
        of_classes = f" with {taken}" if spec.task == "multiclass" else ""
        raise Refused(
            f"{where}: cannot take rows of {spec.task}{of_classes} ({one_line(error)})"
        ) from error
    if not isinstance(found, Tensor) or found.shape != (rows,) or not found.requires_grad:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise Refused(
            f"{where}: gives {shape} for {rows} rows; a loss for each, [{rows}], is needed"
        )


def takes_others(loss: Loss, task: str) -> bool:
    """Whether a loss takes the rows of a regression, though not these classes, or classes, though
    not values.
    """
    output = torch.zeros(4, 3, requires_grad=True)
    targets = {"values": torch.full((4, 3), 1 / 3), "classes": torch.zeros(4, dtype=torch.long)}
    try:
        found = loss(output, targets["values" if task == "multiclass" else "classes"])
    except Exception:  # whatever a library says
        return False
    return isinstance(found, Tensor) and found.shape == (4,)


def loss_in_words(node: Mapping[str, Any], task: TaskName) -> str:
    """A loss and its settings: two are the same where this is.

    >>> loss_in_words({"_target_": "goldilocks.tasks.losses.Huber", "delta": 2.0}, "regression")
    'huber(delta=2.0)'
    """
    target = node["_target_"]
    ours = {f"{kind.__module__}.{kind.__qualname__}": name for kind, name in NAMES.items()}
    ours[f"{Auto.__module__}.{Auto.__qualname__}"] = NAMES[AUTO[task]]
    settings = ",".join(f"{key}={value}" for key, value in node.items() if key != "_target_")
    return ours.get(target, target) + (f"({settings})" if settings else "")


def is_squared(node: Mapping[str, Any]) -> bool:
    """Whether an option's loss, of a regression, is a squared error."""
    return node["_target_"].rpartition(".")[2] in SQUARED


# --- small ----------------------------------------------------------------------------------------


def by_row(losses: Tensor, target: Tensor) -> Tensor:
    """The mean of each row's losses, [B]."""
    return losses.reshape(len(target), -1).mean(1)


def smooth_binary(target: Tensor, amount: float | Tensor) -> Tensor:
    """Moves targets of 0 and 1 towards a half: target * (1 - amount) + amount / 2.

    >>> smooth_binary(torch.tensor([0.0, 1.0]), 0.1)
    tensor([0.0500, 0.9500])
    """
    return target * (1 - amount) + amount / 2


def smooth(target: Tensor, amount: float | Tensor, outputs: int) -> Tensor:
    """Spreads a share of class targets over all classes:
    [B, C] probabilities, or [B, 1] of two classes.
    """
    if outputs == 1:
        return smooth_binary(target, amount)
    shares = F.one_hot(target, outputs).float() if target.ndim == 1 else target
    return shares * (1 - amount) + amount / outputs


def row_weights(target: Tensor, weight: Tensor) -> Tensor:
    """The weight of each row, [B], from those of the classes, [classes]."""
    if target.ndim == 1:
        return weight[target]
    if target.shape[1] == 1:
        return (weight[0] + target * (weight[1] - weight[0])).squeeze(1)
    return target @ weight


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """A weight for each class, n / (C * count), so that every class has the same share in the loss.

    >>> balanced_weights((6, 2))
    tensor([0.6667, 2.0000])
    """
    rows = torch.tensor(counts, dtype=torch.float32)
    return rows.sum() / (
        len(counts) * rows.clamp(min=1)
    )  # a class may have no rows in a split of somebody else's
