"""When this process began, how long something takes, and both in words. Import-light."""

import re
import time

from goldilocks.errors import Refused

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
BEGAN = time.perf_counter()  # this process, but for the start of Python


def duration(seconds: float) -> str:
    """A span of time in words.

    >>> duration(0.31), duration(75), duration(200), duration(7600)
    ('0.3 s', '75 s', '3 min', '2 h 7 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def seconds(span: str | float, key: str) -> float:
    """A span of time that the user has written.

    >>> seconds("1h30m", "time"), seconds("90s", "time"), seconds(20, "time")
    (5400.0, 90.0, 20.0)

    Args:
        span: Numbers with s, m, h or d, or a number of seconds.
        key: Under which it was written.

    Raises:
        Refused: if it cannot be read, or is no time above zero.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", str(span))
    if isinstance(span, int | float):
        parts = [(span, "s")]
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    whole = not isinstance(span, str) or "".join(map("".join, parts)) == span
    if not (whole and 0 < total < float("inf")):
        raise Refused(f"{key}={span}: a time above zero is expected, such as 90s, 30m or 2h")
    return total
