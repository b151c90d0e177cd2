"""Which rows an epoch of training sees: all of them once, or those that a sampler draws."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Generator, Tensor

from goldilocks.errors import Refused


class RowSampler(ABC):
    """Draws the rows of an epoch, in the order in which the batches take them.

    It draws from the generator that it is given, which depends on (seed, epoch), and keeps no
    state: so a resumed run sees the same rows, and several devices share the same batches.
    """

    @abstractmethod
    def __call__(self, target: Tensor, generator: Generator) -> Tensor:
        """The numbers of the rows, [N], from 0 to below N; any may occur again or not at all.

        Args:
            target: Of the training rows: [N] class indices, [N, 1] from 0 to 1, or [N, targets].
            generator: On the CPU, as the result is.
        """


class Balanced(RowSampler):
    """Draws each class as often as any other, and each of its rows alike, with replacement."""

    def __call__(self, target: Tensor, generator: Generator) -> Tensor:
        classes = target.reshape(-1).long().cpu()
        return draw_weighted(1 / classes.bincount().double()[classes], generator)


def draw_weighted(weights: Tensor, generator: Generator) -> Tensor:
    """As many rows as there are weights, [N], each as often as its weight says, with replacement.

    As torch's WeightedRandomSampler, for any number of rows.
    """
    ends = weights.double().cumsum(0)
    points = torch.rand(len(ends), generator=generator, dtype=torch.double) * ends[-1]
    return torch.searchsorted(ends, points, right=True).clamp_(max=len(ends) - 1)


def row_sampler(sampler: Literal["balanced"] | RowSampler | None) -> RowSampler | None:
    """The sampler that a word names, or the one that is given."""
    return Balanced() if sampler == "balanced" else sampler


def drawn_rows(sampler: RowSampler, target: Tensor, generator: Generator) -> Tensor:
    """What a sampler draws, once it is known to be rows.

    Raises:
        Refused: if it is anything else.
    """
    rows = sampler(target, generator)
    if rows.shape != target.shape[:1] or rows.dtype != torch.long:
        raise Refused(
            f"data.sampler: {type(sampler).__name__} gives {list(rows.shape)} of {rows.dtype};"
            f" [{len(target)}] whole numbers are needed, one for each training row"
        )
    return rows
