"""What a sweep's trials are ranked by, and which of them no other beats."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def objectives_of(result: Mapping[str, Any], names: Iterable[str]) -> list[float | None]:
    """The value of each objective: the run's own one, another metric of its best epoch,
    or a figure of the result.
    """
    own, metrics = result.get("objective") or {}, result.get("metrics") or {}
    return [
        own.get("value") if name == own.get("metric") else metrics.get(name, result.get(name))
        for name in names
    ]


def pareto_front(values: Mapping[int, Sequence[float | None]], signs: Sequence[int]) -> set[int]:
    """The trials that no other one beats: is better in one objective and as good in all others."""
    known = {
        number: [sign * value for sign, value in zip(signs, row, strict=True) if value is not None]
        for number, row in values.items()
        if None not in row
    }

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return {
        number
        for number, row in known.items()
        if not any(beats(other, row) for other in known.values())
    }
