"""Activations by name (guide: from weakest to strongest, logistic to SELU)."""

from typing import Literal, get_args

from torch import nn

Activation = Literal[
    "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "rrelu", "prelu"
]

CLASSES: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "rrelu": nn.RReLU,
    "prelu": nn.PReLU,
}
assert tuple(CLASSES) == get_args(Activation)


def make_activation(name: Activation) -> nn.Module:
    """A new activation layer."""
    return CLASSES[name]()
