"""Metrics of classes that need all rows at once, computed in one pass when an epoch has ended.

A small network's epoch takes 10 ms, and the library's metrics of many classes take a third of that:
3 ms the AUROC alone, for it goes through the classes one by one. These take a tenth of a
millisecond or three, with the same results.

Legend: N rows, C classes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)
from torchmetrics.utilities.distributed import gather_all_tensors

BINS = 15  # of probabilities from 0 to 1, as in Guo et al. (2017)


class Pooled:
    """Keeps what it is given, and computes when it is asked, on all rows;
    with torchmetrics' methods.

    Attributes:
        function: Of raw outputs [N, C], or [N] probabilities of the second class of two,
            and the classes' indices [N].
    """

    tasks = ("binary", "multiclass")
    takes = "raw"
    function: Callable[[Tensor, Tensor], Tensor]

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        self.parts.append((output.detach(), target))

    def compute(self) -> Tensor:
        outputs, targets = (torch.cat(parts) for parts in zip(*self.parts, strict=True))
        return self.function(outputs, targets)

    @contextmanager
    def sync_context(self) -> Iterator[None]:
        """Within the block it has the rows of all processes. They all must come here."""
        own = self.parts
        gathered = [gather_all_tensors(torch.cat(parts)) for parts in zip(*own, strict=True)]
        self.parts = list(zip(*gathered, strict=True))
        try:
            yield
        finally:
            self.parts = own

    def reset(self) -> None:
        self.parts = []


def f1(output: Tensor, target: Tensor) -> Tensor:
    """The mean of the classes' F1 scores, of those that are true or predicted for any row;
    of two, the second's.
    """
    if output.ndim == 1:
        said = output > 0.5
        return 2 * (said & (target == 1)).sum() / (said.sum() + target.sum()).clamp(min=1)
    true, said, right = count_classes(output, target)
    known = true + said > 0
    return (2 * right / (true + said))[known].mean()


def balanced_accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The mean of the classes' recalls, of those that are true for any row."""
    true, _, right = count_classes(output, target)
    return (right / true)[true > 0].mean()


def count_classes(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By class, [C]: rows of it, rows taken for it, and rows of which both are so."""
    classes = max(2, output.shape[1] if output.ndim == 2 else 0)
    chosen = output.argmax(1) if output.ndim == 2 else (output > 0.5).long()
    true, said, right = (
        torch.bincount(rows, minlength=classes)
        for rows in (target, chosen, target[chosen == target])
    )
    return true, said, right


def auroc(output: Tensor, target: Tensor) -> Tensor:
    """The area under the ROC curve;
    of more than two classes the mean of each against the rest, where it has both.

    By ranks: the area is the share of pairs, a row of the class and another, of which the former
    has the higher probability; a tie counts half (Mann and Whitney, 1947). NaN where all
    rows are of one class.
    """
    if output.device.type == "mps":  # has no 64 bits
        output, target = output.cpu(), target.cpu()
    scores = output.softmax(1) if output.ndim == 2 else output[:, None]
    own = target if output.ndim == 2 else torch.zeros_like(target)
    classes = scores.shape[1]
    # The bits of a float above zero sort as the float does,
    # so all classes' scores make one sorted line of integers.
    line = scores.T.contiguous().view(torch.int32).long() + (
        torch.arange(classes, device=scores.device)[:, None] << 32
    )
    if output.ndim == 1:
        positive = line[0, target == 1]
        own = own[target == 1]
    else:
        positive = line.T.gather(1, target[:, None]).squeeze(1)
    line = line.sort(1).values.reshape(-1)
    before = torch.searchsorted(line, positive) + torch.searchsorted(line, positive, right=True)
    ranks = (before + 1).double() / 2 - len(output) * own
    rows = torch.bincount(own, minlength=classes)
    pairs = rows * (len(output) - rows)
    sums = torch.zeros(classes, dtype=ranks.dtype, device=ranks.device).index_add_(0, own, ranks)
    areas = (sums - rows * (rows + 1) / 2) / pairs
    return areas[pairs > 0].mean()


def calibration_error(output: Tensor, target: Tensor) -> Tensor:
    """The expected calibration error:
    how far probability and share of right rows are apart, the mean over 15 bins.

    Of the predicted class; of two classes, of the second. Naeini et al.
    (2015), as torchmetrics computes it.
    """
    if not output.isfinite().all():
        return torch.tensor(math.nan)
    if output.ndim == 1:
        return binary_calibration_error(output, target, BINS, validate_args=False)
    return multiclass_calibration_error(
        output.softmax(1), target, output.shape[1], BINS, validate_args=False
    )


class BalancedAccuracy(Pooled):
    """The mean of the classes' recalls."""

    function = staticmethod(balanced_accuracy)


class AUROC(Pooled):
    """The area under the ROC curve; of many classes the mean of each against the rest."""

    function = staticmethod(auroc)


class F1(Pooled):
    """The mean of the classes' F1 scores; of two, the second's."""

    function = staticmethod(f1)


class CalibrationError(Pooled):
    """The expected calibration error, over 15 bins."""

    function = staticmethod(calibration_error)
