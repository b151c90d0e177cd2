"""`goldilocks new` writes a project that is whole, or nothing."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from goldilocks.cli import new_project
from goldilocks.cli.verbs import new
from goldilocks.config.places import CONF, PROJECT

NAME = "a_project_with_a_rather_long_name"


@pytest.fixture
def write_new(tmp_path, monkeypatch, capsys):
    """Runs `goldilocks new FOLDER` in an empty folder; returns code, out and err."""
    monkeypatch.chdir(tmp_path)

    def run(folder):
        monkeypatch.setattr(sys, "argv", ["goldilocks new", str(folder)])
        code = new.main()
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def project(write_new, tmp_path):
    assert write_new(NAME)[0] == 0
    return tmp_path / NAME


def files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_all_files_are_there_and_can_be_read(project):
    written = files(project)
    assert len(written) <= 22
    assert sum(len(path.read_text().splitlines()) for path in written) <= 400
    for path in written:
        if path.suffix == ".py":
            ast.parse(path.read_text())
        if path.suffix in (".yaml", ".yml"):
            assert yaml.safe_load(path.read_text())
    settings = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert settings["name"] == NAME
    assert settings["dependencies"] == [f"goldilocks @ {ROOT.as_uri()}"]
    assert ".gitignore" in [path.name for path in written]


def test_the_name_is_everywhere(project):
    text = "\n".join(path.read_text() for path in files(project))
    assert not re.search(r"\bproject\.(model|data|loss|callbacks)", text)
    assert "src/project" not in text
    assert "{{" not in text.replace("${{", "")
    named = [yaml.safe_load(path.read_text()) for path in (project / "conf").rglob("*.yaml")]
    targets = [str(node["_target_"]) for node in named if "_target_" in node]
    assert len(targets) == 3
    assert all(target.startswith(f"{NAME}.") for target in targets)
    own = yaml.safe_load((project / "conf/project/default.yaml").read_text())
    assert own["packages"] == [NAME]


def test_every_option_of_yours_is_copied(project):
    yours = {
        path.relative_to(CONF)
        for path in CONF.rglob("*.yaml")
        if "_target_: project." in path.read_text()
    }
    copied = {path.relative_to(project / "conf") for path in (project / "conf").rglob("*.yaml")}
    assert copied == yours | {Path("project/default.yaml")}


def test_its_lint_is_clean(project):
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "."], cwd=project, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_an_empty_folder_is_filled(write_new, tmp_path):
    (tmp_path / "cars").mkdir()
    assert write_new("cars")[0] == 0
    assert (tmp_path / "cars" / "train.py").is_file()


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("taken", "taken: exists and is not empty"),
        ("taken/file", "file: exists and is not empty"),
        ("taken/file/cars", "is a file; write another place"),
        ("my-cars", "my-cars: is no name of a Python package"),
        ("2cars", "such as my_project"),
        ("class", "class: is no name of a Python package"),
        ("numpy", "numpy: is taken by Python"),
        ("json", "json: is taken by Python"),
        ("goldilocks", "goldilocks: is taken by Python"),
        ("train", "train: is taken by Python"),
        (ROOT / "cars", "is in goldilocks itself"),
        (ROOT / "src" / "cars", "is in goldilocks itself"),
    ],
    ids=str,
)
def test_a_bad_target_is_one_line_and_leaves_nothing(write_new, tmp_path, folder, line):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    code, out, err = write_new(folder)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert line in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "file"]
    assert not (ROOT / "cars").exists()


def test_what_was_begun_is_removed(write_new, tmp_path, monkeypatch):
    write_text = Path.write_text

    def full(self, *words, **options):
        if self.name == "train.py":
            raise OSError(28, "No space left on device", str(self))
        return write_text(self, *words, **options)

    monkeypatch.setattr(Path, "write_text", full)
    code, _, err = write_new("above/cars")
    assert code == 1
    assert "No space left" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("origin", "needs"),
    [
        ({}, "goldilocks==0.1.0"),
        (
            {"url": "https://x.org/g.git", "vcs_info": {"vcs": "git", "commit_id": "a1"}},
            "goldilocks @ git+https://x.org/g.git@a1",
        ),
        (
            {"url": "file:///a/goldilocks-0.1.0-py3-none-any.whl", "archive_info": {}},
            "goldilocks @ file:///a/goldilocks-0.1.0-py3-none-any.whl",
        ),
    ],
)
def test_the_requirement_is_what_it_came_from(origin, needs):
    assert new_project.requirement_of(origin) == needs


def test_a_copy_of_the_project_wins_over_goldilocks(project):
    """An option of the same name is the project's; the command line wins over both."""
    (project / "conf" / "optimizer").mkdir()
    own = "# Mine\n_target_: torch.optim.SGD\nlr: 0.5\n"
    (project / "conf" / "optimizer" / "nadam.yaml").write_text(own)
    shown = printed(project, "--cfg", "job")
    assert shown["optimizer"] == {"_target_": "torch.optim.SGD", "lr": 0.5}
    assert shown["model"]["_target_"] == f"{NAME}.model.ResidualNet"
    assert shown["packages"] == [NAME]
    again = printed(project, "model=deep", "optimizer.lr=2", "--cfg", "job")
    assert again["model"]["_target_"].startswith("goldilocks.")
    assert again["optimizer"]["lr"] == 2


def test_an_experiment_wins_over_the_project(project):
    assert printed(project, "experiment=diabetes", "--cfg", "job")["data"]["name"] == "diabetes"


def printed(project, *words):
    """What train.py of a project prints, as YAML."""
    environment = {name: value for name, value in os.environ.items() if name != PROJECT}
    done = subprocess.run(
        [sys.executable, "train.py", *words],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.mark.slow
def test_it_passes_its_tests_trains_and_sweeps(project):
    """In processes of its own too, which find its code and options."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*words):
        done = subprocess.run(
            [sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "pytest")
    run("train.py", "trainer=smoke", "name=first")
    words = ["trainer=smoke", "name=s", "callbacks=watched", "seed=0,1", "hydra/launcher=process"]
    run("-m", "goldilocks", "train", "-m", *words)
    results = sorted(project.glob("logs/sweeps/s/*/result.json"))
    assert [json.loads(path.read_text())["status"] for path in results[:2]] == ["done", "done"]
    folder = next(project.glob("logs/runs/*first*"))
    run("-m", "goldilocks", "evaluate", str(folder))
    run("-m", "goldilocks", "report", "last")
    run("-m", "goldilocks", "export", str(folder), "--format", "torch_export")
