"""Locks between processes, as files.
The system gives one up with the process that holds it, however it ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from goldilocks.errors import Refused
from goldilocks.machine.devices import is_first


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Within the block, no other process trains in a run folder.
    Of several that train together, the first sees to it.

    Raises:
        Refused: if one does.
    """
    if not is_first():
        yield
        return
    with held(folder / ".lock", wait=False) as mine:
        if not mine:
            raise Refused(
                f"{folder}: another process trains in it; wait for its end, or end it first"
            )
        yield


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[bool]:
    """A lock between processes; gives whether it is held. With `wait`, it always is in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except NotImplementedError:  # of a file system without locks
        yield True
        return
    try:
        yield True
    finally:
        lock.release()
