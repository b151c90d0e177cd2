"""Ctrl-C and `kill`: the same end, and never at a moment when it does harm."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def killed_as_by_ctrl_c() -> Iterator[None]:
    """Within the block, SIGTERM raises KeyboardInterrupt, once:
    of `kill`, torchrun, Slurm when the time is over.
    """
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread is interrupted
        yield
        return

    def interrupt(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ctrl_c_left_alone() -> Iterator[None]:
    """After the block, Ctrl-C does what it did before:
    Lightning switches it off when it is interrupted.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def passed_on(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The result of a run, for what trains several:
    one that was interrupted has ended well, and here all end.

    Raises:
        KeyboardInterrupt: if it was interrupted.
    """
    if result["status"] == "interrupted":
        raise KeyboardInterrupt
    return result


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C and `kill` back until the block has ended.

    TensorBoard hands events to a thread of its own. An interrupt in the middle of that leaves an
    event that the thread never hears of, and closing the file then waits for it without end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[Any] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}
    held = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda *given: caught.append(given))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if caught:
        held[caught[0][0]](*caught[0])
