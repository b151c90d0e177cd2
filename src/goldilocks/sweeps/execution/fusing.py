"""Trials that are trained as one network."""

from collections.abc import Callable, Sequence
from pathlib import Path

from goldilocks.sweeps.execution.trials import Trial, run_trial
from goldilocks.training.fused.steps import StepsTogether
from goldilocks.training.fused.turns import Member, answer_all


def run_fused(folder: Path, trials: Sequence[Trial], ended: Callable[[Trial], None]) -> list[Trial]:
    left = []

    def work_of(trial: Trial) -> Callable[[Member], None]:
        def work(member: Member) -> None:
            if run_trial(folder, trial, member=member):
                ended(trial)
            else:
                left.append(trial)

        return work

    members = [Member(work_of(trial)) for trial in trials]
    answer_all(members, StepsTogether())
    for member in members:
        if member.error:
            raise member.error
    return left
