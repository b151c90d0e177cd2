"""Metrics of classes that need all rows at once, computed in one pass when an epoch has ended.

A small network's epoch takes 10 ms, and the library's metrics of many classes take a third of that:
3 ms the AUROC alone, for it goes through the classes one by one. These take a tenth of a
millisecond or three, with the same results. Each is a function of several networks' outputs at
once, for runs that train together.

Legend: R networks, N rows, C classes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

BINS = 15  # of probabilities from 0 to 1, as in Guo et al. (2017)


class Pooled:
    """Keeps what it is given, and computes when it is asked, on all rows;
    with torchmetrics' methods.

    Attributes:
        function: Of raw outputs [R, N, C], or [R, N] probabilities of the second class of two,
            and the classes' indices [R, N]; gives [R].
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
        return self.function(outputs[None], targets[None])[0]

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


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The share of rows whose class is right."""
    return (said(output) == target).float().mean(1)


def f1(output: Tensor, target: Tensor) -> Tensor:
    """The mean of the classes' F1 scores, of those that are true or predicted for any row;
    of two, the second's.
    """
    true, taken, right = count_classes(output, target)
    known = true + taken > 0
    scores = (2 * right / (true + taken)).where(known, 0.0)
    if output.ndim == 2:
        return scores[:, 1]
    return scores.sum(1) / known.sum(1)


def balanced_accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The mean of the classes' recalls, of those that are true for any row."""
    true, _, right = count_classes(output, target)
    return (right / true).where(true > 0, 0.0).sum(1) / (true > 0).sum(1)


def said(output: Tensor) -> Tensor:
    """The classes that outputs say, [R, N]."""
    return output.argmax(2) if output.ndim == 3 else (output > 0.5).long()


def count_classes(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By class, [R, C]: rows of it, rows taken for it, and rows of which both are so."""
    networks = len(output)
    classes = max(2, output.shape[2] if output.ndim == 3 else 0)
    taken = said(output)
    first = classes * torch.arange(networks, device=output.device)[:, None]
    true = target + first
    right = true[taken == target]
    return tuple(  # type: ignore[return-value]
        torch.bincount(rows.reshape(-1), minlength=networks * classes).view(networks, classes)
        for rows in (true, taken + first, right)
    )


def auroc(output: Tensor, target: Tensor) -> Tensor:
    """The area under the ROC curve;
    of more than two classes the mean of each against the rest, where it has both.

    By ranks: the area is the share of pairs, a row of the class and another, of which the former
    has the higher probability; a tie counts half (Mann and Whitney, 1947). NaN where all
    rows are of one class.
    """
    if output.device.type == "mps":  # has no 64 bits
        output, target = output.cpu(), target.cpu()
    networks, rows = target.shape
    scores = output.softmax(2) if output.ndim == 3 else output[:, :, None]
    classes = scores.shape[2]
    first = classes * torch.arange(networks, device=scores.device)
    # The bits of a float above zero sort as the float does,
    # so all classes' scores make one sorted line of integers.
    line = scores.movedim(2, 1).contiguous().view(torch.int32).long()
    line = line.view(networks * classes, rows)
    line = line + (torch.arange(networks * classes, device=scores.device)[:, None] << 32)
    if output.ndim == 2:
        own = first[:, None].expand_as(target)[target == 1]
        positive = line[target == 1]
    else:
        own = (target + first[:, None]).reshape(-1)
        places = torch.arange(rows, device=scores.device).repeat(networks)
        positive = line[own, places]
    line = line.sort(1).values.reshape(-1)
    before = torch.searchsorted(line, positive) + torch.searchsorted(line, positive, right=True)
    ranks = (before + 1).double() / 2 - rows * own
    counts = torch.bincount(own, minlength=networks * classes)
    pairs = counts * (rows - counts)
    sums = torch.zeros(len(counts), dtype=ranks.dtype, device=ranks.device)
    sums.index_add_(0, own, ranks)
    areas = ((sums - counts * (counts + 1) / 2) / pairs).where(pairs > 0, 0.0)
    areas = areas.view(networks, classes).sum(1)
    return areas / (pairs > 0).view(networks, classes).sum(1)


def calibration_error(output: Tensor, target: Tensor) -> Tensor:
    """The expected calibration error:
    how far probability and share of right rows are apart, the mean over 15 bins.

    Of the predicted class; of two classes, of the second. Naeini et al. (2015), as torchmetrics'
    binary_calibration_error and multiclass_calibration_error compute it. NaN where an output is not
    finite.
    """
    if output.ndim == 2:
        sure, right = output, target.to(output.dtype)
    else:
        sure, chosen = output.softmax(2).max(2)
        right = (chosen == target).to(output.dtype)
    networks, rows = sure.shape
    edges = torch.linspace(0, 1, BINS + 1, dtype=sure.dtype, device=sure.device)
    bins = torch.bucketize(sure.contiguous(), edges, right=True) - 1
    bins = bins.clamp(0, BINS) + (BINS + 1) * torch.arange(networks, device=sure.device)[:, None]
    gaps = torch.zeros(networks * (BINS + 1), dtype=sure.dtype, device=sure.device)
    gaps.index_add_(0, bins.reshape(-1), (sure - right).reshape(-1))
    finite = output.reshape(networks, -1).isfinite().all(1)
    return (gaps.view(networks, -1).abs().sum(1) / rows).where(finite, math.nan)


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
