"""Learning-rate schedules: when each is stepped, over how many steps, by which metric.

A schedule's option is a class of torch, or of `curves`, with its keywords and up to two of ours:
`interval`, `step` (after every optimizer step) or `epoch`, and `monitor`, the metric that a plateau
schedule follows. The length of the run and the optimizer's rate are added here, under the names
that torch's classes use.
"""

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from goldilocks.config.build import build, check_arguments, find_class
from goldilocks.config.signatures import parameters_of
from goldilocks.errors import Refused
from goldilocks.optimizers.optimizer import has_factors, learning_rate, nominal_rates, switches

LENGTH = (
    "total_steps",
    "T_max",
    "total_iters",
)  # what classes call the number of steps in the whole run
OURS = ("interval", "monitor")


@dataclass
class Schedule:
    """A scheduler and when to step it."""

    scheduler: LRScheduler
    interval: Literal["step", "epoch"] = "epoch"
    monitor: str | None = None

    def __post_init__(self) -> None:
        self.factored = has_factors(self.scheduler.optimizer)

    def on_step(self) -> None:
        """After an optimizer step."""
        if self.interval == "step":
            self.move()

    def on_epoch_end(self, metrics: Mapping[str, Any]) -> None:
        """After an epoch and its validation.
        An epoch without the monitored metric leaves the plateau's count alone.
        """
        if self.monitor is not None and self.monitor in metrics:
            self.move(metrics[self.monitor])
        elif self.monitor is None and self.interval == "epoch":
            self.move()

    def move(self, *metric: Any) -> None:
        """Steps the scheduler; rates that a network has asked factors for keep their ratios."""
        with nominal_rates(self.scheduler.optimizer) if self.factored else nullcontext():
            self.scheduler.step(*metric)


def check_schedule(
    interval: Literal["step", "epoch"] = "epoch", monitor: str | None = None
) -> None:
    """The signature is the schema of our own keywords."""


def build_schedule(
    node: Mapping[str, Any],
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    max_epochs: int,
    max_steps: int | None = None,
    packages: Iterable[str] = (),
) -> Schedule:
    """Builds the schedule of a configuration.

    Args:
        node: The option, resolved.
        optimizer: Whose rates it sets.
        steps_per_epoch: Optimizer steps in an epoch.
        max_epochs: Of the run.
        max_steps: Of the run, where it ends within its last epoch.
        packages: See `build`.

    Raises:
        Refused: for a keyword or value that the class rejects.
    """
    ours = {key: node[key] for key in OURS if key in node}
    check_arguments(check_schedule, ours, "scheduler")
    node = {key: value for key, value in node.items() if key not in OURS}
    steps = min(max_epochs * steps_per_epoch, max_steps or math.inf)
    length = int(steps) if ours.get("interval") == "step" else max_epochs
    kind: Any = find_class(node, LRScheduler, "scheduler", packages)
    follows, monitor = "metrics" in parameters_of(kind.step), ours.get("monitor")
    if follows and monitor is None:
        raise Refused(
            "scheduler.monitor=null: this schedule follows a metric; write"
            " scheduler.monitor=val/loss"
        )
    if follows and ours.get("interval") == "step":
        raise Refused(
            "scheduler.interval=step: a metric is there once an epoch; write"
            " scheduler.interval=epoch"
        )
    if monitor is not None and not follows:
        raise Refused(f"scheduler.monitor={monitor}: this schedule follows no metric; leave it out")
    with nominal_rates(optimizer):
        offered = {
            **dict.fromkeys(LENGTH, length),
            "max_lr": [group["lr"] for group in optimizer.param_groups],
        }
        offered["cycle_momentum"] = has_momentum(optimizer)
        offered["steps_per_epoch"] = steps_per_epoch if ours.get("interval") == "step" else 1
        scheduler = build(
            node, LRScheduler, "scheduler", packages=packages, offered=offered, optimizer=optimizer
        )
    return Schedule(scheduler, **ours)


def has_momentum(optimizer: Optimizer) -> bool:
    """Whether there is a momentum for 1cycle to move:
    torch refuses an optimizer without, and would switch on SGD's.

    Of an optimizer that tells trained from evaluated weights it is their mixture, and stays.
    """
    if switches(optimizer):
        return False
    return "betas" in optimizer.defaults or bool(optimizer.defaults.get("momentum"))


def cycles_momentum(node: Mapping[str, Any], packages: Iterable[str] = ()) -> bool:
    """Whether a schedule moves the momentum too."""
    kind: Any = find_class(node, LRScheduler, "scheduler", packages)
    return "cycle_momentum" in parameters_of(kind) and node.get("cycle_momentum") is not False


def has_length(node: Mapping[str, Any], packages: Iterable[str] = ()) -> bool:
    """Whether a schedule is drawn over the whole run,
    so that the run must not end early or go on.
    """
    kind: Any = find_class(node, LRScheduler, "scheduler", packages)
    if hasattr(kind, "spans_run"):
        return kind.spans_run(node)
    return any(name in parameters_of(kind) and name not in node for name in LENGTH)


def steps_in_epoch(num_batches: int, accumulate: int) -> int:
    """Optimizer steps in an epoch: the last may take fewer batches.

    >>> steps_in_epoch(10, 4)
    3
    """
    return math.ceil(num_batches / accumulate)


def try_schedule(
    node: Mapping[str, Any], optimizer: Optimizer, packages: Iterable[str] = ()
) -> None:
    """Runs the schedule on a dummy optimizer, so that what it rejects is
    refused before anything is loaded.

    Raises:
        Refused: for values that it rejects, and for a rate that is not finite or below zero.
    """
    epochs, steps = 10, 10
    schedule = build_schedule(
        node, optimizer, steps_per_epoch=steps, max_epochs=epochs, packages=packages
    )
    optimizer.step()
    try:
        for step in range(epochs * steps):
            rate = learning_rate(optimizer)
            if not (math.isfinite(rate) and rate >= 0):
                raise Refused(
                    f"scheduler: sets a rate of {rate:g} at {step} % of a run; it must be 0 or"
                    " above"
                )
            schedule.on_step()
            if step % steps == steps - 1:
                schedule.on_epoch_end({schedule.monitor: 0.0} if schedule.monitor else {})
    except Refused:
        raise
    except (ValueError, ArithmeticError) as error:
        raise Refused(f"scheduler: a step fails with {type(error).__name__}: {error}") from error
