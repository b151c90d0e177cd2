"""Sweeps that are killed, started twice at a time, edited on the way, or run by process:
nothing is lost.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from commands import start, wait_for
from conftest import ROOT, read_result
from goldilocks.errors import Refused
from goldilocks.machine.locks import held
from goldilocks.runs.folder import can_resume
from goldilocks.sweeps.execution.processes import lost, slots_of
from goldilocks.sweeps.execution.trials import frozen

QUICK = [
    "data=iris",
    "trainer=cpu",
    "callbacks.progress_bar=null",
    "callbacks.last_checkpoint.min_seconds=0",
    "name=s",
]
UNLUCKY = """
from pytorch_lightning import Callback

class Unlucky(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        if pl_module.seed == 3:
            raise RuntimeError("unlucky")
"""
# Some of these raise, some diverge.
TWENTY = [
    "-m",
    *QUICK,
    "optimizer=sgd",
    "optimizer.lr=0.01,0.02,0.04,1e30",
    "seed=range(5)",
    "packages=[unlucky]",
    "+callbacks.unlucky._target_=unlucky.Unlucky",
    "trainer.max_epochs=12",
]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode in (0, 1), err
    return out + err


def trials_begun(folder: Path) -> int:
    """Trials of a sweep that have a folder."""
    return len(list(folder.glob("*/result.json")))


def stamps(folder: Path) -> dict[str, int]:
    done = [
        path
        for path in folder.glob("*/result.json")
        if read_result(path.parent)["status"] in ("done", "diverged")
    ]
    return {path.parent.name: path.stat().st_mtime_ns for path in done}


@pytest.mark.parametrize("launcher", ["basic", pytest.param("process", marks=pytest.mark.slow)])
def test_a_sweep_that_is_killed_twice_ends_as_one_that_is_not(
    tmp_path: Path, launcher: str, monkeypatch
) -> None:
    (tmp_path / "unlucky.py").write_text(UNLUCKY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    chance = random.Random(f"{launcher}{os.getpid()}")
    disturbed, calm = tmp_path / "disturbed", tmp_path / "calm"
    for place in (disturbed, calm):
        place.mkdir()
    words = [*TWENTY, f"hydra/launcher={launcher}"]
    folder = disturbed / "logs/sweeps/s"
    kept: dict[str, int] = {}
    for number in (2, 7):
        process = start(*words, cwd=disturbed)
        wait_for(lambda number=number: trials_begun(folder) > number, seconds=120)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert kept.items() <= stamps(folder).items()
        kept = stamps(folder)
    said = finish(start(*words, cwd=disturbed))
    assert "trials are done already" in said
    assert kept.items() <= stamps(folder).items(), "a finished trial was done again"
    finish(start(*words, cwd=calm))
    ours, theirs = rows(folder), rows(calm / "logs/sweeps/s")
    assert len(ours) == len(theirs) == 20
    same = ("trial", "status", "objective", "optimizer.lr", "seed", "error", "epochs", "best_epoch")
    assert [[row[key] for key in same] for row in ours] == [
        [row[key] for key in same] for row in theirs
    ]
    assert {row["status"] for row in ours} == {"done", "diverged", "failed"}


def test_an_interrupted_trial_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    words = ["-m", *QUICK, "callbacks.early_stopping=null", "trainer.max_epochs=60", "seed=0,1"]
    folder = tmp_path / "logs/sweeps/s"
    process = start(*words, cwd=tmp_path)
    wait_for(lambda: (folder / "0/checkpoints/last.ckpt").exists())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert can_resume(folder / "0")
    before = read_result(folder / "0")["epochs"]
    assert 0 < before < 60
    finish(start(*words, cwd=tmp_path))
    environment = (folder / "0/environment.json").read_text()
    assert '"resumed"' in environment
    assert [read_result(folder / n)["epochs"] for n in "01"] == [60, 60]


@pytest.mark.slow
def test_a_trial_of_folds_goes_on_with_the_missing_one(tmp_path: Path) -> None:
    words = [
        "-m",
        *QUICK,
        "callbacks.early_stopping=null",
        "trainer.max_epochs=60",
        "seed=0,1",
        "data.folds=2",
    ]
    folder = tmp_path / "logs/sweeps/s"
    process = start(*words, cwd=tmp_path)
    wait_for(lambda: (folder / "0/fold_1/checkpoints/last.ckpt").exists())
    process.kill()
    process.communicate()
    first = (folder / "0/fold_0/result.json").stat().st_mtime_ns
    finish(start(*words, cwd=tmp_path))
    assert (folder / "0/fold_0/result.json").stat().st_mtime_ns == first
    assert '"resumed"' in (folder / "0/fold_1/environment.json").read_text()
    assert [row["status"] for row in rows(folder)] == ["done", "done"]


@pytest.mark.slow
def test_two_at_once_finish_it_together(tmp_path: Path) -> None:
    words = [
        "-m",
        *QUICK,
        "callbacks.early_stopping=null",
        "trainer.max_epochs=20",
        "seed=range(8)",
    ]
    both = [start(*words, cwd=tmp_path) for _ in range(2)]
    said = [finish(process) for process in both]
    folder = tmp_path / "logs/sweeps/s"
    assert [row["status"] for row in rows(folder)] == ["done"] * 8
    for number in range(8):
        assert '"resumed"' not in (folder / str(number) / "environment.json").read_text()
    ran = [text.count("  trial ") for text in said]
    assert min(ran) >= 1


@pytest.mark.slow
def test_editing_a_file_later_changes_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "model"
    mine.mkdir(parents=True)
    option = (ROOT / "conf/model/deep.yaml").read_text()
    (mine / "own.yaml").write_text(option)
    words = [
        "--config-dir",
        str(tmp_path / "mine"),
        "-m",
        *QUICK,
        "model=own",
        "trainer.max_epochs=1",
    ]
    finish(start(*words, "seed=0,1", cwd=tmp_path))
    (mine / "own.yaml").write_text(option.replace("width: 100", "width: 7"))
    folder = tmp_path / "logs/sweeps/s"
    before = stamps(folder)
    finish(start(*words, "seed=0,1", cwd=tmp_path))
    assert stamps(folder) == before
    assert frozen(folder, 0).config.model.width == 100
    finish(start(*words, "seed=0,1,2", cwd=tmp_path))
    assert [frozen(folder, n).config.model.width for n in range(3)] == [100, 100, 7]


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    words = [
        "-m",
        *QUICK,
        "callbacks.early_stopping=null",
        "trainer.max_epochs=3,1000000,4",
        "hydra/launcher=process",
    ]
    folder = tmp_path / "logs/sweeps/s"
    process = start(*words, cwd=tmp_path)
    wait_for(
        lambda: (
            (folder / "1/checkpoints/last.ckpt").exists() and (folder / "2/result.json").exists()
        ),
        seconds=120,
    )
    wait_for(lambda: read_result(folder / "2")["status"] == "done", seconds=60)
    pattern = f"goldilocks.sweeps.execution.processes {folder.relative_to(tmp_path)} 1 "
    own = subprocess.run(["pgrep", "-f", pattern], capture_output=True)
    os.kill(int(own.stdout.split()[0]), signal.SIGKILL)
    said = finish(process)
    assert process.returncode == 1
    assert "its process was killed by SIGKILL" in said
    assert [row["status"] for row in rows(folder)] == ["done", "failed", "done"]
    assert can_resume(folder / "1")


@pytest.mark.slow
def test_ctrl_c_reaches_the_processes_of_the_trials(tmp_path: Path) -> None:
    words = [
        "-m",
        *QUICK,
        "callbacks.early_stopping=null",
        "trainer.max_epochs=1000000,1000001",
        "hydra/launcher=process",
    ]
    folder = tmp_path / "logs/sweeps/s"
    process = start(*words, cwd=tmp_path)
    wait_for(
        lambda: all((folder / n / "checkpoints/last.ckpt").exists() for n in "01"), seconds=120
    )
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert [row["status"] for row in rows(folder)] == ["interrupted"] * 2


def test_locks_are_exclusive_and_given_up(tmp_path: Path) -> None:
    path = tmp_path / "trials" / "0.lock"
    with held(path, wait=False) as mine:
        assert mine
        code = "import sys; from pathlib import Path; from goldilocks.machine.locks import held\n"
        code += "with held(Path(sys.argv[1]), wait=False) as mine: sys.exit(int(mine))"
        assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 0
    with held(path, wait=False) as mine:
        assert mine


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="what trial 3 is cannot be read"):
        frozen(tmp_path, 3)
    assert lost(-9)["error"]["message"] == "its process was killed by SIGKILL"
    assert lost(3)["error"]["message"] == "its process ended with exit code 3"


def launcher(**changes):
    return SimpleNamespace(**{"devices": "auto", "trials_per_device": 1, "slots": 3, **changes})


def test_each_trial_has_a_device_or_a_share_of_one(monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert slots_of(launcher()) == slots_of(launcher(devices=None)) == [None] * 3
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert slots_of(launcher()) == ["0", "1"]
    assert slots_of(launcher(trials_per_device=2)) == ["0", "1", "0", "1"]
    assert slots_of(launcher(devices=["0,1", "2,3"])) == ["0,1", "2,3"]
    assert slots_of(launcher(devices=None)) == [None] * 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert slots_of(launcher()) == ["3", "5"]


@pytest.mark.parametrize(
    "word", ["trials_per_device=0", "devices=[]", "devices=[x]", "devices=all", "slots=1.5"]
)
def test_wrong_slots_are_refused(word, command, tmp_path: Path) -> None:
    ended = command("-m", *QUICK, "seed=0,1", "hydra/launcher=process", f"hydra.launcher.{word}")
    assert ended.code == 2
    assert ended.err.startswith(f"error: hydra.launcher.{word.partition('=')[0]}=")
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "logs").exists()


@pytest.mark.gpu
def test_trials_share_a_gpu(tmp_path: Path) -> None:
    words = [
        "-m",
        "data=iris",
        "trainer=gpu",
        "callbacks=none",
        "name=s",
        "seed=0,1",
        "trainer.max_epochs=2",
    ]
    words += ["hydra/launcher=process", "hydra.launcher.trials_per_device=2"]
    finish(start(*words, cwd=tmp_path))
    folders = [tmp_path / "logs/sweeps/s" / number for number in "01"]
    assert [read_result(folder)["status"] for folder in folders] == ["done", "done"]
    assert all(
        len(json.loads((folder / "environment.json").read_text())["gpus"]) == 1
        for folder in folders
    )


def test_slots_must_be_a_number(command, tmp_path: Path) -> None:
    ended = command("-m", *QUICK, "seed=0,1", "hydra/launcher=process", "hydra.launcher.slots=0")
    assert ended.code == 2
    assert "hydra.launcher.slots=0: must be a whole number of at least 1" in ended.err
