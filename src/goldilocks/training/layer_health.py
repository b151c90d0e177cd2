"""What a network's layers do on a few rows:
how large their gradients are, which of their units are dead or saturated.

A probe passes the network once forward and once back, so nothing has to watch training itself.

Legend: B rows of the probe, U units of a layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PROBE_ROWS = 256
# Activations that have a flat side, on which no gradient passes.
NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6)
BOUNDED = {nn.Tanh: (-1.0, 1.0), nn.Sigmoid: (0.0, 1.0)}
FLAT = 0.05  # of the steepest slope, below which a bounded activation counts as saturated


@dataclass(frozen=True)
class LayerHealth:
    """A layer with weights (parameters of two or more dimensions).

    Attributes:
        name: In the network, of the module that holds the weights.
        gradient_norm: L2 norm of the weights' gradient; None where no gradient reaches them.
        weight_norm: L2 norm of the weights.
    """

    name: str
    gradient_norm: float | None
    weight_norm: float


@dataclass(frozen=True)
class ActivationHealth:
    """The outputs of an activation function.

    Attributes:
        name: In the network.
        kind: The class's name: `ReLU`.
        outputs: [B, U], channels are units: their pixels count as rows.
        dead: Share of the units that are zero on every row; None where that cannot be.
        saturated: Share of the outputs on a flat side (slope under a twentieth of the
            steepest); None where there are none.
    """

    name: str
    kind: str
    outputs: Tensor
    dead: float | None
    saturated: float | None


@dataclass(frozen=True)
class Health:
    """All layers, first to last, and the probe's loss."""

    loss: float
    layers: list[LayerHealth]
    activations: list[ActivationHealth]


def measure_health(
    network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> Health:
    """Passes rows through a network once forward and once back.
    Gradients that it holds already stay as they are.

    Args:
        network: In the mode in which it is to be measured:
            in evaluation mode nothing of it changes.
        loss: From raw outputs and targets.
        x: Inputs of the probe, [B, ...].
        y: Targets, [B, ...].
    """
    outputs: dict[str, tuple[nn.Module, Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, given, output: outputs.__setitem__(name, (module, output.detach()))

    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in network.named_modules()
        if activates(module)
    ]
    weights = {name: p for name, p in network.named_parameters() if p.ndim >= 2 and p.requires_grad}
    try:
        with torch.enable_grad():
            value = loss(network(x), y)
            gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    layers: dict[str, list[tuple[Tensor, Tensor | None]]] = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        layers.setdefault(name.rpartition(".")[0] or name, []).append((weight.detach(), gradient))
    return Health(
        float(value.detach()),
        [layer_health(name, pairs) for name, pairs in layers.items()],
        [activation_health(name, module, output) for name, (module, output) in outputs.items()],
    )


def activates(module: nn.Module) -> bool:
    """Whether a module is an activation function."""
    return type(module).__module__ == "torch.nn.modules.activation" and not isinstance(
        module, nn.MultiheadAttention
    )


def layer_health(name: str, pairs: list[tuple[Tensor, Tensor | None]]) -> LayerHealth:
    """From a layer's weights and their gradients."""
    reached = [gradient for _, gradient in pairs if gradient is not None]
    return LayerHealth(
        name, norm(reached) if reached else None, norm([weight for weight, _ in pairs])
    )


def norm(tensors: list[Tensor]) -> float:
    """The L2 norm of several tensors together."""
    return float(torch.stack([tensor.float().norm() for tensor in tensors]).norm())


def relative_gradients(health: Health) -> dict[str, float]:
    """By hidden layer, its gradient's norm by that of its weights;
    the output layer's own cannot be compared.
    """
    layers = health.layers[:-1]
    return {
        layer.name: (layer.gradient_norm or 0.0) / max(layer.weight_norm, 1e-12) for layer in layers
    }


def activation_health(name: str, module: Any, output: Tensor) -> ActivationHealth:
    """From an activation's output, [B, U], [B, K, U] of an ensemble, or [B, U, height, width]."""
    units = output.movedim(1, -1) if output.ndim == 4 else output
    units = (
        units.float().reshape(-1, units.shape[-1]) if units.ndim != 3 else units.float().flatten(1)
    )
    dead = float((units == 0).all(0).float().mean()) if isinstance(module, NEVER_NEGATIVE) else None
    bounds = BOUNDED.get(type(module))
    saturated = None
    if bounds is not None:
        low, high = bounds
        slope = (
            4 * (units - low) * (high - units) / (high - low) ** 2
        )  # of tanh and logistic, 1 where steepest
        saturated = float((slope < FLAT).float().mean())
    return ActivationHealth(name, type(module).__name__, units, dead, saturated)
