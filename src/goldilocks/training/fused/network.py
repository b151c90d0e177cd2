"""Networks of the same layers as one: their weights as rows, their gradients in one pass."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from goldilocks.tasks.task import Task

# Calls of one shape, from which on the time to trace it comes back: what torch takes to follow its
# transforms through Python is as long as a small network's step.
TRACED_AFTER = 24


class Dropout(nn.Module):
    """Dropout at a rate that is a buffer: each of several networks has its own.

    Args:
        rate: Share of the units set to zero.
        alpha: As nn.AlphaDropout does it (Klambauer et al. 2017).
    """

    LOWEST = -1.7580993408473766  # of SELU
    rate: Tensor

    def __init__(self, rate: float, alpha: bool) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("rate", torch.tensor(rate))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = (torch.rand_like(x) >= self.rate).to(x.dtype)
        if not self.alpha:
            return x * kept / (1 - self.rate)
        scale = ((self.LOWEST**2 * self.rate + 1) * (1 - self.rate)).rsqrt()
        shift = -self.LOWEST * scale * self.rate
        return x * kept * scale + self.LOWEST * scale * (1 - kept) + shift


def with_own_rates(network: nn.Module) -> nn.Module:
    """A copy of a network whose dropout is ours."""
    copied = copy.deepcopy(network)
    for parent in list(copied.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Dropout | nn.AlphaDropout):
                ours = Dropout(layer.p, isinstance(layer, nn.AlphaDropout))
                setattr(parent, name, ours.train(layer.training))
    return copied


class StackedNetwork:
    """The networks of several runs. Their parameters and buffers become views into its rows.

    Args:
        networks: Of the same layers and shapes, on one device.
        groups: Of each network, the parameters that its optimizer moves, by group. They give the
            columns' order, so that a group is a block of columns.
    """

    def __init__(
        self, networks: Sequence[nn.Module], groups: Sequence[Sequence[Sequence[nn.Parameter]]]
    ) -> None:
        self.networks = networks
        trained = [[p for group in own for p in group] for own in groups]
        self.shapes = [p.shape for p in trained[0]]
        self.widths = [sum(p.numel() for p in group) for group in groups[0]]
        self.values = torch.stack([flat(own) for own in trained])  # [R, P]
        self.gradient = torch.zeros_like(self.values)
        names = {id(p): name for name, p in networks[0].named_parameters()}
        self.names = [names[id(p)] for p in trained[0]]
        self.columns = self.split(self.values)
        self.slots = self.split(self.gradient)
        for row, own in enumerate(trained):
            for parameter, column in zip(own, self.columns, strict=True):
                parameter.data = column[row]
        self.template = with_own_rates(networks[0])
        self.rest = self._stack_rest()

    def split(self, rows: Tensor) -> list[Tensor]:
        """[R, P] by parameter, [R, *shape], as views."""
        parts = rows.split([shape.numel() for shape in self.shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _stack_rest(self) -> dict[str, Tensor]:
        """Buffers, rates of dropout and what is not trained, by name, [R, ...]."""
        ours = [with_own_rates(network) for network in self.networks]
        named = [{**dict(own.named_parameters()), **dict(own.named_buffers())} for own in ours]
        stacked = {
            name: torch.stack([of[name].detach() for of in named])
            for name in named[0]
            if name not in self.names
        }
        for row, network in enumerate(self.networks):
            own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
            for name, tensor in own.items():
                if name in stacked:
                    tensor.data = stacked[name][row]
        return stacked


class Gradients:
    """The gradients of all networks in one pass; traced, once a shape has come often enough.

    Args:
        stack: Whose networks, in the mode in which they train.
        losses: Of consecutive rows, with how many.
        autocast: The context of the forward pass, of mixed precision.
    """

    def __init__(
        self,
        stack: StackedNetwork,
        losses: Sequence[tuple["RowLoss", int]],
        autocast: Callable[[], Any],
    ) -> None:
        self.stack = stack
        self.losses = losses
        self.autocast = autocast
        self.calls: dict[Any, int] = {}
        self.traced: dict[Any, Callable[..., Any]] = {}

    def __call__(
        self, x: Tensor, y: Tensor, extra: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Gradients by parameter, [R, *shape], losses, [R], and outputs, [R, B, ...].

        Args:
            x: [R, B, ...].
            y: [R, B, ...].
            extra: What the losses take beside, [R, ...] each.
        """
        stack = self.stack
        given = (*stack.columns, *stack.rest.values(), *extra.values(), x, y)
        self.extra_names = list(extra)
        shape = (x.shape, x.dtype, y.shape, y.dtype)
        count = self.calls[shape] = self.calls.get(shape, 0) + 1
        if count < TRACED_AFTER:
            found = self.compute(*given)
        else:
            if shape not in self.traced:
                self.traced[shape] = make_fx(self.compute)(*given)
            with torch.no_grad():
                found = self.traced[shape](*given)
        return found[:-2], found[-2], found[-1]

    def compute(self, *given: Tensor) -> list[Tensor]:
        """Gradients, losses and outputs of all that it depends on, in one row:
        so that it can be traced.
        """
        stack = self.stack
        count = len(stack.names)
        names = [*stack.rest, *self.extra_names]
        named = dict(zip(names, given[count:-2], strict=True))
        rest = {name: named[name] for name in stack.rest}
        extra = {name: named[name] for name in self.extra_names}
        own = dict(zip(stack.names, given[:count], strict=True))
        x, y = given[-2:]
        backward: Any = grad(self.total, has_aux=True)
        gradients, (losses, outputs) = backward(own, rest, x, y, extra)
        return [*(gradients[name] for name in stack.names), losses, outputs]

    def total(
        self,
        own: dict[str, Tensor],
        rest: dict[str, Tensor],
        x: Tensor,
        y: Tensor,
        extra: dict[str, Tensor],
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The sum of the losses, whose gradient is that of each by its own weights."""

        def forward(weights: dict[str, Tensor], rest: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.stack.template, (weights, rest), (x,))

        with self.autocast():
            outputs = vmap(forward, randomness="different")(own, rest, x)
        losses = []
        first = 0
        for loss, rows in self.losses:
            part = slice(first, first + rows)
            given = {name: value[part] for name, value in extra.items()}
            losses.append(vmap(loss)(outputs[part], y[part], given))
            first += rows
        every = losses[0] if len(losses) == 1 else torch.cat(losses)
        return every.sum(), (every, outputs)


class RowLoss:
    """The training loss of one run, from its outputs and targets.

    Args:
        task: Of a run that stands for all that have the same loss.
        smooths: Whether label smoothing is among what is given; else it is the task's.
    """

    def __init__(self, task: Task, smooths: bool) -> None:
        self.task = task
        self.smooths = smooths

    def __call__(self, output: Tensor, target: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return self.task.training_loss(
            output, target, given.get("weight"), given["smoothing"] if self.smooths else None
        )


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as one vector."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
