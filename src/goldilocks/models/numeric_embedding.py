"""Numbers as vectors that are learnt, in front of the layers of a network for tables.

Legend: B batch, F features, N of them numbers, K waves of a number, E entries of its vector.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from goldilocks.errors import Refused

Embedding = Literal["none", "periodic", "pbld", "auto"]

SIZES = {
    "periodic": (48, 24, 0.01),
    "pbld": (16, 3, 0.1),
}  # K, what the linear layer gives, spread of the frequencies


class NumberVectors(nn.Module):
    """Puts a vector in place of each of the first N features:
    waves of the number, and a linear layer of its own.

    `periodic` is the PLR of Gorishniy et al. 2022 (arXiv 2203.05556), with the sizes of
    rtdl_num_embeddings: cosines and sines of 48 frequencies, drawn from N(0, 0.01^2), a linear
    layer to 24, ReLU. `pbld` is that of RealMLP (Holzmüller et al. 2024, arXiv 2407.04491): cosines
    of 16 frequencies, drawn from N(0, 0.1^2), and of a phase, a linear layer to 3, and the number
    itself. All of it is learnt.

    **Shape**: input [B, F]; output [B, N * E + F - N], the vectors first.

    >>> NumberVectors(2, "pbld")(torch.zeros(5, 7)).shape
    torch.Size([5, 13])

    Args:
        numbers: N.
        kind: `periodic` or `pbld`.
    """

    def __init__(self, numbers: int, kind: Literal["periodic", "pbld"]) -> None:
        super().__init__()
        waves, entries, spread = SIZES[kind]
        self.numbers, self.kind = numbers, kind
        self.frequency = nn.Parameter(spread * torch.randn(numbers, waves))
        self.phase = nn.Parameter(uniform(math.pi, numbers, waves)) if kind == "pbld" else None
        inputs = waves if kind == "pbld" else 2 * waves
        self.weight = nn.Parameter(uniform(inputs**-0.5, numbers, inputs, entries))
        self.bias = nn.Parameter(uniform(inputs**-0.5, numbers, entries))
        self.size = entries + (kind == "pbld")

    def width(self, features: int) -> int:
        """Features after the vectors, by F."""
        return features + self.numbers * (self.size - 1)

    def forward(self, x: Tensor) -> Tensor:
        numbers = x[:, : self.numbers, None]
        angles = 2 * math.pi * self.frequency * numbers
        if self.phase is not None:
            waves = torch.cos(angles + self.phase)
        else:
            waves = torch.cat([torch.cos(angles), torch.sin(angles)], dim=2)
        vectors = (waves.transpose(0, 1) @ self.weight).transpose(0, 1) + self.bias
        vectors = (
            torch.cat([numbers, vectors], dim=2) if self.phase is not None else torch.relu(vectors)
        )
        return torch.cat([vectors.flatten(1), x[:, self.numbers :]], dim=1)


def uniform(limit: float, *shape: int) -> Tensor:
    """Draws between -limit and limit."""
    return torch.empty(shape).uniform_(-limit, limit)


def front(
    input_shape: tuple[int, ...], embedding: Embedding, numbers: int
) -> tuple[list[nn.Module], int]:
    """What rows pass before a network's own layers, and how many features leave it.

    Args:
        input_shape: Of one row; flattened to [B, F].
        embedding: Of the first features; `auto`: pbld where any of them are numbers.
        numbers: N, how many of them are numbers.

    Raises:
        Refused: if numbers are to be embedded and the data have none.
    """
    features = math.prod(input_shape)
    layers: list[nn.Module] = [nn.Flatten()] if len(input_shape) > 1 else []
    if embedding == "none" or (embedding == "auto" and not numbers):
        return layers, features
    if not numbers:
        raise Refused(
            f"model.embedding={embedding}: these data have no columns of numbers; write"
            " model.embedding=none"
        )
    vectors = NumberVectors(numbers, "pbld" if embedding == "auto" else embedding)
    return [*layers, vectors], vectors.width(features)
