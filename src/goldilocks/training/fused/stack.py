"""Runs that are trained as one: their items in, what each would have computed alone out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.func import vmap

from goldilocks.data.loaders import GATHERED_BYTES, Batches
from goldilocks.tasks.task import Task
from goldilocks.training.fused.augmentation import StackedAugmentation
from goldilocks.training.fused.evaluation import scores_of
from goldilocks.training.fused.network import Gradients, RowLoss, StackedNetwork
from goldilocks.training.fused.optimizer import settings_of
from goldilocks.training.fused.step import StackedStep
from goldilocks.training.module import Taken, TrainingModule

KEPT = 0.75  # of the rows of a stack: when fewer runs are left, those without one are taken out


@dataclass
class Steps:
    """What a run asks for: the steps of an item of its loader."""

    module: TrainingModule
    item: Batches


@dataclass
class Judgement:
    """What a run asks for: its loss and metrics of validation."""

    module: TrainingModule
    outputs: Tensor  # of the network, for all validation rows, [N, ...]
    targets: Tensor  # [N, ...]


def judged(questions: Sequence[Judgement]) -> list[dict[str, float]]:
    """The losses and metrics of validation of several runs, of as many rows each."""
    pairs = [(question.outputs, question.targets) for question in questions]
    outputs, targets = (torch.stack(list(of)) for of in zip(*pairs, strict=True))
    tasks = [question.module.task for question in questions]
    scores = scores_of(tasks, "val", outputs, targets)
    kinds = [loss_of(question.module) for question in questions]
    losses = [0.0] * len(tasks)
    for kind in dict.fromkeys(kinds):
        rows = [row for row, own in enumerate(kinds) if own == kind]
        own = losses_of([tasks[row] for row in rows], outputs[rows], targets[rows])
        for row, value in zip(rows, own.tolist(), strict=True):
            losses[row] = value
    return [{"val/loss": loss, **own} for loss, own in zip(losses, scores, strict=True)]


def losses_of(tasks: Sequence[Task], outputs: Tensor, targets: Tensor) -> Tensor:
    """The losses, [R], of runs that have the same one."""
    try:
        return vmap(tasks[0].loss)(outputs, targets)
    except RuntimeError:  # a loss of the user's own that torch cannot stack
        pairs = zip(tasks, outputs, targets, strict=True)
        return torch.stack([task.loss(*own) for task, *own in pairs])


class Stack:
    """Trains several runs' networks.

    Args:
        modules: Of the runs. Their networks, optimizers and averages become views.
    """

    def __init__(self, modules: Sequence[TrainingModule]) -> None:
        self.modules = sorted(modules, key=order_of)
        self.row = {id(module): row for row, module in enumerate(self.modules)}
        first = self.modules[0]
        for module in self.modules:
            module.trainer.sharers = len(self.modules)
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

    def rehearse(self, questions: Sequence[Steps]) -> None:
        """Passes two rows through all networks and back, which changes nothing.

        Raises:
            RuntimeError: or another error, of networks that torch cannot stack.
        """
        x, y = next(questions[0].item.split())
        rows = len(self.modules)
        before = {name: tensor.clone() for name, tensor in self.networks.rest.items()}
        inputs, target = self.augment(
            x[:2].expand(rows, *x[:2].shape), y[:2].expand(rows, *y[:2].shape)
        )
        self.gradients(inputs, target, self.extra)
        for name, tensor in self.networks.rest.items():
            tensor.copy_(before[name])

    def holds(self, modules: Sequence[TrainingModule]) -> bool:
        """Whether it is the stack for these runs: all are in it, and few others."""
        return all(id(module) in self.row for module in modules) and (
            len(modules) > KEPT * len(self.modules)
        )

    def take(self, questions: Sequence[Steps]) -> list[Taken]:
        """Takes the steps of one item of each run."""
        items = {id(question.module): question.item for question in questions}
        present = [row for row, module in enumerate(self.modules) if id(module) in items]
        idle = items[id(self.modules[present[0]])]  # what rows without a run compute, for nothing
        every = [items.get(id(module), idle) for module in self.modules]
        accumulate = self.modules[present[0]].trainer.accumulate_batches
        module = self.modules[present[0]]
        in_epoch, index = module.batches_in_epoch, module.batch_index
        steps_left = module.trainer.steps_left(module.global_step)
        if index == 0:
            module.seed_epoch()
        self.step.begin(present)
        kept: list[tuple[Tensor, Tensor, Tensor]] = []  # losses, outputs, targets of a batch
        steps = 0
        for x, y in batches_of_all(every):
            window = min(accumulate, in_epoch - index // accumulate * accumulate)
            found = self.forward(x, y, 1 / window, fresh=index % accumulate == 0)
            kept.append((*found, y))
            index += 1
            if index % accumulate == 0 or index == in_epoch:
                self.step.take()
                steps += 1
                if steps == steps_left:
                    break
        losses = torch.stack([loss for loss, _, _ in kept], 1)
        outputs, targets = (torch.cat([of[place] for of in kept], 1) for place in (1, 2))
        sizes = idle.sizes[: len(kept)]
        ended = index == in_epoch or steps == steps_left
        rows = [self.row[id(question.module)] for question in questions]
        answers = [
            Taken([losses[row]], [outputs[row]], [targets[row]], sizes, steps, len(kept), ended)
            for row in rows
        ]
        if not (ended and module.batch_index == 0):
            self.step.hand_out()
        else:  # the item is the whole epoch
            tasks = [question.module.task for question in questions]
            scores = scores_of(tasks, "train", outputs[rows], targets[rows])
            weights = losses.new_tensor(sizes, dtype=torch.double)
            means = (losses.double() @ weights / weights.sum()).tolist()
            norms = self.step.metrics()
            for taken, row, own in zip(answers, rows, scores, strict=True):
                taken.metrics = {"train/loss": means[row], **own, **norms[row]}
        return answers

    def forward(self, x: Tensor, y: Tensor, share: float, fresh: bool) -> tuple[Tensor, Tensor]:
        """Adds a batch's gradients to those of the step.

        Args:
            x: [R, B, ...].
            y: [R, B, ...].
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


def batches_of_all(items: Sequence[Batches]) -> Iterator[tuple[Tensor, Tensor]]:
    """The runs' batches side by side: [R, B, ...] each.

    Rows that all have in one tensor are gathered in one operation.
    """
    first = items[0]
    row_bytes = max(sum(item.x[0].nbytes for item in items), 1)
    together = max(1, GATHERED_BYTES // (row_bytes * first.sizes[0]))
    numbers = [rows_of(item) for item in items]
    done = 0
    for start in range(0, len(first.sizes), together):
        sizes = first.sizes[start : start + together]
        rows = [own[done : done + sum(sizes)] for own in numbers]
        done += sum(sizes)
        x = gathered([item.x for item in items], rows)
        y = gathered([item.y for item in items], rows)
        yield from zip(x.split(sizes, 1), y.split(sizes, 1), strict=True)


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
