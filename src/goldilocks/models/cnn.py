"""A small convolutional network for images. Legend: B batch, C outputs."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from goldilocks.models.activations import Activation, make_activation
from goldilocks.models.arguments import Count, Rate, Scale, Width, image_shape
from goldilocks.models.init import init_linear


class CNN(nn.Sequential):
    """Stages of 3 x 3 convolutions (convolution, norm, activation),
    each halving height and width; then a dense head.

    Works for images of any size: a side of one pixel stays.
    With the defaults and 28 x 28 pixels, less than 150,000 parameters.

    **Shape**: input [B, channels, height, width]; output [B, C], without an output function.

    >>> import torch
    >>> CNN((1, 8, 8), 10)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])

    Args:
        input_shape: (channels, height, width).
        num_outputs: C.
        channels: Of each stage.
        convs: Convolutions in a stage, before its pooling.
        pool: What the head sees of the last stage:
            the `mean` of each channel, or `all` of its pixels.
        dense: Units of the hidden layer after it; 0: none.
        activation: Of the convolutions and the hidden layer.
        norm: `batch` or `layer` normalisation (over all of an image) between a
            convolution and its activation.
        dropout: Share of the output layer's inputs that are dropped.
        output_scale: Multiplies the output layer's initial weights.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        channels: Annotated[list[Width], Field(min_length=1, max_length=10)] = [16, 32, 64],  # noqa: B006
        convs: Count = 2,
        pool: Literal["mean", "all"] = "all",
        dense: Annotated[int, Field(ge=0, le=100_000)] = 64,
        activation: Activation = "relu",
        norm: Literal["none", "batch", "layer"] = "batch",
        dropout: Rate = 0.0,
        output_scale: Scale = 0.1,
    ) -> None:
        before, height, width = image_shape("cnn", input_shape)
        layers: list[nn.Module] = []
        for after in channels:
            for _ in range(convs):
                layers += convolution(before, after, activation, norm)
                before = after
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            height, width = -(-height // 2), -(-width // 2)
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if pool == "mean" else [nn.Flatten()]
        features = before if pool == "mean" else before * height * width
        if dense:
            hidden = nn.Linear(features, dense)
            init_linear(hidden, "auto", activation)
            layers += [hidden, make_activation(activation)]
            features = dense
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        output = nn.Linear(features, num_outputs)
        init_linear(output, "auto", None, scale=output_scale)
        super().__init__(*layers, output)


def convolution(before: int, after: int, activation: Activation, norm: str) -> list[nn.Module]:
    """A convolution that keeps height and width, its norm and its activation."""
    layer = nn.Conv2d(
        before, after, 3, padding=1, bias=norm != "batch"
    )  # BatchNorm has a bias of its own
    init_linear(layer, "auto", activation)
    norms: list[nn.Module] = []
    if norm != "none":
        norms = [nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(1, after)]
    return [layer, *norms, make_activation(activation)]
