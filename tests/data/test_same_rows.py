"""Whatever goes on with a run notices that its rows are others,
and finds the same ones in another place.
"""

import shutil

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from conftest import read_result
from finished import command_of
from goldilocks.config.choices import config_hash
from goldilocks.data.fingerprint import fingerprint
from goldilocks.machine.files import write_json
from goldilocks.training.checks import check
from goldilocks.training.components import build_data
from tables import cars, write

LINES = ["a,b,y", *(f"{n * 0.37 % 5:.2f},{n * 0.73 % 7:.2f},{n * 3 % 5}" for n in range(60))]
WORDS = ["data=table", "data.target=y", "data.path=rows.csv", "model.width=4", "trainer=cpu"]
WORDS += [
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
    "callbacks.evaluation=null",
    "logger=csv",
]
WORDS += ["trainer.max_epochs=2"]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(LINES) + "\n")
    return path


def change(rows):
    rows.write_text(rows.read_text().replace("0.37,", "0.38,", 1))


def refused(ended):
    return ended.code == 2 and "its data have changed since it was trained" in ended.err


def test_a_run_on_other_rows_is_refused_by_all_that_goes_on_with_it(
    command, rows, monkeypatch, capfd
):
    folder = command(*WORDS).folder
    before = (folder / "result.json").read_bytes()
    change(rows)
    ended = command(f"resume={folder}", "trainer.max_epochs=3")
    assert refused(ended), ended.err
    for script in ("evaluate", "rerun"):
        assert command_of(script)(monkeypatch, folder) == 2
        assert "its data have changed" in capfd.readouterr().err
    assert (folder / "result.json").read_bytes() == before


def test_a_run_that_was_killed_before_its_first_checkpoint_knows_its_rows(command, rows):
    folder = command(*WORDS).folder
    shutil.rmtree(folder / "checkpoints")
    write_json(folder / "result.json", {**read_result(folder), "status": "running"})
    change(rows)
    assert refused(command(f"resume={folder}"))


def test_the_same_rows_are_found_in_another_place(command, rows, tmp_path):
    folder = command(*WORDS).folder
    rows.rename(tmp_path / "moved.csv")
    ended = command(f"resume={folder}", "data.path=moved.csv", "trainer.max_epochs=3")
    assert ended.code == 0, ended.err
    assert read_result(folder)["epochs"] == 3
    assert OmegaConf.load(folder / "config.yaml").data.path == "moved.csv"
    assert "data.path=moved.csv" in OmegaConf.load(folder / "overrides.yaml")
    change(tmp_path / "moved.csv")
    assert refused(command(f"resume={folder}", "data.path=moved.csv", "trainer.max_epochs=4"))


def test_a_missing_fold_is_not_trained_on_other_rows(command, rows):
    folder = command(*WORDS, "data.folds=2").folder
    shutil.rmtree(folder / "fold_1")
    write_json(folder / "result.json", {**read_result(folder), "status": "running"})
    change(rows)
    ended = command(f"resume={folder}")
    assert ended.code == 1
    assert "its data have changed" in ended.out


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_sweep_is_not_widened_on_other_rows(sampler, command, rows, tmp_path):
    first, wider = ["seed=0,1"], ["seed=0,1,2"]
    if sampler == "tpe":
        pytest.importorskip("optuna")
        rate = ["sweep.sampler=tpe", "optimizer.lr=tag(log,interval(1e-3,1))"]
        first, wider = [*rate, "sweep.n_trials=2"], [*rate, "sweep.n_trials=4"]
    words, folder = ["-m", *WORDS, "name=s"], tmp_path / "logs/sweeps/s"
    assert command(*words, *first).code == 0
    before = sorted(folder.rglob("*"))
    change(rows)
    ended = command(*words, *wider)
    assert ended.code == 2 and ended.err.startswith("error: ") and ended.err.count("\n") == 1
    assert "its data have changed since its trials were trained" in ended.err
    assert "choose another name" in ended.err
    assert set(folder.rglob("*")) - set(before) <= {folder / "trials" / "sweep.lock"}


def test_waiting_trials_are_not_trained_on_other_rows(command, rows, tmp_path):
    words, folder = ["-m", *WORDS, "name=s", "seed=0,1,2"], tmp_path / "logs/sweeps/s"
    assert command(*words).code == 0
    change(rows)
    ended = command(*words)
    assert ended.code == 0 and "3 of 3 trials are done already" in ended.err
    shutil.rmtree(folder / "1")
    ended = command(*words)
    assert ended.code == 2 and ended.err.count("its data have changed") == 1, ended.err
    assert not (folder / "1").exists()


def test_a_relative_and_an_absolute_path_are_the_same_trial(command, rows, tmp_path):
    words = ["-m", *WORDS, "name=s", "seed=0,1"]
    command(*words)
    ended = command(*words, f"data.path={rows}")
    assert "2 of 2 trials are done already" in ended.err


def test_the_hash_takes_a_path_in_either_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hashes = [
        config_hash(OmegaConf.create({"data": {"path": path}}))
        for path in ("a.csv", str(tmp_path / "a.csv"), "b.csv")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_was_fitted_changes_no_fingerprint(tmp_path, compose):
    """Dates were hashed as words where a checkpoint knew how to read them."""
    path = write(tmp_path / "cars.csv", cars(60))
    cfg = compose("data=table", f"data.path={path}", "data.target=price")
    first = build_data(check(cfg))
    fitted = {type(first).__qualname__: first.state_dict()}
    assert build_data(check(cfg), fitted).fingerprint == first.fingerprint


def test_types_of_columns_do_not_change_a_fingerprint():
    frame = pd.DataFrame({"n": [1, 2, 3], "w": ["a", None, "b"], "f": [0.5, np.nan, 0.0]})
    other = frame.astype({"n": "float64", "w": "object"})
    other["f"] = pd.array([0.5, None, -0.0], dtype="Float64")
    assert fingerprint(frame) == fingerprint(other)
    changes = [("n", 4), ("w", "c"), ("f", 0.25)]
    changed = {fingerprint(frame.assign(**{name: [*frame[name][:2], v]})) for name, v in changes}
    renamed = fingerprint(frame.rename(columns={"n": "m"}))
    assert len({fingerprint(frame), renamed, fingerprint(frame[::-1]), *changed}) == 6
