"""Which files a source of data reads, and whether they are still the same."""

import glob
import os
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

State = tuple[int, int]  # time of the last change, in ns, and size
Files = dict[str, State]  # by absolute path

CODE = (".py", ".pyc", ".so")  # imported while rows are read
# What the system says of itself, and packages that are imported.
LIBRARIES = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
NO_FILES = ("/proc/", "/sys/", "/dev/", *LIBRARIES)
WRITING = os.O_WRONLY | os.O_RDWR

noting: list[Files] = []  # what is opened meanwhile joins all of these
hooks: list[Any] = []  # Python cannot take one away again: one a process


@contextmanager
def noted() -> Iterator[Files]:
    """Within the block, files that Python opens to be read are noted, as they were then.

    What a library opens by itself, as Arrow does, is not seen: see `named_files`. What is gone at
    the end was temporary.
    """
    if not hooks:
        hooks.append(note)
        sys.addaudithook(note)
    files: Files = {}
    noting.append(files)
    try:
        yield files
    finally:
        noting[:] = [other for other in noting if other is not files]
        for path in [path for path in files if not os.path.exists(path)]:
            del files[path]


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """What Python calls before it opens a file, among other events."""
    if event != "open" or not noting or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = os.path.abspath(os.fsdecode(arguments[0]))
    if arguments[2] & WRITING or path.endswith(CODE) or path.startswith(NO_FILES):
        return
    if (state := state_of(path)) is not None:
        for files in noting:
            files.setdefault(path, state)


def state_of(path: str) -> State | None:
    """When a file was last changed, and its size; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None


def are_same(files: Mapping[str, Any]) -> bool:
    """Whether files are as they were."""
    return all(state_of(path) == tuple(state) for path, state in files.items())


def named_files(value: Any) -> Files:
    """The files that settings name: by their paths, by a pattern, or all in a folder."""
    paths = (path for word in words_in(value) for path in paths_of(word))
    states = ((path, state_of(path)) for path in paths)
    return {path: state for path, state in states if state is not None}


def words_in(value: Any) -> Iterator[str]:
    """All words in nested settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from words_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from words_in(inner)


def paths_of(word: str) -> Iterable[str]:
    """The paths that a word may mean."""
    if not word or "\0" in word:
        return []
    path = os.path.abspath(os.path.expanduser(word))
    with suppress(OSError):  # of a file, or a folder that is closed to us
        return sorted(entry.path for entry in os.scandir(path))
    if glob.has_magic(word) and not os.path.exists(path):
        return sorted(glob.glob(path, recursive=True))
    return [path]


def sources_of(kind: type) -> Files:
    """The files in which a class and those above it are written."""
    modules = (sys.modules.get(above.__module__) for above in kind.__mro__)
    found = {str(path) for module in modules if (path := getattr(module, "__file__", None))}
    states = ((str(Path(path).absolute()), state_of(path)) for path in sorted(found))
    return {path: state for path, state in states if state is not None}
