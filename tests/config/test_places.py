"""Which folder's options are taken: a project's only where somebody says so."""

import os
import sys

import pytest

from goldilocks.config import places
from goldilocks.config.options import options, roots
from goldilocks.config.places import CONF, PROJECT


@pytest.fixture(autouse=True)
def nothing_used(monkeypatch):
    monkeypatch.setenv(PROJECT, "")
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "cars"
    (made / "conf/project").mkdir(parents=True)
    (made / "conf/project/default.yaml").write_text("# @package _global_\nlog_dir: elsewhere\n")
    (made / "conf/model").mkdir()
    (made / "conf/model/mine.yaml").write_text("# Mine\ndefaults: [deep, _self_]\nwidth: 7\n")
    return made


def test_a_project_in_the_current_folder_is_not_taken_by_itself(folder, monkeypatch):
    """It may be a run folder of somebody else's."""
    monkeypatch.chdir(folder)
    assert places.project() is None
    assert roots() == [CONF]
    assert "mine" not in options("model")


def test_a_project_in_use_comes_first(folder):
    places.use(folder)
    assert places.project() == folder
    assert os.environ[PROJECT] == str(folder)  # for processes that are started
    assert roots() == [folder / "conf", CONF]
    assert {"mine", "deep"} <= set(options("model"))
    assert sys.path[0] == str(folder / "src")
    assert places.home() == folder


@pytest.mark.parametrize("name", places.OF_RUNS)
def test_a_run_or_sweep_folder_is_no_project(folder, name):
    (folder / name).write_text("{}")
    places.use(folder)
    assert places.project() is None


@pytest.mark.parametrize("kind", ["no project", "goldilocks"])
def test_any_other_folder_changes_nothing(kind, tmp_path):
    before = list(sys.path)
    places.use(tmp_path if kind == "no project" else places.ROOT)
    assert places.project() is None
    assert sys.path == before


def test_what_a_project_sets_is_composed_and_its_group_is_no_choice(folder):
    from goldilocks.config.compose import compose
    from goldilocks.config.strangers import own_log_dir

    assert own_log_dir() == "logs"
    places.use(folder)
    cfg, choices = compose(["model=mine"])
    assert (cfg.log_dir, cfg.model.width) == ("elsewhere", 7)
    assert own_log_dir() == "elsewhere"
    assert "project" not in choices
    assert compose(["log_dir=here"])[0].log_dir == "here"
