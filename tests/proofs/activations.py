"""Activations, from weakest to strongest (G14)."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.special import erf
from torch import Tensor, nn

from proofs.drive import hidden_layers, prepared, train
from proofs.table import Measured, proof

AT = np.array([-3.0, -1.0, -0.1, 0.0, 0.5, 2.0])  # inputs of the activation


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017
FORMULAS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "sigmoid": ("1 / (1 + exp(-x))", logistic),
    "tanh": (
        "(exp(x) - exp(-x)) / (exp(x) + exp(-x))",
        lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1),
    ),
    "relu": ("max(x, 0)", lambda x: np.maximum(x, 0)),
    "leaky_relu": ("x, below zero 0.01 x", lambda x: np.where(x > 0, x, 0.01 * x)),
    "elu": ("x, below zero exp(x) - 1", lambda x: np.where(x > 0, x, np.exp(x) - 1)),
    "selu": (
        "1.0507 x, below zero 1.758 (exp(x) - 1)",
        lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * (np.exp(x) - 1)),
    ),
    "gelu": (
        "x times the normal distribution's share below x",
        lambda x: x * (1 + erf(x / 2**0.5)) / 2,
    ),
    "silu": ("x / (1 + exp(-x))", lambda x: x * logistic(x)),
    "mish": ("x tanh(log(1 + exp(x)))", lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "rrelu": (
        "x, below zero x times 11/48, in evaluation",
        lambda x: np.where(x > 0, x, x * 11 / 48),
    ),
    "prelu": (
        "x, below zero x times a number that starts at 0.25",
        lambda x: np.where(x > 0, x, 0.25 * x),
    ),
}


def activated(network: nn.Module, batch: Tensor) -> Tensor:
    """The activations of a network's hidden layer, whose inputs are made to be AT for every row."""
    (hidden,) = hidden_layers(network)
    output = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        hidden.weight.zero_()
        hidden.bias.copy_(torch.from_numpy(AT))
    seen: list[Tensor] = []
    handle = output.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach()))
    network(batch)
    handle.remove()
    return seen[0]


def shallow(name: str) -> tuple[nn.Module, Tensor]:
    parts = prepared("model=shallow", f"model.width={len(AT)}", f"model.activation={name}")
    return parts.module.network, parts.data.tensors["train"][0]


def formula_row(name: str) -> None:
    words, formula = FORMULAS[name]

    @proof(
        f"model.activation={name}",
        "G14",
        words,
        "what the hidden layer hands on where -3, -1, 0.5, 2 come in",
    )
    def values() -> Measured:
        network, batch = shallow(name)
        found, expected = activated(network.eval(), batch)[0].double().numpy(), formula(AT)
        shown = ", ".join(f"{value:.4g}" for value in found[[0, 1, 4, 5]])
        more, holds = EXTRA[name]() if name in EXTRA else ("", True)
        return shown + more, bool(np.abs(found - expected).max() < 1e-6) and holds


def random_slopes() -> Measured:
    """RReLU in training: each slope is drawn at random between 1/8 and 1/3."""
    network, batch = shallow("rrelu")
    slopes = -activated(network.train(), batch)[:, 1].double()  # where -1 comes in
    low, high, mean = slopes.min().item(), slopes.max().item(), slopes.mean().item()
    inside = 1 / 8 <= low < 0.15 and 0.3 < high <= 1 / 3 + 1e-6
    return f"; in training slopes from {low:.2f} to {high:.2f}, mean {mean:.2f}", inside and abs(
        mean - 11 / 48
    ) < 0.02


def trained_slope() -> Measured:
    """PReLU's slope is a parameter."""
    fit = train("model=shallow", "model.activation=prelu", "optimizer=sgd")
    slopes = [value.item() for name, value in fit.steps[-1].after.items() if value.shape == (1,)]
    moved = len(slopes) == 1 and abs(slopes[0] - 0.25) > 1e-7
    return f"; the slope {'moves' if moved else 'does not move'} in training", moved


EXTRA: dict[str, Callable[[], Measured]] = {"rrelu": random_slopes, "prelu": trained_slope}
for one in FORMULAS:
    formula_row(one)
