"""The result of a sweep in numbers:
its configurations over their seeds, its parameters, what it cost.
"""

import itertools
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from goldilocks.sweeps.execution.trials import Trial
from goldilocks.sweeps.objectives import pareto_front
from goldilocks.sweeps.report.paired import Paired

SEED = "seed"  # trials that differ in nothing else are one configuration
INFEASIBLE = ("failed", "diverged")
ORDER = (
    "failed",
    "diverged",
    "waiting",
    "running",
    "interrupted",
    "pruned",
    "done",
)  # a configuration has the first
PAUSE = 60  # seconds without a trial after which a sweep counts as paused
FAR = 3  # standard errors of the best value, beyond which nothing is alike
CLOCK = 1.25  # times the fewest seconds, up to which trials take as long: no machine is steadier
WIDE = 30  # times the smallest value from which on an axis is logarithmic
RATIO = 4  # the same, of listed numbers that are a constant factor apart


@dataclass
class Configuration:
    """What was trained, once for each seed.

    Attributes:
        varied: The overrides that tell it from the others, by key; without the seed.
        trials: One a seed, by number.
        by_seed: The objectives of the trials that are done, or were pruned, by seed.
        errors: The standard errors of their first objective, by seed, where they are known.
    """

    varied: dict[str, str]
    trials: list[Trial]
    by_seed: dict[str, list[float]]
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.trials[0].number

    @property
    def status(self) -> str:
        """The worst of its trials'."""
        return min((trial.status for trial in self.trials), key=ORDER.index)

    def trial_of(self, seed: str) -> int:
        """The number of the trial with a seed."""
        return next(one.number for one in self.trials if one.varied.get(SEED, "0") == seed)

    def value(self, objective: int = 0) -> float | None:
        """The mean over the seeds, None if there is no value."""
        return (
            statistics.fmean(row[objective] for row in self.by_seed.values())
            if self.by_seed
            else None
        )

    def deviation(self, objective: int = 0) -> float | None:
        """The standard deviation over the seeds, None with fewer than two."""
        values = [row[objective] for row in self.by_seed.values()]
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def error(self) -> float | None:
        """The standard error of the first objective by the rows that it is judged on,
        None if it is not known.

        More seeds do not lessen it: they are judged on the same rows.
        """
        return statistics.fmean(self.errors.values()) if self.errors else None

    @property
    def seconds(self) -> float:
        """Of its trials, together."""
        return sum(trial.seconds or 0.0 for trial in self.trials)

    def figure(self, name: str) -> float | None:
        """A figure of result.json, of the first trial."""
        return self.trials[0].outcome.get(name)


@dataclass
class Parameter:
    """What was searched under one key, maybe over ranges of its own for each option of a group.

    Attributes:
        key: Of the override.
        spaces: As sweep.yaml has them.
        values: That occur, choices first, in their order.
    """

    key: str
    spaces: list[Mapping[str, Any]]
    values: list[str]

    @cached_property
    def numeric(self) -> bool:
        return all(number_of(value) is not None for value in self.values)

    @cached_property
    def ranged(self) -> bool:
        return any("low" in space for space in self.spaces)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest number that occurs or might have."""
        numbers = [number for value in self.values if (number := number_of(value)) is not None]
        numbers += [
            space[end] for space in self.spaces if "low" in space for end in ("low", "high")
        ]
        return min(numbers), max(numbers)

    @cached_property
    def log(self) -> bool:
        """Whether its numbers belong on a logarithmic axis."""
        if not self.numeric:
            return False
        low, high = self.ends
        if self.ranged or low <= 0:
            return any(space.get("log") for space in self.spaces)
        return high / low >= WIDE or (high / low >= RATIO and self._even_as_powers)

    @cached_property
    def _even_as_powers(self) -> bool:
        """Whether the listed numbers are further apart from factor to
        factor than from sum to sum.
        """
        numbers = sorted({number_of(value) or 0.0 for value in self.values})

        def widest(places: Sequence[float]) -> float:
            gaps = [after - before for before, after in itertools.pairwise(places)]
            return max(gaps) / sum(gaps)

        return len(numbers) == 2 or widest(list(map(math.log, numbers))) < widest(numbers)

    @cached_property
    def whole(self) -> bool:
        return self.numeric and all(
            number_of(value) == int(number_of(value) or 0) for value in self.values
        )


@dataclass
class Summary:
    """A sweep.

    Attributes:
        folder: Where it lies.
        modes: Min or max by objective; the first one counts where there is one place only.
        settings: As sweep.yaml has them.
        commands: That made it.
        trials: By number.
        configurations: In the order of their first trials.
        parameters: In the order of the command line.
        ended: When trials ended, in seconds of the clock, by number.
    """

    folder: Path
    modes: dict[str, str]
    settings: Mapping[str, Any]
    commands: list[str]
    trials: list[Trial]
    configurations: list[Configuration]
    parameters: list[Parameter]
    ended: Mapping[int, float] = field(default_factory=dict)

    @property
    def objective(self) -> str:
        return next(iter(self.modes))

    @property
    def signs(self) -> list[int]:
        """1 where less is better, -1 where more is."""
        return [1 if mode == "min" else -1 for mode in self.modes.values()]

    @cached_property
    def ranked(self) -> list[Configuration]:
        """What is done with all seeds, best first; where nothing is, what has any value."""
        valued = [one for one in self.configurations if one.by_seed]
        done = [one for one in valued if one.status == "done"]
        return sorted(done or valued, key=lambda one: self.signs[0] * (one.value() or 0.0))

    @cached_property
    def alike(self) -> list[Configuration]:
        """What the best value is not shown to beat: is no more than a standard error worse.

        The rule of one standard error (Breiman et al. 1984), of the difference.
        With several objectives there is one alone.
        """
        first, sign = self.ranked[0] if self.ranked else None, self.signs[0]
        if first is None or len(self.modes) > 1:
            return self.ranked[:1]

        def close(one: Configuration) -> bool:
            gap = sign * ((one.value() or 0.0) - (first.value() or 0.0))
            if first.error is not None and gap > FAR * first.error:
                return False  # its predictions need not be read
            # Equal values are alike, whatever is known.
            return gap <= max(self.noise(first, one), 0.0)

        return [one for one in self.ranked if close(one)]

    def noise(self, first: Configuration, one: Configuration) -> float:
        """The standard error of the difference between two configurations: by their rows, and by
        the seeds they share.

        That of the rows is of the paired differences, where both have kept their predictions, else
        the first one's own. It is below zero where nothing is known of either.
        """
        shared = [seed for seed in first.by_seed if seed in one.by_seed]
        gains = [one.by_seed[seed][0] - first.by_seed[seed][0] for seed in shared]
        seeds = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else None
        rows = self.paired.error([(first.trial_of(seed), one.trial_of(seed)) for seed in shared])
        known = [e for e in (first.error if rows is None else rows, seeds) if e is not None]
        return math.hypot(*known) if known else -1.0

    @cached_property
    def paired(self) -> Paired:
        """Differences between trials, row by row."""
        return Paired(self.folder, self.objective)

    @property
    def is_paired(self) -> bool:
        """Whether those that are alike were compared row by row."""
        return all(self.paired.rows_of(one.number) is not None for one in self.alike)

    @property
    def nothing_differs(self) -> bool:
        """Whether there are several configurations and none of them can be told from the others."""
        return len(self.alike) == len(self.ranked) > 1

    @cached_property
    def best(self) -> Configuration | None:
        """The simplest of those that cannot be told from the best value; see `simplest`."""
        return simplest(self.alike)[0] if self.alike else None

    @cached_property
    def why_best(self) -> str:
        """By what the best was chosen among those that cannot be told apart."""
        return simplest(self.alike)[1]

    @property
    def best_first(self) -> list[Configuration]:
        """As `ranked`, but for the best, which may not have the best value."""
        return [one for one in self.ranked if one is self.best] + [
            one for one in self.ranked if one is not self.best
        ]

    @cached_property
    def front(self) -> list[Configuration]:
        """With several objectives, what no other configuration beats, by the first one."""
        if len(self.modes) < 2:
            return []
        values = {one.number: [one.value(i) for i in range(len(self.modes))] for one in self.ranked}
        unbeaten = pareto_front(values, self.signs)
        return [one for one in self.ranked if one.number in unbeaten]

    @property
    def num_seeds(self) -> int:
        return max((len(one.trials) for one in self.configurations), default=1)

    def count(self, *statuses: str) -> int:
        return sum(trial.status in statuses for trial in self.trials)

    @property
    def seconds(self) -> float:
        """Of all trials together."""
        return sum(trial.seconds or 0.0 for trial in self.trials)

    @property
    def wall_time(self) -> float | None:
        """Seconds in which the sweep was at work, pauses left out; None if that is not known."""
        spans = []
        for trial in self.trials:
            if trial.number in self.ended:
                took = trial.seconds or 0.0
                spans.append((self.ended[trial.number] - took, self.ended[trial.number]))
        return time_at_work(spans) if spans else None

    @property
    def epochs_saved(self) -> tuple[int, int]:
        """Epochs that pruning saved, and that it would have been without:
        pruned trials as long as the median one.
        """
        lengths = {status: [] for status in ("done", "pruned")}  # type: dict[str, list[int]]
        for trial in self.trials:
            if trial.status in lengths:
                lengths[trial.status].append(trial.outcome.get("epochs") or 0)
        usual = round(statistics.median(lengths["done"])) if lengths["done"] else 0
        saved = sum(max(usual - epochs, 0) for epochs in lengths["pruned"])
        return saved, saved + sum(lengths["done"]) + sum(lengths["pruned"])


def simplest(alike: Sequence[Configuration]) -> tuple[Configuration, str]:
    """The configuration with the fewest parameters; of several the quickest, and of these the one
    with the best value.

    Seconds that differ by less than CLOCK are no reason.

    Args:
        alike: At least one, the best value first.

    Returns:
        The configuration, and what it is among them, in words: `the smallest of them`.
    """
    sizes = [one.figure("num_parameters") or math.inf for one in alike]
    small = [one for one, size in zip(alike, sizes, strict=True) if size == min(sizes)]
    quickest = min(one.seconds for one in small)
    quick = [one for one in small if one.seconds <= CLOCK * quickest]
    if len(small) == 1:
        return quick[0], "the smallest of them"
    which = "of the smallest" if len(small) < len(alike) else "of them, all equally large"
    if min(sizes) == math.inf:
        which = "of them"
    if len(quick) == len(small):
        return quick[0], f"the best by value {which}"
    return quick[
        0
    ], f"{'the quickest' if len(quick) == 1 else 'the best by value of the quickest'} {which}"


def number_of(value: str | None) -> float | None:
    """A value of an override as a number, None if it is none.

    >>> number_of("1e-3"), number_of("relu"), number_of("nan")
    (0.001, None, None)
    """
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def time_at_work(spans: Iterable[tuple[float, float]]) -> float:
    """How long any of some spans of time lasts, with gaps of up to PAUSE seconds between them.

    >>> time_at_work([(0, 10), (5, 20), (30, 40), (1000, 1010)])
    50.0
    """
    total, before = 0.0, -math.inf
    for start, end in sorted(spans):
        gap = start - before
        total += max(end - max(start, before), 0) + (gap if 0 < gap <= PAUSE else 0)
        before = max(before, end)
    return total


def reasons_of(trials: Iterable[Trial]) -> dict[str, list[int]]:
    """The numbers of the trials that failed, by the reason, the commonest first;
    reasons differ in words, not numbers.
    """
    found: dict[str, list[int]] = {}
    for trial in trials:
        if trial.status == "failed":
            error = trial.outcome.get("error") or {"type": "unknown", "message": ""}
            reason = f"{error['type']}: {re.sub(r'[0-9]+(?:[.][0-9]+)?', '#', error['message'])}"
            reason += f"; to try: {' or '.join(error['advice'])}" if error.get("advice") else ""
            found.setdefault(reason.rstrip(".: "), []).append(trial.number)
    return dict(sorted(found.items(), key=lambda pair: -len(pair[1])))


# --- from trials  ---------------------------------------------------------------------------------


def summarize(
    folder: Path,
    stored: Mapping[str, Any],
    modes: Mapping[str, str],
    trials: Sequence[Trial],
    ended: Mapping[int, float] | None = None,
) -> Summary:
    """The summary of trials.

    Args:
        folder: Of the sweep.
        stored: What sweep.yaml says: `settings`, `space`, `commands`.
        modes: Min or max by objective.
        trials: By number.
        ended: When they ended, by number.
    """
    configurations = configurations_of(trials, list(modes))
    spaces = list(stored["space"].values())
    parameters = parameters_of(configurations, spaces)
    commands = list(stored["commands"])
    return Summary(
        folder,
        dict(modes),
        stored["settings"],
        commands,
        list(trials),
        configurations,
        parameters,
        ended or {},
    )


def configurations_of(trials: Iterable[Trial], objectives: Sequence[str]) -> list[Configuration]:
    """Trials that differ in their seed alone, together."""
    found: dict[frozenset[tuple[str, str]], Configuration] = {}
    for trial in trials:
        varied = {key: value for key, value in trial.varied.items() if key != SEED}
        one = found.setdefault(frozenset(varied.items()), Configuration(varied, [], {}))
        one.trials.append(trial)
        values = trial.values(objectives)
        if trial.status in ("done", "pruned") and None not in values:
            seed = trial.varied.get(SEED, "0")
            one.by_seed[seed] = [float(value or 0.0) for value in values]
            if (error := error_of(trial.outcome, objectives[0])) is not None:
                one.errors[seed] = error
    return list(found.values())


def error_of(result: Mapping[str, Any], metric: str) -> float | None:
    """The standard error of a metric of a run, where its result has it: of its objective, or of a
    mean over folds.

    Folds without any spread, such as those with an accuracy of 1 each, do not tell it.
    """
    if folds := result.get("folds"):
        spread = (result.get("spread") or {}).get(metric)
        return (
            spread / math.sqrt(folds) if spread else None
        )  # folds that agree by chance say nothing
    own = (result.get("objective") or {}).get("metric") == metric
    return (result.get("diagnosis") or {}).get("standard_error") if own else None


def parameters_of(
    configurations: Sequence[Configuration], spaces: Sequence[Mapping[str, Any]]
) -> list[Parameter]:
    """What differs between configurations, by key; what has one value is left out."""
    keys = dict.fromkeys(
        [space["key"] for space in spaces] + [key for one in configurations for key in one.varied]
    )
    found = []
    for key in keys:
        own = [space for space in spaces if space["key"] == key]
        said = [str(value) for space in own for value in space.get("choices", [])]
        used = list(dict.fromkeys(one.varied[key] for one in configurations if key in one.varied))
        values = [value for value in dict.fromkeys(said) if value in used]
        values += [value for value in used if value not in values]
        if key != SEED and len(values) > 1:
            found.append(Parameter(key, own, values))
    return found
