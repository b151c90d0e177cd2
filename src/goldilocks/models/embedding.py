"""Categories as vectors that are learnt, in front of any network for tables.

Legend: B batch, F features, K columns of categories,
D features with vectors in place of the columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LARGEST = 64  # numbers in a vector


def vector_size(categories: int) -> int:
    """Numbers in the vector of a category, by how many there are:
    fastai's rule, 1.6 n^0.56, up to 64.

    >>> vector_size(12), vector_size(1000)
    (6, 64)
    """
    return min(LARGEST, round(1.6 * categories**0.56))


class CategoryVectors(nn.Module):
    """Puts a vector in place of the number of each row's category, which the last K features are.

    The vectors start as draws from N(0, 1 / size):
    each is about as long as one standardised feature.

    **Shape**: input [B, F]; output [B, D], the other features first.

    Args:
        counts: Of each of the last K features: how many numbers of categories there are, from 0.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__()
        tables = [nn.Embedding(count, vector_size(count)) for count in counts]
        for table in tables:
            nn.init.normal_(table.weight, std=table.embedding_dim**-0.5)
        self.tables = nn.ModuleList(tables)
        self.added = sum(table.embedding_dim - 1 for table in tables)

    def width(self, features: int) -> int:
        """D, by F."""
        return features + self.added

    def forward(self, x: Tensor) -> Tensor:
        numbers, places = x[:, : -len(self.tables)], x[:, -len(self.tables) :].long()
        return torch.cat(
            [numbers, *(table(places[:, k]) for k, table in enumerate(self.tables))], dim=1
        )


class WithVectors(nn.Module):
    """A network for tables after `CategoryVectors`.

    **Shape**: input [B, F]; output that of the network.

    Args:
        vectors: In front.
        network: Made for D features.
    """

    def __init__(self, vectors: CategoryVectors, network: nn.Module) -> None:
        super().__init__()
        self.vectors, self.network = vectors, network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.vectors(x))

    def lr_factors(self) -> dict[str, float]:
        """What the network asks for; the vectors keep the rate."""
        asked: dict[str, float] = getattr(self.network, "lr_factors", dict)()
        return {f"network.{name}": factor for name, factor in asked.items()}
