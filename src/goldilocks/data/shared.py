"""Rows that the trials of a sweep share:
read and prepared once for each way in which they are configured.

Within a process they are remembered. The processes of a sweep find them in a file each, which is
mapped into memory, so that many of them hold the numbers once. What is remembered is known by the
settings of the data, without the batch size, and by the files that they name; it counts as long as
each file that was read is as it was. A trial has an object of its own, whose tensors are those of
all, and nothing may change them in place.
"""

import hashlib
import inspect
import json
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from goldilocks.data.base import Table, TableData
from goldilocks.data.kept import cannot_be_kept, read_kept, write_kept
from goldilocks.data.opened import Files, are_same, named_files, noted, sources_of
from goldilocks.machine.locks import held

MOST_SETS, MOST_BYTES = 16, 2**31  # that a process remembers; the last one in any case
# What an object has by its constructor alone, or by the trainer that it is attached to.
OWN = (*vars(pl.LightningDataModule()), "batch_size", "row_sampler", "fit", "load")

Make = Callable[[], TableData]


@dataclass
class Prepared:
    """Rows that are ready.

    Attributes:
        state: What `setup` has made of an object, by attribute.
        files: That were read.
    """

    state: dict[str, Any]
    files: Files

    def __post_init__(self) -> None:
        self.versions = self.versions_now()

    def versions_now(self) -> list[int]:
        """How often each tensor has been changed in place."""
        return [tensor._version for pair in self.state["tensors"].values() for tensor in pair]

    @property
    def nbytes(self) -> int:
        """Of the tensors."""
        return sum(tensor.nbytes for pair in self.state["tensors"].values() for tensor in pair)

    def is_valid(self) -> bool:
        """Whether the files are the same, and nobody has changed the tensors."""
        return are_same(self.files) and self.versions == self.versions_now()


@dataclass
class Loaded:
    """Rows as a source has loaded them, for the folds that are made of them.

    Attributes:
        key: Of the settings, whatever the fold is.
        table: What `load` gave.
        state: What it has set on the object.
        files: That were read.
        fingerprint: Of the rows.
    """

    key: str
    table: Table
    state: dict[str, Any]
    files: Files
    fingerprint: str | None = None


class Sharing:
    """What a process remembers, and the folder in which it finds what others have prepared.

    Args:
        folder: None: other processes need nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.sets: OrderedDict[str, Prepared] = OrderedDict()  # the last used one at the end
        self.loaded: Loaded | None = None

    def set_up(self, node: Mapping[str, Any], make: Make) -> TableData:
        """The data of a node, ready; `make` builds an object of it."""
        data = make()
        key = key_of(node, type(data))
        found = self.sets.get(key)
        if found is None or not found.is_valid():
            found = self.found(key, node, make)
        self.remember(key, found)
        vars(data).update(copied(found.state))
        return data

    def remember(self, key: str, found: Prepared) -> None:
        """Keeps a set as the last used one, and forgets those for which there is no room."""
        self.sets[key] = found
        self.sets.move_to_end(key)
        while len(self.sets) > 1 and (
            len(self.sets) > MOST_SETS or sum(one.nbytes for one in self.sets.values()) > MOST_BYTES
        ):
            self.sets.popitem(last=False)

    def found(self, key: str, node: Mapping[str, Any], make: Make) -> Prepared:
        """Rows that another process has prepared, or prepares now, or that are prepared here."""
        if self.folder is None or cannot_be_kept(self.folder, key):
            return self.prepared(node, make)
        with held(self.folder / f"{key}.lock", wait=True):
            if (kept := read_kept(self.folder, key)) is not None:
                return Prepared(*kept)
            found = self.prepared(node, make)
            write_kept(self.folder, key, found.state, found.files)
            return found

    def prepared(self, node: Mapping[str, Any], make: Make) -> Prepared:
        """Rows that are loaded, split and prepared."""
        data = make()
        with noted() as files:
            if data.folds is None:
                data.setup()
            else:
                data = self.prepared_fold(node, make, files)
        return Prepared(rows_of(data), files)

    def prepared_fold(self, node: Mapping[str, Any], make: Make, files: Files) -> TableData:
        """The data of a fold, from rows that are loaded once for all of them."""
        data, last = make(), self.loaded
        key = key_of({name: of for name, of in node.items() if name != "fold"}, type(data))
        if last is not None and last.key == key and are_same(last.files):
            data.load = lambda: last.table  # type: ignore[method-assign]
            vars(data).update(copied(last.state))
            data.setup()
            if data.fingerprint == last.fingerprint:  # else a source has changed its rows in place
                files.update(last.files)
                return data
            data = make()
        self.loaded = None
        load = data.load

        def loading() -> Table:
            table = load()
            state = {name: of for name, of in rows_of(data).items() if name != "fold"}
            self.loaded = Loaded(key, table, state, files)
            return table

        data.load = loading  # type: ignore[method-assign]
        data.setup()
        if self.loaded is not None:
            self.loaded.fingerprint = data.fingerprint
        return data

    def keep_in(self, folder: Path) -> None:
        """Writes what is remembered into a folder, and what is prepared from now on.
        What an earlier command has left there is removed.
        """
        self.folder = folder
        self.forget_files()
        for key, found in self.sets.items():
            if found.state["folds"] is None:  # a trial asks for each fold by itself
                with held(folder / f"{key}.lock", wait=True):
                    write_kept(folder, key, found.state, found.files)

    def forget_files(self) -> None:
        """Removes the files."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def key_of(node: Mapping[str, Any], kind: type) -> str:
    """By which the rows of a node are known: its settings, without those that only a batch depends
    on, the files that it names, and the code of its class.
    """
    settings = {name: value for name, value in node.items() if name != "batch_size"}
    if "batch_size" in own_arguments(kind):
        settings["batch_size"] = node.get("batch_size")
    about = [settings, named_files(settings), sources_of(kind)]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def own_arguments(kind: type) -> set[str]:
    """The arguments that the constructors of the classes below TableData name."""
    below = kind.__mro__[: kind.__mro__.index(TableData)]
    made = (vars(one)["__init__"] for one in below if "__init__" in vars(one))
    return {name for one in made for name in inspect.signature(one).parameters}


def rows_of(data: TableData) -> dict[str, Any]:
    """The attributes of an object that its rows, and what was found out about them, are."""
    return copied({name: value for name, value in vars(data).items() if name not in OWN})


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with lists and dictionaries of its own; tensors and arrays are shared."""
    kinds = dict, list
    return {name: type(of)(of) if type(of) in kinds else of for name, of in state.items()}


# --- which sharing there is -----------------------------------------------------------------------

current: list[Sharing] = []  # the last one counts


@contextmanager
def sharing() -> Iterator[Sharing]:
    """Within the block, data are prepared once; afterwards nothing of them is kept."""
    own = Sharing()
    current.append(own)
    try:
        yield own
    finally:
        current.remove(own)
        own.forget_files()


def keep_in(folder: Path) -> None:
    """From now on, processes that join a folder find there what this one has prepared."""
    if current:
        current[-1].keep_in(folder)


def join(folder: Path) -> None:
    """From now on, this process shares data with those that have joined the same folder."""
    if current:
        current[-1].folder = folder
    else:
        current.append(Sharing(folder))


def set_up(node: Mapping[str, Any], make: Make) -> TableData:
    """The data of a node, ready; `make` builds an object of it."""
    if current:
        return current[-1].set_up(node, make)
    data = make()
    data.setup()
    return data
