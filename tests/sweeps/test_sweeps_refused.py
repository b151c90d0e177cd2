"""Combinations of a grid that exclude each other, failures that are reported once,
and pruning over folds.
"""

import csv

import pytest

from conftest import read_result
from goldilocks.runs.cross_validation import run_folds
from goldilocks.runs.request import RunRequest
from goldilocks.training.module import TrainingModule

QUICK = [
    "-m",
    "data=iris",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "callbacks=none",
    "logger=none",
    "name=s",
]
GRID = ["model=linear,shallow", "regularization=none,dropout", "optimizer=sgd,adam"]


def rows(folder):
    with (folder / "logs/sweeps/s/trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_combinations_that_exclude_each_other_are_named(command, tmp_path):
    ended = command(*QUICK, *GRID)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert "no layer of this model takes it up" in ended.err
    assert "(2 of 8 combinations: model=linear regularization=dropout)" in ended.err
    assert "write sweep.skip_refused=true to train the other 6" in ended.err
    assert not (tmp_path / "logs").exists()


def test_the_others_are_trained_on_request(command, tmp_path):
    ended = command(*QUICK, *GRID, "sweep.skip_refused=true")
    assert ended.code == 0, ended.err
    assert "2 of 8 combinations are left out: regularization.dropout=" in ended.err
    assert len(rows(tmp_path)) == 6
    pairs = {(row["model"], row["regularization"]) for row in rows(tmp_path)}
    assert pairs == {("linear", "none"), ("shallow", "none"), ("shallow", "dropout")}
    again = command(*QUICK, *GRID, "sweep.skip_refused=true")
    assert "6 of 6 trials are done already" in again.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer.lr=-1,-2"], "none was started"),
        (["optimizer.lr=1,2", "sweep.sampler=qmc", "sweep.n_trials=2"], "is for a grid"),
    ],
)
def test_there_has_to_be_something_to_leave_out_and_to_train(words, said, command, tmp_path):
    ended = command(*QUICK, *words, "sweep.skip_refused=true")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert said in ended.err
    assert not (tmp_path / "logs").exists()


def test_the_reasons_of_failures_are_told_once_each_at_the_end(command, monkeypatch):
    def broken(self, *_):
        raise OSError(f"no space on disk {self.seed}" if self.seed else "unlucky")

    monkeypatch.setattr(TrainingModule, "on_train_epoch_start", broken)
    ended = command(*QUICK, "seed=0,1,2,3")
    end = ended.err[ended.err.index("4 of 4 trials failed") :]
    assert end.splitlines()[1:] == [
        "3 of them: OSError: no space on disk #",
        "1 of them: OSError: unlucky",
    ]


# --- pruning over folds ---------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median"])
def test_a_sweep_over_folds_can_be_pruned(pruner, command, tmp_path):
    pytest.importorskip("optuna")
    words = ["data.folds=3", f"sweep.pruner={pruner}", "optimizer=sgd", "hydra/launcher=basic"]
    ended = command(*QUICK, *words, "optimizer.lr=0.1,0.09,0.08,0.07,1e-6,1e-7")
    assert ended.code == 0, ended.err
    statuses = [row["status"] for row in rows(tmp_path)]
    assert statuses[0] == "done"
    assert set(statuses) <= {"done", "pruned"}
    if pruner != "hyperband":  # which begins later for some
        assert statuses[-1] == "pruned"
    for number, status in enumerate(statuses):
        trial = tmp_path / f"logs/sweeps/s/{number}"
        assert len(list(trial.glob("fold_*"))) == 3 or status == "pruned"


def test_what_is_reported_is_the_mean_over_the_folds_so_far(compose, tmp_path):
    values, reports = [0.5, 0.3, 0.4, 0.9], []

    def train(request, parts):
        value = values[request.cfg.data.fold]
        return {
            "status": "done",
            "objective": {"metric": "val/loss", "value": value},
            "metrics": {"val/loss": value},
            **dict.fromkeys(("epochs", "steps", "num_parameters"), 1),
            "seconds": {"total": 1.0, "train": 1.0},
            "examples_per_second": 1.0,
            "learning_rate": 0.1,
            "error": None,
        }

    def report(folds, mean):
        reports.append((folds, round(mean, 6)))
        return folds == 3

    cfg = compose("data.folds=4")
    result = run_folds(train, RunRequest(cfg, tmp_path, report=report))
    assert reports == [(1, 0.5), (2, 0.4), (3, 0.4)]
    assert (result["status"], round(result["objective"]["value"], 6)) == ("pruned", 0.4)
    assert read_result(tmp_path)["status"] == "pruned"
    assert not (tmp_path / "fold_3").exists()
    finished = run_folds(train, RunRequest(cfg, tmp_path, report=lambda *_: True))
    assert finished["status"] == "pruned"
