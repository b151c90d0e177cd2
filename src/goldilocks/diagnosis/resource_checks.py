"""How long a run takes and how much memory: what is judged, and what the system says."""

import math
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from goldilocks.data.verdict import Verdict, grade
from goldilocks.machine.clock import duration

LONG = 24 * 3600.0  # seconds of a run
FULL = (0.8, 0.95)  # share of the memory


def judge_time(
    steps_per_second: float, steps_in_epoch: int, epochs: int, stops_early: bool
) -> Verdict:
    """How long a whole run takes; a warning above a day."""
    seconds = steps_in_epoch * epochs / steps_per_second
    measured = (
        f"{steps_per_second:,.0f} steps a second; {epochs} epochs of {steps_in_epoch:,} steps take"
        f" {duration(seconds)}"
        + (" at most, early stopping ends most runs before" if stops_early else "")
    )
    status = grade(seconds, LONG, math.inf)
    advice = (
        "write a larger data.batch_size, fewer trainer.max_epochs, or try"
        " trainer.limit_train_batches=100 first"
    )
    return Verdict("time", status, measured, advice if status != "ok" else "")


def judge_memory_use(parts: dict[str, int], used: int | None, there: int | None) -> Verdict:
    """How much memory is taken, and whether it fills what is there.

    Args:
        parts: Bytes by what holds them.
        used: Bytes that the process, or the device, has taken at most.
        there: Bytes that it could take.
    """
    measured = ", ".join(f"{name} {megabytes(size)} MB" for name, size in parts.items())
    if used is None or there is None:
        return Verdict("memory", "ok", measured)
    measured += f"; {megabytes(used)} of {megabytes(there)} MB taken so far"
    status = grade(used / there, *FULL)
    advice = "write a smaller data.batch_size or model.width"
    return Verdict("memory", status, measured, advice if status != "ok" else "")


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of what an optimizer keeps for its parameters."""
    return sum(t.nbytes for state in optimizer.state.values() for t in tensors_of(state))


def tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors within containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors_of(inner)


def megabytes(size: int) -> str:
    """Bytes as megabytes.

    >>> megabytes(42_000), megabytes(1_500_000), megabytes(2_000_000_000)
    ('0.04', '1.5', '2,000')
    """
    return (
        f"{size / 1e6:.2f}"
        if size < 1e6
        else f"{size / 1e6:.1f}"
        if size < 1e7
        else f"{size / 1e6:,.0f}"
    )


def process_memory() -> tuple[int | None, int | None]:
    """Bytes that this process has taken at most, and that the machine has;
    None where the system does not say.
    """
    try:
        import os
        import resource  # not on Windows

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
        return most, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ImportError, OSError, ValueError, AttributeError):
        return None, None
