"""Optimizers on a network's parameters: what decays and what does not."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from goldilocks.config import build, find_class, parameters_of

FUSED_ON_CPU = ("SGD", "Adam", "AdamW", "Adagrad")  # of torch.optim


def split_parameters(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights, which decay, and the rest (biases, norms, scales), which does not."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]


def build_optimizer(node: Mapping[str, Any], network: nn.Module, packages: Iterable[str] = ()) -> Optimizer:
    """Builds the optimizer of a configuration on a network's parameters.

    `weight_decay` holds for the weights only. The step is the fastest that torch has, unless the node names one.

    Raises:
        Refused: for a value that the optimizer rejects.
    """
    weights, rest = split_parameters(network)
    kind: Any = find_class(node, Optimizer, "optimizer", packages)
    by_default = parameters_of(kind)["weight_decay"].default if "weight_decay" in parameters_of(kind) else 0.0
    groups: list[dict[str, Any]] = [{"params": weights + rest}]  # one call of the step's kernels for each group
    if rest and node.get("weight_decay", by_default):
        groups = [{"params": weights}, {"params": rest, "weight_decay": 0.0}]
    offered = implementation(kind, weights + rest)
    return build(node, Optimizer, "optimizer", packages=packages, offered=offered, params=groups)


def implementation(kind: Any, parameters: list[nn.Parameter]) -> dict[str, bool]:
    """The keyword for the fastest of torch's implementations of an optimizer: fused, else all tensors at once.

    On the CPU `foreach` walks through the tensors too, and its copies cost more than they save.
    """
    on_cpu = any(parameter.device.type == "cpu" for parameter in parameters)
    fused = "fused" in parameters_of(kind) and (not on_cpu or kind.__name__ in FUSED_ON_CPU)
    if fused and all(parameter.is_floating_point() for parameter in parameters):
        return {"fused": True}
    return {"foreach": not on_cpu}


def try_optimizer(node: Mapping[str, Any], packages: Iterable[str] = ()) -> Optimizer:
    """Builds the optimizer on a small layer, so that values it rejects are refused before anything is loaded."""
    return build_optimizer(node, nn.Linear(2, 1), packages)


def learning_rate(optimizer: Optimizer) -> float:
    """The rate of the first group of parameters."""
    rate = optimizer.param_groups[0]["lr"]
    return rate.item() if isinstance(rate, torch.Tensor) else float(rate)
