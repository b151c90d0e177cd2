"""A disk that is full, a folder that is gone, an output that is closed:
one line, and what is known is kept.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, SMALL, read_result
from goldilocks.runs.folder import write_result
from goldilocks.training.module import TrainingModule

QUICK = [*SMALL, "callbacks.evaluation=null", "logger=csv"]


class Disk:
    """Nothing can be written any more below a folder once it is `full`,
    as on one whose blocks are taken.
    """

    def __init__(self, monkeypatch, folder):
        self.full, self.folder = False, str(folder)
        opened = Path.open

        def open_here(path, mode="r", *given, **options):
            within = str(path.absolute()).startswith(self.folder)
            if self.full and within and set(mode) & set("wa"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return opened(path, mode, *given, **options)

        monkeypatch.setattr(Path, "open", open_here)


@pytest.fixture
def disk(monkeypatch, tmp_path):
    return Disk(monkeypatch, tmp_path / "logs")


def fills(disk, monkeypatch):
    """The disk is full in the second epoch."""
    step = TrainingModule.training_step

    def last(self, *given):
        disk.full = disk.full or self.current_epoch == 1
        return step(self, *given)

    monkeypatch.setattr(TrainingModule, "training_step", last)


def test_a_run_that_fills_the_disk_has_failed(command, disk, monkeypatch):
    fills(disk, monkeypatch)
    ended = command(*QUICK)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    result = read_result(ended.folder)
    assert result["status"] == "failed"
    assert "No space left" in result["error"]["message"]
    assert "No space left" in ended.out


def test_a_run_that_finds_the_disk_full_leaves_nothing(command, disk, tmp_path):
    disk.full = True
    ended = command(*QUICK)
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert "cannot be written to (No space left on device)" in ended.err
    assert "Traceback" not in ended.err
    assert not list(tmp_path.glob("logs/runs/*"))


def test_a_sweep_that_fills_the_disk_ends_with_its_table(command, disk, monkeypatch, tmp_path):
    fills(disk, monkeypatch)
    ended = command("-m", *QUICK, "seed=0,1", "name=s", "hydra/launcher=basic")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert "2 of 2 trials failed" in ended.err
    assert "trials.csv was not written" in ended.err
    assert "failed" in ended.out
    assert read_result(tmp_path / "logs/sweeps/s/0")["status"] == "failed"


def test_a_result_that_does_not_fit_is_written_without_its_diagnosis(disk, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    write_result(folder, {"status": "running"})
    disk.full = True
    write_result(folder, {"status": "done", "diagnosis": {"summary": "x" * 100_000}})
    assert read_result(folder) == {"status": "done", "diagnosis": None}
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_a_folder_that_is_moved_meanwhile_is_named(command, monkeypatch, tmp_path):
    step = TrainingModule.training_step

    def moves(self, *given):
        for folder in tmp_path.glob("logs/runs/*"):
            shutil.move(folder, tmp_path / "elsewhere")
        return step(self, *given)

    monkeypatch.setattr(TrainingModule, "training_step", moves)
    ended = command(*QUICK)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert "was moved or deleted meanwhile" in ended.err


CLOSED = {"closed": ">&-", "both closed": ">&- 2>&-", "full": "> /dev/full"}


@pytest.mark.parametrize("how", CLOSED)
def test_an_output_that_takes_nothing_is_no_traceback(how, tmp_path):
    code = "from goldilocks.cli.main import refusals\nwith refusals() as o:\n    print('x' * 99)\n"
    script = tmp_path / "prints.py"
    script.write_text(f"import sys\n{code}sys.exit(o.code)\n")
    words = f"{sys.executable} {script} {CLOSED[how]}"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == (1 if how == "full" else 0)
    assert len(done.stderr.splitlines()) == (1 if how == "full" else 0)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.parametrize("size", ["8k", "16k", "32k", "64k", "128k"])
@pytest.mark.parametrize("sweep", [False, True])
def test_a_real_disk_that_is_full(size, sweep, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)])
    if mounted.returncode:
        pytest.skip("this container does not mount")
    try:
        words = ["-m", "seed=0,1", "name=s"] if sweep else []
        command = [sys.executable, str(ROOT / "train.py"), *words, *QUICK, f"log_dir={disk}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        roomy = size in ("64k", "128k")  # for the result; figures and predictions are best effort
        assert done.returncode in ((0, 1, 2) if roomy else (1, 2))
        assert "Traceback" not in done.stderr, done.stderr
        for path in disk.glob("*/*/**/result.json"):
            assert json.loads(path.read_text())["status"] in ("failed", "done")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
