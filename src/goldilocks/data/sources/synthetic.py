"""Rows drawn at random, for benchmarks and for trying things without any data."""

from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from goldilocks.data.base import Table, TableData

Count = Annotated[int, Field(ge=1)]


class SyntheticData(TableData):
    """Normal features and a target that a random network with one hidden layer makes of them,
    with noise.

    Args:
        rows: How many.
        features: Inputs of a row.
        classes: 0: regression with one target; 2: binary; more: classes.
        noise: Standard deviation of what is added to the network's standardised outputs.
        options: See TableData.
    """

    def __init__(
        self,
        rows: Annotated[int, Field(ge=10)] = 10_000,
        features: Count = 30,
        classes: Annotated[int, Field(ge=0)] = 2,
        noise: Annotated[float, Field(ge=0)] = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.rows, self.features, self.classes, self.noise = rows, features, classes, noise

    def load(self) -> Table:
        return draw(self.rows, self.features, self.classes, self.noise, self.seed)


@lru_cache(maxsize=1)
def draw(rows: int, features: int, classes: int, noise: float, seed: int) -> Table:
    """Draws a table; the trials of a sweep share the last one."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, features), dtype=np.float32)
    hidden = np.tanh(x @ random.standard_normal((features, 16), dtype=np.float32) / features**0.5)
    outputs = hidden @ random.standard_normal((16, max(classes, 1)), dtype=np.float32)
    outputs = (outputs - outputs.mean(0)) / outputs.std(0)
    outputs += noise * random.standard_normal(outputs.shape, dtype=np.float32)
    target = outputs[:, 0] if classes == 0 else outputs.argmax(1)
    return Table(x, target, tuple(f"x{number}" for number in range(features)))
