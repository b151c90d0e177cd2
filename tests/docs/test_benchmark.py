"""The benchmark runs, small; no number that it prints can fail here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT


def test_the_benchmark_runs_small(tmp_path: Path) -> None:
    words = [
        "train",
        "sweep",
        "data",
        "--quick",
        "--only",
        "digits",
        "--json",
        str(tmp_path / "figures.json"),
    ]
    path = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *words]
    done = subprocess.run(path, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"machine", "versions", "commit"} <= figures.keys()
    assert {row["part"] for row in figures["rows"]} == {"train", "sweep", "data"}
    assert all(value > 0 for row in figures["rows"] for value in row["values"])
    assert len(done.stdout.splitlines()) == len(figures["rows"])
    assert {path.name for path in tmp_path.iterdir()} == {"figures.json"}


@pytest.mark.slow
def test_the_part_for_gpus_runs_on_a_cpu_too(tmp_path: Path) -> None:
    words = [
        "gpu",
        "--quick",
        "--device",
        "cpu",
        "--only",
        "batch 4096, 32, eager",
        "--json",
        str(tmp_path / "f.json"),
    ]
    path = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *words]
    done = subprocess.run(path, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert [row["unit"] for row in rows] == ["rows/s", "of bare"] * 2
    assert all(value > 0 for row in rows for value in row["values"])


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    path = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "trian"]
    done = subprocess.run(path, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "trian: no such part; write some of: start train sweep data fused gpu" in done.stderr
