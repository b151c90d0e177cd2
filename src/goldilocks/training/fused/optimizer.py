"""The optimizers of several runs as a few: each moves many rows at once, and each row at its rate.

Every optimizer here moves weights by its rate times an update that depends on the gradients alone.
So the update of all rows is taken at rate 1, from zero, and added to each row's weights at its own
rate. Decays, which depend on the weights, are applied beside it.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from goldilocks.optimizers.flat_parameters import ELEMENTWISE, join, pieces

# Rprop's steps and ASGD's decay depend on the rate otherwise.
LINEAR = tuple(kind for kind in ELEMENTWISE if kind not in (torch.optim.ASGD, torch.optim.Rprop))
# Of a group: its rate and decay are ours, and the rest is a schedule's or a network's.
OURS = (
    "params",
    "lr",
    "weight_decay",
    "lr_factor",
    "muon",
    "initial_lr",
    "max_lr",
    "min_lr",
    "max_momentum",
    "base_momentum",
)


def settings_of(optimizer: Optimizer) -> dict[str, Any]:
    """What an optimizer's update depends on, beside the gradients."""
    group = optimizer.param_groups[0]
    return {key: value for key, value in group.items() if key not in OURS}


class StackedOptimizer:
    """Moves the rows of a stack as the runs' own optimizers would.

    Args:
        values: The weights, [R, P], which it moves.
        gradient: [R, P].
        widths: Columns of each group of parameters.
        optimizers: Of the runs, in the order of the rows. Their schedules set rates in them; their
            states become views into the state here.
    """

    def __init__(
        self,
        values: Tensor,
        gradient: Tensor,
        widths: Sequence[int],
        optimizers: Sequence[Optimizer],
    ) -> None:
        self.values = values
        self.gradient = gradient
        self.widths = widths
        self.optimizers = optimizers
        self.update = torch.zeros_like(values)
        self.blocks: list[Block] = []
        first = 0
        for _, same in groupby(optimizers, key=lambda own: repr(settings_of(own))):
            rows = slice(first, first + len(list(same)))
            self.blocks.append(Block(self.update[rows], gradient[rows], optimizers[rows]))
            first = rows.stop
        self.read(range(len(optimizers)))

    def read(self, present: Sequence[int]) -> None:
        """Takes rates, decays and momenta from the runs' optimizers; after each change of them.

        Args:
            present: The rows whose runs have not left: their schedules go on.
        """
        here = set(present)
        groups = [own.param_groups for own in self.optimizers]
        like = self.values
        self.rates = like.new_tensor([[float(group["lr"]) for group in own] for own in groups])
        self.decays = like.new_tensor(
            [[float(group.get("weight_decay") or 0) for group in own] for own in groups]
        )
        self.decaying = [bool(column) for column in (self.decays != 0).any(0).tolist()]
        first = 0
        for block in self.blocks:
            rows = range(first, first + len(block.optimizers))
            first = rows.stop
            block.read(next((row - rows.start for row in rows if row in here), 0))

    def step(self) -> None:
        """One step of all runs."""
        decoupled = is_decoupled(self.optimizers[0])
        first = 0
        for number, width in enumerate(self.widths):
            columns = slice(first, first + width)
            first = columns.stop
            if not self.decaying[number]:
                continue
            decay = self.decays[:, number : number + 1]
            if decoupled:
                self.values[:, columns].mul_(1 - self.rates[:, number : number + 1] * decay)
            else:
                self.gradient[:, columns].addcmul_(self.values[:, columns], decay)
        self.update.zero_()
        for block in self.blocks:
            block.step()
        first = 0
        for number, width in enumerate(self.widths):
            columns = slice(first, first + width)
            first = columns.stop
            rate = self.rates[:, number : number + 1]
            self.values[:, columns].addcmul_(self.update[:, columns], rate)


class Block:
    """Consecutive rows whose optimizers differ in rate and decay only.

    Args:
        update: [n, P], where the update is put.
        gradient: [n, P].
        optimizers: Of these rows.
    """

    def __init__(self, update: Tensor, gradient: Tensor, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = optimizers
        self.moved = nn.Parameter(update)
        self.moved.grad = gradient
        kind: Any = type(optimizers[0])
        settings = {**settings_of(optimizers[0]), "lr": 1.0}
        if "weight_decay" in optimizers[0].param_groups[0]:
            settings["weight_decay"] = 0.0
        self.optimizer = kind([self.moved], lr=1.0)
        self.optimizer.param_groups[0].update(settings)
        self.partners = [parameters_of(own) for own in optimizers]
        self.shared = False  # whether the runs' states are views into ours
        self.take_states()

    def read(self, row: int) -> None:
        """Takes what a schedule may have changed, from a row whose run goes on."""
        self.optimizer.param_groups[0].update(settings_of(self.optimizers[row]))

    def step(self) -> None:
        self.optimizer.step()
        if not self.shared:
            self.share_states()

    def take_states(self) -> None:
        """Goes on from the states that the runs' optimizers have, where they have any."""
        first = self.optimizers[0]
        if not first.state:
            return
        states = [
            join([own.state[p] for p in partners], partners)
            for own, partners in zip(self.optimizers, self.partners, strict=True)
        ]
        ours: dict[str, Any] = {}
        for key, value in states[0].items():
            is_row = isinstance(value, Tensor) and value.shape == self.moved[0].shape
            ours[key] = torch.stack([of[key] for of in states]) if is_row else copied(value)
        self.optimizer.state[self.moved] = ours
        self.share_states()

    def share_states(self) -> None:
        """Makes the runs' states views into ours."""
        ours = self.optimizer.state.get(self.moved, {})
        for row, (own, partners) in enumerate(zip(self.optimizers, self.partners, strict=True)):
            of_row = {
                key: value[row]
                if isinstance(value, Tensor) and value.shape == self.moved.shape
                else value
                for key, value in ours.items()
            }
            for parameter, state in zip(partners, split_views(of_row, partners), strict=True):
                own.state[parameter] = state
        self.shared = True


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Of all groups, in their order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def split_views(state: dict[str, Any], partners: Sequence[Tensor]) -> list[dict[str, Any]]:
    """A row's state as one for each parameter, without copies."""
    width = sum(partner.numel() for partner in partners)
    found: list[dict[str, Any]] = [{} for _ in partners]
    for key, value in state.items():
        is_row = isinstance(value, Tensor) and value.shape == (width,)
        parts = pieces(value, partners) if is_row else [value] * len(partners)
        for own, part in zip(found, parts, strict=True):
            own[key] = part
    return found


def copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def is_decoupled(optimizer: Optimizer) -> bool:
    """Whether its weight decay is apart from the gradients (Loshchilov and Hutter 2019)."""
    group = optimizer.param_groups[0]
    return bool(group.get("decoupled_weight_decay", isinstance(optimizer, torch.optim.AdamW)))
