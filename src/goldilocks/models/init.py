"""Initial weights by name.

| name | variance of a weight | for |
| --- | --- | --- |
| he (He et al. 2015) | 2 / fan_in | ReLU and its relatives |
| lecun (LeCun et al. 1998) | 1 / fan_in | SELU, ELU |
| glorot (Glorot and Bengio 2010) | 2 / (fan_in + fan_out) | sigmoid, tanh, softmax |
| orthogonal (Saxe et al. 2014) | orthonormal rows or columns | deep networks |
| normal | 1, whatever the layer's size | showing why the others exist |
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from goldilocks.models.activations import Activation

Init = Literal[
    "auto",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "glorot_normal",
    "glorot_uniform",
    "orthogonal",
    "normal",
]

FAMILY = {
    "sigmoid": "glorot",
    "tanh": "glorot",
    "elu": "lecun",
    "selu": "lecun",
}  # of an activation; the others: he


def init_for(activation: Activation | None) -> Init:
    """The scheme that the guide names for an activation; None is the output layer.

    >>> init_for("relu"), init_for("selu"), init_for(None)
    ('he_normal', 'lecun_normal', 'glorot_normal')
    """
    family = "glorot" if activation is None else FAMILY.get(activation, "he")
    return f"{family}_normal"  # type: ignore[return-value]


@torch.no_grad()
def init_weight(weight: Tensor, init: Init) -> None:
    """Fills a weight, [outputs, inputs] or, of a convolution, [outputs, inputs, height, width],
    in place.
    """
    if init == "orthogonal":
        nn.init.orthogonal_(weight)
        return
    if init == "normal":
        nn.init.normal_(weight)
        return
    family, _, shape = init.partition("_")
    pixels = weight[0, 0].numel()
    fan_out, fan_in = weight.shape[0] * pixels, weight.shape[1] * pixels
    variance = {"he": 2 / fan_in, "lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out)}[family]
    if shape == "normal":
        nn.init.normal_(weight, std=math.sqrt(variance))
    else:
        bound = math.sqrt(3 * variance)
        nn.init.uniform_(weight, -bound, bound)


def init_linear(
    layer: nn.Linear | nn.Conv2d, init: Init, activation: Activation | None, scale: float = 1.0
) -> None:
    """Initialises a linear layer or convolution before an activation (None: the output layer);
    its bias starts at zero.

    Args:
        layer: The layer, changed in place.
        init: A scheme; `auto` chooses by the activation.
        activation: What follows the layer.
        scale: Multiplies the weights.
    """
    init_weight(layer.weight, init_for(activation) if init == "auto" else init)
    with torch.no_grad():
        layer.weight.mul_(scale)
        if layer.bias is not None:
            layer.bias.zero_()
