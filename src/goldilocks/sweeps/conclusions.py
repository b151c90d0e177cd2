"""What a sweep's numbers say, in sentences: what is best and whether that is sure, what to widen, what went wrong.

Words between backticks are to be written or are names; nothing else is marked.
"""

import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goldilocks.sweeps.launching import in_words
from goldilocks.sweeps.settings import LEARNING
from goldilocks.sweeps.summary import ENDED, Configuration, Parameter, Summary, number_of

LEVEL = 0.05  # of the paired test
EDGE = 0.1  # share of a range that counts as its end
TOP = 5  # one in so many configurations, the best ones, has to lie on that side too
MOST_SEEDS = 30  # that are worth suggesting

Allowed = Callable[[str, float], bool]  # whether the best configuration would be right with another number under a key


def conclusions(summary: Summary, allowed: Allowed = lambda key, value: True) -> list[str]:
    """All that there is to say, the most important first."""
    return [
        *best_sentences(summary),
        *front_sentences(summary),
        *certainty_sentences(summary),
        *edge_sentences(summary, allowed),
        *late_sentences(summary),
        *advice_sentences(summary),
        *failure_sentences(summary),
        *divergence_sentences(summary),
        *open_sentences(summary),
        *cost_sentences(summary),
    ]


def shown(value: float | None) -> str:
    """A number in a sentence or table.

    >>> shown(0.123456), shown(1234567.0), shown(12), shown(None)
    ('0.1235', '1,234,567', '12', '')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def with_deviation(value: float | None, deviation: float | None) -> str:
    """A mean and its spread.

    >>> with_deviation(0.123456, 0.00234)
    '0.1235 ± 0.0023'
    """
    return shown(value) if deviation is None else f"{shown(value)} ± {deviation:.2g}"


def plural(count: int, noun: str) -> str:
    """A count of things.

    >>> plural(1, "trial"), plural(3, "trial")
    ('1 trial', '3 trials')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def called(one: Configuration) -> str:
    """A configuration in a sentence: its trials, and its words."""
    numbers = [str(trial.number) for trial in one.trials]
    which = f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {', '.join(numbers)}"
    return f"{which} (`{one.words}`)" if one.words else which


# --- the best ---------------------------------------------------------------------------------------------------------


def best_sentences(summary: Summary) -> Iterator[str]:
    """Which configuration is best, and its value."""
    best = summary.best
    if best is None:
        yield "No trial has ended with a value: there is no best one."
        return
    way = "less" if summary.signs[0] == 1 else "more"
    spread = best.deviation()
    text = f"Best is {called(best)}: `{summary.objective}` {with_deviation(best.value(), spread)}"
    folds = (best.trials[0].result or {}).get("folds")
    if spread is not None:
        text += f", mean ± standard deviation over {len(best.by_seed)} seeds"
    elif folds:
        fold_spread = (best.trials[0].result or {}).get("spread", {}).get(summary.objective)
        text += f", mean of {folds} folds" + (f" with a standard deviation of {shown(fold_spread)}" if fold_spread else "")
    yield f"{text}; {way} is better. It was chosen by the validation rows, so expect a little less of it on others."
    if best.status != "done":
        yield f"No configuration is done yet: this one is {best.status}."


def front_sentences(summary: Summary) -> Iterator[str]:
    """Of several objectives: what no other configuration beats."""
    if not summary.front:
        return
    names = ", ".join(f"`{name}`" for name in summary.modes)
    count = len(summary.front)
    yield (
        f"Of {plural(len(summary.ranked), 'configuration')}, {count} {'are' if count > 1 else 'is'} best in"
        f" {'their' if count > 1 else 'its'} way: no other one is as good in all of {names} and better in one."
    )
    for place, name in list(enumerate(summary.modes))[1:]:
        end = min(summary.front, key=lambda one: summary.signs[place] * (one.value(place) or 0.0))
        values = ", ".join(f"`{other}` {shown(end.value(i))}" for i, other in enumerate(summary.modes))
        yield f"Best in `{name}` is {called(end)}: {values}."


# --- how sure that is -------------------------------------------------------------------------------------------------


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
    """Compares two configurations over the seeds that they share (at least two); `sign` is 1 where less is better."""
    shared = [seed for seed in first.by_seed if seed in second.by_seed]
    if len(shared) < 2:
        return None
    gains = [sign * (second.by_seed[seed][0] - first.by_seed[seed][0]) for seed in shared]
    return Comparison(
        statistics.fmean(gains), statistics.stdev(gains), sum(gain > 0 for gain in gains), len(gains), paired_t(gains)
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
    best, second = summary.ranked[:2]
    compared = compare(best, second, summary.signs[0])
    follows = f"Second is {called(second)} with {with_deviation(second.value(), second.deviation())}"
    if compared is None:
        yield (
            f"{follows}. One seed cannot tell whether the difference is more than luck:"
            " write `sweep.seeds=5` and another `name`, with fewer values, to train each configuration five times."
        )
        return
    measured = f"by {shown(compared.gain)} in the mean and in {compared.wins} of {compared.seeds} seeds"
    if compared.p < LEVEL:
        yield (
            f"{follows}. The best is ahead {measured}, which is more than the noise of the seeds"
            f" (paired t-test, p = {compared.p:.2g})."
        )
        return
    yield (
        f"{follows}. The best is ahead {measured}, which is inside the noise of the seeds (paired t-test,"
        f" p = {compared.p:.2g}): this is no win.{more_seeds(compared)}"
    )
    alike = [one for one in summary.ranked if one is best or is_alike(best, one, summary.signs[0])]
    small = min(alike, key=lambda one: (one.figure("num_parameters") or math.inf, alike.index(one)))
    if len(alike) > 2 or small is not best:
        parameters = small.figure("num_parameters")
        yield (
            f"{plural(len(alike), 'configuration')} of {len(summary.ranked)} cannot be told from the best by these seeds;"
            f" the smallest network among them is {called(small)}"
            + (f", {plural(int(parameters), 'parameter')}." if parameters else ".")
        )


def is_alike(best: Configuration, one: Configuration, sign: int) -> bool:
    compared = compare(best, one, sign)
    return compared is not None and compared.p >= LEVEL


def more_seeds(compared: Comparison) -> str:
    """How many seeds would show a difference of this size four times in five, by the normal approximation."""
    if compared.gain <= 0:
        return ""
    needed = math.ceil((2.8 * compared.deviation / compared.gain) ** 2) + 2
    if needed > MOST_SEEDS:
        return f" More than {MOST_SEEDS} seeds would be needed to show a difference of this size."
    return f" To show a difference of this size write `sweep.seeds={max(needed, compared.seeds + 1)}`."


# --- where to search next ---------------------------------------------------------------------------------------------


def edge_sentences(summary: Summary, allowed: Allowed) -> Iterator[str]:
    """Parameters whose best value lies at the end of what was searched, and the wider range to write."""
    best = summary.best
    if best is None or len(summary.ranked) < 3:
        return
    for parameter in summary.parameters:
        space = space_with(parameter, best)
        if parameter.key not in best.varied or not parameter.numeric or space is None:
            continue
        low, high = ends_of(space)
        place = share(space, number_of(best.varied[parameter.key]) or 0.0)
        leaders = summary.ranked[: max(1, len(summary.ranked) // TOP)]
        others = [
            share(space, number_of(one.varied[parameter.key]) or 0.0)
            for one in leaders
            if one.varied.get(parameter.key) is not None and space_with(parameter, one) is space
        ]
        middle = statistics.median(others)
        side = "upper" if place >= 1 - EDGE and middle > 0.75 else "lower" if place <= EDGE and middle < 0.25 else ""
        wider = widened(space, side) if side else None
        if wider is None or not allowed(parameter.key, wider[1 if side == "upper" else 0]):
            continue
        yield (
            f"The best value of `{parameter.key}`, {best.varied[parameter.key]}, lies at the {side} end of what was"
            f" searched, {low:g} to {high:g}: a better one may lie beyond. {how_to_widen(parameter, space, wider)}"
        )


def space_with(parameter: Parameter, one: Configuration) -> Mapping[str, Any] | None:
    """The numbers among which a configuration's value was chosen: a range, or at least three values."""
    for space in parameter.spaces:
        when = space.get("when") or {}
        if all(one.varied.get(group) == option for group, option in when.items()):
            words = space.get("choices")
            return space if words is None or len(words) > 2 else None
    return None


def numbers_in(space: Mapping[str, Any]) -> list[float]:
    return sorted(number_of(str(word)) or 0.0 for word in space["choices"])


def ends_of(space: Mapping[str, Any]) -> tuple[float, float]:
    numbers = numbers_in(space) if "choices" in space else [space["low"], space["high"]]
    return float(numbers[0]), float(numbers[-1])


def share(space: Mapping[str, Any], value: float) -> float:
    """Where a value lies between the ends, from 0 to 1; values that were listed are equally far apart."""
    if "choices" in space:
        numbers = numbers_in(space)
        return sum(number < value for number in numbers) / (len(numbers) - 1)
    low, high = ends_of(space)
    return math.log(value / low) / math.log(high / low) if space["log"] else (value - low) / (high - low)


def widened(space: Mapping[str, Any], side: str) -> tuple[float, float] | None:
    """Both ends with one moved: tenfold, by half of the width, or by one more step; None where 0 is in the way."""
    low, high = ends_of(space)
    numbers = numbers_in(space) if "choices" in space else []
    if numbers:
        near, end = (numbers[-2], high) if side == "upper" else (numbers[1], low)
        geometric = low > 0 and high / low > 4 and numbers[1] - low < 0.9 * (high - numbers[-2])
        moved = end * end / near if geometric else end + (end - near)
    elif space["log"]:
        moved = high * 10 if side == "upper" else low / 10
    else:
        moved = high + (high - low) / 2 if side == "upper" else low - (high - low) / 2
    if low >= 0:
        moved = max(moved, 0.0)
    if all(isinstance(number, int) or number == int(number) for number in (low, high, *numbers)):
        moved = math.floor(moved) if not (space.get("log") and moved < 1) else moved
    moved = float(f"{moved:.3g}")
    if moved in (low, high) or (moved == 0 and (numbers or space["log"])):
        return None
    return (low, moved) if side == "upper" else (moved, high)


def how_to_widen(parameter: Parameter, space: Mapping[str, Any], wider: tuple[float, float]) -> str:
    """The override that searches further, or the file to edit."""
    key, (low, high) = parameter.key, wider
    if "choices" in space:
        before = [str(word) for word in sorted(space["choices"], key=lambda word: number_of(str(word)) or 0.0)]
        moved = f"{high:g}" if high != ends_of(space)[1] else f"{low:g}"
        words = [*before, moved] if high != ends_of(space)[1] else [moved, *before]
        return f"Add a value: `{key}={','.join(words)}`."
    text = f"interval({low:g},{high:g})"
    text = f"tag(log,{text})" if space["log"] else text
    if when := space.get("when"):
        group, option = next(iter(when.items()))
        return f"Widen the range under `search` in `conf/{group}/{option}.yaml`: `{key.split('.', 1)[-1]}: {text}`."
    return f"Widen the range: `{key}='{text}'`."


def late_sentences(summary: Summary) -> Iterator[str]:
    """Whether a sampler that learns was still finding better ones when it ended."""
    done = [one for one in summary.configurations if one.status in ENDED]
    if summary.best is None or summary.settings["sampler"] not in LEARNING or len(done) < 10:
        return
    place = done.index(summary.best) + 1 if summary.best in done else 0
    if place > 0.9 * len(done):
        more = 2 * len(done)
        yield (
            f"The best came as number {place} of {len(done)}: the search was still getting somewhere. The same command"
            f" with `sweep.n_trials={more}` goes on."
        )


def advice_sentences(summary: Summary) -> Iterator[str]:
    """What the diagnosis of the best trial found."""
    if summary.best is None:
        return
    diagnosis = (summary.best.trials[0].result or {}).get("diagnosis") or {}
    for finding in diagnosis.get("findings", []):
        words = f": `{' '.join(finding['overrides'])}`" if finding["overrides"] else ""
        yield f"Diagnosis of the best, {finding['name']}: {finding['measured']}; {finding['advice']}{words}."


# --- what went wrong, and what it cost --------------------------------------------------------------------------------


def failure_sentences(summary: Summary) -> Iterator[str]:
    """Shares of what did not end well, and the reasons of failures, alike ones together."""
    total = len(summary.trials)
    meanings = {"failed": "failed", "diverged": "diverged (the loss was no longer finite)"}
    for status, meaning in meanings.items():
        if count := summary.count(status):
            yield f"{count} of {plural(total, 'trial')} {meaning}, {100 * count / total:.0f} %."
    reasons: dict[str, list[int]] = {}
    for trial in summary.trials:
        if trial.status == "failed":
            error = (trial.result or {}).get("error") or {"type": "unknown", "message": ""}
            reason = f"{error['type']}: {re.sub(r'[0-9]+(?:[.][0-9]+)?', '#', error['message'])}"
            reasons.setdefault(reason, []).append(trial.number)
    for reason, numbers in sorted(reasons.items(), key=lambda pair: -len(pair[1])):
        where = f"trial {numbers[0]}" + (f" and {len(numbers) - 1} more" if len(numbers) > 1 else "")
        yield f"Failed with {reason.rstrip('.: ')} ({where}; `traceback.txt` in its folder has more)."
    if reasons:
        yield "The same command with `sweep.retry_failed=true` trains failed trials once more."


def divergence_sentences(summary: Summary) -> Iterator[str]:
    """Values beyond which every trial diverged, and none before."""
    for parameter in summary.parameters:
        if not parameter.numeric:
            continue
        numbers: dict[bool, list[float]] = {True: [], False: []}
        for one in summary.configurations:
            if one.status in ENDED and parameter.key in one.varied:
                numbers[one.status == "diverged"].append(number_of(one.varied[parameter.key]) or 0.0)
        bad, good = numbers[True], numbers[False]
        if len(bad) < 2 or len(good) < 2:
            continue
        if min(bad) > max(good):
            yield f"All trials with `{parameter.key}` of {min(bad):g} or more diverged, and none up to {max(good):g}."
        elif max(bad) < min(good):
            yield f"All trials with `{parameter.key}` of {max(bad):g} or less diverged, and none from {min(good):g}."


def open_sentences(summary: Summary) -> Iterator[str]:
    """What has not been trained to its end."""
    states = Counter(trial.status for trial in summary.trials if trial.status not in ENDED)
    if states:
        told = ", ".join(f"{count} {status}" for status, count in states.items())
        yield (
            f"{plural(states.total(), 'trial')} of {len(summary.trials)} have not ended ({told}):"
            " the same command goes on with them, and this report is of the others."
        )
    planned = (summary.settings.get("n_trials") or 0) * summary.settings["seeds"]
    if planned > len(summary.trials):
        yield f"{len(summary.trials)} of {planned} trials were started: the same command goes on."


def cost_sentences(summary: Summary) -> Iterator[str]:
    """Time, and what pruning saved."""
    ended = summary.count(*ENDED)
    if not ended:
        return
    wall = summary.wall_time
    apart = f", in {in_words(wall)} on the clock" if wall is not None else ""
    yield f"{plural(ended, 'trial')} took {in_words(summary.seconds)} of running{apart}."
    pruned = summary.count("pruned")
    if not pruned:
        return
    saved, without = summary.epochs_saved
    text = f"{pruned} of {plural(len(summary.trials), 'trial')} were pruned: given up early, since they lagged behind."
    if saved:
        text += (
            f" That saved about {saved:,} of {without:,} epochs ({100 * saved / without:.0f} %), if each had taken as"
            " many as the median of those that are done."
        )
    yield text


def command_words(words: Sequence[str]) -> str:
    """Overrides of a trial as a command line that trains it alone."""
    kept = [word for word in words if word.partition("=")[0].lstrip("+") not in ("name", "log_dir", "resume")]
    return shlex.join(["python", "train.py", *kept])
