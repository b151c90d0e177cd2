"""Checks that a process has passed already: the trials of a sweep share most of what is checked."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MOST = 10_000  # that are remembered

passed: dict[tuple[Any, ...], None] = {}


def once(check: Callable[[], object], *about: Any) -> None:
    """Makes a check, unless the same one has been passed. What it refuses is checked each time.

    Args:
        check: Raises `Refused`, or returns.
        about: All that it depends on, known by `repr`, and by the classes that settings name. What
            may change within a process, such as files and devices, must not be checked so.
    """
    key = (hashlib.sha256(repr(about).encode()).digest(), *classes_in(about))
    if key in passed:
        return
    check()
    while len(passed) >= MOST:
        del passed[next(iter(passed))]
    passed[key] = None


def classes_in(node: Any) -> Iterator[Any]:
    """What each `_target_` of nested settings names, as it is now."""
    if isinstance(node, Mapping):
        if isinstance(target := node.get("_target_"), str):
            module, _, name = target.rpartition(".")
            yield getattr(sys.modules.get(module), name, None)
        for value in node.values():
            yield from classes_in(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from classes_in(value)
