"""Answers what runs that train together ask for: their steps, and their metrics."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from goldilocks.errors import one_line
from goldilocks.machine.threads import ALL_THREADS
from goldilocks.training.fused.stack import Question, Stack, judged
from goldilocks.training.fused.turns import Member
from goldilocks.training.module import Taken, TrainingModule

# Parameters of all networks times rows of a batch, from which on several threads are faster.
WORTH_THREADS = 20_000_000


class StepsTogether:
    """Takes the steps of the runs that ask for them.

    Runs with as many rows and batches are one stack, which is built again when many have left it.
    Networks that torch cannot stack take their steps one by one: they get no answer.
    """

    def __init__(self) -> None:
        self.stacks: list[Stack] = []
        self.refused: dict[str, str] = {}  # by kind of network: why it cannot be stacked

    def __call__(self, members: Sequence[Member]) -> list[Any]:
        """What each has asked for."""
        with threads_of_stacks(sum(one.work for one in self.stacks)):
            return self.answers(members)

    def answers(self, members: Sequence[Member]) -> list[Any]:
        """See `__call__`."""
        questions: list[Question] = [member.question for member in members]
        answers: dict[int, Any] = {}
        steps = (question for question in questions if question.item is not None)
        for same in grouped(steps, alike):
            answers |= zip(map(id, same), self.steps(same), strict=True)
        scores = (question for question in questions if question.item is None)
        for same in grouped(scores, lambda question: question.outputs.shape):
            answers |= zip(map(id, same), judged(same), strict=True)
        return [answers[id(question)] for question in questions]

    def steps(self, questions: Sequence[Question]) -> Sequence[Taken | None]:
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


@contextmanager
def threads_of_stacks(work: int) -> Iterator[None]:
    """Within the block, a large stack has all threads. The runs have one each, for what they do by
    themselves: OpenMP would start threads for each of theirs.
    """
    if work < WORTH_THREADS:
        yield
        return
    torch.set_num_threads(ALL_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(1)


def alike(question: Question) -> Any:
    """What must be the same of runs that make one stack: the course of an epoch."""
    module: TrainingModule = question.module
    item = question.item
    assert item is not None
    left = module.trainer.steps_left(module.global_step)
    return len(item.x), tuple(item.sizes), module.batches_in_epoch, module.batch_index, left


def grouped(questions: Iterable[Question], key: Callable[[Question], Any]) -> list[list[Question]]:
    """Those with the same key together."""
    found: dict[Any, list[Question]] = {}
    for question in questions:
        found.setdefault(key(question), []).append(question)
    return list(found.values())
