"""Whether the best configuration of a sweep is better than the others,
or was lucky with its seeds.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from goldilocks.sweeps.report.summary import Configuration, Summary
from goldilocks.sweeps.report.wording import called, shown, with_deviation

LEVEL = 0.05  # of the paired test
NO_SPREAD = (
    1e-9  # a standard deviation by its mean: differences that are all the same cannot be tested
)
MOST_SEEDS = 30  # that are worth suggesting


@dataclass(frozen=True)
class Comparison:
    """Two configurations by their objectives with the same seeds.

    Attributes:
        gain: How much better the first is, in the mean.
        deviation: The standard deviation of that over the seeds.
        wins: Seeds with which the first is better.
        seeds: How many both were trained with.
        p: That of a two-sided paired t-test.
    """

    gain: float
    deviation: float
    wins: int
    seeds: int
    p: float


def compare(first: Configuration, second: Configuration, sign: int) -> Comparison | None:
    """Compares two configurations over the seeds that they share (at least two);
    `sign` is 1 where less is better.
    """
    shared = [seed for seed in first.by_seed if seed in second.by_seed]
    if len(shared) < 2:
        return None
    gains = [sign * (second.by_seed[seed][0] - first.by_seed[seed][0]) for seed in shared]
    return Comparison(
        statistics.fmean(gains),
        statistics.stdev(gains),
        sum(gain > 0 for gain in gains),
        len(gains),
        paired_t(gains),
    )


def paired_t(gains: Sequence[float]) -> float:
    """The p-value of a two-sided t-test that differences have a mean of 0 (Student 1908).

    >>> round(paired_t([0.1, 0.2, 0.3]), 4)
    0.0742
    """
    from scipy.special import stdtr

    mean, deviation = statistics.fmean(gains), statistics.stdev(gains)
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(len(gains) - 1, -abs(mean) / (deviation / math.sqrt(len(gains)))))


def certainty_sentences(summary: Summary) -> Iterator[str]:
    """Whether the best is better than the second, or was lucky with its seeds."""
    if len(summary.ranked) < 2 or len(summary.modes) > 1:
        return
    first, second = summary.ranked[:2]
    compared = compare(first, second, summary.signs[0])
    tie = len(summary.alike) > 1
    leader, follows = "The best", f"Second: {with_value(second)}"
    if tie:
        leader, follows = "The first", first_by_value(summary)
    if compared is None and tie:
        yield f"{follows}.{more_rows(first)}"
        return
    if compared is None:
        yield (
            f"{follows}. One seed cannot tell whether the difference is more than luck:"
            " write `sweep.seeds=5` and another `name`, with fewer values, to train each"
            " configuration five times."
        )
        return
    measured = (
        f"by {shown(compared.gain)} in the mean and in {compared.wins} of {compared.seeds} seeds"
    )
    if compared.gain > 0 and compared.deviation < NO_SPREAD * compared.gain:
        more = f"write `sweep.seeds={compared.seeds + 3}`"
        yield (
            f"{follows}. {leader} is ahead {measured}, by as much in each: whether that is luck"
            f" cannot be told; {more}."
        )
        return
    if compared.p < LEVEL:
        less = f", but less than that of the validation rows.{more_rows(first)}" if tie else "."
        yield (
            f"{follows}. {leader} is ahead {measured}, which is more than the noise of the seeds"
            f" (paired t-test, p = {compared.p:.2g}){less}"
        )
        return
    yield (
        f"{follows}. {leader} is ahead {measured}, which is inside the noise of the seeds (paired"
        " t-test,"
        f" p = {compared.p:.2g}): this is no win.{more_seeds(compared)}"
    )


def first_by_value(summary: Summary) -> str:
    """The first two by value where there is no winner; the one that was taken as the best has been
    named already.
    """
    first, second = summary.ranked[:2]
    if first is summary.best:
        return f"The one taken is the first by value. Second: {with_value(second)}"
    rest = (
        "the one taken is the second" if second is summary.best else f"second: {with_value(second)}"
    )
    return f"First by value: {with_value(first)}; {rest}"


def with_value(one: Configuration) -> str:
    """A configuration and its value in a sentence."""
    return f"{called(one)}, {with_deviation(one.value(), one.deviation())}"


def more_rows(first: Configuration) -> str:
    """What shows a difference that is smaller than the noise of the validation rows."""
    if first.trials[0].outcome.get("folds"):
        return " Only more rows would show a difference of this size."
    return (
        " To show a smaller difference write `data.folds=5` and another `name`, with fewer values:"
        " then every row that"
        " is not a test row is validated on."
    )


def more_seeds(compared: Comparison) -> str:
    """How many seeds would show a difference of this size four times in five,
    by the normal approximation.
    """
    if compared.gain <= 0:
        return ""
    needed = math.ceil((2.8 * compared.deviation / compared.gain) ** 2) + 2
    if needed > MOST_SEEDS:
        return f" More than {MOST_SEEDS} seeds would be needed to show a difference of this size."
    return (
        f" To show a difference of this size write `sweep.seeds={max(needed, compared.seeds + 1)}`."
    )
