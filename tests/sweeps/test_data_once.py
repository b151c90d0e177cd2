"""A sweep reads and prepares its data once, and its results are those of trials alone."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import SMALL, read_result
from goldilocks.data import shared
from goldilocks.training import components

SOURCE = """
import numpy as np
from goldilocks.data.base import Table, TableData


class Counted(TableData):
    def load(self):
        with open("reads.txt", "a") as file:
            file.write(f"{self.fold}\\n")
        rows = np.load("rows.npy")
        return Table(rows, (rows[:, 0] > 0).astype(int))
"""
OPTION = """
_target_: counted_rows.Counted
batch_size: 16
folds: null
fold: null
scaling: standard
"""
WORDS = [*SMALL[1:], "packages=[counted_rows]", "data=counted", "callbacks.evaluation=null"]
WORDS += ["model.width=4", "logger=csv", "sweep.ensemble=0"]


@pytest.fixture
def sweep(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a sweep over rows of a source that notes how often it is read."""
    (tmp_path / "own/data").mkdir(parents=True)
    (tmp_path / "own/data/counted.yaml").write_text(OPTION)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/counted_rows.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.delitem(sys.modules, "counted_rows", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    write(0)

    def run(*words: str):
        return command("--config-dir", "own", *WORDS, *words, "-m")

    return run


def write(seed: int) -> None:
    np.save("rows.npy", np.random.default_rng(seed).normal(size=(80, 3)))


def reads() -> list[str]:
    return Path("reads.txt").read_text().split()


def test_rows_are_read_once_for_all_trials_of_a_process(sweep, tmp_path: Path) -> None:
    ended = sweep("seed=0,1", "data.batch_size=16,32", "name=s")
    assert ended.code == 0, ended.err
    assert reads() == ["None"]
    assert not (tmp_path / "logs/sweeps/s/trials/data").exists()
    assert not shared.current


def test_rows_are_read_once_for_each_way_they_are_prepared(sweep) -> None:
    assert sweep("seed=0,1", "data.scaling=standard,minmax", "name=s").code == 0
    assert len(reads()) == 2


def test_rows_are_read_once_for_all_folds(sweep, monkeypatch) -> None:
    prepared = []
    of = shared.Sharing.prepared

    def counting(self, node, make):
        prepared.append(node["fold"])
        return of(self, node, make)

    monkeypatch.setattr(shared.Sharing, "prepared", counting)
    assert sweep("seed=0,1", "data.folds=3", "name=s").code == 0
    assert len(reads()) == 1
    assert prepared == [None, 0, 1, 2]


def test_rows_are_read_once_for_all_processes(sweep, tmp_path: Path) -> None:
    words = ["hydra/launcher=process", "hydra.launcher.slots=2"]
    ended = sweep("seed=0,1", *words, "name=s")
    assert ended.code == 0, ended.err
    assert len(reads()) == 1
    assert not (tmp_path / "logs/sweeps/s/trials/data").exists()


def test_results_are_those_of_trials_that_read_for_themselves(
    sweep, tmp_path: Path, monkeypatch
) -> None:
    words = ["seed=0,1", "regularization=[mixup,noise,dropout]", "model=deep"]
    assert sweep(*words, "name=together").code == 0
    read_together = len(reads())

    def alone(node, make):
        data = make()
        data.setup()
        return data

    monkeypatch.setattr(components.shared, "set_up", alone)
    assert sweep(*words, "name=alone").code == 0
    assert len(reads()) > read_together + 2
    for number in ("0", "1"):
        ours, theirs = (tmp_path / f"logs/sweeps/{name}/{number}" for name in ("together", "alone"))
        one, other = (read_result(folder) for folder in (ours, theirs))
        assert one["metrics"] == other["metrics"]
        assert one["data_hash"] == other["data_hash"]
        weights = [
            torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
            for folder in (ours, theirs)
        ]
        assert all(map(torch.equal, weights[0].values(), weights[1].values()))


def test_rows_that_change_between_two_trials_are_refused(
    sweep, tmp_path: Path, monkeypatch
) -> None:
    from goldilocks.sweeps.execution import trials

    run = trials.run

    def changing(request):
        if request.folder.name == "1":
            write(1)
        return run(request)

    monkeypatch.setattr(trials, "run", changing)
    assert sweep("seed=0,1,2", "name=s").code == 1
    found = [read_result(tmp_path / f"logs/sweeps/s/{number}") for number in range(3)]
    assert [result["status"] for result in found] == ["done", "failed", "failed"]
    assert "its data have changed since it was trained" in found[1]["error"]["message"]
    assert len(reads()) == 2


def test_what_a_killed_sweep_has_left_is_removed(sweep, tmp_path: Path) -> None:
    folder = tmp_path / "logs/sweeps/s"
    words = ["hydra/launcher=process", "hydra.launcher.slots=1", "name=s"]
    assert sweep("seed=0", *words).code == 0
    (folder / "trials/data").mkdir()
    (folder / "trials/data/left.pt").write_text("left")
    shutil.rmtree(folder / "0")
    assert sweep("seed=0", *words).code == 0
    assert not (folder / "trials/data").exists()


def test_the_rows_of_the_first_trial_are_looked_up_once(sweep, tmp_path: Path, monkeypatch) -> None:
    from goldilocks.sweeps.execution import trials

    assert sweep("seed=0,1,2", "name=s").code == 0
    folder = tmp_path / "logs/sweeps/s"
    read = []
    frozen = trials.frozen
    monkeypatch.setattr(trials, "known_rows", {})
    monkeypatch.setattr(trials, "frozen", lambda *of: read.append(of[1]) or frozen(*of))
    monkeypatch.setenv("GOLDILOCKS_PACKAGES", "counted_rows")
    last = frozen(folder, 2)
    expected = read_result(folder / "0")["data_hash"]
    assert [trials.rows_of(folder, last) for _ in range(3)] == [expected] * 3
    assert read == [0]
    result = folder / "0/result.json"
    result.write_text(result.read_text().replace(expected, "f" * 12))
    assert trials.rows_of(folder, last) == "f" * 12
    last.config.data.scaling = "minmax"
    assert trials.rows_of(folder, last) is None
    assert trials.first_rows(folder.relative_to(tmp_path)) is not None
    monkeypatch.chdir(tmp_path / "code")
    assert trials.first_rows(folder.relative_to(tmp_path)) is None
