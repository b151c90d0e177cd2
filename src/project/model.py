"""Networks of your own: the options in conf/model/ whose `_target_` begins with `project.model`."""

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn


class ResidualNet(nn.Module):
    """Blocks of norm, linear layer, activation and dropout, each added to its input.

    Args:
        input_shape: Of one row. The run passes it.
        num_outputs: One for each class or target. The run passes it.
        width: Of every block.
        blocks: How many.
        dropout: Share of units dropped in each block.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        width: Annotated[int, Field(ge=1)] = 64,
        blocks: Annotated[int, Field(ge=0)] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), width))
        self.blocks = nn.ModuleList(block(width, dropout) for _ in range(blocks))
        self.head = nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Raw outputs, [B, num_outputs], of rows [B, *input_shape]: no softmax, no sigmoid."""
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def block(width: int, dropout: float) -> nn.Module:
    """What one block adds to its input, [B, width]."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Dropout(dropout),
    )
