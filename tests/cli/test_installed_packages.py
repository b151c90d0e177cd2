"""What is installed does not fit: one line that names the package, whichever command has met it."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import ROOT, SMALL
from goldilocks.cli.main import refusals

OF_ANOTHER_TORCH = """
import torch

@torch.library.register_fake("torchvision::nms")
def meta_nms(dets, scores, iou_threshold): ...
"""
NO_SUCH_OPERATOR = "RuntimeError: operator torchvision::nms does not exist"


def install(folder: Path, name: str, source: str, version: str = "0.1") -> None:
    """A package as pip leaves it: its module and what says which package that is of."""
    (folder / f"{name}.py").write_text(source)
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "top_level.txt").write_text(f"{name}\n")


@pytest.mark.parametrize("program", [["train.py", *SMALL], ["scripts/doctor.py", *SMALL]])
def test_a_torchvision_of_another_torch_is_one_line(program, tmp_path: Path) -> None:
    packages, place = tmp_path / "packages", tmp_path / "place"
    for folder in (packages, place):
        folder.mkdir()
    install(packages, "torchvision", OF_ANOTHER_TORCH, "0.20.1")
    done = subprocess.run(
        [sys.executable, str(ROOT / program[0]), *program[1:]],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == (
        f"error: torchvision 0.20.1 does not fit torch {torch.__version__} ({NO_SUCH_OPERATOR});"
        " install the one made for this torch, from where torch came from,"
        " or remove it: pip uninstall torchvision\n"
    )
    assert done.returncode == 2
    assert not list(place.iterdir())


@pytest.fixture
def import_one(tmp_path: Path, monkeypatch):
    """Imports a module of given source as a command would; returns the exit code."""
    monkeypatch.syspath_prepend(tmp_path)

    def imported(name: str) -> int:
        with refusals() as outcome:
            importlib.import_module(name)
        return outcome.code

    return imported


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise ImportError('libx.so: undefined symbol: y')", "ImportError: libx.so: undefined *"),
        ("import ctypes; ctypes.CDLL('libnone.so.12')", "OSError: libnone.so.12: cannot open *"),
        (
            "raise ValueError('numpy.dtype size changed,\\n may indicate binary incompatibility')",
            "ValueError: numpy.dtype size changed, may indicate binary incompatibility",
        ),
        ("import none_such", "ModuleNotFoundError: No module named 'none_such'"),
        ("import json; json.none_such", "AttributeError: module 'json' has no *"),
    ],
)
def test_a_package_that_fails_while_it_is_imported_is_named(
    source, why, import_one, capsys, tmp_path: Path
) -> None:
    name = f"unfit{abs(hash(source))}"
    install(tmp_path, name, source)
    assert import_one(name) in (1, 2)
    line = capsys.readouterr().err
    assert line.startswith(f"error: {name} 0.1 cannot be imported ({why.rstrip('*')}")
    assert line.endswith("; install versions that fit: pip install -e . -c constraints.txt\n")
    assert line.count("\n") == 1


def test_a_module_of_the_users_own_keeps_its_traceback(import_one, tmp_path: Path) -> None:
    (tmp_path / "own_of_user.py").write_text("raise ImportError('mine')")
    with pytest.raises(ImportError, match="mine"):
        import_one("own_of_user")


def test_full_errors_are_asked_for(import_one, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    install(tmp_path, "unfit_full", "raise ImportError('whole')")
    with pytest.raises(ImportError, match="whole"):
        import_one("unfit_full")
