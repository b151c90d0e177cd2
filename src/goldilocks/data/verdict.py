"""Verdict: the outcome of one check, with what was measured and how to fix it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Verdict:
    """One line of the health check.

    Attributes:
        name: What was looked at, in a few words.
        status: `failed`: training is pointless, or its result would not be true;
            `warning`: probably not meant.
        measured: What was found, with its number.
        advice: What would fix it, with the override to write; empty where all is well.
        overrides: What would be written for it, where that is all there is to do.
    """

    name: str
    status: Status
    measured: str
    advice: str = ""
    overrides: tuple[str, ...] = ()


def grade(value: float, warning: float, failed: float) -> Status:
    """The status of a value that should be small.

    >>> grade(0.5, 1, 10), grade(1, 1, 10), grade(float("inf"), 1, 10), grade(float("nan"), 1, 10)
    ('ok', 'warning', 'failed', 'failed')
    """
    return "ok" if value < warning else "warning" if value < failed else "failed"


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first names, and how many more there are.

    >>> listed("abc"), listed("abcdefg")
    ('a, b, c', 'a, b, c, d, e and 2 more')
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def lines_of(verdict: Verdict) -> list[str]:
    """A verdict as lines for the terminal, the advice below what was measured."""
    lines = [f"{verdict.status:<8} {verdict.name:<24} {verdict.measured}"]
    return [*lines, f"{'':<8} {'':<24} -> {verdict.advice}"] if verdict.advice else lines


def summary(verdicts: list[Verdict], seconds: float) -> str:
    """The last line.

    >>> summary([Verdict("a", "failed", ""), Verdict("b", "ok", "")], 7.23)
    '1 failed, 1 ok in 7.2 s; nothing was written'
    """
    counts = [
        (status, sum(verdict.status == status for verdict in verdicts))
        for status in ("failed", "warning", "ok")
    ]
    text = ", ".join(
        f"{count} {status}{'s' * (status == 'warning' and count > 1)}"
        for status, count in counts
        if count
    )
    return f"{text} in {seconds:.1f} s; nothing was written"
