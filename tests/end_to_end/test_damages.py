"""Folders in which a file is damaged: a command refuses them in one line, or goes on rightly.
Never a traceback.
"""

import importlib
import json
import shutil
import sys
from itertools import product

import pytest
from hydra.core.global_hydra import GlobalHydra

from conftest import ROOT, read_result
from finished import command_of
from goldilocks.cli.main import cli, refusals
from goldilocks.config.compose import prepare_hydra
from goldilocks.runs.folder import is_trial
from goldilocks.sweeps.execution.folder import read_sweep

LINES = [
    "a,b,y",
    *(
        f"{n * 0.37 % 5:.2f},{n * 0.73 % 7:.2f},{'no' if n * 3 % 5 < 2 else 'yes'}"
        for n in range(60)
    ),
]
WORDS = [
    "data=table",
    "data.target=y",
    "model.width=4",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
    "callbacks.evaluation=null",
    "logger=csv",
]
KINDS = {
    "gone": None,
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "noise": b"\x00\xff\xfe\x81" * 40,
}
TORN = "torn"  # cut in the middle
ALL = [*KINDS, TORN]
WRONG = {
    "unknown status": b'{"status": "finished"}',
    "no status": b'{"epochs": 2}',
    "epochs in words": b'{"status": "done", "epochs": "two", "choices": {}}',
    "metrics as a list": b'{"status": "done", "epochs": 2, "metrics": [1], "choices": {}}',
    "no choices": b'{"status": "done", "epochs": 2, "choices": null}',
    "a trainer as a list": b"trainer: []\ndata: {}\n",
    "trials as a list": b"trials: []\ncommands: []\n",
    "a trial as a word": b"trials: {0: done}\ncommands: []\n",
    "half a trial": b'{"overrides": [], "config": null}',
    "half a study": b'{"name": 5, "modes": []}',
}


def damage(path, kind):
    """Damages a file, in one of the ways of KINDS, TORN and WRONG."""
    if kind == "gone":
        path.unlink()
    elif kind == TORN:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes({**KINDS, **WRONG}[kind])


def contents(folder):
    """What is in a folder, locks left out."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def in_one_line(err):
    lines = err.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in err


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, a grid and a sweep that learns, of two trials each;
    and the configuration of a command.
    """
    from goldilocks.config.compose import compose
    from goldilocks.runs.run import start

    place = tmp_path_factory.mktemp("made")
    (place / "rows.csv").write_text("\n".join(LINES) + "\n")
    prepare_hydra()
    words = [*WORDS, f"data.path={place / 'rows.csv'}"]
    cfg, choices = compose([*words, f"log_dir={place / 'logs'}"])
    run, result = start(cfg, words, choices)
    assert result["status"] == "done"
    return {"place": place, "run": run, "words": words}


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A copy of the finished run."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(made["run"], tmp_path / "run")


def resume(monkeypatch, run):
    from goldilocks.config.compose import compose
    from goldilocks.runs import run as runs

    words = [f"resume={run}", "trainer.max_epochs=3"]
    with refusals() as outcome:
        runs.resume(compose(words)[0], words)
    return outcome.code


def load(monkeypatch, run):
    from goldilocks.inference.predict import load

    with refusals() as outcome:
        load(run).predict([[1.0, 2.0]])
    return outcome.code


def export(monkeypatch, run):
    return command_of("export")(monkeypatch, run, "--format", "torch_export")


def again_with(monkeypatch, run):
    return command_of("rerun")(monkeypatch, run, "seed=1")


COMMANDS = {
    "resume": resume,
    "evaluate": lambda monkeypatch, run: command_of("evaluate")(monkeypatch, run),
    "load": load,
    "export": export,
    "rerun": lambda monkeypatch, run: command_of("rerun")(monkeypatch, run),
    "rerun seed=1": again_with,
}
RESULT = ["unknown status", "no status", "epochs in words", "metrics as a list", "no choices"]
CHECKPOINT = ["gone", "empty", TORN, "noise"]
REFUSED = [
    *product(["result.json"], [*ALL, *RESULT], ["resume", "evaluate", "rerun"]),
    ("result.json", "gone", "load"),
    *product(
        ["config.yaml"], [*ALL, "a trainer as a list"], ["resume", "evaluate", "load", "rerun"]
    ),
    *product(["overrides.yaml"], ["gone", "noise"], ["resume", "rerun", "rerun seed=1"]),
    *product(["checkpoints/last.ckpt"], CHECKPOINT, ["resume"]),
    *product(["checkpoints/best.ckpt"], CHECKPOINT, ["evaluate", "load", "export"]),
]
GOES_ON = [
    *product(["environment.json"], ALL, ["resume"]),
    *product(["environment.json", "overrides.yaml", "metrics.csv"], ["noise"], ["evaluate"]),
    *product(["metrics.csv"], ["gone", "empty", TORN, "noise"], ["resume"]),
    *product(["result.json", "environment.json"], ["null", TORN], ["load"]),
    *product(["overrides.yaml"], ["empty", "object"], ["resume"]),  # no words
]


@pytest.mark.parametrize(("file", "kind", "command"), REFUSED)
def test_what_a_command_needs_of_a_run_is_refused_in_a_line(
    file, kind, command, run, monkeypatch, capfd
):
    damage(run / file, kind)
    before = contents(run)
    capfd.readouterr()
    code = COMMANDS[command](monkeypatch, run)
    out, err = capfd.readouterr()
    assert code == 2
    assert in_one_line(err), err
    assert file.rpartition("/")[2].partition(".")[0] in err  # the file is named
    assert not out
    assert contents(run) == before


@pytest.mark.parametrize(("file", "kind", "command"), GOES_ON)
def test_what_a_command_does_not_need_of_a_run_does_not_stop_it(
    file, kind, command, run, monkeypatch, capfd
):
    damage(run / file, kind)
    assert COMMANDS[command](monkeypatch, run) == 0
    assert "Traceback" not in capfd.readouterr().err
    if command == "resume":
        assert read_result(run)["epochs"] == 3
        assert json.loads((run / "environment.json").read_text())["packages"]
        assert (run / "metrics.csv").read_text().startswith("step,")


# --- sweeps ---------------------------------------------------------------------------------------

GRID = ["optimizer.lr=0.01,0.02", "name=grid"]
LEARNS = [
    "optimizer.lr=interval(0.001,0.1)",
    "sweep.sampler=tpe",
    "sweep.n_trials=2",
    "name=learns",
]


@pytest.fixture(scope="module")
def sweeps(made):
    """The folder of logs with both sweeps."""
    patch = pytest.MonkeyPatch()
    for words in (GRID, LEARNS):
        assert sweep(patch, made, made["place"] / "logs", words) == 0
    patch.undo()
    return made["place"] / "logs" / "sweeps"


def sweep(monkeypatch, made, logs, words):
    """The command of a sweep, without its report; returns the exit code."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr("goldilocks.sweeps.sweep.try_report", lambda *_: None)
    given = [str(ROOT / "train.py"), "-m", *made["words"], *words, f"log_dir={logs}"]
    monkeypatch.setattr(sys, "argv", given)
    GlobalHydra.instance().clear()
    return cli(importlib.import_module("train").main)


def report(monkeypatch, made, logs, words):
    name = words[-1].removeprefix("name=")
    return command_of("report")(monkeypatch, logs / "sweeps" / name)


@pytest.fixture
def logs(sweeps, tmp_path, monkeypatch):
    """A copy of both sweeps."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sweeps, tmp_path / "logs" / "sweeps")
    return tmp_path / "logs"


def stamps(folder):
    """When the results of trials were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/result.json")}


SWEEP_FILE = ["trials as a list", "a trial as a word"]
SWEEPS_REFUSED = [
    *product(["sweep.yaml"], [*ALL, *SWEEP_FILE], ["grid"], [report]),
    *product(["trials/*.json"], ["gone", "null", TORN, "half a trial"], ["grid"], [report]),
    *product(["trials/*.json"], ["null", TORN, "half a trial"], ["learns"], [sweep]),
    *product(["study.journal"], ["gone", "empty", "noise", "null", "list"], ["learns"], [sweep]),
]
SWEEPS_GO_ON = [
    *product(["sweep.yaml"], ["empty", "list", TORN, "noise", *SWEEP_FILE], ["grid"], [sweep]),
    *product(["sweep.yaml"], ["gone"], ["learns"], [sweep]),
    *product(["trials/*.json"], ["empty", "list", TORN, "half a trial"], ["grid"], [sweep]),
    *product(["study.json"], ["gone", "null", TORN, "half a study"], ["learns"], [sweep]),
    *product(["study.json"], ["noise"], ["learns"], [report]),
    *product(["*/metrics.csv"], ["noise"], ["grid"], [report]),
]
OF = {"grid": GRID, "learns": LEARNS}


@pytest.mark.parametrize(("file", "kind", "name", "command"), SWEEPS_REFUSED)
def test_what_a_command_needs_of_a_sweep_is_refused_in_a_line(
    file, kind, name, command, made, logs, monkeypatch, capfd
):
    folder = logs / "sweeps" / name
    for path in sorted(folder.glob(file)):
        damage(path, kind)
    before = contents(folder)
    capfd.readouterr()
    code = command(monkeypatch, made, logs, OF[name])
    err = capfd.readouterr().err
    assert code == 2
    assert in_one_line(err), err
    after = contents(folder)
    kept = before.keys() - {"study.journal"}  # to which opening it adds a line
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}


@pytest.mark.parametrize(("file", "kind", "name", "command"), SWEEPS_GO_ON)
def test_a_damaged_sweep_goes_on_and_trains_nothing_again(
    file, kind, name, command, made, logs, monkeypatch, capfd
):
    folder = logs / "sweeps" / name
    for path in sorted(folder.glob(file)):
        damage(path, kind)
    before = stamps(folder)
    capfd.readouterr()
    assert command(monkeypatch, made, logs, OF[name]) == 0
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert stamps(folder) == before
    if command is sweep:
        assert "2 of 2 trials are done already" in err
        assert list(read_sweep(folder)["trials"]) == [0, 1]


@pytest.mark.parametrize("kind", ["empty", TORN, "unknown status"])
def test_a_trial_whose_result_is_damaged_is_trained_again_and_no_other(
    kind, made, logs, monkeypatch, capfd
):
    folder = logs / "sweeps" / "grid"
    damage(folder / "0" / "result.json", kind)
    before = stamps(folder)
    assert sweep(monkeypatch, made, logs, GRID) == 0
    assert "1 of 2 trials are done already" in capfd.readouterr().err
    assert read_result(folder / "0")["status"] == "done"
    assert stamps(folder)["1"] == before["1"]


@pytest.mark.parametrize("tail", [b'{"op_code":5,"trial_i', b"\x00" * 300, b'{"op_code":'])
def test_a_torn_last_line_of_a_journal_is_passed_over(tail, made, logs, monkeypatch):
    """What a power cut leaves. The sweep then learns from all trials,
    and what it adds can be read.
    """
    folder = logs / "sweeps" / "learns"
    with (folder / "study.journal").open("ab") as file:
        file.write(tail)
    before = stamps(folder)
    more = [word.replace("n_trials=2", "n_trials=3") for word in LEARNS]
    assert sweep(monkeypatch, made, logs, more) == 0
    assert before.items() <= stamps(folder).items()
    assert len(stamps(folder)) == 3
    assert sweep(monkeypatch, made, logs, more) == 0


def test_a_trial_is_known_as_one_without_sweep_yaml(logs):
    """It must not be tested."""
    (logs / "sweeps" / "grid" / "sweep.yaml").unlink()
    assert is_trial(logs / "sweeps" / "grid" / "0")
