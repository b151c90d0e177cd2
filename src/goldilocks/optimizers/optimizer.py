"""Optimizers on a network's parameters:
what decays and what does not, and at which rate each parameter moves.

A network may have a method `lr_factors() -> dict[str, float]`: factors of the learning rate by the
names of `named_parameters()`; those that it leaves out have 1.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from goldilocks.config.build import build, check_arguments, find_class
from goldilocks.config.signatures import parameters_of

FUSED_ON_CPU = (
    "SGD",
    "Adam",
    "AdamW",
    "Adagrad",
    "MuonWithAdamW",
)  # of torch.optim, and of ours what is built on them
DECAYS = ("weight_decay", "lambd")  # what torch's classes call a pull towards zero
OURS = ("decay_all",)


def split_parameters(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights, which decay, and the rest (biases, norms, scales), which does not."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]


def factors_of(network: nn.Module) -> dict[nn.Parameter, float]:
    """The factors of the learning rate that a network asks for;
    parameters with a factor of 1 are left out.
    """
    asked: dict[str, float] = getattr(network, "lr_factors", dict)()
    parameters = dict(network.named_parameters())
    for name, factor in asked.items():
        assert name in parameters, f"lr_factors: {type(network).__name__} has no parameter {name}"
        assert math.isfinite(factor) and factor > 0, (
            f"lr_factors: {name}: {factor} is not above zero"
        )
    return {parameters[name]: float(factor) for name, factor in asked.items() if factor != 1}


def group_parameters(
    kind: Any, network: nn.Module, spare: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Parameters that are moved alike as one group: a group is one call of the step's kernels.

    Args:
        kind: The optimizer's class. It may have a `group_keys(network)`:
            keys of the groups by parameter.
        network: Whose parameters they are.
        spare: The keys of the groups of biases, norms and scales.
    """
    factors = factors_of(network)
    asked: dict[nn.Parameter, dict[str, Any]] = getattr(kind, "group_keys", lambda network: {})(
        network
    )
    weights, rest = split_parameters(network)
    groups: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
    for parameter, own in [*((p, {}) for p in weights), *((p, spare) for p in rest)]:
        keys = {**own, **asked.get(parameter, {})}
        keys |= {"lr_factor": factors[parameter]} if parameter in factors else {}
        groups.setdefault(tuple(keys.items()), {"params": [], **keys})["params"].append(parameter)
    return list(groups.values())


def check_ours(decay_all: bool = False) -> None:
    """The signature is the schema of our own keyword."""


def build_optimizer(
    node: Mapping[str, Any], network: nn.Module, packages: Iterable[str] = ()
) -> Optimizer:
    """Builds the optimizer of a configuration on a network's parameters.

    A decay holds for the weights only, unless the node's `decay_all` is true: then for biases,
    norms and scales too. The step is the fastest that torch has, unless the node names one.

    Raises:
        Refused: for a value that the optimizer rejects.
    """
    ours = {key: node[key] for key in OURS if key in node}
    check_arguments(check_ours, ours, "optimizer")
    node = {key: value for key, value in node.items() if key not in OURS}
    kind: Any = find_class(node, Optimizer, "optimizer", packages)
    decays = {key: parameters_of(kind)[key].default for key in DECAYS if key in parameters_of(kind)}
    decays |= {key: value for key, value in node.items() if key in DECAYS}
    spare = {key: 0.0 for key, value in decays.items() if value and not ours.get("decay_all")}
    groups = group_parameters(kind, network, spare)
    offered = implementation(kind, [parameter for group in groups for parameter in group["params"]])
    optimizer = build(
        node, Optimizer, "optimizer", packages=packages, offered=offered, params=groups
    )
    apply_factors(optimizer)
    return optimizer


def implementation(kind: Any, parameters: list[nn.Parameter]) -> dict[str, bool]:
    """The keyword for the fastest of torch's implementations of an optimizer:
    fused, else all tensors at once.

    On the CPU `foreach` walks through the tensors too, and its copies cost more than they save.
    """
    on_cpu = any(parameter.device.type == "cpu" for parameter in parameters)
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        return {
            "foreach": True
        }  # torch has fused steps of sharded weights for some optimizers only
    fused = "fused" in parameters_of(kind) and (not on_cpu or kind.__name__ in FUSED_ON_CPU)
    if fused and all(parameter.is_floating_point() for parameter in parameters):
        return {"fused": True}
    return {"foreach": not on_cpu}


def try_optimizer(node: Mapping[str, Any], packages: Iterable[str] = ()) -> Optimizer:
    """Builds the optimizer on a small layer, so that values it rejects are
    refused before anything is loaded.
    """
    return build_optimizer(node, nn.Linear(2, 1), packages)


def switches(optimizer: Optimizer | type[Optimizer]) -> bool:
    """Whether an optimizer, or its class, trains other weights than those that are to be evaluated,
    and has `train()` and `eval()` to go from the ones to the others.
    """
    return hasattr(optimizer, "train") and hasattr(optimizer, "eval")


def switch(optimizer: Optimizer, training: bool) -> None:
    """Makes the weights those that are trained, or those that are evaluated,
    where an optimizer tells them apart. Twice is the same as once.
    """
    if switches(optimizer):
        getattr(optimizer, "train" if training else "eval")()


def learning_rate(optimizer: Optimizer) -> float:
    """The nominal rate: the option's, as scheduled, without the factors that a network asks for."""
    group = min(
        optimizer.param_groups, key=lambda group: "lr_factor" in group
    )  # exact where a group has no factor
    rate = group["lr"] / group.get("lr_factor", 1.0)
    return rate.item() if isinstance(rate, torch.Tensor) else float(rate)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the nominal rate: each group has it times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)


def rates(optimizer: Optimizer) -> dict[str, float]:
    """The nominal `learning_rate`, and `momentum` where there is one:
    the first beta of Adam and its kin.
    """
    group = optimizer.param_groups[0]
    momentum = group["betas"][0] if "betas" in group else group.get("momentum")
    return {
        "learning_rate": learning_rate(optimizer),
        **({"momentum": float(momentum)} if momentum else {}),
    }


@contextmanager
def nominal_rates(optimizer: Optimizer) -> Iterator[None]:
    """Within the block every group has the nominal rate,
    so that a schedule's absolute values hold for all alike.

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
