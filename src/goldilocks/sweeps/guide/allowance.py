"""How long the steps of a guided search may take, by the clock or by a number of trials."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

STEPS = ("look", "portfolio", "explore", "refine", "finalists")
# By when each step is to be over, as a share of the time for training, or of the trials.
ENDS = {"look": 0.15, "portfolio": 0.42, "explore": 0.64, "refine": 0.84, "finalists": 1.0}
LEAST_SHARE = 0.03  # of the time for training, below which nothing is begun
FAR = 2.5  # times the seconds that are left, which is too far to begin with
LEAST_END, LEAST_END_SHARE = 10.0, 0.2  # seconds for choosing and the report, at most a share
LEAST_LOOK, LOOK_SHARE = 12.0, 0.5  # seconds in which the default has to learn something, the same
MOST_END_SHARE, TEST_SHARE = 0.35, 0.12  # of the budget, for all after training, and for testing
FEWEST = 3  # runs that are tested together in any case


@dataclass
class Allowance:
    """What is spent, and what may be.

    Attributes:
        budget: Seconds in all; None: trials are counted.
        n_trials: In all, where they are counted.
        spent: Seconds that earlier commands took.
        trials: That have been asked for.
        ending: Seconds for what comes after training, as far as they are measured.
        now: The clock.
        before: Seconds that this command took until now.
    """

    budget: float | None
    n_trials: int | None
    spent: float = 0.0
    trials: int = 0
    ending: float = 0.0
    now: Callable[[], float] = time.time
    before: float = 0.0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.now() - self.before

    @property
    def elapsed(self) -> float:
        """Seconds, with those of earlier commands."""
        return self.spent + self.now() - self.began

    @property
    def training(self) -> float:
        """Seconds in which trials may be trained."""
        assert self.budget is not None
        least = min(LEAST_END, LEAST_END_SHARE * self.budget)
        return self.budget - least - min(self.ending, MOST_END_SHARE * self.budget)

    def members(self, most: int, seconds: float) -> int:
        """How many runs there is time to test together at the end.

        Args:
            most: That may be chosen.
            seconds: That testing one takes.
        """
        if self.budget is None or seconds <= 0:
            return most
        return max(min(most, int(TEST_SHARE * self.budget / seconds)), min(most, FEWEST))

    def left(self, step: str) -> float:
        """Seconds until a step is to be over; in trials, where they are counted."""
        if self.budget is None:
            assert self.n_trials is not None
            most = round(ENDS[step] * self.n_trials) if step != "look" else 1
            return float(max(most, 1) - self.trials)
        training = self.training
        least = min(LEAST_LOOK, LOOK_SHARE * training)
        return max(ENDS[step] * training, least) - self.elapsed

    def has_room(self, step: str, seconds: float = 0.0) -> bool:
        """Whether it makes sense to begin something in a step.

        Args:
            step: Of the course.
            seconds: That it will probably take.
        """
        left = self.left(step)
        if self.budget is None:
            return left >= 1
        return left > LEAST_SHARE * self.training and seconds < FAR * left

    def until(self, step: str) -> float | None:
        """When trials of a step end with their epoch, in seconds since 1970; None: never."""
        return None if self.budget is None else self.now() + max(self.left(step), 0.0)


@dataclass
class Speed:
    """A running measure of how long trials take.

    What a trial costs is the epochs of all its networks, each with its steps and weights; how many
    seconds that is, is measured by every batch of trials, of which the last ones count most.
    """

    per_unit: float | None = None
    share: float | None = None  # of their epochs that trials had before they were stopped early

    def note(self, units: float, planned: float, seconds: float) -> None:
        """Learns from trials that took so long together.

        Args:
            units: That they cost.
            planned: That they would have cost to the last of their epochs.
            seconds: That they took.
        """
        if units > 0 and planned > 0 and seconds > 0:
            self.per_unit = mixed(self.per_unit, seconds / units)
            self.share = mixed(self.share, units / planned)

    def seconds(self, units: float) -> float:
        """That trials will probably take; 0 while nothing is known."""
        return (self.per_unit or 0.0) * units


def mixed(before: float | None, new: float) -> float:
    """A running mean, in which the last value counts half."""
    return new if before is None else 0.5 * before + 0.5 * new


STEP, WEIGHTS = 1.0, 150_000  # a step of one batch in units, and weights times rows that double it


def units(networks: int, epochs: float, rows: int, batch: int, parameters: int) -> float:
    """What training costs, but for a factor that is measured.

    >>> units(networks=5, epochs=10, rows=100, batch=10, parameters=0)
    500.0
    """
    steps = -(-rows // batch)
    return networks * epochs * steps * (STEP + parameters * batch / WEIGHTS)
