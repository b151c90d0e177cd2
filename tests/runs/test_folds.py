"""Cross-validation: the split, and runs that are folded into one."""

import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from commands import LONG, start, wait_for
from conftest import ROOT, SMALL, read_result
from fitting import Rows, ready
from goldilocks.data.splitting import split_folds
from goldilocks.errors import Refused
from goldilocks.runs.folder import is_trial
from goldilocks.training.checkpoints import load_checkpoint
from tables import cars, write

# --- the split ------------------------------------------------------------------------------------


def parts(target, folds, **options):
    """Row numbers by stage, for each fold."""
    features = np.arange(len(target) * 2.0).reshape(-1, 2)
    made = [
        ready(Rows(features, target, folds=folds, fold=fold, **options)) for fold in range(folds)
    ]
    return [data.row_numbers for data in made]


@pytest.mark.parametrize(
    "target", [np.arange(60) % 3, np.linspace(0, 1, 60)], ids=["classes", "regression"]
)
def test_every_row_validates_once_and_the_test_rows_stay(target):
    found = parts(target, 4)
    without = ready(Rows(np.zeros((60, 2)), target)).row_numbers
    for rows in found:
        assert set(rows["test"]) == set(without["test"])
        assert sorted(np.concatenate(list(rows.values()))) == list(range(60))
        assert len(rows["val"]) == 12
    assert sorted(np.concatenate([rows["val"] for rows in found])) == sorted(
        set(range(60)) - set(without["test"])
    )


def test_folds_keep_the_shares_of_the_classes():
    target = np.repeat([0, 1], [60, 20])
    for rows in parts(target, 4):
        assert np.bincount(target[rows["val"]]).tolist() == [12, 4]


def test_a_rare_class_may_be_missing_in_a_fold():
    found = split_folds(np.repeat([0, 1], [20, 2]), 4, seed=0, stratify=True)
    assert sorted(np.concatenate(found)) == list(range(22))


def test_without_a_fold_the_first_is_held_out_and_the_seed_draws_others():
    target = np.arange(40) % 2
    first = ready(Rows(np.zeros((40, 2)), target, folds=4))
    assert np.array_equal(first.row_numbers["val"], parts(target, 4)[0]["val"])
    other = split_folds(target, 4, seed=1, stratify=True)
    assert not np.array_equal(other[0], split_folds(target, 4, seed=0, stratify=True)[0])


@pytest.mark.parametrize("stratify", [True, False])
def test_the_rows_of_a_group_are_in_one_fold(stratify):
    groups, target = np.repeat([f"g{number}" for number in range(12)], 5), np.arange(60) % 2
    found = split_folds(target, 3, seed=0, stratify=stratify, groups=groups)
    assert sorted(np.concatenate(found)) == list(range(60))
    for held in found:
        assert not set(groups[held]) & set(np.delete(groups, held))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 100}, "data.folds=100: there are 48 rows; write from 2 to 48"),
        (
            {"folds": 3, "fold": 0, "test_fraction": 0.98},
            "data.folds=3: there are 1 rows; write null",
        ),
        (
            {"folds": 3, "fold": 3},
            "data.fold=3: there are 3 folds; write data.folds above it, or leave it out",
        ),
        ({"fold": 0}, "data.fold=0: there are 0 folds"),
    ],
)
def test_folds_that_cannot_be_are_refused(options, said):
    with pytest.raises(Refused, match=f"^{said}"):
        ready(Rows(np.zeros((60, 2)), np.linspace(0, 1, 60), **options))


def test_a_table_folds_by_its_groups_and_not_by_time(command, tmp_path: Path):
    header, *rows = cars(120)
    lines = [f"{header},dealer", *(f"{line},d{row // 4}" for row, line in enumerate(rows))]
    path = write(tmp_path / "cars.csv", lines)
    words = [
        "data=table",
        f"data.path={path}",
        "data.target=price",
        "trainer.max_epochs=1",
        "trainer=cpu",
    ]
    ended = command(
        *words, "data.group_column=dealer", "data.folds=2", "callbacks=none", "logger=none"
    )
    assert ended.code == 0, ended.err
    assert "fold 1 of 2, drawn with data.seed=0; groups by dealer" in (
        ended.folder / "fold_1" / "data_card.md"
    ).read_text(encoding="utf-8")
    ended = command(*words, "data.time_column=sold", "data.folds=2")
    assert ended.code == 2
    assert ended.err.startswith("error: data.time_column=sold: folds would train on later rows")
    ended = command(*words, f"data.val_path={path}", "data.folds=2")
    assert ended.code == 2
    assert ended.err.startswith("error: data.folds=2: the data say themselves which rows validate")


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_has_a_folder_a_fold_and_their_means_and_spread(command) -> None:
    ended = command(*SMALL, "data.folds=3")
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in ended.folder.iterdir()) == [
        *(
            ".lock",
            "config.yaml",
            "ensemble.json",
            "environment.json",
            "fold_0",
            "fold_1",
            "fold_2",
            "overrides.yaml",
            "predictions",
            "result.json",
        ),
    ]
    found = [read_result(ended.folder / f"fold_{fold}") for fold in range(3)]
    result = read_result(ended.folder)
    assert result["metrics"].keys() == found[0]["metrics"].keys()
    alone = result["alone"]
    assert {*result["spread"], *alone["metrics"]} == result["metrics"].keys()
    assert "test/accuracy" in alone["metrics"]
    means = {name: result["metrics"][name] for name in result["spread"]} | alone["metrics"]
    spreads = result["spread"] | alone["spread"]
    for name, mean in means.items():
        values = [of["metrics"][name] for of in found]
        assert mean == pytest.approx(np.mean(values), rel=1e-5)
        assert spreads[name] == pytest.approx(statistics.stdev(values), rel=1e-3)
    assert result["objective"]["value"] == result["metrics"]["val/loss"]
    assert (result["status"], result["folds"], result["epochs"]) == ("done", 3, 6)
    loss = next(line for line in ended.out.splitlines() if line.startswith("loss"))
    assert f"{result['metrics']['val/loss']:.4f} ± {result['spread']['val/loss']:.4f}" in loss
    told = f"one alone: loss {means['test/loss']:.4f} ± {spreads['test/loss']:.4f}"
    assert told in ended.out
    assert len({of["config_hash"] for of in [*found, result]}) == 4
    alone = command(*SMALL, "data.folds=3", "data.fold=2")
    same = pytest.approx(found[2]["metrics"], rel=1e-4)
    assert read_result(alone.folder)["metrics"] == same, "a fold is an ordinary run"
    again = command(f"resume={ended.folder}")
    assert (again.code, again.err) == (0, f"{ended.folder} is done: nothing to resume\n")


def test_a_trial_is_folded_too_and_never_tested(command, tmp_path: Path) -> None:
    ended = command("-m", *SMALL, "name=s", "data.folds=2", "optimizer=sgd,adam")
    assert ended.code == 0, ended.err
    for number in range(2):
        trial = tmp_path / "logs/sweeps/s" / str(number)
        result = read_result(trial)
        values = [read_result(trial / f"fold_{fold}")["metrics"]["val/loss"] for fold in range(2)]
        assert result["objective"]["value"] == pytest.approx(np.mean(values))
        assert not any(name.startswith("test/") for name in result["metrics"])
        assert is_trial(trial / "fold_0")
        assert not (trial / "fold_0" / "figures").exists()


def test_the_fold_that_failed_is_named_and_done_again(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goldilocks.training.module import TrainingModule

    original, runs = TrainingModule.on_fit_start, []

    def broken(self) -> None:
        runs.append(self)
        if len(runs) == 2:
            raise RuntimeError("unlucky")
        original(self)

    monkeypatch.setattr(TrainingModule, "on_fit_start", broken)
    ended = command(*SMALL, "data.folds=3")
    assert ended.code == 1
    result = read_result(ended.folder)
    assert (result["status"], result["metrics"], result["objective"]["value"]) == (
        "failed",
        {},
        None,
    )
    assert result["error"] == {"type": "RuntimeError", "message": "fold_1: unlucky"}
    stamps = {
        n: (ended.folder / n / "result.json").stat().st_mtime_ns for n in ("fold_0", "fold_2")
    }
    again = command("resume=last")
    assert again.code == 0, again.err
    for name, stamp in stamps.items():
        assert (ended.folder / name / "result.json").stat().st_mtime_ns == stamp
    assert len(runs) == 4
    whole = read_result(command(*SMALL, "data.folds=3").folder)["metrics"]
    assert read_result(ended.folder)["metrics"] == pytest.approx(whole, rel=1e-3)


def test_ctrl_c_ends_all_folds_and_resuming_goes_on(command, tmp_path: Path) -> None:
    process = start(*LONG, "data.folds=2", "trainer.max_epochs=100000", cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("logs/runs/*/fold_0/checkpoints/last.ckpt")))
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    (folder,) = tmp_path.glob("logs/runs/*")
    assert (
        read_result(folder)["status"] == read_result(folder / "fold_0")["status"] == "interrupted"
    )
    assert read_result(folder / "fold_1")["status"] == "interrupted"
    refused = command(f"resume={folder}", "trainer.max_epochs=3")
    assert refused.code == 2
    assert f"write resume={folder}/fold_0 trainer.max_epochs=3" in refused.err


def test_a_fold_that_diverges_ends_the_run(command) -> None:
    ended = command(*SMALL, "data=diabetes", "optimizer=sgd", "optimizer.lr=1e9", "data.folds=2")
    assert ended.code == 1
    result = read_result(ended.folder)
    assert (result["status"], result["objective"]["value"]) == ("diverged", None)


def test_what_needs_one_network_says_where_they_are(command, tmp_path: Path) -> None:
    folder = command(*SMALL, "data.folds=2").folder
    said = (
        f"^{folder}: is a cross-validation; write the folder of one of its networks:"
        f" {folder}/fold_0$"
    )
    with pytest.raises(Refused, match=said):
        load_checkpoint(folder / "checkpoints" / "best.ckpt")
    script = ROOT / "scripts" / "evaluate.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "fold_1")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
