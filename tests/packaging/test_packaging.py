"""What goes into a wheel, and what stands beside the code for other tools."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import setuptools
import yaml

from conftest import ROOT
from goldilocks import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)


def files_of_setup(monkeypatch):
    """What setup.py copies, by its place in the package."""
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    spec = importlib.util.spec_from_file_location("setup_of_wheel", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {target.as_posix(): source for source, target in module.files()}


def test_the_wheel_has_every_option_that_is_not_yours(monkeypatch):
    copied = files_of_setup(monkeypatch)
    conf = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("conf/**/*.yaml")}
    yours = {name for name in conf if "_target_: project." in (ROOT / name).read_text("utf-8")}
    assert {name for name in copied if name.startswith("conf/")} == conf - yours
    template = "cli/template/options/"
    assert {name for name in copied if name.startswith(template)} == {
        template + name.removeprefix("conf/") for name in yours
    }


def test_the_wheel_has_what_a_new_project_copies(monkeypatch):
    copied = files_of_setup(monkeypatch)
    own = {path.name for path in ROOT.glob("src/project/[!_]*.py")}
    assert {Path(name).name for name in copied if "template/project/" in name} == own
    assert {"docs/guide.md", "docs/options.md", "cli/template/yours/test_loss.py"} <= set(copied)


def test_the_lock_has_the_versions_of_the_constraints_and_hashes():
    """constraints.txt also pins loggers that are no part of dev."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = {plain(name): version for name, version in PIN.findall(lock)}
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    wanted = {plain(name): version for name, version in PIN.findall(pinned)}
    assert len(locked) > 100
    assert {name: locked[name] for name in wanted if name in locked} == {
        name: version for name, version in wanted.items() if name in locked
    }
    for name in ("torch", "pytorch-lightning", "hydra-core", "numpy", "optuna", "pytest", "ruff"):
        assert name in locked
    entries = re.split(r"^(?=\w)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock  # no index of anybody's


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_one_version_everywhere():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == __version__ == cited["version"]
    assert cited["license"] == PROJECT["license"]


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob(".github/**/*.yml"), *ROOT.glob("src/goldilocks/cli/template/.github/**/*.jinja")],
    ids=lambda path: path.name,
)
def test_workflows_and_forms_are_yaml(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for job in content.get("jobs", {}).values() if "workflows" in path.parts else []:
        assert job["timeout-minutes"] <= 60
        assert all("uses" in step or "run" in step for step in job["steps"])
    if path.parent.name == "ISSUE_TEMPLATE" and path.stem != "config":
        assert {"name", "description", "body"} <= set(content)
        ids = [field["id"] for field in content["body"]]
        assert len(ids) == len(set(ids))


def test_containers_use_what_is_there():
    extras = PROJECT["optional-dependencies"]
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    named = re.search(r"-e \"\.\[([\w,]+)\]\"", docker)[1].split(",")
    assert set(named) <= set(extras)
    for path in ROOT.glob(".devcontainer/**/devcontainer.json"):
        command = json.loads(path.read_text(encoding="utf-8"))["postCreateCommand"]
        done = subprocess.run(
            ["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_wheel_trains_in_an_environment_of_its_own():
    """Dependencies are those of this Python: scripts/check_wheel.py installs them too."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_wheel.py"), "--borrow"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the project's tests" in done.stdout
