"""Trials that are trained as one network: `hydra/launcher=fused`, and `auto` where that pays.

trials -> groups of the same layers -> what memory allows -> one stack each; the rest one by one
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer

from goldilocks.config.build import find_class
from goldilocks.config.choices import is_on
from goldilocks.machine import devices
from goldilocks.schedulers.schedule import cycles_momentum
from goldilocks.sweeps.execution.trials import Trial, run_trial
from goldilocks.training.checks import check
from goldilocks.training.fused.optimizer import LINEAR
from goldilocks.training.fused.steps import StepsTogether
from goldilocks.training.fused.turns import Member, answer_all
from goldilocks.training.settings import Settings
from goldilocks.training.trainer import Trainer, watches_steps

# May differ between trials of a stack: by group, or key of a group.
FREE = {"seed", "name", "log_dir", "callbacks", "logger", "objective", "lr_range", "loss"}
FREE |= {"kept_predictions", "record_changes", "resume"}
FREE_IN = {
    "trainer": {"max_epochs", "gradient_clip_val", "gradient_clip_algorithm", "threads"},
    "data": {"fold"},
    "optimizer": {
        "lr",
        "betas",
        "eps",
        "momentum",
        "momentum_decay",
        "alpha",
        "rho",
        "weight_decay",
    },
    "task": {"calibration", "threshold", "false_positive_cost", "false_negative_cost"},
}
DROPOUTS = ("dropout", "alpha_dropout")
# Parameters times rows of a batch up to which training together is faster than one by one, by kind
# of device: from `python scripts/benchmark.py fused`, docs/benchmarks.md.
PAYS = {"cpu": 4_000_000, "cuda": 400_000_000, "mps": 40_000_000}
BYTES = 4  # of a number
COPIES = 12  # of a trial's parameters at a time: weights, gradients, moments, what is passed on
# A layer of `WIDTH` units has a number for each row of the batch and unit beside its weights.
WIDTH, MOST_ACTIVE = 32, 4096
SHARE_OF_MEMORY = 0.4  # of what is free
MOST = 256  # trials in a stack: beyond that the share of each no longer falls


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
    if group.reason is None:
        first, last = group.trials[0].number, group.trials[-1].number
        print(f"trials {first} to {last}: {count} trained as one network", file=sys.stderr)
    elif group.reason not in told:
        told.add(group.reason)
        numbers = ", ".join(str(trial.number) for trial in group.trials[:5])
        more = ", ..." if count > 5 else ""
        print(f"one by one: trials {numbers}{more}: {group.reason}", file=sys.stderr)


def run_group(
    folder: Path, group: Group, ended: Callable[[Trial], None], wait: bool
) -> list[Trial]:
    """Runs the trials of a group; gives those that other sweeps run."""
    left: list[Trial] = []

    def one(trial: Trial, member: Member | None) -> None:
        if run_trial(folder, trial, wait=wait, member=member):
            ended(trial)
        else:
            left.append(trial)

    if group.reason is not None:
        for trial in group.trials:
            one(trial, None)
        return left

    def work_of(trial: Trial) -> Callable[[Member], None]:
        return lambda member: one(trial, member)

    members = [Member(work_of(trial)) for trial in group.trials]
    answer_all(members, StepsTogether())
    for member in members:
        if member.error is not None and not isinstance(member.error, KeyboardInterrupt):
            raise member.error
    return left


# --- which trials go together ---------------------------------------------------------------------


class Grouping:
    """Which trials go together.

    Args:
        always: Whether even where that does not pay.
        size_of: The parameters of a trial's network.
    """

    def __init__(self, always: bool, size_of: Callable[[Trial], int]) -> None:
        self.always = always
        self.size_of = size_of

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
                most = self.most_of(same[0])
                found += [Group(same[at : at + most]) for at in range(0, len(same), most)]
        return found + [Group(same, reason) for reason, same in alone.items()]

    def reason_for_few(self, same: Sequence[Trial]) -> str | None:
        """Why trials of the same layers are better trained one by one; None: together."""
        if len(same) == 1:
            return "no other has the same layers, data and optimizer"
        if self.always:
            return None
        kind = devices.plan(check(same[0].config).trainer).kind
        rows = int(same[0].config.data.get("batch_size") or 1)
        work = self.size_of(same[0]) * rows
        if work > PAYS[kind]:
            return f"{work:,} parameters times rows of a batch, more than {PAYS[kind]:,}"
        return None

    def most_of(self, trial: Trial) -> int:
        """Trials that memory holds at a time."""
        kind = devices.plan(check(trial.config).trainer).kind
        rows = int(trial.config.data.get("batch_size") or 1)
        own = BYTES * self.size_of(trial) * (COPIES + min(rows, MOST_ACTIVE) / WIDTH)
        return max(2, min(MOST, int(SHARE_OF_MEMORY * devices.free_memory(kind) / own)))


def reason_against(settings: Settings) -> str | None:
    """Why a trial cannot be trained together with any other; None: it can."""
    trainer = settings.trainer
    if devices.plan(trainer).strategy != "single":
        return "several devices"
    for name in ("compile", "channels_last", "max_time"):
        if trainer.get(name):
            return f"trainer.{name}"
    if str(trainer.get("precision", 32)) not in ("32", "32-true", "64", "64-true", "bf16-mixed"):
        return f"trainer.precision={trainer['precision']}"
    if find_class(trainer, pl.Trainer, "trainer", settings.packages) is not Trainer:
        return "a trainer of its own"
    kind: Any = find_class(settings.optimizer, Optimizer, "optimizer", settings.packages)
    if kind not in LINEAR:
        return f"{kind.__name__} does not move in proportion to its rate"
    for name, node in settings.callbacks.items():
        if node is None:
            continue
        callback: Any = find_class(node, pl.Callback, f"callbacks.{name}", settings.packages)
        if watches_steps(callback):
            return f"callbacks.{name} watches single steps"
    return None


def layers_of(settings: Settings) -> str:
    """What must be the same for trials that are trained as one network."""
    optimizer = settings.optimizer
    cycled = cycles_momentum(settings.scheduler, settings.packages)
    kept = {
        "data": without(settings.data, FREE_IN["data"]),
        "model": {key: pattern(key, value) for key, value in settings.model.items()},
        "trainer": without(settings.trainer, FREE_IN["trainer"]),
        "optimizer": without(optimizer, {"lr", "weight_decay"} if cycled else FREE_IN["optimizer"]),
        "decays": bool(optimizer.get("weight_decay")),
        "scheduler": settings.scheduler if cycled else None,
        "task": without(settings.task, FREE_IN["task"]),
        "metrics": settings.metrics,
        "dropout": [is_on(settings.regularization.get(name)) for name in DROPOUTS],
    }
    return repr(kept)


def without(node: Any, keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in keys}


def pattern(key: str, value: Any) -> Any:
    """A rate of dropout by whether it is on, in each layer; any other value as it is."""
    if key not in DROPOUTS:
        return value
    return [is_on(rate) for rate in value] if isinstance(value, list) else is_on(value)
