"""How far something that takes a while has come:
a bar in a terminal, a line now and then elsewhere.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

LOG_SECONDS = 10.0
T = TypeVar("T")


def shown_progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, while stderr tells how many of them have been taken;
    what takes a moment is shown in a terminal only.

    Args:
        items: Of which each may take a while.
        total: How many there are, or at most.
        what: Is done with them, such as `planning trials`.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, what, total=total, console=console, transient=True)
        return
    written = time.monotonic()
    for count, item in enumerate(items):
        if time.monotonic() - written >= LOG_SECONDS:
            print(f"{what}: {count} of {total}", file=sys.stderr, flush=True)
            written = time.monotonic()
        yield item
