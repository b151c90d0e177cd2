"""Batches from tensors. A batch is a slice of one indexing operation, not a Python loop over rows.

Legend: N rows, B batch, K batches in an item.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from goldilocks.data.sampling import RowSampler, drawn_rows

# Rows gathered by one indexing operation:
# enough to make its cost small, few enough to stay in the processor's cache.
GATHERED_BYTES = 2**19


class Batches(NamedTuple):
    """Several batches in one: an item of the loader, for one call of `training_step`."""

    x: Tensor  # [N, ...]
    y: Tensor  # [N, ...]
    rows: Tensor | slice  # of this item, in their order
    sizes: list[int]  # rows of each batch
    weights: list[float] | None = (
        None  # of each batch's loss, where several devices share a batch unevenly
    )

    def split(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches one after the other."""
        if isinstance(self.rows, slice):
            yield from zip(
                self.x[self.rows].split(self.sizes),
                self.y[self.rows].split(self.sizes),
                strict=True,
            )
            return
        batch_bytes = self.sizes[0] * self.x[0].nbytes
        together = max(1, GATHERED_BYTES // max(batch_bytes, 1))
        first = 0
        for start in range(0, len(self.sizes), together):
            sizes = self.sizes[start : start + together]
            rows = self.rows[first : first + sum(sizes)]
            first += len(rows)
            # index_select takes a fifth of the time of x[rows]
            x, y = self.x.index_select(0, rows), self.y.index_select(0, rows)
            yield from zip(x.split(sizes), y.split(sizes), strict=True)


class TensorLoader:
    """Iterates over tensors in items of one or several batches.

    The order of an epoch depends on the seed and the epoch's number alone, so a resumed run sees
    the same batches as one that was never interrupted. A last batch of a single row joins the batch
    before it: BatchNorm needs two.

    Args:
        x: Inputs, [N, ...].
        y: Targets, [N, ...].
        batch_size: Rows in a batch, from 1.
        batches_per_item: Batches in an item, from 1.
        shuffle_seed: Seed of the order; None keeps the rows in theirs.
        row_sampler: Draws the rows of a shuffled epoch; None: all, each once.
        max_batches: Batches in an epoch at most; None: all.
        rank: Of this process among those that train together. Each takes its share of every batch.
        world: How many they are. A batch then has `world * batch_size` rows.
        least: Rows that a process needs, 1 or 2.
            One that gets none borrows so many, whose loss counts nothing.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        batch_size: int,
        batches_per_item: int = 1,
        shuffle_seed: int | None = None,
        row_sampler: RowSampler | None = None,
        max_batches: int | None = None,
        rank: int = 0,
        world: int = 1,
        least: int = 1,
    ) -> None:
        assert len(x) == len(y) > 0
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.row_sampler = row_sampler
        self.epoch = 0
        self.batch_sampler = None  # Lightning looks for one beside `sampler`
        self.rank, self.world, self.least = rank, world, least
        self.edges = batch_edges(len(x), world * batch_size)[
            : None if max_batches is None else max_batches + 1
        ]
        self.batches_per_item = min(batches_per_item, self.num_batches)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return len(self.edges) - 1

    @property
    def sampler(self) -> "TensorLoader":
        """Lightning tells the epoch's number to a loader's sampler: here the loader itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_batches // self.batches_per_item)

    def __iter__(self) -> Iterator[Batches]:
        order = self.order()
        for first in range(0, self.num_batches, self.batches_per_item):
            edges = self.edges[first : first + self.batches_per_item + 1]
            if self.world > 1:
                yield self.share_of(edges, order)
                continue
            rows = slice(edges[0], edges[-1]) if order is None else order[edges[0] : edges[-1]]
            sizes = [stop - start for start, stop in pairwise(edges)]
            yield Batches(self.x, self.y, rows, sizes)

    def share_of(self, edges: list[int], order: Tensor | None) -> Batches:
        """An item with this process's rows only."""
        shares = [
            share_of(start, stop, self.rank, self.world, self.least)
            for start, stop in pairwise(edges)
        ]
        rows = torch.cat(
            [torch.arange(start, stop, device=self.x.device) for start, stop, _ in shares]
        )
        sizes = [stop - start for start, stop, _ in shares]
        return Batches(
            self.x,
            self.y,
            rows if order is None else order[rows],
            sizes,
            [weight for *_, weight in shares],
        )

    def order(self) -> Tensor | None:
        """The epoch's rows, on the data's device; None for all in their own order."""
        if self.shuffle_seed is None:
            return None
        generator = torch.Generator().manual_seed(epoch_seed(self.shuffle_seed, self.epoch))
        if self.row_sampler is not None:
            return drawn_rows(self.row_sampler, self.y, generator).to(self.x.device)
        return torch.randperm(len(self.x), generator=generator).to(self.x.device)


def batch_edges(num_rows: int, batch_size: int) -> list[int]:
    """Where batches begin and end.

    >>> batch_edges(10, 4), batch_edges(9, 4)
    ([0, 4, 8, 10], [0, 4, 9])
    """
    edges = [*range(0, num_rows, batch_size), num_rows]
    if batch_size > 1 and len(edges) > 2 and edges[-1] - edges[-2] == 1:
        del edges[-2]
    return edges


def share_of(start: int, stop: int, rank: int, world: int, least: int) -> tuple[int, int, float]:
    """The part of a batch that a process takes, and the weight of its mean loss.

    The mean over the processes of weight * loss is then the mean over the batch,
    however uneven the parts are.

    >>> share_of(0, 5, 0, 2, 1), share_of(0, 5, 1, 2, 1)
    ((0, 2, 0.8), (2, 5, 1.2))
    >>> share_of(0, 3, 0, 2, 2), share_of(0, 3, 1, 2, 2)  # the second borrows two
    ((0, 3, 2.0), (0, 2, 0.0))
    """
    rows = stop - start
    sharers = min(world, max(rows // least, 1))
    if rank >= sharers:
        return start, start + min(rows, least), 0.0
    first, last = (start + rows * number // sharers for number in (rank, rank + 1))
    return first, last, (last - first) * world / rows


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """A seed for each epoch (and device) of a run, far from those of its neighbours."""
    return (seed * 1_000_003 + epoch * 10_007 + rank * 101) % 2**63
