"""Data of your own: the options in conf/data/ whose `_target_` begins with `project.data`."""

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from goldilocks.data.base import Table, TableData
from goldilocks.errors import Refused


class Spirals(TableData):
    """Points in the plane on spirals around each other. Each spiral is a class.

    Args:
        rows: How many points.
        arms: How many spirals.
        noise: Standard deviation of what is added to each coordinate. The spirals reach to 1.
        options: Batch size, split, scaling and the rest of TableData's arguments.
    """

    def __init__(
        self,
        rows: Annotated[int, Field(ge=1)] = 1000,
        arms: Annotated[int, Field(ge=2)] = 2,
        noise: Annotated[float, Field(ge=0)] = 0.02,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.rows = rows
        self.arms = arms
        self.noise = noise

    def load(self) -> Table:
        """Features [N, 2] and classes [N]. Read your files here; all else is done by TableData."""
        if self.rows < 20 * self.arms:
            raise Refused(
                f"data.rows={self.rows}: write at least {20 * self.arms}, 20 for each arm"
            )
        random = np.random.default_rng(self.seed)
        arm = np.arange(self.rows) % self.arms
        radius = random.uniform(0.1, 1.0, self.rows)
        angle = 2 * np.pi * (1.5 * radius + arm / self.arms)
        points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        points += random.normal(0.0, self.noise, points.shape)
        return Table(points, arm, feature_names=("x", "y"), target_names=("arm",))
