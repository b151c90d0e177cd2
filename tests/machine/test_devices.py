"""Several devices, as processes on the CPU:
the same as one with a larger batch, whatever happens to one of them.
"""

import csv
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from commands import start, wait_for
from conftest import ROOT, read_result
from goldilocks.data.loaders import TensorLoader
from goldilocks.errors import Refused
from goldilocks.machine import devices
from goldilocks.machine.files import write_json
from goldilocks.runs import peers
from goldilocks.runs.folder import read_config
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.checkpoints import load_checkpoint, load_weights
from goldilocks.training.components import prepare

# No randomness beside the order, no statistics of a batch.
PLAIN = [
    "data=wine",
    "model=deep",
    "model.norm=none",
    "optimizer=sgd",
    "optimizer.lr=0.05",
    "scheduler=onecycle",
]
PLAIN += ["trainer.max_epochs=4", "logger=[csv]", "callbacks=none"]
PLAIN += ["+callbacks.last_checkpoint._target_=goldilocks.callbacks.LastCheckpoint"]
ONE = ["trainer=cpu", "data.batch_size=32", *PLAIN]
TWO = ["trainer=ddp_cpu", "data.batch_size=16", *PLAIN]
CLIPPED = [
    "trainer.gradient_clip_val=0.5",
    "trainer.accumulate_grad_batches=2",
    "regularization=[l2,ema]",
]


def run_of(place: Path) -> Path:
    (folder,) = (place / "logs/runs").iterdir()
    return folder


def trained(place: Path, *words: str, code: int = 0) -> Path:
    """The folder of a run that was started in a folder of its own."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == code, done.stderr
    return run_of(place)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same(one: Path, two: Path) -> None:
    """Metrics of every epoch, of the test, and weights."""
    for ours, theirs in zip(*(table(folder / "metrics.csv") for folder in (one, two)), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert float(ours[key]) == pytest.approx(float(theirs[key]), rel=1e-5, abs=1e-5), key
    results = [read_result(folder) for folder in (one, two)]
    assert results[0]["metrics"] == pytest.approx(results[1]["metrics"], abs=1e-5)
    assert "test/auroc" in results[0]["metrics"]
    assert results[0]["steps"] == results[1]["steps"]
    for key, value in weights(one).items():
        torch.testing.assert_close(value, weights(two)[key], rtol=1e-5, atol=1e-5)


# --- the share of each ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "size", "world", "least"), [(100, 8, 2, 1), (53, 4, 3, 2), (9, 4, 2, 2), (7, 2, 4, 2)]
)
def test_each_row_is_seen_by_exactly_one_and_counts_the_same(rows, size, world, least):
    x = torch.arange(rows)[:, None]
    words = {
        "batch_size": size,
        "shuffle_seed": 3,
        "world": world,
        "least": least,
        "batches_per_item": 2,
    }
    loaders = [TensorLoader(x, x, rank=rank, **words) for rank in range(world)]
    assert len({len(loader) for loader in loaders}) == 1
    whole = TensorLoader(x, x, batch_size=world * size, shuffle_seed=3)
    seen, batches = [], [batch for item in whole for batch in item.split()]
    for items in zip(*loaders, strict=True):
        assert len({len(item.sizes) for item in items}) == 1
        for parts in zip(
            *(zip(item.split(), item.weights, strict=True) for item in items), strict=True
        ):
            own = [part[:, 0].tolist() for (part, _), weight in parts if weight]
            seen += [row for rows_of_one in own for row in rows_of_one]
            mean = sum(weight * part.double().mean() for (part, _), weight in parts) / world
            assert mean == pytest.approx(batches.pop(0)[0].double().mean().item())
            assert all(len(part) >= least for (part, _), _ in parts)
    assert sorted(seen) == list(range(rows))


# --- the same as one process ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("one"), *ONE)


def test_two_processes_are_one_with_twice_the_batch(one, tmp_path):
    two = trained(tmp_path, *TWO)
    assert_same(one, two)
    assert not list(two.glob("failure_*"))
    assert len(list(two.parent.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_clipped_accumulated_penalised_and_averaged_they_are_too(strategy, tmp_path):
    one = trained(tmp_path / "one", *ONE, *CLIPPED)
    assert_same(one, trained(tmp_path / "two", *TWO, *CLIPPED, f"trainer.strategy={strategy}"))


@pytest.mark.slow
def test_sharded_weights_are_the_same(one, tmp_path):
    assert_same(one, trained(tmp_path, *TWO, "trainer.strategy=fsdp"))


@pytest.mark.slow
def test_what_a_process_alone_cannot_see_is_left_out(tmp_path):
    """Figures, importance, health and diagnosis:
    with all callbacks no process waits for another without end.
    """
    words = [
        "data=digits",
        "model=cnn",
        "trainer=ddp_cpu",
        "trainer.strategy=fsdp",
        "trainer.max_epochs=2",
    ]
    folder = trained(tmp_path, *words, "regularization=[ema]", "trainer.limit_train_batches=4")
    assert read_result(folder)["status"] == "done"
    assert "test/accuracy" in read_result(folder)["metrics"]
    assert read_result(folder)["diagnosis"] is None
    assert not (folder / "figures").exists()
    assert validated_again(folder) == pytest.approx(
        read_result(folder)["metrics"]["val/loss"], rel=1e-5
    )


def validated_again(folder: Path) -> float:
    """The loss of best.ckpt on the validation rows, by one process."""
    parts, path = prepare(read_config(folder), warn=False), folder / "checkpoints/best.ckpt"
    load_weights(parts.module, load_checkpoint(path), path)
    x, y = parts.data.tensors["val"]
    with torch.no_grad():
        return parts.module.task.loss(parts.module.evaluated.eval()(x), y).item()


@pytest.mark.slow
def test_killed_and_resumed_it_is_still_the_same(tmp_path):
    longer = [
        "data=digits",
        "trainer.max_epochs=20",
        "scheduler=constant",
        "trainer.steps_per_execution=1",
    ]
    one, place = trained(tmp_path / "one", *ONE, *longer), tmp_path / "two"
    place.mkdir()
    process = start(*TWO, *longer, "+callbacks.last_checkpoint.min_seconds=0", cwd=place)
    wait_for(lambda: list(place.glob("logs/runs/*/metrics.csv")), seconds=120)
    rows = run_of(place) / "metrics.csv"
    wait_for(lambda: len(rows.read_text().splitlines()) > 3)
    workers = children(process.pid)
    assert len(workers) == 1
    process.kill()
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=60)
    assert read_result(rows.parent)["status"] == "running"
    assert len(rows.read_text().splitlines()) < 21, "it was too fast to be killed"
    assert_same(one, trained(place, "resume=last"))


@pytest.mark.slow
def test_sharded_weights_go_on_where_they_were(tmp_path):
    words = [*TWO, "trainer.strategy=fsdp", "optimizer=adam", "scheduler=constant", *CLIPPED]
    whole = trained(tmp_path / "whole", *words)
    trained(tmp_path / "parts", *words, "trainer.max_epochs=2")
    assert_same(whole, trained(tmp_path / "parts", "resume=last", "trainer.max_epochs=4"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "kill"])
def test_an_interrupt_leaves_no_process_behind(number, tmp_path):
    process = start(*TWO, "scheduler=constant", "trainer.max_epochs=100000", cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("logs/runs/*/checkpoints/last.ckpt")), seconds=120)
    workers = children(process.pid)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=60)
    assert read_result(run_of(tmp_path))["status"] == "interrupted"


@pytest.mark.slow
def test_ctrl_c_while_they_start_is_silent(tmp_path):
    process = start(*TWO, "trainer.max_epochs=100000", cwd=tmp_path)
    wait_for(lambda: children(process.pid), seconds=120)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.split("\n")[-2] == "interrupted" and "Traceback" not in err
    assert not list((tmp_path / "logs/runs").iterdir())


def children(pid: int) -> list[int]:
    """The processes that a process has started (Linux)."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    if not found.exists():
        pytest.skip("needs Linux's /proc")
    return [int(word) for word in found.read_text().split()]


# --- in a sweep, and under torchrun ---------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_of_two_trials_on_two_devices_has_two_trials(one, tmp_path):
    words = [*TWO, "seed=0,1", "name=s", "hydra/launcher=process", "hydra.launcher.slots=1"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *words],
        cwd=tmp_path,
        timeout=240,
        check=True,
    )
    assert done.returncode == 0
    folder = tmp_path / "logs/sweeps/s"
    assert {(row["status"], row["seed"]) for row in table(folder / "trials.csv")} == {
        ("done", "0"),
        ("done", "1"),
    }
    assert len(list(folder.glob("*/result.json"))) == 2
    value = read_result(one)["objective"]["value"]
    assert read_result(folder / "0")["objective"]["value"] == pytest.approx(value, abs=1e-5)


def test_other_launchers_are_refused_for_it_with_the_reason(command, tmp_path):
    done = command("-m", *TWO, "seed=0,1")
    assert done.code == 2
    assert "hydra/launcher=process" in done.err
    assert "would end the sweep" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_torchrun_needs_no_further_options(one, tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words += [str(ROOT / "train.py"), *ONE, "data.batch_size=16"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder") == 1
    assert_same(one, run_of(tmp_path))


@pytest.mark.slow
def test_torchrun_trains_every_fold_on_all_devices(tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words += [str(ROOT / "train.py"), *ONE, "data.batch_size=16", "data.folds=3"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("fold_1  done") == 1
    one = trained(tmp_path / "one", *ONE, "data.folds=3")
    assert read_result(run_of(tmp_path))["metrics"] == pytest.approx(
        read_result(one)["metrics"], abs=1e-5
    )


# --- failures -------------------------------------------------------------------------------------

FAILING = """
import os
import time

from pytorch_lightning import Callback

class Unlucky(Callback):
    def __init__(self, how):
        self.how = how

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.global_rank == 1 and trainer.current_epoch == 1:
            if self.how == "raises":
                raise ValueError("made up")
            os._exit(7)
"""


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("raises", "ValueError", "device 1: made up"),
        pytest.param(
            "dies", "Lost", "device 1: its process ended with exit code 7", marks=pytest.mark.slow
        ),
    ],
)
def test_a_failure_on_one_device_is_the_run_s(how, kind, says, tmp_path, monkeypatch):
    (tmp_path / "unlucky.py").write_text(FAILING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = [
        "packages=[unlucky]",
        "+callbacks.unlucky._target_=unlucky.Unlucky",
        f"+callbacks.unlucky.how={how}",
    ]
    folder = trained(tmp_path, *TWO, *words, code=1)
    result = read_result(folder)
    assert result["status"] == "failed"
    assert result["error"] == {"type": kind, "message": says}
    if how == "raises":
        assert "ValueError: made up" in (folder / "traceback.txt").read_text()
    assert not list(folder.glob("failure_*"))


def test_what_a_device_said_before_it_was_resumed_is_forgotten(compose, tmp_path):
    """torchrun's processes leave it there:
    none of them has started the others, to clean up after them.
    """
    write_json(
        tmp_path / "failure_1.json", {"type": "ValueError", "message": "old", "traceback": ""}
    )
    cfg = compose(
        "data=iris", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none", "logger=none"
    )
    assert run(RunRequest(cfg, tmp_path, resumed=True))["status"] == "done"
    assert not list(tmp_path.glob("failure_*"))


def test_a_first_process_that_waits_is_ended_by_what_another_says(tmp_path, monkeypatch):
    """As under torchrun, where a process that waits on the GPU hears of nothing."""
    ended = []
    monkeypatch.setattr(peers.os, "_exit", ended.append)
    monkeypatch.setattr(peers, "GRACE", 0.0)
    write_json(tmp_path / "result.json", {"status": "running", "error": None})
    write_json(
        tmp_path / "failure_1.json",
        {"type": "ValueError", "message": "made up", "traceback": "trace"},
    )
    peers.listen(tmp_path, threading.Event())
    assert ended == [1]
    result = read_result(tmp_path)
    assert (result["status"], result["error"]) == (
        "failed",
        {"type": "ValueError", "message": "device 1: made up"},
    )
    assert (tmp_path / "traceback.txt").read_text() == "trace"


@pytest.mark.slow
def test_each_process_has_the_threads_that_were_chosen(tmp_path, monkeypatch):
    (tmp_path / "counting.py").write_text(COUNTING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = [
        "packages=[counting]",
        "+callbacks.counting._target_=counting.Counting",
        "trainer.threads=3",
    ]
    trained(tmp_path, *TWO, *words)
    assert [(tmp_path / f"threads_{rank}").read_text() for rank in range(2)] == ["3", "3"]


COUNTING = """
from pathlib import Path

import torch
from pytorch_lightning import Callback

class Counting(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        place = Path(__file__).with_name(f"threads_{trainer.global_rank}")
        place.write_text(str(torch.get_num_threads()))
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trainer.num_nodes=2"],
            r"^trainer\.num_nodes=2: each machine must start its part; write torchrun",
        ),
        (
            ["trainer.devices=9999"],
            r"^trainer\.devices=9999: this machine has \d+ cores, one for a process; write trainer",
        ),
        (
            ["trainer=ddp_cpu", "trainer.strategy=fsdp", "regularization=max_norm"],
            "sharded weights; write trainer=ddp",
        ),
        (
            ["trainer=ddp_cpu", "trainer.strategy=fsdp", "regularization=gradient_noise"],
            "fsdp shards them; write trainer=ddp",
        ),
        (
            ["trainer=ddp_cpu", "trainer.precision=16-mixed"],
            r"^trainer\.precision=16-mixed: needs a GPU",
        ),
        (
            ["trainer=ddp_cpu", "trainer.strategy=fsdp", "trainer.precision=64"],
            "=64: not with fsdp",
        ),
        (
            [
                "trainer=ddp_cpu",
                "trainer.strategy=fsdp",
                "trainer.channels_last=true",
                "data=digits",
                "model=cnn",
            ],
            "not with fsdp; write trainer.strategy=ddp",
        ),
        (
            ["trainer=cpu", "trainer.precision=bf16-true", "regularization=ema"],
            "write trainer.precision=bf16-mixed",
        ),
        (
            ["trainer=ddp_cpu", "data=diabetes", "data.val_fraction=0.003"],
            "2 processes share 1 rows of val; write",
        ),
    ],
)
def test_what_cannot_be_is_refused(words, message, compose):
    from goldilocks.training.components import prepare

    with pytest.raises(Refused, match=message):
        prepare(compose("data=iris", "trainer=cpu", *words))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("option", ["ddp", "fsdp"])
def test_without_a_gpu_they_are_composed_and_refused(option, compose):
    from goldilocks.training.components import prepare

    cfg = compose(f"trainer={option}")
    assert (cfg.trainer.strategy, cfg.trainer.devices) == (option, "auto")
    with pytest.raises(Refused, match="no GPU was found"):
        prepare(cfg)


def test_torchrun_s_numbers_count(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "RANK": "5",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    found = devices.plan({"accelerator": "cpu"})
    assert (found.devices, found.nodes, found.size, found.strategy) == (4, 2, 8, "ddp")
    with pytest.raises(
        Refused, match=r"^trainer\.devices=3: torchrun has started 4; write 4, or leave it out$"
    ):
        devices.plan({"accelerator": "cpu", "devices": 3})


def test_slurm_s_numbers_count(monkeypatch):
    found = {
        "SLURM_NTASKS": "6",
        "SLURM_NTASKS_PER_NODE": "3",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NAME": "train",
        "SLURM_PROCID": "3",
    }
    for name, value in {**found, "SLURM_LOCALID": "0", "SLURM_NODEID": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    plan = devices.plan({"accelerator": "cpu"})
    assert (plan.devices, plan.nodes, plan.strategy) == (3, 2, "ddp")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(Refused, match="ntasks-per-node"):
        devices.plan({"accelerator": "cpu"})
