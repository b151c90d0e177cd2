"""What a sweep searches: values and ranges of the command line, of conf/sweep,
and those that the options state.

An option's file may say under `search` what is worth searching in it. Its ranges hold where that
option is chosen: with `optimizer=sgd,adam` each has a rate of its own, `optimizer.lr@sgd` and
`optimizer.lr@adam`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hydra.core.override_parser.types import Override, RangeSweep
from omegaconf import OmegaConf

from goldilocks.config.choices import NOT_HASHED
from goldilocks.errors import Refused, near_miss
from goldilocks.sweeps.search.compose import Composer
from goldilocks.sweeps.search.settings import SweepSettings

MOST_TRIALS = 20_000  # that are planned at once, and values that are listed at once
DIGITS = 4  # of a number from a range
SINGLE = ("name", "log_dir", "sweep")  # of a sweep, not of a trial


@dataclass(frozen=True)
class Dimension:
    """One thing that is searched: values to choose from, or a range.

    Attributes:
        name: The key, or key@option where the range holds only with that option.
        key: Of the override; may be a group.
        choices: Values, as written after the = of an override.
        low: Of a range, included; so is `high`.
        log: Whether the range is searched by its logarithm.
        whole: Whether its numbers are whole.
        when: Group and option with which it is searched.
    """

    name: str
    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    when: tuple[str, str] | None = None

    def at(self, share: float) -> str:
        """The value at a share, from 0 to below 1, of the choices or the range.

        >>> Dimension("lr", "lr", low=0.001, high=0.1, log=True).at(0.5)
        '0.01'
        >>> Dimension("n", "n", ("a", "b")).at(0.6)
        'b'
        """
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = (
            math.exp(math.log(low) + share * math.log(high / low))
            if self.log
            else low + share * (high - low)
        )
        return self.text(math.floor(value) if self.whole else value)

    def text(self, value: float) -> str:
        """A number of the range as it is written in an override."""
        value = min(max(value, self.low), self.high)
        return str(int(value)) if self.whole else f"{value:.{DIGITS}g}"

    def as_plain(self) -> dict[str, Any]:
        """As sweep.yaml has it."""
        if self.choices:
            plain: dict[str, Any] = {"key": self.key, "choices": list(self.choices)}
        else:
            kind = int if self.whole else float
            plain = {
                "key": self.key,
                "low": kind(self.low),
                "high": kind(self.high),
                "log": self.log,
            }
        return plain | ({"when": dict([self.when])} if self.when else {})

    def holds(self, text: str) -> bool:
        """Whether a value, as it is written, may be chosen here."""
        if self.choices:
            return text in self.choices
        try:
            value = float(text)
        except ValueError:
            return False
        whole = not self.whole or value.is_integer()
        return self.low <= value <= self.high and whole

    def value(self, text: str) -> str | float:
        """A written value as a study knows it: a choice, or a number."""
        if self.choices:
            return text
        return int(float(text)) if self.whole else float(text)


@dataclass
class Space:
    """Words that every trial has, and what is searched:
    choices of groups first, ranges of options last.
    """

    fixed: list[str]
    dimensions: list[Dimension]

    def active(self, chosen: Mapping[str, str]) -> Iterator[Dimension]:
        """The dimensions of a trial one by one;
        `chosen` is to hold the values, by name, of those before.
        """
        for dimension in self.dimensions:
            if dimension.when is None or chosen.get(dimension.when[0]) == dimension.when[1]:
                yield dimension

    def as_plain(self) -> dict[str, Any]:
        """As study.json has it."""
        searched = {dimension.name: dimension.as_plain() for dimension in self.dimensions}
        fixed = [
            override
            for override in self.fixed
            if override.partition("=")[0].lstrip("+") not in NOT_HASHED
        ]
        return {"fixed": sorted(fixed), "searched": searched}

    def first(self) -> list[str]:
        """The overrides of a trial with what comes first of everything that is searched."""
        chosen: dict[str, str] = {}
        for dimension in self.active(chosen):
            chosen[dimension.name] = dimension.at(0)
        return self.trial(chosen)[0]

    def trial(self, chosen: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """The overrides of a trial with these values, and what varies, by key."""
        varied = {dimension.key: chosen[dimension.name] for dimension in self.active(chosen)}
        return [*self.fixed, *(f"{key}={value}" for key, value in varied.items())], varied

    def points(self, sampler: str, seed: int) -> Iterator[dict[str, str]]:
        """Values without end: at random, or evenly spread by Sobol's
        sequence (scrambled by Owen's method).
        """
        count = len(self.dimensions)
        engine = torch.quasirandom.SobolEngine(count, scramble=True, seed=seed)
        random = torch.Generator().manual_seed(seed)
        while True:
            drawn = engine.draw(1)[0] if sampler == "qmc" else torch.rand(count, generator=random)
            shares = dict(
                zip((d.name for d in self.dimensions), drawn.double().tolist(), strict=True)
            )
            chosen: dict[str, str] = {}
            for dimension in self.active(chosen):
                chosen[dimension.name] = dimension.at(min(shares[dimension.name], 1 - 1e-9))
            yield chosen

    @property
    def size(self) -> int:
        """How many combinations a grid has:
        a dimension that holds with one option only counts with that one.
        """

        def weight(dimension: Dimension, option: str) -> int:
            own = [d for d in self.dimensions if d.when == (dimension.name, option)]
            return math.prod(len(d.choices) for d in own)

        free = [dimension for dimension in self.dimensions if dimension.when is None]
        return math.prod(sum(weight(d, option) for option in d.choices) for d in free)

    def grid(self) -> Iterator[dict[str, str]]:
        """Every combination, in the order of the values."""
        for dimension in self.dimensions:
            if not dimension.choices:
                raise Refused(
                    f"{dimension.key}: a range without steps; write values or"
                    " range(start,stop,step), or"
                    " sweep.sampler=qmc sweep.n_trials=20"
                )
        yield from self.combinations({}, self.dimensions)

    def combinations(
        self, chosen: dict[str, str], rest: Sequence[Dimension]
    ) -> Iterator[dict[str, str]]:
        """Every combination of further dimensions with those that are chosen."""
        if not rest:
            yield chosen
            return
        first = rest[0]
        if first.when is not None and chosen.get(first.when[0]) != first.when[1]:
            yield from self.combinations(chosen, rest[1:])
            return
        for value in first.choices:
            yield from self.combinations(chosen | {first.name: value}, rest[1:])


def space_of(composer: Composer, arguments: Sequence[str], settings: SweepSettings) -> Space:
    """What a command line searches, with `sweep.params` and the ranges
    of the options in `sweep.search`.

    Raises:
        Refused: for a range that no sampler can take, or an entry of `sweep.search`
            for which no option states one.
    """
    given = [composer.parse(argument) for argument in arguments]
    said = {override.key_or_group for override in given}
    stored = [
        composer.parse(f"{key}={value}")
        for key, value in settings.params.items()
        if key not in said
    ]
    overrides = [override for override in [*stored, *given] if not is_of_sweep(override)]
    if settings.guides and (several := next((o for o in given if o.is_sweep_override()), None)):
        raise Refused(
            f"{several.input_line}: sweep=guide searches by itself; write a single value, which it"
            " keeps to, or leave it out"
        )
    fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    dimensions = [
        dimension_of(composer, fixed, override)
        for override in overrides
        if override.is_sweep_override()
    ]
    dimensions += own_ranges(
        composer, settings.search, fixed, dimensions, said | settings.params.keys()
    )
    if settings.sampler != "grid" and not dimensions:
        raise Refused(
            f"sweep.sampler={settings.sampler}: there is nothing to search; write values or ranges"
        )
    known = [dimension.key for dimension in dimensions]
    for key in settings.scientific:
        if (
            key not in known and key not in said
        ):  # what the command line holds at one value is no mistake
            raise Refused(f"sweep.scientific=[{key}]: is not searched; {near_miss(key, known)}")
    if settings.seeds > 1:
        if "seed" in said:
            raise Refused("seed: is what sweep.seeds sets; leave one of them out")
        known.append("seed")
    space = Space(fixed, dimensions)
    check_size(space, settings)
    return space


def is_of_sweep(override: Override) -> bool:
    """Whether an override sets something of the sweep, not of its trials."""
    return override.key_or_group.partition(".")[0] == "sweep" and not override.is_sweep_override()


def dimension_of(
    composer: Composer,
    fixed: Sequence[str],
    override: Override,
    when: tuple[str, str] | None = None,
) -> Dimension:
    """What an override with several values searches, after the other overrides of a trial."""
    key, value = override.get_key_element(), override.value()
    name = f"{key}@{when[1]}" if when else key
    if key.partition(".")[0] in SINGLE:
        raise Refused(f"{override.input_line}: a sweep has one {key}; write a single value")
    if override.is_discrete_sweep():
        check_count(override)
        return Dimension(name, key, tuple(override.sweep_string_iterator()), when=when)
    low, high, log = value.start, value.end, "log" in value.tags  # type: ignore[union-attr]
    if low is None or high is None or low >= high or (log and low <= 0):
        above = " above 0" if log else ""
        raise Refused(
            f"{override.input_line}: a range from a number{above} to a larger one is expected"
        )
    now = OmegaConf.select(composer.compose(fixed)[0], override.key_or_group)
    # Hydra makes floats of both ends: the value now tells whether whole numbers are meant.
    whole = not isinstance(now, float) and low == int(low) and high == int(high)
    return Dimension(name, key, low=low, high=high, log=log, whole=whole, when=when)


def check_count(override: Override) -> None:
    """Refuses a range that has too many values to list them, before that is done."""
    value = override.value()
    if not isinstance(value, RangeSweep):
        return
    start, stop, step = (float(number or 0) for number in (value.start, value.stop, value.step))
    if (count := (stop - start) / step) > MOST_TRIALS:
        raise Refused(
            f"{override.input_line}: has {count:,.0f} values, and {MOST_TRIALS:,} are the most;"
            " write fewer, or"
            f" {override.get_key_element()}=interval({start:.12g},{stop:.12g}) sweep.sampler=qmc"
            " sweep.n_trials=20"
        )


def check_size(space: Space, settings: SweepSettings) -> None:
    """Refuses more trials than can be planned at once, before any of them is."""
    grid = settings.sampler == "grid"
    if settings.learns or (grid and not all(d.choices for d in space.dimensions)):
        return
    count = (space.size if grid else settings.n_trials or 0) * settings.seeds
    if count > MOST_TRIALS:
        raise Refused(
            f"-m: these are {count:,} trials, and {MOST_TRIALS:,} are the most; write fewer values"
            + (
                ", or sweep.sampler=qmc sweep.n_trials=20"
                if grid
                else " of sweep.n_trials or sweep.seeds"
            )
        )


def own_ranges(
    composer: Composer,
    search: Sequence[str],
    fixed: Sequence[str],
    dimensions: Sequence[Dimension],
    said: set[str],
) -> list[Dimension]:
    """The ranges that options state, of what `sweep.search` names; the command line comes first."""
    found: list[Dimension] = []
    for entry in search:
        group, _, key = entry.partition(".")
        swept = next((dimension for dimension in dimensions if dimension.key == group), None)
        count, known = len(found), set[str]()
        for option in swept.choices if swept else ("",):
            base = [*fixed, f"{group}={option}"] if swept else list(fixed)
            stated = composer.ranges(base, group)
            known |= stated.keys()
            for own, text in stated.items():
                full = f"{group}.{own}"
                if full in said or (key and own != key) or text is None:
                    continue
                when = (group, option) if swept else None
                found.append(dimension_of(composer, base, composer.parse(f"{full}={text}"), when))
        if len(found) == count and entry not in said and (key or not known):
            hint = (
                near_miss(entry, [f"{group}.{own}" for own in known])
                if known
                else "no range is stated for it"
            )
            raise Refused(
                f"sweep.search=[{entry}]: {hint}; or give one, as {group}.key=interval(0.1,1)"
            )
    return found
