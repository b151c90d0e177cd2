"""A small network's parameters as one vector, so that a step of the
optimizer is one call instead of one a tensor.

On the CPU an optimizer's step of a small network is mostly Python, once for each weight and each
bias: NAdam on three hidden layers takes longer than the forward and backward passes together. An
optimizer that treats every element alike does the same arithmetic on all of them in a row.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MAX_ELEMENTS = 2**17  # from about here on, copying the gradients takes longer than it saves
ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.ASGD,
    torch.optim.Rprop,
)
ELEMENTWISE_OF_OTHERS = (
    "pytorch_optimizer.optimizer.schedulefree.ScheduleFreeAdamW",
    "pytorch_optimizer.optimizer.schedulefree.ScheduleFreeSGD",
)  # by name: the package is an extra


def can_be_flat(optimizer: Optimizer) -> bool:
    """Whether an optimizer treats every element alike, and its parameters are few,
    plain and on the CPU.
    """
    groups = [group["params"] for group in optimizer.param_groups]
    parameters = [parameter for group in groups for parameter in group]
    kind = type(optimizer)
    return (
        (kind in ELEMENTWISE or f"{kind.__module__}.{kind.__qualname__}" in ELEMENTWISE_OF_OTHERS)
        and all(
            type(p) is nn.Parameter and p.device.type == "cpu" and p.is_contiguous()
            for p in parameters
        )
        and all(
            p.ndim > 0 for p in parameters
        )  # else a step count could not be told from a parameter's state
        and all(p.dtype == group[0].dtype for group in groups for p in group)
        and sum(p.numel() for p in parameters) <= MAX_ELEMENTS
    )


def flattened(optimizer: Optimizer) -> "FlatParameters | None":
    """Lets an optimizer move vectors, where that gives the same; else it is left as it is."""
    return FlatParameters(optimizer) if can_be_flat(optimizer) else None


class FlatParameters:
    """Lets an optimizer move one vector for each of its groups;
    the network's parameters become views into it.

    The optimizer's state_dict keeps torch's own layout, a state a parameter,
    so checkpoints do not tell the difference.

    Args:
        optimizer: For which `can_be_flat` holds. Its groups are changed.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.groups: list[
            tuple[list[nn.Parameter], nn.Parameter]
        ] = []  # parameters, and the vector they are views into
        self.gradients: list[Tensor] = []  # of the vectors
        self.slots: list[Tensor] = []  # of all parameters' gradients, views into these
        for group in optimizer.param_groups:
            members = group["params"]
            flat = nn.Parameter(torch.cat([member.detach().reshape(-1) for member in members]))
            for member, piece in zip(members, pieces(flat.detach(), members), strict=True):
                member.data = piece
            states = [optimizer.state.pop(member, {}) for member in members]
            if states[0]:  # Adagrad has one from the start
                optimizer.state[flat] = join(states, members)
            group["params"] = [flat]
            self.groups.append((members, flat))
            self.gradients.append(torch.zeros_like(flat))
            self.slots += pieces(self.gradients[-1], members)
        self._hooks = (
            optimizer.register_state_dict_post_hook(self._split_state_dict),
            optimizer.register_load_state_dict_pre_hook(self._join_state_dict),
        )

    def gather(self) -> None:
        """Copies the parameters' gradients to the vectors;
        to be called before each step of the optimizer.

        torch leaves a parameter without a gradient where it is, and a vector could not:
        then all are set apart again.
        """
        if not self.groups:
            return
        parameters = [member for members, _ in self.groups for member in members]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if len(gradients) < len(parameters):
            self.undo()
            return
        torch._foreach_copy_(self.slots, gradients)
        for (_, flat), gradient in zip(self.groups, self.gradients, strict=True):
            flat.grad = gradient

    def undo(self) -> None:
        """Gives the optimizer the parameters themselves back, each with its part of the state."""
        for (members, flat), group in zip(self.groups, self.optimizer.param_groups, strict=True):
            group["params"] = members
            if state := self.optimizer.state.pop(flat, None):
                self.optimizer.state.update(zip(members, split(state, members, flat), strict=True))
        self.groups = []
        self.gradients = []
        self.slots = []
        for hook in self._hooks:
            hook.remove()

    def _split_state_dict(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """From a state for each vector to one for each parameter."""
        states: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for group, (members, flat) in zip(state_dict["param_groups"], self.groups, strict=True):
            first = sum(len(group["params"]) for group in groups)
            numbers = list(range(first, first + len(members)))
            if state := state_dict["state"].get(group["params"][0]):
                states.update(zip(numbers, split(state, members, flat), strict=True))
            groups.append({**group, "params": numbers})
        return {**state_dict, "state": states, "param_groups": groups}

    def _join_state_dict(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The inverse."""
        states = {}
        groups = []
        for number, (group, (members, _)) in enumerate(
            zip(state_dict["param_groups"], self.groups, strict=True)
        ):
            own = [
                state_dict["state"][key] for key in group["params"] if key in state_dict["state"]
            ]
            if own:
                states[number] = join(own, members)
            groups.append({**group, "params": [number]})
        return {**state_dict, "state": states, "param_groups": groups}


def pieces(flat: Tensor, members: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a vector in the shapes of the members, as views."""
    parts = flat.split([member.numel() for member in members])
    return [part.view_as(member) for part, member in zip(parts, members, strict=True)]


def split(state: dict[str, Any], members: Sequence[Tensor], flat: Tensor) -> list[dict[str, Any]]:
    """A vector's state as one for each member: moments are cut up, step counts copied."""
    states: list[dict[str, Any]] = [{} for _ in members]
    for key, value in state.items():
        shared = not isinstance(value, Tensor) or value.shape != flat.shape
        values = [value] * len(members) if shared else pieces(value, members)
        for own, part in zip(states, values, strict=True):
            own[key] = part.clone() if isinstance(part, Tensor) else part
    return states


def join(states: Sequence[dict[str, Any]], members: Sequence[Tensor]) -> dict[str, Any]:
    """The inverse of `split`."""
    joined = {}
    for key, value in states[0].items():
        whole = isinstance(value, Tensor) and value.shape == members[0].shape
        joined[key] = torch.cat([state[key].reshape(-1) for state in states]) if whole else value
    return joined
