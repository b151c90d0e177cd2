"""Sweeps whose trials are trained as one network: `hydra/launcher=fused` and `auto`."""

import csv
import signal
import time
from pathlib import Path

import pytest

from commands import start
from conftest import SMALL, read_result
from goldilocks.training.fused import alike

SWEEP = ["-m", *SMALL, "name=s", "sweep.ensemble=0", "logger=csv"]
GRID = ["optimizer.lr=0.01,0.001", "seed=0,1"]


def rows(folder: Path) -> list[dict]:
    with (folder / "logs/sweeps/s/trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_fused_sweep_leaves_what_one_by_one_does(command, tmp_path):
    found = {}
    for launcher in ("basic", "fused"):
        ended = command(*SWEEP, *GRID, f"hydra/launcher={launcher}")
        assert ended.code == 0, ended.err
        folder = tmp_path / "logs/sweeps/s"
        files = {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if "tfevents" not in path.name
        }
        values = {row["trial"]: float(row["objective"]) for row in rows(tmp_path)}
        found[launcher] = files, values, [read_result(folder / str(n)).keys() for n in range(4)]
        (tmp_path / "logs").rename(tmp_path / launcher)
        if launcher == "fused":
            assert "4 trials trained as one network: 0, 1, 2, 3" in ended.err
    assert found["fused"][0] == found["basic"][0]
    assert found["fused"][1] == pytest.approx(found["basic"][1], rel=1e-4)
    assert found["fused"][2] == found["basic"][2]


def test_folds_that_end_at_different_epochs_are_trained_as_alone(command, tmp_path):
    words = ["optimizer.lr=0.1,0.001", "data.folds=3", "trainer.max_epochs=8"]
    words += ["callbacks.early_stopping.patience=1"]
    found = {}
    for launcher in ("basic", "fused"):
        ended = command(*SWEEP, *words, f"hydra/launcher={launcher}")
        assert ended.code == 0, ended.err
        known = [read_result(tmp_path / f"logs/sweeps/s/{n}") for n in range(2)]
        values = [one["objective"]["value"] for one in known]
        found[launcher] = values, [one["epochs"] for one in known]
        (tmp_path / "logs").rename(tmp_path / launcher)
    assert found["fused"][0] == pytest.approx(found["basic"][0], rel=1e-4)
    assert found["fused"][1] == found["basic"][1]
    assert len(set(found["fused"][1])) == 2


def test_trials_are_grouped_by_their_layers(command, tmp_path):
    words = ["model=shallow,deep,linear", "seed=0,1", "optimizer=nadam,asgd"]
    ended = command(*SWEEP, *words, "hydra/launcher=fused")
    assert ended.code == 0, ended.err
    assert ended.err.count("2 trials trained as one network") == 3
    assert ended.err.count("trained one by one") == 1
    assert "ASGD does not move in proportion to its rate" in ended.err
    assert {row["status"] for row in rows(tmp_path)} == {"done"}


def test_large_networks_are_trained_one_by_one_unless_that_is_asked_for(
    command, tmp_path, monkeypatch
):
    monkeypatch.setitem(alike.PAYS, "cpu", 1000)
    ended = command(*SWEEP, *GRID)
    assert ended.code == 0, ended.err
    assert "trials trained one by one: 0, 1, 2, 3: " in ended.err
    assert "parameters times rows of a batch, more than 1,000" in ended.err
    (tmp_path / "logs").rename(tmp_path / "before")
    assert "4 trials trained as one" in command(*SWEEP, *GRID, "hydra.launcher.always=true").err


def test_what_memory_does_not_hold_is_split(command, tmp_path, monkeypatch):
    monkeypatch.setattr(alike, "SHARE_OF_MEMORY", 0.0)  # two at a time are the fewest
    ended = command(*SWEEP, *GRID)
    assert ended.code == 0, ended.err
    assert ended.err.count("2 trials trained as one network") == 2


def test_a_failing_trial_does_not_stop_those_it_is_trained_with(command, tmp_path, monkeypatch):
    from goldilocks.training.module import TrainingModule

    original = TrainingModule.on_train_epoch_start

    def broken(self) -> None:
        if self.seed == 1:
            raise RuntimeError("unlucky")
        original(self)

    monkeypatch.setattr(TrainingModule, "on_train_epoch_start", broken)
    ended = command(*SWEEP, "seed=0,1,2", "hydra/launcher=fused")
    assert ended.code == 1
    assert [row["status"] for row in rows(tmp_path)] == ["done", "failed", "done"]


def test_trials_of_folds_are_trained_together(command, tmp_path):
    words = ["data.folds=3", "optimizer.lr=0.01,0.001"]
    found = []
    for launcher in ("basic", "fused"):
        ended = command(*SWEEP, *words, f"hydra/launcher={launcher}")
        assert ended.code == 0, ended.err
        found.append([float(row["objective"]) for row in rows(tmp_path)])
        (tmp_path / "logs").rename(tmp_path / launcher)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_study_proposes_a_few_trials_at_a_time(command, tmp_path):
    pytest.importorskip("optuna")
    words = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "sweep.sampler=tpe", "sweep.n_trials=10"]
    ended = command(*SWEEP, *words, "hydra.launcher.batch=4")
    assert ended.code == 0, ended.err
    lines = [line for line in ended.err.splitlines() if "as one" in line]
    sizes = [line.split()[0] for line in lines]
    assert sizes == ["4", "4", "2"]
    assert {row["status"] for row in rows(tmp_path)} == {"done"}


def test_trials_are_given_up_among_those_they_are_trained_with(command, tmp_path):
    pytest.importorskip("optuna")
    words = ["sweep.pruner=asha", "optimizer=sgd", "trainer.max_epochs=9"]
    ended = command(*SWEEP, *words, "optimizer.lr=0.1,0.09,0.08,0.07,1e-6,1e-7")
    assert ended.code == 0, ended.err
    statuses = [row["status"] for row in rows(tmp_path)]
    assert statuses[0] == "done"
    assert "pruned" in statuses


def test_an_optimizer_that_maximizes_is_not_stacked(compose):
    from goldilocks.training.checks import check

    cfg = compose("optimizer=adam", "+optimizer.maximize=true")
    assert alike.reason_against(check(cfg)) == "optimizer.maximize"


@pytest.mark.parametrize("given", ["batch=0", "batch=x", "always=2"])
def test_wrong_values_of_the_launcher_are_refused(command, given):
    ended = command(*SWEEP, *GRID, f"hydra.launcher.{given}")
    assert ended.code == 2
    assert ended.err.startswith(f"error: hydra.launcher.{given}")


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(tmp_path):
    """Again and again: nothing that is finished is repeated, and nothing is lost."""
    words = ["-m", *SMALL, "name=s", "sweep.ensemble=0", "logger=csv", "seed=range(16)"]
    words += ["trainer.max_epochs=400", "callbacks.early_stopping=null", "model.width=16,24"]
    folder = tmp_path / "logs/sweeps/s"
    finished: dict[Path, int] = {}
    for kill in range(20):
        process = start(*words, cwd=tmp_path)
        time.sleep(5)
        time.sleep(0.3 * (kill % 5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path, stamp in finished.items():
            assert path.stat().st_mtime_ns == stamp
        for path in folder.glob("*/result.json"):
            if read_result(path.parent)["status"] == "done":
                finished[path] = path.stat().st_mtime_ns
    process = start(*words, cwd=tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for path, stamp in finished.items():
        assert path.stat().st_mtime_ns == stamp
    results = [read_result(folder / str(number)) for number in range(32)]
    assert [result["status"] for result in results] == ["done"] * 32
    assert {result["epochs"] for result in results} == {400}
