"""When this process began, and how long something takes, in words. Import-light."""

import time

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
