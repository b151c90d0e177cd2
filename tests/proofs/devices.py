"""Several devices: processes that train together."""

import io
from contextlib import redirect_stderr
from typing import Any
from unittest import mock

import torch

from goldilocks.machine.devices import has_gpu
from proofs.drive import prepared, refusal
from proofs.runs import command, empty_folder
from proofs.table import Measured, proof

# No dropout, no statistics of a batch: what is left must be the same to rounding.
PLAIN = (
    "data=iris",
    "model.norm=none",
    "trainer.max_epochs=3",
    "callbacks=none",
    "logger=none",
    "name=x",
)
SAVED = "+callbacks.last_checkpoint._target_=goldilocks.callbacks.LastCheckpoint"


def weights(*words: str) -> dict[str, torch.Tensor]:
    """What a run ends with."""
    with empty_folder() as folder:
        assert command(*PLAIN, SAVED, *words).code == 0
        (path,) = folder.glob("logs/runs/*/checkpoints/last.ckpt")
        found: dict[str, Any] = torch.load(path, weights_only=True)
    return found["state_dict"]


def apart(*words: str) -> float:
    """How far the weights of two processes are from those of one with twice the batch."""
    one, two = (
        weights("trainer=cpu", "data.batch_size=32"),
        weights("trainer=ddp_cpu", "data.batch_size=16", *words),
    )
    return max(float((one[key] - two[key]).abs().max()) for key in one)


@proof(
    "trainer=ddp_cpu",
    "",
    "two processes that train as one with twice the batch",
    "largest difference of a weight after 3 epochs",
    covers="trainer.devices trainer.strategy=ddp trainer.strategy=auto",
)
def together() -> Measured:
    found = apart()
    return f"{found:.0e}", found < 1e-5


@proof(
    "trainer.strategy=fsdp",
    "",
    "the same, with the weights split",
    "largest difference of a weight after 3 epochs",
)
def split() -> Measured:
    found = apart("trainer.strategy=fsdp")
    return f"{found:.0e}", found < 1e-5


def on_gpus(option: str) -> Measured:
    """Trains on all GPUs, or is refused."""
    if torch.cuda.is_available():
        return f"{len(weights(f'trainer={option}'))} tensors of weights", True
    if has_gpu():
        return "not run: needs CUDA", True
    line = refusal(f"trainer={option}")
    return f"not run: no GPU; refused: {line}", line.startswith(
        "trainer.accelerator=gpu: no GPU was found"
    )


@proof(
    "trainer=ddp",
    "",
    "all GPUs, each with all weights",
    "weights of a run; without a GPU, the line",
)
def ddp() -> Measured:
    return on_gpus("ddp")


@proof(
    "trainer=fsdp",
    "",
    "all GPUs, each with a share of the weights",
    "weights of a run; without a GPU, the line",
)
def fsdp() -> Measured:
    return on_gpus("fsdp")


@proof(
    "trainer.data_memory_fraction",
    "",
    "rows that take more of a GPU's free memory stay in the machine's",
    "whether 11 kB of rows fit into a half and a tenth of 40 kB of a made-up GPU",
)
def fraction() -> Measured:
    data = prepared("data=wine").data
    with (
        mock.patch.object(torch.cuda, "mem_get_info", return_value=(40_000, 80_000)),
        redirect_stderr(io.StringIO()),
    ):
        found = [data.fits_on(torch.device("cuda", 0), part) for part in (0.5, 0.1)]
    return f"{found[0]}, {found[1]}", found == [True, False]


@proof(
    "trainer.num_nodes",
    "",
    "machines, as torchrun and Slurm start them",
    "what is said where neither has",
)
def nodes() -> Measured:
    line = refusal("trainer=cpu", "trainer.num_nodes=2")
    return f"refused: {line}", "write torchrun --nnodes=2" in line
