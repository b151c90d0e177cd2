"""Answers what runs that train together ask for: their steps, and their metrics."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch

from goldilocks.errors import one_line
from goldilocks.training.fused.stack import Judgement, Stack, Steps, judged
from goldilocks.training.fused.turns import Partner
from goldilocks.training.module import Taken, TrainingModule

TELL_SECONDS = 10.0
FEWEST = 4  # runs in a stack, below which one after the other is faster

Q = TypeVar("Q")


class StepsTogether:
    """Takes the steps of the runs that ask for them.

    Runs with as many rows and batches are one stack, which is built again when many have left it.
    Networks that torch cannot stack take their steps one by one: they get no answer.

    Args:
        threads: Of the CPU. With more than one, every operation waits for the slowest of them:
            where others use the machine too that took ten times as long, so `auto` is one.
    """

    def __init__(self, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.stacks: list[Stack] = []
        self.told = time.monotonic()
        self.refused: dict[str, str] = {}  # by kind of network: why it cannot be stacked

    def __call__(self, partners: Sequence[Partner]) -> list[Any]:
        """What each has asked for."""
        questions: list[Steps | Judgement] = [partner.question for partner in partners]
        answers: dict[int, Any] = {}
        steps = [question for question in questions if isinstance(question, Steps)]
        for same in grouped(steps, alike):
            few = self.are_few([question.module for question in same], len(steps))
            taken = [None] * len(same) if few else self.steps(same)
            answers |= zip(map(id, same), taken, strict=True)
        scores = [question for question in questions if isinstance(question, Judgement)]
        for several in grouped(scores, lambda question: question.outputs.shape):
            answers |= zip(map(id, several), judged(several), strict=True)
        if time.monotonic() - self.told > TELL_SECONDS:
            self.told = time.monotonic()
            tell([question.module for question in questions])
        return [answers[id(question)] for question in questions]

    def are_few(self, modules: Sequence[TrainingModule], total: int) -> bool:
        """Whether runs are the few of many that would make a stack, as folds with inputs of their
        own are, which take their steps faster alone. What is in a stack stays there.

        Args:
            modules: Of the runs.
            total: Runs that ask at a time.
        """
        stacked = any(id(module) in one.row for one in self.stacks for module in modules)
        return len(modules) < FEWEST <= total and not stacked

    def steps(self, questions: Sequence[Steps]) -> Sequence[Taken | None]:
        """Those of runs that make one stack; None: they cannot be taken together."""
        modules = [question.module for question in questions]
        kind = type(modules[0].network).__qualname__
        if kind in self.refused:
            return [None] * len(questions)
        stack = next((stack for stack in self.stacks if stack.holds(modules)), None)
        if stack is not None:
            return stack.take(questions)
        gone = {id(module) for module in modules}
        self.stacks = [one for one in self.stacks if not gone & one.row.keys()]
        try:
            stack = Stack(modules)
            stack.rehearse(questions)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self.refused[kind] = one_line(error)
            why = f"{type(error).__name__}: {one_line(error)}"
            print(f"{kind}: cannot be stacked, each is trained alone ({why})", file=sys.stderr)
            return [None] * len(questions)
        self.stacks.append(stack)
        return stack.take(questions)


def tell(modules: Sequence[TrainingModule]) -> None:
    """Says how far those who train are."""
    epochs = [module.current_epoch + 1 for module in modules]
    most = max(module.trainer.max_epochs or 0 for module in modules)
    first, last = min(epochs), max(epochs)
    reached = f"{first}" if first == last else f"{first} to {last}"
    print(f"{len(modules)} in training, epoch {reached} of at most {most}", file=sys.stderr)


def alike(question: Steps) -> Any:
    """What must be the same of runs that make one stack: the course of an epoch, and the steps
    before it, which moments are corrected by.
    """
    module: TrainingModule = question.module
    item = question.item
    done = module.global_step
    left = module.trainer.steps_left(done)
    course = tuple(item.sizes), module.batches_in_epoch, module.batch_index, done, left
    # A momentum that a schedule moves is that of all rows of a stack: of runs of one length.
    cycles = getattr(module.schedule.scheduler, "cycle_momentum", False)
    length = module.trainer.max_epochs if cycles else None
    return item.x.shape, course, length  # folds may have other categories, and so other inputs


def grouped(questions: Iterable[Q], key: Callable[[Q], Any]) -> list[list[Q]]:
    """Those with the same key together."""
    found: dict[Any, list[Q]] = {}
    for question in questions:
        found.setdefault(key(question), []).append(question)
    return list(found.values())
