"""Prepared rows in a file, which other processes map into memory.

`KEY.pt` has tensors and plain values, and is loaded as those of others are: no code of it is run.
`KEY.json` beside it says its size and checksum, and which files the rows were read from.
"""

import os
import pickle
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goldilocks.data.opened import Files, are_same
from goldilocks.data.spec import Spec
from goldilocks.data.tables.columns import Column
from goldilocks.data.tables.dialect import Layout
from goldilocks.data.tables.preparation import Fitted, Preparation
from goldilocks.data.tables.values import Form
from goldilocks.errors import Refused
from goldilocks.machine.files import read_json, write_json

CHUNK = 2**20  # bytes whose checksum is taken at once


@dataclass
class Array:
    """An array of numpy's: numbers as a tensor, words, [N], as a list and their kind."""

    values: Tensor | list[str]
    words: str = ""


# All else is a value of Python's.
PLAIN: list[Any] = [Array, Column, Fitted, Form, Layout, Preparation, Spec]


def write_kept(folder: Path, key: str, state: Mapping[str, Any], files: Files) -> None:
    """Writes rows for other processes. What cannot be read as values is prepared by each of them.

    Args:
        folder: Is made if it is not there.
        key: Names the file.
        state: Of the object, by attribute.
        files: That were read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.pt"
    temporary = folder / f".{key}.{os.getpid()}"
    about: dict[str, Any] = {"size": None}
    try:
        try:
            torch.save(packed(dict(state)), temporary)
            loaded(temporary)
        except (pickle.PickleError, AttributeError, TypeError):  # of a source of one's own
            temporary.unlink(missing_ok=True)
        else:
            size = temporary.stat().st_size
            about = {"size": size, "checksum": checksum(temporary), "files": files}
            os.replace(temporary, path)
        write_json(folder / f"{key}.json", about)
    except (OSError, RuntimeError):  # a full disk: each process prepares them for itself
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def cannot_be_kept(folder: Path, key: str) -> bool:
    """Whether it was tried to write rows, and something about them is no value."""
    try:
        return read_json(folder / f"{key}.json", "the prepared rows").get("size", 0) is None
    except Refused:
        return False


def read_kept(folder: Path, key: str) -> tuple[dict[str, Any], Files] | None:
    """What was written, mapped into memory; None if there is nothing, it is damaged, or a file that
    was read has changed since.
    """
    path = folder / f"{key}.pt"
    try:
        about = read_json(folder / f"{key}.json", "the prepared rows")
        size, expected, files = about["size"], about["checksum"], about["files"]
        if path.stat().st_size != size or checksum(path) != expected or not are_same(files):
            return None
        return loaded(path), {name: (int(time), int(size)) for name, (time, size) in files.items()}
    except (Refused, OSError, KeyError, ValueError, TypeError, RuntimeError, pickle.PickleError):
        return None


def loaded(path: Path) -> dict[str, Any]:
    """What a file holds, whose tensors lie in it."""
    with torch.serialization.safe_globals(PLAIN):
        found = torch.load(path, mmap=True, weights_only=True)
    return unpacked(found)


def checksum(path: Path) -> int:
    """Of a file's bytes: a second for a few gigabytes, where reading them again would be more."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found = zlib.crc32(chunk, found)
    return found


def packed(value: Any) -> Any:
    """A value with tensors in place of arrays."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "U" and value.ndim == 1:
            return Array(value.tolist(), value.dtype.str)
        usable = value.flags.c_contiguous and value.flags.writeable
        return Array(torch.from_numpy(value if usable else value.copy()))
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {packed(key): packed(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(packed, value))
    return value


def unpacked(value: Any) -> Any:
    """The inverse of `packed`."""
    if isinstance(value, Array):
        return as_array(value)
    if type(value) is dict:
        return {key: unpacked(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(unpacked, value))
    return value


def as_array(value: Array) -> Any:
    """The array that was packed."""
    if isinstance(value.values, Tensor):
        return value.values.numpy()
    return np.array(value.values, dtype=value.words)
