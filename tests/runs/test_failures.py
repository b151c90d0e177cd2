"""What went wrong, in a line, and what helps: running out of memory above all."""

import json
import shlex

import pytest
import torch
from omegaconf import OmegaConf

from conftest import ROOT, read_result
from goldilocks.runs import failures
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.components import prepare
from goldilocks.training.module import TrainingModule

SMALL = ["data=iris", "trainer=cpu", "trainer.max_epochs=2", "callbacks=none", "logger=none"]


def too_much(*_, **__):
    """More than any machine has: the allocator says so at once."""
    torch.empty(2**50, dtype=torch.uint8)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ..."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    ],
)
def test_running_out_of_memory_has_one_name(error):
    found = failures.summary(error)
    assert found["type"] == "OutOfMemory"
    assert "\n" not in found["message"]
    assert found["message"]


def test_the_cpu_s_allocator_is_known_too():
    with pytest.raises(RuntimeError) as caught:
        too_much()
    assert failures.is_out_of_memory(caught.value)
    assert not failures.is_out_of_memory(RuntimeError("sizes do not fit"))


def test_the_advice_keeps_the_step(monkeypatch):
    assert failures.memory_advice(
        {"batch_size": 32}, {"accelerator": "cpu", "accumulate_grad_batches": 2}
    ) == ["data.batch_size=16 trainer.accumulate_grad_batches=4"]
    assert failures.memory_advice({"batch_size": 1}, {"accelerator": "cpu"}) == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    found = failures.memory_advice({"batch_size": 1}, {"accelerator": "gpu", "precision": 32})
    assert found == ["trainer.precision=16-mixed", "trainer=fsdp"]


def test_a_run_says_what_helps(command, monkeypatch):
    monkeypatch.setattr(TrainingModule, "training_step", too_much)
    ended = command(*SMALL)
    assert ended.code == 1
    error = read_result(ended.folder)["error"]
    assert error["type"] == "OutOfMemory"
    assert error["advice"] == ["data.batch_size=16 trainer.accumulate_grad_batches=2"]
    assert "write data.batch_size=16 trainer.accumulate_grad_batches=2" in ended.out
    assert "too_much" in (ended.folder / "traceback.txt").read_text()


def test_a_trial_that_runs_out_of_memory_does_not_stop_the_others(command, monkeypatch, tmp_path):
    begin = TrainingModule.on_train_epoch_start
    monkeypatch.setattr(
        TrainingModule,
        "on_train_epoch_start",
        lambda self: too_much() if self.seed == 1 else begin(self),
    )
    ended = command("-m", *SMALL, "seed=0,1,2", "name=s")
    found = [
        json.loads((tmp_path / f"logs/sweeps/s/{n}/result.json").read_text()) for n in range(3)
    ]
    assert [result["status"] for result in found] == ["done", "failed", "done"]
    assert found[1]["error"]["type"] == "OutOfMemory"
    assert ended.code == 1
    assert "to try: data.batch_size=16" in (tmp_path / "logs/sweeps/s/report.md").read_text()


def test_the_command_of_a_sweep_is_kept_as_a_shell_takes_it(command, tmp_path):
    words = [*SMALL, "seed=0,1", "name=s", "sweep.params={optimizer.lr: '0.1,0.2'}"]
    command("-m", *words)
    kept = OmegaConf.load(tmp_path / "logs/sweeps/s/sweep.yaml").commands[0]
    assert [word.lstrip("+") for word in shlex.split(kept)] == ["python", "train.py", "-m", *words]


@pytest.mark.gpu
def test_a_gpu_whose_memory_ran_out_trains_the_next(compose, tmp_path, monkeypatch):
    """In the same process; little of the memory stays taken."""
    words = ["trainer=gpu", *SMALL[:1], *SMALL[2:]]
    step = TrainingModule.training_step

    def fills(self, *given):
        self.kept = [torch.empty(2**30, dtype=torch.uint8, device="cuda") for _ in range(1000)]

    for number, wrong in enumerate((fills, None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.setattr(TrainingModule, "training_step", wrong or step)
        cfg = compose(*words)
        result = run(RunRequest(cfg, folder), prepare(cfg))
        if wrong is None:
            assert result["status"] == "done"
        else:
            assert result["error"]["type"] == "OutOfMemory"
            assert "trainer.precision=bf16-mixed" in result["error"]["advice"]
        failures.give_back_memory()
        assert torch.cuda.memory_reserved() < 2**30


def test_the_pages_name_it():
    assert "OutOfMemory" in (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
