"""The multilayer perceptron. Legend: B batch, F features, D width, C outputs."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from goldilocks.errors import Refused
from goldilocks.models.activations import Activation, make_activation
from goldilocks.models.init import Init, init_linear
from goldilocks.models.numeric_embedding import Embedding, front

Width = Annotated[int, Field(ge=1, le=100_000)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class MLP(nn.Sequential):
    """Hidden layers (linear, norm, activation, dropout) and a linear output layer.

    **Shape**: input [B, *input_shape], flattened to [B, F];
    output [B, C], without an output function.

    >>> import torch
    >>> MLP((8, 8), 10, depth=2, width=32)(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 10])

    Args:
        input_shape: Of one row.
        num_outputs: C.
        depth: Hidden layers, from 0 (a linear model). None: as many as there are widths.
        width: Of every hidden layer, or a list with the width of each.
        activation: Of the hidden layers.
        init: Of the weights; `auto` by activation.
        norm: `batch` or `layer` normalisation between a linear layer and its activation.
        dropout: Share of units dropped after each activation, or a list with one for each hidden
            layer. Never acts on the output.
        alpha_dropout: The same by AlphaDropout.
        output_scale: Multiplies the output layer's initial weights. At full scale an untrained
            regression starts at a loss of about twice the target's variance.
        embedding: Of numbers, `periodic` or `pbld`: a vector in place of each, see `NumberVectors`.
        numbers: How many of the first features are numbers.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        depth: Annotated[int, Field(ge=0, le=1000)] | None = 3,
        width: Width | list[Width] = 100,
        activation: Activation = "relu",
        init: Init = "auto",
        norm: Literal["none", "batch", "layer"] = "none",
        dropout: Rate | list[Rate] = 0.0,
        alpha_dropout: Rate | list[Rate] = 0.0,
        output_scale: Annotated[float, Field(ge=0)] = 0.1,
        embedding: Embedding = "none",
        numbers: int = 0,
    ) -> None:
        widths = one_for_each("width", width, depth)
        rates = one_for_each("dropout", dropout, len(widths))
        alpha_rates = one_for_each("alpha_dropout", alpha_dropout, len(widths))
        layers, features = front(input_shape, embedding, numbers)
        for units, rate, alpha_rate in zip(widths, rates, alpha_rates, strict=True):
            linear = nn.Linear(
                features, units, bias=norm != "batch"
            )  # BatchNorm has a bias of its own
            init_linear(linear, init, activation)
            layers.append(linear)
            if norm != "none":
                layers.append(nn.BatchNorm1d(units) if norm == "batch" else nn.LayerNorm(units))
            layers.append(make_activation(activation))
            if rate > 0:
                layers.append(nn.Dropout(rate))
            if alpha_rate > 0:
                layers.append(nn.AlphaDropout(alpha_rate))
            features = units
        output = nn.Linear(features, num_outputs)
        init_linear(output, init, None, scale=output_scale)
        super().__init__(*layers, output)


def one_for_each(name: str, value: float | list, depth: int | None) -> list:
    """A value for each hidden layer, from one for all or a list.

    >>> one_for_each("width", 100, 2), one_for_each("width", [64, 32], None)
    ([100, 100], [64, 32])
    """
    if not isinstance(value, list):
        if depth is None:
            raise Refused(
                f"model.depth=null needs a list of widths; write model.{name}=[256,128] or"
                " model.depth=3"
            )
        return [value] * depth
    if depth is not None and len(value) != depth:
        where = "model" if name == "width" else "regularization"
        raise Refused(
            f"{where}.{name}={value}: {len(value)} values for {depth} hidden layers;".replace(
                ", ", ","
            )
            + f" write one for each layer{', or model.depth=null' if name == 'width' else ''}"
        )
    return value
