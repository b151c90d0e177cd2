"""A residual network for tables (Gorishniy et al. 2021, arXiv 2106.11959).

Legend: B batch, F features, D width, H hidden units of a block, C outputs.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from goldilocks.models.activations import Activation, make_activation
from goldilocks.models.arguments import Factor, Rate, Scale, Width
from goldilocks.models.init import init_linear
from goldilocks.models.numeric_embedding import Embedding, front

Norm = Literal["batch", "layer"]


class Block(nn.Module):
    """x + dropout2(linear2(dropout1(activation(linear1(norm(x)))))).

    **Shape**: input and output [B, D].
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Activation,
        norm: Norm,
        dropout: float,
        residual_dropout: float,
    ) -> None:
        super().__init__()
        self.norm = make_norm(norm, width)
        self.linear1 = nn.Linear(width, hidden)
        self.activation = make_activation(activation)
        self.dropout1 = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden, width)
        self.dropout2 = nn.Dropout(residual_dropout)
        init_linear(self.linear1, "auto", activation)
        init_linear(self.linear2, "auto", None)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.linear1(self.norm(x)))
        return x + self.dropout2(self.linear2(self.dropout1(hidden)))


class ResNet(nn.Sequential):
    """A linear stem, residual blocks, and a head of norm, activation and linear layer.

    **Shape**: input [B, *input_shape], flattened to [B, F];
    output [B, C], without an output function.

    >>> import torch
    >>> ResNet((13,), 3, blocks=2, width=32)(torch.zeros(5, 13)).shape
    torch.Size([5, 3])

    Args:
        input_shape: Of one row.
        num_outputs: C.
        blocks: How many.
        width: D, between the blocks.
        hidden_factor: H / D, within a block.
        activation: Of the blocks and the head.
        norm: `batch` as in the paper, or `layer`, which does not mind dropout before it.
        dropout: Share of units dropped within each block.
        residual_dropout: Share of what a block adds that is dropped.
        output_scale: Multiplies the output layer's initial weights.
        embedding: Of numbers, `periodic` or `pbld`: a vector in place of each, see `NumberVectors`.
        numbers: How many of the first features are numbers.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        blocks: Annotated[int, Field(ge=0, le=1000)] = 2,
        width: Width = 128,
        hidden_factor: Factor = 2.0,
        activation: Activation = "relu",
        norm: Norm = "batch",
        dropout: Rate = 0.0,
        residual_dropout: Rate = 0.0,
        output_scale: Scale = 0.1,
        embedding: Embedding = "none",
        numbers: int = 0,
    ) -> None:
        first, features = front(input_shape, embedding, numbers)
        stem = nn.Linear(features, width)
        init_linear(stem, "auto", None)
        hidden = max(1, round(width * hidden_factor))
        middle = [
            Block(width, hidden, activation, norm, dropout, residual_dropout) for _ in range(blocks)
        ]
        output = nn.Linear(width, num_outputs)
        init_linear(output, "auto", None, scale=output_scale)
        super().__init__(
            *first, stem, *middle, make_norm(norm, width), make_activation(activation), output
        )


def make_norm(norm: Norm, width: int) -> nn.Module:
    """A new norm over D units."""
    return nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)
