"""Answers the runs' questions with a stack, which is built again when many runs have left it."""

from collections.abc import Sequence

from goldilocks.training.fused.stack import Question, Stack
from goldilocks.training.fused.turns import Member
from goldilocks.training.module import Taken


class StepsTogether:
    """Takes the steps of the runs that ask for them."""

    def __init__(self) -> None:
        self.stack: Stack | None = None

    def __call__(self, members: Sequence[Member]) -> list[Taken]:
        """What each has asked for."""
        questions: list[Question] = [member.question for member in members]
        modules = [question.module for question in questions]
        if self.stack is None or not self.stack.holds(modules):
            self.stack = Stack(modules)
        return self.stack.take(questions)
