"""Batches of rows that do not fit on the device:
gathered on the CPU ahead of time, copied while the device works.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from goldilocks.data.loaders import Batches, TensorLoader

AHEAD = 2  # items that are gathered before they are needed
ITEM_BYTES = 2**26  # of an item at most


class PrefetchingLoader(TensorLoader):
    """A `TensorLoader` over rows on the CPU, whose items lie on a device.

    A thread gathers the rows of an item, in pinned memory where the device is a GPU,
    which is then copied without waiting.

    Args:
        x: Inputs, [N, ...], on the CPU.
        y: Targets, [N, ...], on the CPU.
        device: Where the items go.
        options: Of the `TensorLoader`; the number of batches in an item is an upper limit here.
    """

    def __init__(self, x: Tensor, y: Tensor, *, device: torch.device, **options: Any) -> None:
        super().__init__(x, y, **options)
        self.device = device
        fit = max(ITEM_BYTES // max(self.batch_size * x[0].nbytes, 1), 1)
        self.batches_per_item = min(self.batches_per_item, fit)

    def __iter__(self) -> Iterator[Batches]:
        with ThreadPoolExecutor(1) as thread:  # left in the middle, it ends with what it has begun
            waiting: deque[Future[Batches]] = deque()
            for item in super().__iter__():
                waiting.append(thread.submit(self.gather, item))
                if len(waiting) > AHEAD:
                    yield self.moved(waiting.popleft().result())
            while waiting:
                yield self.moved(waiting.popleft().result())

    def gather(self, item: Batches) -> Batches:
        """An item with nothing but its own rows."""
        x, y = (self.rows_of(tensor, item.rows) for tensor in (item.x, item.y))
        return item._replace(x=x, y=y, rows=slice(0, len(x)))

    def rows_of(self, tensor: Tensor, rows: Tensor | slice) -> Tensor:
        """Rows of a tensor, copied."""
        index = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        pinned = self.device.type == "cuda"
        found = torch.empty((len(index), *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=pinned)
        return torch.index_select(tensor, 0, index, out=found)

    def moved(self, item: Batches) -> Batches:
        """An item on the device."""
        x, y = (tensor.to(self.device, non_blocking=True) for tensor in (item.x, item.y))
        return item._replace(x=x, y=y)
