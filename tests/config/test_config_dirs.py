"""Options of two roots: conf/ and the folder of a `--config-dir`."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins
from hydra.types import RunMode

from conftest import ROOT
from goldilocks.cli.help import ENDLESS, help_text
from goldilocks.cli.mistakes import explain_key, explain_option
from goldilocks.config.compose import compose, prepare_hydra
from goldilocks.config.options import options, roots
from goldilocks.config.places import CONF
from goldilocks.sweeps.search.compose import Composer


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the option model=mine."""
    (tmp_path / "own" / "model").mkdir(parents=True)
    text = "# Narrow\ndefaults:\n  - deep\n  - _self_\nwidth: 7\nbreadth: 1\n"
    (tmp_path / "own" / "model" / "mine.yaml").write_text(text)
    return tmp_path / "own"


@pytest.fixture(
    params=["--config-dir FOLDER", "--config-dir=FOLDER", "-cd FOLDER", "--config-d FOLDER"]
)
def named(own, request, monkeypatch):
    """A command that names the folder."""
    words = request.param.replace("FOLDER", str(own)).split()
    monkeypatch.setattr(sys, "argv", ["train.py", *words, "model=mine"])
    return own


def test_help_and_near_misses_know_the_options_of_both(named):
    assert {"mine", "deep"} < set(options("model"))
    assert re.search("\n  mine +Narrow\n", help_text(ENDLESS))
    assert explain_option("model/mnie.yaml").startswith(
        "model=mnie: no such option; did you mean mine?"
    )
    assert (
        explain_key("model.widht") == "model.widht: no such key in model; did you mean model.width?"
    )
    assert explain_key("model.breadht").endswith("did you mean model.breadth?")
    assert compose(["model=mine"])[0].model.width == 7


def test_without_the_flag_they_are_not_there(own, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "model=mine"])
    assert roots() == [CONF]
    assert "mine" not in options("model")


WRONG = {
    "--config-dir nowhere": (
        "--config-dir=nowhere: no such folder; write the folder of your options"
    ),
    "--config-dir": "--config-dir=: no such folder; write the folder of your options",
    "--config-dir own --config-dir own": "--config-dir: is given twice; one folder *",
    "--config-dir own": (
        "own/optimizer/adam.yaml: conf/ has an option of this name; rename the file"
    ),
}


@pytest.mark.parametrize("flags", WRONG)
@pytest.mark.parametrize("rest", ["model=mine", "--help", "-m model=mine,deep"])
def test_a_wrong_folder_is_refused_in_one_line(flags, rest, own, command):
    """One of Hydra's usage for a flag without a folder,
    one in which conf/'s option would be taken in silence.
    """
    (own / "optimizer").mkdir()
    shutil.copy(ROOT / "conf/optimizer/sgd.yaml", own / "optimizer/adam.yaml")
    before = set(own.parent.rglob("*"))
    ended = command(*rest.split(), *flags.split())
    assert (ended.code, ended.out) == (2, "")
    start, _, _ = WRONG[flags].partition("*")
    assert ended.err.startswith(f"error: {start}")
    assert ended.err.count("\n") == 1
    assert set(own.parent.rglob("*")) == before


# --- the copies that a sweep keeps ----------------------------------------------------------------


def composer(*folders: Path) -> Composer:
    """What a sweep composes with, started with some folders beside conf/."""
    prepare_hydra()
    Plugins.instance()
    places = create_config_search_path(str(CONF))
    for folder in folders:
        places.prepend("command-line", f"file://{folder}", anchor="schema")
    loader = ConfigLoaderImpl(places)
    config = loader.load_configuration("train", ["name=s"], RunMode.MULTIRUN)
    return Composer(
        SimpleNamespace(config=config, hydra_context=SimpleNamespace(config_loader=loader))
    )


def test_a_sweep_goes_on_with_its_copies_with_or_without_the_folder(own, tmp_path):
    composer(own).freeze(tmp_path / "conf")
    path = own / "model" / "mine.yaml"
    path.write_text(path.read_text().replace("width: 7", "width: 8"))
    for folders in ([own], []):
        again = composer(*folders)
        again.read_from(tmp_path / "conf")
        assert again.compose(["model=mine", "optimizer=adam"])[0].model.width == 7


def test_a_sweep_that_goes_on_with_a_folder_of_options_keeps_them_too(own, tmp_path):
    composer().freeze(tmp_path / "conf")
    again = composer(own)
    again.read_from(tmp_path / "conf")
    assert again.compose(["model=mine"])[0].model.width == 7
    again.freeze(tmp_path / "conf")
    shutil.rmtree(own)
    last = composer()
    last.read_from(tmp_path / "conf")
    assert last.compose(["model=mine"])[0].model.width == 7
