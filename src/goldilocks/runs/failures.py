"""What went wrong in a run: as result.json says it, and what helps."""

import gc
import re
import signal
from collections.abc import Mapping
from typing import Any

import torch

from goldilocks.errors import one_line
from goldilocks.machine.devices import plan

# Of the CPU, of CUDA and of MPS, where torch raises no kind of its own.
NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED"
)


def summary(error: BaseException, settings: Any = None) -> dict[str, Any]:
    """An exception for `result.json`:
    its `type`, its `message` in one line, and `advice` where there is any.

    Args:
        error: The exception.
        settings: Of the run, for the advice; None gives none.
    """
    if not is_out_of_memory(error):
        return {"type": type(error).__name__, "message": one_line(error)}
    advice = memory_advice(settings.data, settings.trainer) if settings is not None else []
    return {
        "type": "OutOfMemory",
        "message": one_line(error),
        **({"advice": advice} if advice else {}),
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a GPU."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))
    )


def memory_advice(data: Mapping[str, Any], trainer: Mapping[str, Any]) -> list[str]:
    """Overrides of which each saves memory, the one that changes the results least first."""
    rows, parts, found, wanted = (
        data.get("batch_size", 1),
        trainer.get("accumulate_grad_batches", 1),
        [],
        plan(trainer),
    )
    if rows > 1:  # the same rows in a step, in two parts
        found.append(f"data.batch_size={rows // 2} trainer.accumulate_grad_batches={2 * parts}")
    if wanted.kind == "cuda" and str(trainer.get("precision", 32)) in ("32", "32-true"):
        small = torch.cuda.is_bf16_supported(including_emulation=False)
        found.append(f"trainer.precision={'bf16' if small else '16'}-mixed")
    if wanted.kind == "cuda" and torch.cuda.device_count() > 1 and wanted.strategy != "fsdp":
        found.append("trainer=fsdp")
    return found


def lost(code: int) -> dict[str, Any]:
    """The error of a process that ended without a word."""
    how = (
        f"was killed by {signal.Signals(-code).name}"
        if code < 0
        else f"ended with exit code {code}"
    )
    return {"type": "Lost", "message": f"its process {how}"}


def in_words(error: Mapping[str, Any]) -> str:
    """An error of `result.json` in a line."""
    advice = f"; write {' or '.join(error['advice'])}" if error.get("advice") else ""
    return f"{error['type']}: {error['message']}{advice}"


def give_back_memory() -> None:
    """Frees what a run that has failed still holds, for the next one in this process."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
