"""Targets with outliers, for the comparison of losses."""

from typing import Any

import torch

from goldilocks.data.sources.sklearn_sets import EmbeddedData


class SpoiltTargets(EmbeddedData):
    """An embedded regression in which a share of the training and validation targets is off;
    the test rows are clean.

    Args:
        share: Of the rows that are spoilt.
        size: Standard deviations of the target that are added to each of them.
    """

    def __init__(self, share: float = 0.1, size: float = 10.0, **options: Any) -> None:
        super().__init__(**options)
        self.share, self.size = share, size

    def setup(self, stage: str | None = None) -> None:
        if self.tensors:
            return
        super().setup(stage)
        draw = torch.Generator().manual_seed(self.seed)
        for part in ("train", "val"):
            x, y = self.tensors[part]
            spoilt = torch.rand(y.shape, generator=draw) < self.share
            self.tensors[part] = x, y + self.size * spoilt
