"""Data that trials share: prepared once for each way they are configured,
and again where anything about them has changed.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from goldilocks.data import shared
from goldilocks.data.base import Table, TableData
from goldilocks.data.kept import read_kept
from goldilocks.data.opened import named_files, noted
from goldilocks.data.shared import Sharing, sharing
from goldilocks.data.sources.table_file import TableFile

NODE = {"batch_size": 8}


class Counted(TableData):
    """Rows of a file that it alone knows; counts how often they are read."""

    reads = 0

    def load(self) -> Table:
        type(self).reads += 1
        rows = np.load("rows.npy")
        return Table(rows, np.arange(len(rows)) % 2)


class Wordy(Counted):
    """Makes something of its rows that is no value."""

    def load(self) -> Table:
        self.finder = lambda word: word
        return super().load()


class Stepping(Counted):
    """Has an argument of the base class for itself."""

    def __init__(self, batch_size: int = 4, **options) -> None:
        super().__init__(batch_size=batch_size, **options)
        self.step = batch_size // 2


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Counted, "reads", 0)
    write(tmp_path / "rows.npy")
    return tmp_path / "rows.npy"


def write(path: Path, seed: int = 0) -> None:
    np.save(path, np.random.default_rng(seed).normal(size=(60, 3)))


def get(ours: Sharing, kind: type[TableData] = Counted, **node) -> TableData:
    node = {**NODE, **node}
    return ours.set_up(node, partial(kind, **node))


def alone(kind: type[TableData] = Counted, **node) -> TableData:
    data = kind(**{**NODE, **node})
    data.setup()
    return data


def assert_same(ours: TableData, theirs: TableData) -> None:
    assert ours.spec == theirs.spec
    assert ours.fingerprint == theirs.fingerprint
    assert ours.tensors.keys() == theirs.tensors.keys()
    for stage, pair in ours.tensors.items():
        assert all(map(torch.equal, pair, theirs.tensors[stage]))
        assert np.array_equal(ours.row_numbers[stage], theirs.row_numbers[stage])
    assert all(map(torch.equal, ours.judged, theirs.judged))
    assert np.array_equal(ours.unscaled, theirs.unscaled)


# --- within a process -----------------------------------------------------------------------------


def test_without_a_sweep_nothing_is_remembered() -> None:
    for _ in range(2):
        shared.set_up(NODE, partial(Counted, **NODE))
    assert Counted.reads == 2


def test_in_a_sweep_rows_are_read_once_for_all_batch_sizes() -> None:
    with sharing():
        found = [
            shared.set_up({"batch_size": size}, partial(Counted, batch_size=size))
            for size in (4, 8, 4)
        ]
    assert Counted.reads == 1
    assert [data.batch_size for data in found] == [4, 8, 4]
    assert_same(found[0], alone())
    assert found[0] is not found[1]
    assert found[0].tensors is not found[1].tensors
    x, y = (data.tensors["train"][0] for data in found[:2])
    assert x.data_ptr() == y.data_ptr()


def test_other_settings_are_prepared_for_themselves() -> None:
    ours = Sharing()
    found = [get(ours, scaling=scaling) for scaling in ("none", "minmax", "none")]
    assert Counted.reads == 2
    assert_same(found[1], alone(scaling="minmax"))
    assert_same(found[2], alone(scaling="none"))


def test_a_class_that_names_the_batch_size_gets_its_own_rows() -> None:
    ours = Sharing()
    assert [get(ours, Stepping, batch_size=size).step for size in (8, 4)] == [4, 2]
    assert Stepping.reads == 2


def test_all_folds_are_made_of_rows_that_are_loaded_once() -> None:
    ours = Sharing()
    for _ in range(2):
        for fold in (None, 0, 1, 2):
            node = {"folds": 3, "fold": fold}
            assert_same(get(ours, **node), alone(**node))
    assert Counted.reads == 1 + 8  # those alone


def test_a_file_that_has_changed_is_read_again(rows: Path) -> None:
    ours = Sharing()
    before = get(ours)
    write(rows, seed=1)
    after = get(ours)
    assert Counted.reads == 2
    assert before.fingerprint != after.fingerprint
    assert_same(after, alone())


def test_a_fold_of_a_file_that_has_changed_is_loaded_again(rows: Path) -> None:
    ours = Sharing()
    before = get(ours, folds=3, fold=0)
    write(rows, seed=1)
    assert get(ours, folds=3, fold=1).fingerprint != before.fingerprint


def test_a_new_file_of_a_pattern_is_noticed(tmp_path: Path) -> None:
    node = {**NODE, "path": "part*.csv", "target": "y"}
    lines = ["x,y", *(f"{n * 7 % 13},{n % 2}" for n in range(60))]
    Path("part1.csv").write_text("\n".join(lines))
    ours = Sharing()
    assert sum(get(ours, TableFile, **node).spec.num_rows.values()) == 60
    Path("part2.csv").write_text("\n".join(lines))
    assert sum(get(ours, TableFile, **node).spec.num_rows.values()) == 120


def test_tensors_that_were_changed_in_place_are_prepared_again() -> None:
    ours = Sharing()
    get(ours).tensors["train"][0].add_(1)
    assert_same(get(ours), alone())


def test_only_a_few_sets_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Sharing()
    monkeypatch.setattr(shared, "MOST_SETS", 2)
    for seed in (0, 1, 0, 2, 0, 1):
        get(ours, seed=seed)
    assert Counted.reads == 4  # 1 was used longest ago when 2 came
    monkeypatch.setattr(shared, "MOST_BYTES", 1)
    get(ours, seed=0)
    assert len(ours.sets) == 1


# --- between processes ----------------------------------------------------------------------------


def test_another_process_finds_the_rows_in_a_file(tmp_path: Path) -> None:
    get(Sharing(tmp_path / "kept"))
    there = get(Sharing(tmp_path / "kept"), batch_size=4)
    assert Counted.reads == 1
    assert there.batch_size == 4
    assert_same(there, alone())


def test_a_table_is_found_with_all_that_was_found_out_about_it(tmp_path: Path) -> None:
    words = ("red", "green", "blue")
    lines = ["n,w,y", *(f"{n * 7 % 13},{words[n % 3]},{n % 2}" for n in range(60))]
    Path("t.csv").write_text("\n".join(lines))
    node = {**NODE, "path": "t.csv", "target": "y"}
    here = get(Sharing(tmp_path / "kept"), TableFile, **node)
    there = get(Sharing(tmp_path / "kept"), TableFile, **node)
    assert here.tensors["train"][0].data_ptr() != there.tensors["train"][0].data_ptr()
    assert_same(there, alone(TableFile, **node))
    assert there.owners() == here.owners()
    assert there.card() == here.card()
    ours, theirs = here.state_dict(), there.state_dict()
    assert ours.keys() == theirs.keys()
    assert ours["preparation"]["columns"] == theirs["preparation"]["columns"]
    assert ours["target_forms"] == theirs["target_forms"]


def test_what_is_remembered_already_is_written_when_a_folder_is_known(tmp_path: Path) -> None:
    with sharing() as ours:
        get(ours)
        shared.keep_in(tmp_path / "kept")
        get(Sharing(tmp_path / "kept"))
        assert Counted.reads == 1
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("file", ["pt", "json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_file_is_noticed_and_prepared_again(
    tmp_path: Path, file: str, damage: str
) -> None:
    kept = tmp_path / "kept"
    get(Sharing(kept))
    (path,) = kept.glob(f"*.{file}")
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        content[middle] ^= 1
        path.write_bytes(content[:middle] if damage == "cut" else content)
    again = get(Sharing(kept))
    assert_same(again, alone())
    assert Counted.reads == 3
    assert read_kept(kept, path.stem) is not None


def test_a_file_of_rows_that_have_changed_is_written_again(tmp_path: Path, rows: Path) -> None:
    get(Sharing(tmp_path / "kept"))
    write(rows, seed=1)
    assert_same(get(Sharing(tmp_path / "kept")), alone())


def test_what_is_no_value_is_prepared_by_each_process(tmp_path: Path) -> None:
    for _ in range(2):
        assert get(Sharing(tmp_path / "kept"), Wordy).finder("a") == "a"
    assert Wordy.reads == 2
    assert not list((tmp_path / "kept").glob("*.pt"))


def test_a_file_runs_no_code(tmp_path: Path) -> None:
    """One of a stranger, with a checksum that fits."""
    from goldilocks.data.kept import checksum
    from goldilocks.machine.files import write_json

    class Evil:
        def __reduce__(self):
            return os.mkdir, ("evil",)

    torch.save({"tensors": Evil()}, tmp_path / "k.pt")
    size = (tmp_path / "k.pt").stat().st_size
    about = {"size": size, "checksum": checksum(tmp_path / "k.pt"), "files": {}}
    write_json(tmp_path / "k.json", about)
    assert read_kept(tmp_path, "k") is None
    assert not Path("evil").exists()


# --- files ----------------------------------------------------------------------------------------


def test_files_that_are_read_are_noted_and_others_not(tmp_path: Path) -> None:
    with noted() as files:
        Path("rows.npy").read_bytes()
        Path("written.txt").write_text("a")
        Path("passing.txt").write_text("a")
        Path("passing.txt").read_text()
        Path("passing.txt").unlink()
    assert list(files) == [str(tmp_path / "rows.npy")]


def test_files_that_settings_name(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "folder/c", "folder/d", "folder/below/e"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    named = named_files({"path": "?.csv", "more": ["folder"], "name": "iris", "task": None})
    assert list(named) == [
        str(tmp_path / name) for name in ("a.csv", "b.csv", "folder/c", "folder/d")
    ]
