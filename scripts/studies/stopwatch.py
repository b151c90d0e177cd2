"""A stopwatch, and how it is put around the hooks of a run; for the benchmarks."""

import time
from collections.abc import Callable
from typing import Any


class Watch:
    """A stopwatch for wall and CPU time that can be paused."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def start(self) -> None:
        self.since = time.perf_counter(), time.process_time()

    resume = start

    def pause(self) -> None:
        self.wall += time.perf_counter() - self.since[0]
        self.cpu += time.process_time() - self.since[1]


def before(note: Callable[[], Any], hook: Callable) -> Callable:
    return lambda *given: (note(), hook(*given))[1]


def after(hook: Callable, note: Callable[[], Any]) -> Callable:
    return lambda *given: (hook(*given), note())[0]
