"""Optimizers on a network's parameters: what decays and what does not, and at which rate each parameter moves.

A network may have a method `lr_factors() -> dict[str, float]`: factors of the learning rate by the names of
`named_parameters()`; those that it leaves out have 1.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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


def factors_of(network: nn.Module) -> dict[nn.Parameter, float]:
    """The factors of the learning rate that a network asks for; parameters with a factor of 1 are left out."""
    asked: dict[str, float] = getattr(network, "lr_factors", dict)()
    parameters = dict(network.named_parameters())
    for name, factor in asked.items():
        assert name in parameters, f"lr_factors: {type(network).__name__} has no parameter {name}"
        assert math.isfinite(factor) and factor > 0, f"lr_factors: {name}: {factor} is not above zero"
    return {parameters[name]: float(factor) for name, factor in asked.items() if factor != 1}


def group_parameters(network: nn.Module, decays: bool) -> list[dict[str, Any]]:
    """One group of parameters for each pair of a rate and a decay: each is one call of the step's kernels.

    Args:
        network: Whose parameters they are.
        decays: Whether the optimizer has a weight decay, from which the rest must be set apart.
    """
    factors = factors_of(network)
    weights, rest = split_parameters(network)
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for parameter, spared in [*((p, False) for p in weights), *((p, decays) for p in rest)]:
        factor = factors.get(parameter, 1.0)
        group = groups.setdefault((factor, spared), {"params": []})
        group["params"].append(parameter)
        group |= {"lr_factor": factor} if factor != 1 else {}
        group |= {"weight_decay": 0.0} if spared else {}
    return list(groups.values())


def build_optimizer(node: Mapping[str, Any], network: nn.Module, packages: Iterable[str] = ()) -> Optimizer:
    """Builds the optimizer of a configuration on a network's parameters.

    `weight_decay` holds for the weights only. The step is the fastest that torch has, unless the node names one.

    Raises:
        Refused: for a value that the optimizer rejects.
    """
    kind: Any = find_class(node, Optimizer, "optimizer", packages)
    by_default = parameters_of(kind)["weight_decay"].default if "weight_decay" in parameters_of(kind) else 0.0
    groups = group_parameters(network, decays=bool(node.get("weight_decay", by_default)))
    offered = implementation(kind, [parameter for group in groups for parameter in group["params"]])
    optimizer = build(node, Optimizer, "optimizer", packages=packages, offered=offered, params=groups)
    apply_factors(optimizer)
    return optimizer


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
    """The nominal rate: the option's, as scheduled, without the factors that a network asks for."""
    group = min(optimizer.param_groups, key=lambda group: "lr_factor" in group)  # exact where a group has no factor
    rate = group["lr"] / group.get("lr_factor", 1.0)
    return rate.item() if isinstance(rate, torch.Tensor) else float(rate)


@contextmanager
def nominal_rates(optimizer: Optimizer) -> Iterator[None]:
    """Within the block every group has the nominal rate, so that a schedule's absolute values hold for all alike.

    Behind it, each has its factor times what the block has made of the rate.
    """
    if not has_factors(optimizer):
        yield
        return
    nominal = learning_rate(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = nominal
    yield
    apply_factors(optimizer)


def apply_factors(optimizer: Optimizer) -> None:
    """Turns nominal rates into those of the groups."""
    for group in optimizer.param_groups:
        if "lr_factor" in group:
            group["lr"] *= group["lr_factor"]


def has_factors(optimizer: Optimizer) -> bool:
    return any("lr_factor" in group for group in optimizer.param_groups)
