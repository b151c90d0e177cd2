"""How numbers and configurations of a sweep are written in a sentence."""

from goldilocks.runs.printing import rounded
from goldilocks.sweeps.report.summary import Configuration


def shown(value: float | None) -> str:
    """A number in a sentence or table.

    >>> shown(0.123456), shown(1234.5), shown(1234567), shown(4e12), shown(None)
    ('0.1235', '1,234', '1,234,567', '4e+12', '')
    """
    if value is None:
        return ""
    count = isinstance(value, int) or 1000 <= abs(value) < 1e6 or value == 0
    return f"{value:,.0f}" if count else f"{value:.4g}"


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
    """A configuration in a sentence: its trials, and its overrides."""
    numbers = [str(trial.number) for trial in one.trials]
    which = f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {', '.join(numbers)}"
    overrides = overrides_of(one)
    return f"{which} (`{overrides}`)" if overrides else which


def overrides_of(one: Configuration) -> str:
    """What tells a configuration from the others, to be read; a command needs all digits."""
    return " ".join(f"{key}={rounded(value)}" for key, value in one.varied.items())
