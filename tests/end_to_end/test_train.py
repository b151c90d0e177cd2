"""End to end: `python train.py` as a user starts it, and what it leaves."""

import csv
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from commands import LONG, start, wait_for
from conftest import ROOT, SMALL, read_result
from goldilocks.runs.folder import compare, make_run_folder

KEYS = {
    "status",
    "objective",
    "metrics",
    "best_epoch",
    "epochs",
    "steps",
    "seconds",
    "examples_per_second",
    "num_parameters",
    "learning_rate",
    "lr_range",
    "choices",
    "config_hash",
    "data_hash",
    "diagnosis",
    "baselines",
    "calibration",
    "coverage",
    "threshold",
    "error",
}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_leaves_what_the_design_says(command, tmp_path: Path) -> None:
    ended = command(
        "model=deep",
        "optimizer=nadam",
        "data=wine",
        "trainer.max_epochs=3",
        "regularization=[dropout,l2]",
    )
    assert ended.code == 0, ended.err
    folder = ended.folder
    stamp, name, digits = (
        folder.name.split("_")[0:2],
        folder.name.split("_")[2],
        folder.name.split("_")[3],
    )
    datetime.strptime("_".join(stamp), "%Y-%m-%d_%H-%M-%S")
    assert name == "deep-nadam"
    result = read_result(folder)
    assert result.keys() == KEYS
    assert result["config_hash"].startswith(digits)
    assert result["status"] == "done"
    assert result["error"] is None
    assert result["objective"] == {
        "metric": "val/loss",
        "mode": "min",
        "value": result["metrics"]["val/loss"],
    }
    assert {"train/loss", "val/loss", "val/accuracy", "test/loss", "test/accuracy"} <= result[
        "metrics"
    ].keys()
    assert (result["epochs"], result["steps"]) == (3, 3 * 4)
    assert result["choices"]["regularization"] == ["dropout", "l2"]
    assert result["choices"]["logger"] == ["tensorboard", "csv"]
    assert {key: result["choices"][key] for key in ("model", "optimizer", "data")} == {
        "model": "deep",
        "optimizer": "nadam",
        "data": "wine",
    }
    assert 0 < result["seconds"]["train"] <= result["seconds"]["total"]
    assert result["num_parameters"] == 13 * 100 + 100 + 2 * (100 * 100 + 100) + 100 * 3 + 3

    config = OmegaConf.load(folder / "config.yaml")
    assert config.model.dropout == config.regularization.dropout == 0.1
    assert list(OmegaConf.load(folder / "overrides.yaml"))[:2] == ["model=deep", "optimizer=nadam"]
    environment = json.loads((folder / "environment.json").read_text())
    assert {"git", "packages", "python", "seed", "command"} <= environment.keys()
    assert environment["packages"]["pytorch-lightning"]
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows[:3]] == ["0.0", "1.0", "2.0"]
    assert float(rows[result["best_epoch"]]["val/loss"]) == result["metrics"]["val/loss"]
    for name in ("best.ckpt", "last.ckpt"):
        torch.load(folder / "checkpoints" / name, weights_only=True)
    assert str(folder.name) in ended.out
    assert f"tensorboard --logdir {ended.folder.relative_to(Path.cwd())}\n" in ended.out
    assert "accuracy" in ended.out


def test_tensorboard_has_scalars_text_and_hparams(command) -> None:
    folder = command(*SMALL).folder
    result = read_result(folder)
    assert len(list(folder.glob("events.*"))) == 1
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()["scalars"]
    assert {
        "Train/loss",
        "Val/loss",
        "Val/accuracy",
        "learning_rate",
        "best/val/loss",
        "test/accuracy",
    } <= set(tags)
    assert events.Scalars("best/val/loss")[-1].value == pytest.approx(
        result["metrics"]["val/loss"], rel=1e-6
    )
    assert [event.step for event in events.Scalars("Val/loss")] == [
        2,
        5,
    ]  # 90 rows: 3 steps an epoch
    hparams = events.SummaryMetadata("_hparams_/session_start_info")
    assert hparams is not None
    assert "network/text_summary" in events.Tags()["tensors"]


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(command) -> None:
    first, again, other = (command(*SMALL, *words).folder for words in ([], [], ["seed=1"]))
    metrics = [read_result(folder)["metrics"] for folder in (first, again, other)]
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]
    assert compare(metrics[0], metrics[2], 1e-9)[0] == "different"


def test_eight_runs_of_one_second_have_eight_folders(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1)
    with ThreadPoolExecutor(8) as pool:
        folders = list(
            pool.map(lambda _: make_run_folder(tmp_path, "deep-nadam", "4f2a9c", now), range(8))
        )
    assert len(set(folders)) == 8
    assert len(list(tmp_path.iterdir())) == 8


EXACT = [
    *LONG,
    "regularization=dropout",
    "optimizer=nadam",
    "callbacks.last_checkpoint.min_seconds=0",
    "name=x",
]


@pytest.mark.parametrize("scheduler", ["onecycle", "plateau"])
def test_killed_and_resumed_equals_uninterrupted_to_the_bit(
    command, tmp_path: Path, scheduler: str
) -> None:
    words = [
        *EXACT,
        f"scheduler={scheduler}",
        "trainer.max_epochs=40",
        "trainer.steps_per_execution=4",
    ]
    whole = command(*words).folder
    killed = tmp_path / "killed"
    killed.mkdir()
    process = start(*words, cwd=killed)
    wait_for(lambda: list(killed.glob("logs/runs/*/metrics.csv")))
    table = next(killed.glob("logs/runs/*/metrics.csv"))
    wait_for(lambda: len(table.read_text().splitlines()) > 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = table.parent
    assert read_result(folder)["status"] == "running"
    assert len(table.read_text().splitlines()) < 41, "it was too fast to be killed"
    ended = command(f"resume={folder}")
    assert ended.code == 0, ended.err
    one, two = read_result(whole), read_result(folder)
    assert two["status"] == "done"
    assert one["metrics"] == two["metrics"]
    assert (one["epochs"], one["steps"], one["best_epoch"]) == (
        two["epochs"],
        two["steps"],
        two["best_epoch"],
    )
    for name in ("last.ckpt", "best.ckpt"):
        mine, theirs = weights(whole / "checkpoints" / name), weights(folder / "checkpoints" / name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    with (whole / "metrics.csv").open() as a, (folder / "metrics.csv").open() as b:
        assert list(csv.DictReader(a)) == list(csv.DictReader(b))


def test_ctrl_c_leaves_a_resumable_run(command, tmp_path: Path) -> None:
    process = start(*LONG, "trainer.max_epochs=100000", cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("logs/runs/*/checkpoints/last.ckpt")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    folder = next(tmp_path.glob("logs/runs/*"))
    result = read_result(folder)
    assert result["status"] == "interrupted"
    assert "resume=" in out
    assert "Traceback" not in err
    done = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    ended = command("resume=last", f"trainer.max_epochs={max(done, result['epochs']) + 3}")
    assert ended.code == 0, ended.err
    assert read_result(folder)["status"] == "done"
    assert read_result(folder)["epochs"] == max(done, result["epochs"]) + 3
    assert len(list(tmp_path.glob("logs/runs/*"))) == 1


def test_a_finished_run_says_so_and_may_be_extended(command) -> None:
    folder = command(*SMALL, "callbacks.early_stopping=null").folder
    ended = command("resume=last")
    assert ended.code == 0
    assert "nothing to resume" in ended.err
    assert command("resume=last", "optimizer.lr=1").code == 2
    assert command("resume=last", "trainer.max_epochs=1").code == 2
    assert command("resume=last", "trainer.max_epochs=5").code == 0
    longer = command(*SMALL, "callbacks.early_stopping=null", "trainer.max_epochs=5").folder
    assert read_result(folder)["epochs"] == 5
    assert read_result(folder)["metrics"] == read_result(longer)["metrics"]


def test_a_schedule_over_the_whole_run_cannot_be_extended(command) -> None:
    command(*SMALL, "scheduler=onecycle", "callbacks.early_stopping=null")
    ended = command("resume=last", "trainer.max_epochs=5")
    assert ended.code == 2
    assert "schedule is drawn over 2 epochs" in ended.err


def test_a_run_that_fails_is_recorded(command, monkeypatch: pytest.MonkeyPatch) -> None:
    from goldilocks.training.module import TrainingModule

    def broken(*_: object) -> None:
        raise RuntimeError("no [luck] today")

    monkeypatch.setattr(TrainingModule, "validation_step", broken)
    ended = command(*SMALL)
    assert ended.code == 1
    result = read_result(ended.folder)
    assert result["status"] == "failed"
    assert result["error"] == {"type": "RuntimeError", "message": "no [luck] today"}
    assert "no [luck] today" in ended.out
    assert "broken" in (ended.folder / "traceback.txt").read_text()


def test_a_run_that_fails_before_training_is_recorded(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import goldilocks.runs.run

    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(goldilocks.runs.run, "log_start", broken)
    ended = command(*SMALL)
    assert ended.code == 1
    assert read_result(ended.folder)["status"] == "failed"
    assert "no space left" in ended.out
    assert "broken" in (ended.folder / "traceback.txt").read_text()


def test_a_run_that_diverges_is_recorded(command) -> None:
    ended = command("data=diabetes", "optimizer=sgd", "optimizer.lr=1e6", "trainer.max_epochs=9")
    assert ended.code == 1
    result = read_result(ended.folder)
    assert result["status"] == "diverged"
    assert result["epochs"] < 9
    assert "lower optimizer.lr" in ended.out


def test_the_test_set_is_touched_once_on_the_best_checkpoint(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goldilocks.training.module import TrainingModule

    seen = []
    original = TrainingModule.on_test_epoch_start
    monkeypatch.setattr(
        TrainingModule,
        "on_test_epoch_start",
        lambda self: (
            seen.append({k: v.clone() for k, v in self.state_dict().items()}),
            original(self),
        ),
    )
    folder = command(*SMALL, "trainer.max_epochs=30", "optimizer.lr=0.1").folder
    assert read_result(folder)["best_epoch"] < read_result(folder)["epochs"] - 1
    best = weights(folder / "checkpoints" / "best.ckpt")
    assert len(seen) == 1
    assert all(torch.equal(seen[0][key], best[key]) for key in best)


@pytest.mark.parametrize("data", ["wine", "diabetes", "breast_cancer"])
def test_evaluate_and_rerun_give_the_same_numbers(command, tmp_path: Path, data: str) -> None:
    folder = command(*SMALL, f"data={data}").folder
    before = read_result(folder)

    def script(name: str, *words: str) -> subprocess.CompletedProcess:
        path = [sys.executable, str(ROOT / "scripts" / name), *words]
        return subprocess.run(path, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    done = script("evaluate.py", str(folder))
    assert done.returncode == 0, done.stderr
    told = f"tested before, with test/loss {before['metrics']['test/loss']:.4g}, "
    assert done.stderr.startswith(told) and done.stderr.count("\n") == 1
    assert compare(before["metrics"], read_result(folder)["metrics"], 1e-6)[0] in (
        "identical",
        "equal",
    )
    if data == "wine":
        done = script("rerun.py", "last")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith("identical")
        done = script("rerun.py", str(folder), "optimizer=adam", "optimizer.lr=0.02")
        assert done.returncode == 1, done.stderr
        assert done.stdout.splitlines()[-1].startswith("different")
        assert "deep-adam" in done.stdout or "-adam_" in done.stdout


def test_a_moved_run_folder_resumes_and_keeps_its_best(command, tmp_path: Path) -> None:
    folder = command(
        *SMALL, "trainer.max_epochs=6", "callbacks.early_stopping=null", "optimizer.lr=0.1"
    ).folder
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    best = read_result(moved)["objective"]["value"]
    ended = command(f"resume={moved}", "trainer.max_epochs=12")
    assert ended.code == 0, ended.err
    assert read_result(moved)["objective"]["value"] <= best
    assert read_result(moved)["epochs"] == 12
