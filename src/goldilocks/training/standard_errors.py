"""How sure a number of some rows is, and the difference of two: standard errors.

Legend: N rows.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldilocks.tasks.task import Task
from goldilocks.training.outcome import Outcome, scores

GROUPS = 20  # of rows, that a jackknife leaves out in turn
MOST_ROWS = 20_000  # that a jackknife looks at, evenly spread


def jackknife(statistic: Callable[[NDArray[Any]], float], rows: int) -> float:
    """The standard error of a statistic of rows, by leaving out a group of them at a time.

    See Efron and Tibshirani (1993), chapter 11. Infinite where there are fewer than two rows, or
    the statistic of some of them is not finite.

    Args:
        statistic: Of some rows, given by their places.
        rows: How many there are.
    """
    groups = min(GROUPS, rows)
    if groups < 2:
        return math.inf
    group = np.random.default_rng(0).permutation(rows) % groups
    found = [statistic(np.flatnonzero(group != left_out)) for left_out in range(groups)]
    error = float(np.std(found)) * math.sqrt(groups - 1)
    return error if math.isfinite(error) else math.inf


def error_of(task: Task, name: str, outcome: Outcome) -> float:
    """The standard error of a metric, or the loss, of an Outcome."""
    if name == "loss":
        return error_of_mean(outcome.losses)
    part = spread(outcome)

    def statistic(places: NDArray[Any]) -> float:
        return float(scores(task, name, part.predicted[None, places], part.true[places])[0])

    return jackknife(statistic, len(part.rows)) * share(part, outcome)


def paired(task: Task, name: str, one: Outcome, other: Outcome) -> tuple[float, float]:
    """By how much a metric, or the loss, of one Outcome is above that of another of the same rows,
    and the standard error of it, row by row.
    """
    assert np.array_equal(one.rows, other.rows)
    both = np.stack([one.predicted, other.predicted])
    if name == "loss":
        apart = one.losses.astype(np.float64) - other.losses
        return float(apart.mean()), error_of_mean(apart)
    first, second = scores(task, name, both, one.true)
    part, few = spread(one), both[:, spread_places(len(one.rows))]

    def statistic(places: NDArray[Any]) -> float:
        above, below = scores(task, name, few[:, places], part.true[places])
        return float(above - below)

    return float(first - second), jackknife(statistic, len(part.rows)) * share(part, one)


def error_of_mean(values: NDArray[Any]) -> float:
    """The standard error of the mean of values [N]; infinite of one."""
    if len(values) < 2:
        return math.inf
    return float(values.std(ddof=1, dtype=np.float64)) / math.sqrt(len(values))


def spread(outcome: Outcome) -> Outcome:
    """At most MOST_ROWS of the rows, evenly spread."""
    return outcome.take(spread_places(len(outcome.rows)))


def spread_places(rows: int) -> NDArray[Any]:
    """The places of these rows."""
    return np.linspace(0, rows - 1, min(rows, MOST_ROWS)).round().astype(int)


def share(part: Outcome, whole: Outcome) -> float:
    """By what the standard error of a part is that of the whole."""
    return math.sqrt(len(part.rows) / len(whole.rows))
