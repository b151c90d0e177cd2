"""Trials that are trained as one network: `hydra/launcher=fused`, and `auto` where that pays.

trials -> groups of the same layers -> what memory allows -> one stack each; the rest one by one
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import nn

from goldilocks.runs.cross_validation import are_asked
from goldilocks.sweeps.execution.trials import Trial, run_trial
from goldilocks.training.checks import check
from goldilocks.training.fused.alike import (
    layers_of,
    most_of,
    reason_against,
    threads_of,
    too_large,
)
from goldilocks.training.fused.steps import StepsTogether
from goldilocks.training.fused.turns import Partner, answer_all

ALONE = "no other has the same layers, data and optimizer"  # which goes without saying


@dataclass
class Group:
    """Trials that are trained together, or one by one."""

    trials: list[Trial]
    reason: str | None = None  # why one by one


def run_fused(
    folder: Path,
    trials: Iterator[Trial],
    grouping: "Grouping",
    batch: int | None,
    ended: Callable[[Trial], None],
    wait: bool,
) -> list[Trial]:
    """Runs trials, those of the same layers together.

    Args:
        folder: Of the sweep.
        trials: To be run.
        grouping: Which trials go together.
        batch: How many are taken at a time, where the next are proposed by what these give; None:
            all.
        ended: Called for each trial that has an outcome.
        wait: Whether to wait for trials that other sweeps run.

    Returns:
        The trials that other sweeps run.
    """
    left: list[Trial] = []
    told: set[str] = set()
    while taken := take(trials, batch):
        for group in grouping.groups_of(taken):
            tell(group, told)
            left += run_group(folder, group, ended, wait)
    return left


def take(trials: Iterator[Trial], count: int | None) -> list[Trial]:
    """The next trials, all or so many."""
    found = []
    for trial in trials:
        found.append(trial)
        if count is not None and len(found) == count:
            break
    return found


def tell(group: Group, told: set[str]) -> None:
    """Says how trials are trained, and each reason once."""
    count = len(group.trials)
    numbers = ", ".join(str(trial.number) for trial in group.trials[:5])
    which = f"{numbers}, ..." if count > 5 else numbers
    if group.reason is None:
        print(f"{count} trials trained as one network: {which}", file=sys.stderr)
    elif group.reason not in (*told, ALONE):
        told.add(group.reason)
        print(f"trials trained one by one: {which}: {group.reason}", file=sys.stderr)


def run_group(
    folder: Path, group: Group, ended: Callable[[Trial], None], wait: bool
) -> list[Trial]:
    """Runs the trials of a group; gives those that other sweeps run.
    Trials that do not fit into memory together are run again in two halves.
    """
    left: list[Trial] = []
    again: list[Trial] = []

    def one(trial: Trial, partner: Partner | None) -> None:
        if not run_trial(folder, trial, wait=wait, partner=partner):
            left.append(trial)
        elif partner is not None and len(group.trials) > 1 and lacked_memory(trial):
            again.append(trial)
        else:
            ended(trial)

    if group.reason is not None:
        for trial in group.trials:
            one(trial, None)
        return left

    def work_of(trial: Trial) -> Callable[[Partner], None]:
        return lambda partner: one(trial, partner)

    partners = [Partner(work_of(trial)) for trial in group.trials]
    answer_all(partners, StepsTogether(threads_of(check(group.trials[0].config))))
    for partner in partners:
        if partner.error is not None and not isinstance(partner.error, KeyboardInterrupt):
            raise partner.error
    for half in evenly(again, -(-len(again) // 2)) if again else []:
        left += run_group(folder, Group(half), ended, wait)
    return left


def lacked_memory(trial: Trial) -> bool:
    """Whether a trial failed because memory was full."""
    error = trial.outcome.get("error") or {}
    return error.get("type") == "OutOfMemory"


# --- which trials go together ---------------------------------------------------------------------


class Grouping:
    """Which trials go together.

    Args:
        always: Whether even where that does not pay.
        network_of: A trial's network, with or without memory.
    """

    def __init__(self, always: bool, network_of: Callable[[Trial], nn.Module]) -> None:
        self.always = always
        self.network_of = network_of

    def groups_of(self, trials: Sequence[Trial]) -> list[Group]:
        """Trials of the same layers together, as many as memory allows; the rest one by one."""
        alike: dict[str, list[Trial]] = {}
        alone: dict[str, list[Trial]] = {}
        for trial in trials:
            settings = check(trial.config)
            reason = reason_against(settings)
            if reason is None:
                alike.setdefault(layers_of(settings), []).append(trial)
            else:
                alone.setdefault(reason, []).append(trial)
        found = []
        for same in alike.values():
            if reason := self.reason_for_few(same):
                alone.setdefault(reason, []).extend(same)
            else:
                found += [Group(part) for part in evenly(same, self.most_of(same[0]))]
        return found + [Group(same, reason) for reason, same in alone.items()]

    def reason_for_few(self, same: Sequence[Trial]) -> str | None:
        """Why trials of the same layers are better trained one by one; None: together."""
        if len(same) == 1:
            return ALONE
        if self.always:
            return None
        return too_large(check(same[0].config), self.network_of(same[0]))

    def most_of(self, trial: Trial) -> int:
        """Trials that memory holds at a time, each with the networks of all its folds."""
        networks = trial.config.data.folds if are_asked(trial.config) else 1
        return max(2, most_of(check(trial.config), self.network_of(trial)) // networks)


def evenly(trials: Sequence[Trial], most: int) -> list[list[Trial]]:
    """As few parts as hold no more than `most` each, of about the same size."""
    parts = -(-len(trials) // most)
    edges = [len(trials) * part // parts for part in range(parts + 1)]
    return [list(trials[first:last]) for first, last in pairwise(edges)]
