"""Sweeps by multirun: what they leave, and what does not stop them."""

import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from commands import start, wait_for
from conftest import ROOT, SMALL, read_result

SWEEP = ["-m", *SMALL, "name=s"]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_grid_runs_every_combination(command, tmp_path: Path) -> None:
    ended = command(*SWEEP, "model=shallow,deep", "optimizer=sgd,adam,nadam")
    assert ended.code == 0, ended.err
    folder = tmp_path / "logs/sweeps/s"
    rows = table(folder)
    assert [(row["model"], row["optimizer"]) for row in rows] == [
        (model, optimizer)
        for model in ("shallow", "deep")
        for optimizer in ("sgd", "adam", "nadam")
    ]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        *"012345",
        "ensemble",
        "experiment",
        "trials",
    ]
    for row in rows:
        result = read_result(folder / row["trial"])
        assert result["status"] == row["status"] == "done"
        assert float(row["objective"]) == result["metrics"]["val/loss"]
        assert not [key for key in result["metrics"] if key.startswith("test/")], (
            "a trial must not touch the test set"
        )
        assert result["choices"]["model"] == row["model"]
        assert {"config.yaml", "overrides.yaml", "environment.json", "checkpoints"} <= {
            path.name for path in (folder / row["trial"]).iterdir()
        }
    assert not (tmp_path / "logs/runs").exists()
    assert len(OmegaConf.load(folder / "sweep.yaml").trials) == 6
    printed = [line.split() for line in ended.out.splitlines()]
    values = [float(words[1]) for words in printed if len(words) > 5 and words[0].isdigit()]
    assert len(values) == 6
    assert values == sorted(values), "best first"


def test_list_valued_choices_and_better_when_higher(command, tmp_path: Path) -> None:
    ended = command(
        *SWEEP, "regularization=none,dropout,[dropout,l2]", "objective.metric=val/accuracy"
    )
    assert ended.code == 0, ended.err
    folder = tmp_path / "logs/sweeps/s"
    assert [read_result(folder / str(n))["choices"]["regularization"] for n in range(3)] == [
        [],
        ["dropout"],
        ["dropout", "l2"],
    ]
    printed = [line.split() for line in ended.out.splitlines()]
    values = [float(words[1]) for words in printed if len(words) > 4 and words[0].isdigit()]
    assert values == sorted(values, reverse=True)


def test_a_failing_trial_does_not_stop_the_others_and_is_done_again_on_request(
    command, tmp_path: Path, monkeypatch
) -> None:
    from goldilocks.training.module import TrainingModule

    original = TrainingModule.on_validation_epoch_start

    def broken(self) -> None:
        if self.seed == 1:
            raise RuntimeError("unlucky")
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingModule, "on_validation_epoch_start", broken)
        ended = command(*SWEEP, "seed=0,1,2")
    folder = tmp_path / "logs/sweeps/s"
    assert ended.code == 1
    assert [row["status"] for row in table(folder)] == ["done", "failed", "done"]
    assert table(folder)[1]["error"] == "RuntimeError: unlucky"
    assert "1 of 3 trials failed; sweep.retry_failed=true trains them once more" in ended.err
    stamps = {n: (folder / n / "result.json").stat().st_mtime_ns for n in "012"}
    assert command(*SWEEP, "seed=0,1,2").code == 1
    assert stamps == {n: (folder / n / "result.json").stat().st_mtime_ns for n in "012"}
    ended = command(*SWEEP, "seed=0,1,2", "sweep.retry_failed=true")
    assert ended.code == 0, ended.err
    assert "2 of 3 trials are done already" in ended.err
    assert [row["status"] for row in table(folder)] == ["done"] * 3
    again = {n: (folder / n / "result.json").stat().st_mtime_ns for n in "012"}
    assert (again["0"], again["2"]) == (stamps["0"], stamps["2"])
    assert again["1"] > stamps["1"]
    assert not (folder / "1" / "traceback.txt").exists()


def test_a_wider_grid_under_the_same_name_does_what_is_missing(command, tmp_path: Path) -> None:
    assert command(*SWEEP, "optimizer=sgd,adam").code == 0
    folder = tmp_path / "logs/sweeps/s"
    stamps = [(folder / n / "result.json").stat().st_mtime_ns for n in "01"]
    assert command(*SWEEP, "optimizer=nadam,adam,sgd").code == 0
    assert stamps == [(folder / n / "result.json").stat().st_mtime_ns for n in "01"]
    assert {row["trial"]: row["optimizer"] for row in table(folder)} == {
        "0": "sgd",
        "1": "adam",
        "2": "nadam",
    }
    assert command(*SWEEP, "optimizer=rmsprop,nadam").code == 0
    assert [row["optimizer"] for row in table(folder)] == ["sgd", "adam", "nadam", "rmsprop"]


def test_commands_of_one_name_are_told_apart_and_other_problems_refused(
    command, tmp_path: Path
) -> None:
    words = ["-m", *SMALL, "name=grown", "optimizer.lr=0.01,0.02"]
    assert command(*words).code == 0
    for word in ("data.name=wine", "objective.metric=val/accuracy"):
        ended = command(*words, word)
        assert ended.code == 2
        assert re.fullmatch(
            rf"error: {word}: .*grown was started with \S+; choose another name\n", ended.err
        )
    assert command(*words, "data.batch_size=64").code == 0
    rows = table(tmp_path / "logs/sweeps/grown")
    assert [(row["optimizer.lr"], row["data.batch_size"]) for row in rows] == [
        *(("0.01", "32"), ("0.02", "32")),
        *(("0.01", "64"), ("0.02", "64")),
    ]
    report = (tmp_path / "logs/sweeps/grown/report.md").read_text()
    assert "searched: `optimizer.lr`, `data.batch_size`" in report
    assert all(f"| {rate} | {rows} |" in report for rate in ("0.01", "0.02") for rows in (32, 64))


def test_a_trial_whose_folder_cannot_be_made_does_not_stop_the_others(
    command, tmp_path: Path
) -> None:
    folder = tmp_path / "logs/sweeps/s"
    assert command(*SWEEP, "seed=0,1").code == 0
    (folder / "2").write_text("in the way")
    ended = command(*SWEEP, "seed=0,1,2,3")
    assert ended.code == 1
    assert {row["trial"]: row["status"] for row in table(folder)} == dict.fromkeys(
        "013", "done"
    ) | {"2": "failed"}


def test_a_diverging_trial_is_recorded_and_not_a_failure(command, tmp_path: Path) -> None:
    ended = command(*SWEEP, "data=diabetes", "optimizer=sgd", "optimizer.lr=0.01,1e9")
    assert ended.code == 0, ended.err
    assert [row["status"] for row in table(tmp_path / "logs/sweeps/s")] == ["done", "diverged"]


def test_sweeps_without_a_name_get_new_ones(command, tmp_path: Path) -> None:
    for _ in range(2):
        assert command("-m", *SMALL, "seed=0,1").code == 0
    assert len(list((tmp_path / "logs/sweeps").iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["name=a,b"], "a sweep has one name"),
        (["resume=last"], "resume: is for a single run"),
        (["optimizer.lr=interval(0,1)"], "a range without steps"),
        (["optimizer=adam,nadm"], "optimizer=nadm: no such option"),
        (["seed=0,1", "model.depth=1,-1"], "model.depth=-1: must be greater than or equal to 0"),
        (
            ["model=linear,deep", "regularization=none,dropout"],
            "no layer of this model takes it up",
        ),
    ],
)
def test_a_wrong_sweep_is_refused_whole(
    command, tmp_path: Path, words: list[str], line: str
) -> None:
    ended = command(*SWEEP, *words)
    assert ended.code == 2
    assert line in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not list(tmp_path.rglob("*"))


def test_a_name_that_is_not_a_sweep_is_refused(command, tmp_path: Path) -> None:
    (tmp_path / "logs/sweeps/s").mkdir(parents=True)
    assert command(*SWEEP, "seed=0,1").code == 2


def has_ended(trial: Path) -> bool:
    result = trial / "result.json"
    return result.exists() and json.loads(result.read_text())["status"] == "done"


def test_ctrl_c_keeps_what_is_done(command, tmp_path: Path) -> None:
    folder = tmp_path / "logs/sweeps/s"
    words = [
        "-m",
        "data=iris",
        "trainer=cpu",
        "callbacks.progress_bar=null",
        "callbacks.early_stopping=null",
        "name=s",
    ]
    process = start(*words, "trainer.max_epochs=3,100000", cwd=tmp_path)
    wait_for(lambda: (folder / "1" / "metrics.csv").exists() and has_ended(folder / "0"))
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # prints where it hangs
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert [row["status"] for row in table(folder)] == ["done", "interrupted"]
    assert "best value first" in out


def test_a_trial_can_be_evaluated(command, tmp_path: Path) -> None:
    assert command(*SWEEP, "seed=0,1").code == 0
    path = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "logs/sweeps/s/1"]
    done = subprocess.run(
        path, cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    assert "test/accuracy" in read_result(tmp_path / "logs/sweeps/s/1")["metrics"]


@pytest.mark.parametrize(
    "words",
    [
        ["seed=3", "optimizer.lr=0.5"],
        ["model=pyramid", "model.width=[8,4,2]", "optimizer=sgd"],
        ["regularization=[dropout,l2]", "regularization.dropout=[0.1]", "trainer=smoke"],
        ["experiment=digits", "data.batch_size=7", "name='a b'", "model=wide"],
        ["+model.extra=1", "~optimizer.lr", "objective.metric=val/accuracy"],
        ["optimizer.lr=${seed}", "log_dir=x", "callbacks.early_stopping=null"],
    ],
)
def test_a_trial_composed_from_a_shared_base_equals_hydras_own(words: list[str]) -> None:
    """The private function of Hydra's that applies the values is watched here."""
    from types import SimpleNamespace

    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from goldilocks.config.compose import prepare_hydra
    from goldilocks.config.places import CONF
    from goldilocks.config.search_ranges import of_run
    from goldilocks.sweeps.search.compose import Composer

    prepare_hydra()
    GlobalHydra.instance().clear()
    try:
        hydra = Hydra.create_main_hydra_file_or_module(None, None, str(CONF), "test")
        loader = hydra.config_loader
        command = loader.load_configuration("train", ["name=s"], RunMode.MULTIRUN)
        composer = Composer(
            SimpleNamespace(config=command, hydra_context=SimpleNamespace(config_loader=loader))
        )
        for _ in range(2):
            mine, choices = composer.compose(words)
            theirs = loader.load_sweep_config(command, words)
            assert choices | {"sweep": "default", "project": "default"} == dict(
                theirs.hydra.runtime.choices
            )
            kept = of_run(theirs)
            wanted = {
                str(key): value
                for key, value in OmegaConf.to_container(kept).items()
                if key != "hydra"
            }
            assert OmegaConf.to_container(mine) == wanted
    finally:
        GlobalHydra.instance().clear()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"
)
def test_ray_trains_a_sweep_of_four(tmp_path: Path) -> None:
    words = [
        "-m",
        "data=iris",
        "trainer=cpu",
        "trainer.max_epochs=2",
        "seed=range(4)",
        "name=s",
        "hydra/launcher=ray",
    ]
    path = [sys.executable, str(ROOT / "train.py"), *words]
    done = subprocess.run(path, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [read_result(tmp_path / f"logs/sweeps/s/{number}")["status"] for number in range(4)] == [
        "done"
    ] * 4
