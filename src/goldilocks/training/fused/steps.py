"""Answers the runs' questions with a stack, which is built again when many runs have left it."""

from collections.abc import Iterable, Sequence
from typing import Any

from goldilocks.training.fused.stack import Question, Stack, judged
from goldilocks.training.fused.turns import Member


class StepsTogether:
    """Takes the steps of the runs that ask for them."""

    def __init__(self) -> None:
        self.stack: Stack | None = None

    def __call__(self, members: Sequence[Member]) -> list[Any]:
        """What each has asked for."""
        questions: list[Question] = [member.question for member in members]
        answers: dict[int, Any] = {}
        asking = [question for question in questions if question.item is not None]
        if asking:
            modules = [question.module for question in asking]
            if self.stack is None or not self.stack.holds(modules):
                self.stack = Stack(modules)
            answers |= zip(map(id, asking), self.stack.take(asking), strict=True)
        for same in by_rows(question for question in questions if question.item is None):
            answers |= zip(map(id, same), judged(same), strict=True)
        return [answers[id(question)] for question in questions]


def by_rows(questions: Iterable[Question]) -> list[list[Question]]:
    """Those that are judged by as many rows together."""
    found: dict[Any, list[Question]] = {}
    for question in questions:
        assert question.outputs is not None
        found.setdefault(question.outputs.shape, []).append(question)
    return list(found.values())
