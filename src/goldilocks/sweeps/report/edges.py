"""Where the best of a sweep lies at the end of what was searched, and the wider range to write."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from goldilocks.sweeps.report.summary import Configuration, Parameter, Summary, number_of

EDGE = 0.1  # share of a range that counts as its end
# The best, one configuration in so many, have to be on that side too, and all like the best.
TOP = 5

Allowed = Callable[
    [str, float], bool
]  # whether the best configuration would be right with another number under a key


def edge_sentences(summary: Summary, allowed: Allowed) -> Iterator[str]:
    """Parameters whose best value lies at the end of what was searched,
    and the wider range to write.
    """
    best = summary.best
    if best is None or len(summary.ranked) < 3 or summary.nothing_differs:
        return
    leaders = summary.ranked[: max(len(summary.alike), len(summary.ranked) // TOP)]
    for parameter in summary.parameters:
        space = space_with(parameter, best)
        if parameter.key not in best.varied or not parameter.numeric or space is None:
            continue
        low, high = ends_of(space)
        place = share(space, number_of(best.varied[parameter.key]) or 0.0)
        others = [
            share(space, number_of(one.varied[parameter.key]) or 0.0)
            for one in leaders
            if one.varied.get(parameter.key) is not None and space_with(parameter, one) is space
        ]
        middle = statistics.median(others)
        side = (
            "upper"
            if place >= 1 - EDGE and middle > 0.75
            else "lower"
            if place <= EDGE and middle < 0.25
            else ""
        )
        wider = widened(space, side) if side else None
        if wider is None or not allowed(parameter.key, wider[1 if side == "upper" else 0]):
            continue
        yield (
            f"The best value of `{parameter.key}`, {best.varied[parameter.key]}, lies at the"
            f" {side} end of what was"
            f" searched, {low:g} to {high:g}: a better one may lie beyond."
            f" {how_to_widen(parameter, space, wider)}"
        )


def space_with(parameter: Parameter, one: Configuration) -> Mapping[str, Any] | None:
    """The numbers among which a configuration's value was chosen:
    a range, or at least three values.
    """
    for space in parameter.spaces:
        when = space.get("when") or {}
        if all(one.varied.get(group) == option for group, option in when.items()):
            values = space.get("choices")
            return space if values is None or len(values) > 2 else None
    return None


def numbers_in(space: Mapping[str, Any]) -> list[float]:
    return sorted(number_of(str(value)) or 0.0 for value in space["choices"])


def ends_of(space: Mapping[str, Any]) -> tuple[float, float]:
    numbers = numbers_in(space) if "choices" in space else [space["low"], space["high"]]
    return float(numbers[0]), float(numbers[-1])


def share(space: Mapping[str, Any], value: float) -> float:
    """Where a value lies between the ends, from 0 to 1;
    values that were listed are equally far apart.
    """
    if "choices" in space:
        numbers = numbers_in(space)
        return sum(number < value for number in numbers) / (len(numbers) - 1)
    low, high = ends_of(space)
    return (
        math.log(value / low) / math.log(high / low)
        if space["log"]
        else (value - low) / (high - low)
    )


def widened(space: Mapping[str, Any], side: str) -> tuple[float, float] | None:
    """Both ends with one moved: tenfold, by half of the width, or by one more step;
    None where 0 is in the way.
    """
    low, high = ends_of(space)
    numbers = numbers_in(space) if "choices" in space else []
    if numbers:
        near, end = (numbers[-2], high) if side == "upper" else (numbers[1], low)
        geometric = low > 0 and numbers[1] - low < 0.9 * (high - numbers[-2])
        moved = end * end / near if geometric else end + (end - near)
    elif space["log"]:
        moved = high * 10 if side == "upper" else low / 10
    else:
        moved = high + (high - low) / 2 if side == "upper" else low - (high - low) / 2
    if low >= 0:
        moved = max(moved, 0.0)
    whole = (
        all(number == int(number) for number in numbers)
        if numbers
        else isinstance(space["low"], int)
    )
    moved = float(max(math.floor(moved), min(low, 1)) if whole else f"{moved:.3g}")
    if moved in (low, high) or (moved == 0 and (numbers or space["log"])):
        return None
    return (low, moved) if side == "upper" else (moved, high)


def how_to_widen(parameter: Parameter, space: Mapping[str, Any], wider: tuple[float, float]) -> str:
    """The override that searches further, or the file to edit."""
    key, (low, high) = parameter.key, wider
    if "choices" in space:
        before = [
            str(value)
            for value in sorted(space["choices"], key=lambda value: number_of(str(value)) or 0.0)
        ]
        moved = f"{high:g}" if high != ends_of(space)[1] else f"{low:g}"
        values = [*before, moved] if high != ends_of(space)[1] else [moved, *before]
        return f"Add a value: `{key}={','.join(values)}`."
    text = range_text(low, high, space["log"])
    if when := space.get("when"):
        group, option = next(iter(when.items()))
        return (
            f"Widen the range under `search` in `conf/{group}/{option}.yaml`:"
            f" `{key.split('.', 1)[-1]}: {text[1:-1]}`."
        )
    return f"Widen the range: `{key}={text}`."


def range_text(low: float, high: float, log: bool) -> str:
    """A range as an override has it, in quotes for the shell.

    >>> range_text(0.001, 1, log=True)
    "'tag(log,interval(0.001,1))'"
    """
    text = f"interval({low:g},{high:g})"
    return f"'tag(log,{text})'" if log else f"'{text}'"
