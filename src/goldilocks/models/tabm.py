"""TabM: one network that stands for many (Gorishniy et al. 2025, arXiv 2410.24210).

Legend: B batch, K members, F features, D width, C outputs.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from goldilocks.models.activations import Activation, make_activation
from goldilocks.models.arguments import Count, Rate, Scale, Width
from goldilocks.models.init import init_for, init_weight
from goldilocks.models.numeric_embedding import Embedding, front


class BatchEnsembleLinear(nn.Module):
    """K linear layers that share a weight: y_k = s_k * (W (r_k * x_k)) + b_k (Wen et al.
    2020, arXiv 2002.06715).

    The scales and biases of all members are stored as vectors, so that weight decay passes them by.

    **Shape**: input [B, K, fan_in], or [B, 1, fan_in] for the same input to all;
    output [B, K, fan_out].

    Args:
        k: Members.
        fan_in: Of each.
        fan_out: Of each.
        activation: What follows the layer; decides on the initial weights.
        signs: Whether r starts at random signs, which is what makes the members different;
            else at 1.
    """

    def __init__(
        self, k: int, fan_in: int, fan_out: int, activation: Activation, *, signs: bool = False
    ) -> None:
        super().__init__()
        self.k = k
        self.weight = nn.Parameter(torch.empty(fan_out, fan_in))
        self.r = nn.Parameter(random_signs(k * fan_in) if signs else torch.ones(k * fan_in))
        self.s = nn.Parameter(torch.ones(k * fan_out))
        self.bias = nn.Parameter(torch.zeros(k * fan_out))
        init_weight(self.weight, init_for(activation))

    def forward(self, x: Tensor) -> Tensor:
        r, s, bias = (vector.view(self.k, -1) for vector in (self.r, self.s, self.bias))
        return torch.addcmul(bias, s, (x * r) @ self.weight.T)


class Heads(nn.Module):
    """A linear output layer for each member: y_k = W_k x_k + b_k.

    **Shape**: input [B, K, D]; output [B, K, C].
    """

    def __init__(self, k: int, features: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.k = k
        self.weight = nn.Parameter(torch.empty(k, features, outputs))
        self.bias = nn.Parameter(torch.zeros(k * outputs))
        for member in self.weight.data:
            init_weight(member.T, init_for(None))
        self.weight.data.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return (x.transpose(0, 1) @ self.weight).transpose(0, 1) + self.bias.view(self.k, -1)


class TabM(nn.Module):
    """K multilayer perceptrons that share most of their weights and are trained as one.

    The mean of their losses is trained, the mean of their predictions is what the network says.

    **Shape**: input [B, *input_shape], flattened to [B, F];
    output [B, K, C], without an output function.

    >>> TabM((13,), 3, k=4, width=8)(torch.zeros(5, 13)).shape
    torch.Size([5, 4, 3])

    Args:
        input_shape: Of one row.
        num_outputs: C.
        k: K, members.
        depth: Hidden layers.
        width: D, of every hidden layer. A step takes about K times as long as that of an `MLP` of
            this width where the processor is busy, and little longer on a GPU; the paper has 512.
        activation: Of the hidden layers.
        dropout: Share of units dropped after each activation.
        output_scale: Multiplies the heads' initial weights.
        embedding: Of numbers, `periodic` or `pbld`: a vector in place of each, see `NumberVectors`.
        numbers: How many of the first features are numbers.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        k: Count = 32,
        depth: Annotated[int, Field(ge=1, le=1000)] = 2,
        width: Width = 64,
        activation: Activation = "relu",
        dropout: Rate = 0.0,
        output_scale: Scale = 0.1,
        embedding: Embedding = "none",
        numbers: int = 0,
    ) -> None:
        super().__init__()
        first, features = front(input_shape, embedding, numbers)
        self.front, layers = nn.Sequential(*first), []
        for number in range(depth):
            layers += [
                BatchEnsembleLinear(k, features, width, activation, signs=number == 0),
                make_activation(activation),
                *([nn.Dropout(dropout)] if dropout > 0 else []),
            ]
            features = width
        self.layers = nn.Sequential(*layers, Heads(k, features, num_outputs, output_scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.front(x).unsqueeze(1))


def random_signs(count: int) -> Tensor:
    """A vector of 1 and -1, each with probability 1/2."""
    return torch.randint(2, (count,)).float().mul(2).sub(1)
