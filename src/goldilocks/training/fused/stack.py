"""Runs that are trained as one: their items in, what each would have computed alone out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from goldilocks.data.loaders import GATHERED_BYTES, Batches
from goldilocks.training.fused.augmentation import StackedAugmentation
from goldilocks.training.fused.network import Gradients, RowLoss, StackedNetwork
from goldilocks.training.fused.optimizer import settings_of
from goldilocks.training.fused.step import StackedStep
from goldilocks.training.module import Taken, TrainingModule

KEPT = 0.75  # of the rows of a stack: when fewer runs are left, those without one are taken out


@dataclass
class Question:
    """What a run asks for: the steps of an item of its loader."""

    module: TrainingModule
    item: Batches


class Stack:
    """Trains several runs' networks.

    Args:
        modules: Of the runs. Their networks, optimizers and averages become views.
    """

    def __init__(self, modules: Sequence[TrainingModule]) -> None:
        self.modules = sorted(modules, key=order_of)
        self.row = {id(module): row for row, module in enumerate(self.modules)}
        first = self.modules[0]
        self.networks = StackedNetwork(
            [module.network for module in self.modules],
            [
                [group["params"] for group in module.step.optimizer.param_groups]
                for module in self.modules
            ],
        )
        self.step = StackedStep(self.networks, [module.step for module in self.modules])
        self.augment = StackedAugmentation(
            [module.augmentation for module in self.modules], self.networks.values
        )
        self.gradients = Gradients(
            self.networks, self._losses(), first.trainer.precision_plugin.forward_context
        )
        self.extra = self._extra()
        self.mixes = self.augment.mixes and first.task.spec.task == "multiclass"

    def _losses(self) -> list[tuple[RowLoss, int]]:
        """Those of consecutive rows."""
        found = []
        for _, same in groupby(self.modules, key=loss_of):
            of_same = list(same)
            task = of_same[0].task
            found.append((RowLoss(task, self._smooths and not task.weighted), len(of_same)))
        return found

    @property
    def _smooths(self) -> bool:
        return any(module.task.label_smoothing for module in self.modules)

    def _extra(self) -> dict[str, Tensor]:
        """What the losses take beside outputs and targets, [R, ...] each."""
        tasks = [module.task for module in self.modules]
        extra = {}
        if any(task.weighted for task in tasks):
            extra["weight"] = torch.stack([task.class_weight for task in tasks])
        if self._smooths:
            amounts = [task.label_smoothing for task in tasks]
            extra["smoothing"] = self.networks.values.new_tensor(amounts)
        return extra

    def holds(self, modules: Sequence[TrainingModule]) -> bool:
        """Whether it is the stack for these runs: all are in it, and few others."""
        return all(id(module) in self.row for module in modules) and (
            len(modules) > KEPT * len(self.modules)
        )

    def take(self, questions: Sequence[Question]) -> list[Taken]:
        """Takes the steps of one item of each run."""
        items = {id(question.module): question.item for question in questions}
        present = [row for row, module in enumerate(self.modules) if id(module) in items]
        idle = items[id(self.modules[present[0]])]  # what rows without a run compute, for nothing
        every = [items.get(id(module), idle) for module in self.modules]
        accumulate = self.modules[present[0]].trainer.accumulate_batches
        module = self.modules[present[0]]
        in_epoch, index = module.batches_in_epoch, module.batch_index
        steps_left = module.trainer.steps_left(module.global_step)
        self.step.begin()
        losses, outputs, targets = [], [], []
        steps = 0
        for x, y, sizes in batches_of_all(every):
            window = min(accumulate, in_epoch - index // accumulate * accumulate)
            found = self.forward(x, y, sizes, 1 / window, fresh=index % accumulate == 0)
            losses.append(found[0])
            outputs.append(found[1])
            targets.append((y, sizes))
            index += 1
            if index % accumulate == 0 or index == in_epoch:
                self.step.take()
                steps += 1
                if steps == steps_left:
                    break
        self.step.hand_out()
        ended = index == in_epoch or steps == steps_left
        found = []
        for question in questions:
            row = self.row[id(question.module)]
            taken = taken_by(row, losses, outputs, targets)
            taken.steps, taken.ended = steps, ended
            found.append(taken)
        return found

    def forward(
        self, x: Tensor, y: Tensor, sizes: Sequence[int], share: float, fresh: bool
    ) -> tuple[Tensor, list[Tensor] | Tensor]:
        """Adds a batch's gradients to those of the step.

        Args:
            x: [R, B, ...], padded where batches differ in size.
            y: [R, B, ...].
            sizes: Of the runs' batches.
            share: Of the batch in its step.
            fresh: Whether it is the step's first.
        """
        inputs, target = self.augment(x, y)
        gradients, losses, outputs = self.gradients(inputs, target, self.extra)
        if fresh and share == 1:
            torch._foreach_copy_(self.networks.slots, gradients)
        else:
            if fresh:
                self.networks.gradient.zero_()
            torch._foreach_add_(self.networks.slots, gradients, alpha=share)
        return losses, outputs


def taken_by(
    row: int,
    losses: Sequence[Tensor],
    outputs: Sequence[Tensor],
    targets: Sequence[tuple[Tensor, Sequence[int]]],
) -> Taken:
    """What a run would have got of its own steps."""
    sizes = [of[row] for _, of in targets]
    return Taken(
        [loss[row] for loss in losses],
        [output[row, :size] for output, size in zip(outputs, sizes, strict=True)],
        [y[row, :size] for (y, _), size in zip(targets, sizes, strict=True)],
        batches=len(losses),
    )


def set_apart(module: TrainingModule) -> None:
    """Gives a run that leaves a stack its own copies of what was a view into it."""
    tensors = [*module.network.parameters(), *module.network.buffers()]
    for tensor in tensors:
        tensor.data = tensor.data.clone()
    states = module.step.optimizer.state
    for parameter, state in list(states.items()):
        states[parameter] = {
            key: value.clone() if isinstance(value, Tensor) else value
            for key, value in state.items()
        }


def order_of(module: TrainingModule) -> tuple[str, str]:
    """Rows with the same settings of the optimizer are next to each other, and so is a loss."""
    return repr(settings_of(module.step.optimizer)), loss_of(module)


def loss_of(module: TrainingModule) -> str:
    """By what a run's loss is told from others'."""
    task = module.task
    own = task.label_smoothing if task.weighted else None
    shared = id(task.criterion) if any(True for _ in task.criterion.buffers()) else None
    return repr((task.criterion.facts(), task.output_function, task.weighted, own, shared))


def batches_of_all(items: Sequence[Batches]) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """The runs' batches side by side: [R, B, ...] each, and the size of each run's.

    Rows that all have in one tensor are gathered in one operation.
    """
    first = items[0]
    row_bytes = max(sum(item.x[0].nbytes for item in items), 1)
    together = max(1, GATHERED_BYTES // (row_bytes * first.sizes[0]))
    done = [0] * len(items)
    for start in range(0, len(first.sizes), together):
        sizes = [item.sizes[start : start + together] for item in items]
        counts = [sum(of) for of in sizes]
        rows = [
            rows_of(item)[begin : begin + count]
            for item, begin, count in zip(items, done, counts, strict=True)
        ]
        done = [begin + count for begin, count in zip(done, counts, strict=True)]
        if len(set(map(tuple, sizes))) > 1:
            raise NotImplementedError("batches of different sizes")
        x = gathered([item.x for item in items], rows)
        y = gathered([item.y for item in items], rows)
        for inputs, target in zip(x.split(sizes[0], 1), y.split(sizes[0], 1), strict=True):
            yield inputs, target, [inputs.shape[1]] * len(items)


def rows_of(item: Batches) -> Tensor:
    """The numbers of an item's rows."""
    if isinstance(item.rows, slice):
        return torch.arange(item.rows.start, item.rows.stop, device=item.x.device)
    return item.rows


def gathered(tensors: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
    """The rows of each run, [R, n, ...]."""
    first = tensors[0]
    if all(tensor.data_ptr() == first.data_ptr() for tensor in tensors):
        found = first.index_select(0, torch.cat(list(rows)))
        return found.view(len(rows), -1, *first.shape[1:])
    return torch.stack(
        [tensor.index_select(0, own) for tensor, own in zip(tensors, rows, strict=True)]
    )
