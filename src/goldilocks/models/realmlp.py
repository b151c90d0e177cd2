"""The simplified RealMLP (Holzmüller et al. 2024, arXiv 2407.04491, RealMLP-TD-S).

Legend: B batch, F features, D width, C outputs.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from goldilocks.data.spec import TaskName
from goldilocks.models.activations import Activation, make_activation
from goldilocks.models.arguments import Factor, Rate, Width
from goldilocks.models.numeric_embedding import Embedding, NumberVectors, front


class Scaling(nn.Module):
    """Multiplies each feature by a factor that is learnt and starts at 1:
    features that do not help can fade.

    **Shape**: input and output [B, F].
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class NTKLinear(nn.Module):
    """A linear layer in the parametrization of the neural tangent kernel:
    z = W x / sqrt(fan_in) + b.

    Weights and biases start as draws from N(0, 1), or at zero. The network's function is that of an
    ordinary layer of variance 1 / fan_in; a step of Adam moves it 1 / sqrt(fan_in) as far.

    **Shape**: input [B, fan_in]; output [B, fan_out].
    """

    def __init__(self, fan_in: int, fan_out: int, *, zero: bool = False) -> None:
        super().__init__()
        self.factor = 1 / math.sqrt(fan_in)
        self.weight = nn.Parameter(
            torch.zeros(fan_out, fan_in) if zero else torch.randn(fan_out, fan_in)
        )
        self.bias = nn.Parameter(torch.zeros(fan_out) if zero else torch.randn(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x * self.factor, self.weight, self.bias)


class RealMLP(nn.Sequential):
    """A front scaling layer, hidden layers (NTK linear, activation,
    dropout) and an output layer that starts at zero.

    **Rates.** NTK weights are sqrt(fan_in) times larger than those of other networks, so a rate
    that suits others is too small for them. `lr_factors` tells the optimizer by what to multiply
    its rate. As in the paper, the scaling layer moves at six times the weights' rate and biases at
    a tenth. The paper's rate for Adam, 0.04, is for batches of 256. Rates go with the root of the
    batch, so for batches of 32 it is 0.014: 14 times Adam's usual 1e-3. For regression the paper
    takes 0.07 and Mish.

    **Shape**: input [B, *input_shape], flattened to [B, F];
    output [B, C], without an output function.

    >>> RealMLP((13,), 3, depth=1, width=8)(torch.ones(5, 13)).tolist()[0]
    [0.0, 0.0, 0.0]

    Args:
        input_shape: Of one row.
        num_outputs: C.
        depth: Hidden layers.
        width: D, of every hidden layer.
        activation: Of the hidden layers; `auto`: the paper's, selu for classes, mish for a
            regression.
        dropout: Share of units dropped after each activation.
        lr_factor_weight: Of the rate, for weights.
        lr_factor_scale: For the scaling layer.
        lr_factor_bias: For biases, and for the embedding, which the paper moves as slowly.
        embedding: Of numbers, `periodic` or `pbld`: a vector in place of each, see `NumberVectors`.
        numbers: How many of the first features are numbers.
        task: What is predicted.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        depth: Annotated[int, Field(ge=0, le=1000)] = 3,
        width: Width = 256,
        activation: Activation | Literal["auto"] = "auto",
        dropout: Rate = 0.0,
        lr_factor_weight: Factor = 14.0,
        lr_factor_scale: Factor = 84.0,
        lr_factor_bias: Factor = 1.4,
        embedding: Embedding = "none",
        numbers: int = 0,
        task: TaskName = "multiclass",
    ) -> None:
        usual: Activation = "mish" if task == "regression" else "selu"
        chosen = usual if activation == "auto" else activation
        layers, features = front(input_shape, embedding, numbers)
        layers.append(Scaling(features))
        for _ in range(depth):
            layers += [NTKLinear(features, width), make_activation(chosen)]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            features = width
        super().__init__(*layers, NTKLinear(features, num_outputs, zero=True))
        self._factors = {
            "weight": lr_factor_weight,
            "scale": lr_factor_scale,
            "bias": lr_factor_bias,
        }

    def lr_factors(self) -> dict[str, float]:
        """Factor of the learning rate by parameter;
        an activation's own parameters (prelu) keep the rate.
        """
        kinds = {Scaling: ("scale",), NTKLinear: ("weight", "bias")}
        factors = {
            f"{layer}.{name}": self._factors[name]
            for layer, module in self.named_children()
            for name in kinds.get(type(module), ())
        }
        vectors = [
            name for name, module in self.named_children() if isinstance(module, NumberVectors)
        ]
        names = [
            f"{layer}.{name}"
            for layer in vectors
            for name, _ in self.get_submodule(layer).named_parameters()
        ]
        return factors | dict.fromkeys(names, self._factors["bias"])
