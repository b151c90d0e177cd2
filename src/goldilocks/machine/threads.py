"""How many threads of the CPU make a step fastest:
measured, for it depends on the step and the machine.

A step of a small network is too short to be shared. The choice is remembered for each machine,
network and batch size, so that runs that are repeated or resumed get the same bits: sums over
threads round differently.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ALL_THREADS = (
    torch.get_num_threads()
)  # the cores, or the share of them that OMP_NUM_THREADS or a launcher gives
SMALL_WORK = (
    3_000_000  # parameters times rows of a batch, below which two threads gained less than a fifth
)
GAIN = 1.2  # in speed that doubling the threads must bring; less is left to other processes
STEPS = 5  # measured for each number of threads, the fastest counts


def choose_threads(
    work: int, description: str, make_step: Callable[[], Callable[[], Any]], most: int | None = None
) -> int:
    """The fewest threads that are about as fast as any.

    Args:
        work: Parameters times rows of a batch.
        description: Of all that a step's time depends on.
        make_step: Makes a training step to measure; called only where it is needed.
        most: To choose from; None: all of the machine.
    """
    most = most or ALL_THREADS
    if most == 1 or work < SMALL_WORK:
        return 1
    machine = f"{platform.node()} {platform.machine()} {torch.__version__} {most}"
    key = hashlib.sha256(f"{machine} {description}".encode()).hexdigest()[:16]
    known = remembered()
    if key not in known:
        try:
            known[key] = measure(make_step(), most)
        except Exception:  # the run's own first step fails too, and is recorded
            return 1
        remember(known)
    return known[key]


def measure(step: Callable[[], Any], most: int) -> int:
    """Doubles the threads as long as that pays, up to `most`."""
    before = torch.get_num_threads()
    try:
        chosen, fastest = 1, seconds(step, 1)
        while chosen < most:
            more = min(2 * chosen, most)
            took = seconds(step, more)
            if fastest / took < GAIN:
                break
            chosen, fastest = more, took
    finally:
        torch.set_num_threads(before)
    return chosen


def seconds(step: Callable[[], Any], threads: int) -> float:
    """The fastest of a few steps."""
    torch.set_num_threads(threads)
    step()  # warms up
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return min(times)


def memory() -> Path:
    """Where choices are remembered, beside what other programs find out about this machine."""
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "goldilocks"
        / "threads.json"
    )


def remembered() -> dict[str, int]:
    """The choices of this machine so far; none where they cannot be read."""
    try:
        known = json.loads(memory().read_text(encoding="utf-8"))
        return {
            str(key): int(threads)
            for key, threads in known.items()
            if 1 <= int(threads) <= ALL_THREADS
        }
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
    ):  # RuntimeError: there is no home
        return {}


def remember(known: dict[str, int]) -> None:
    """Replaces the file in one step.
    Where that is not allowed, each process measures for itself.
    """
    try:
        path = memory()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except (OSError, RuntimeError):
        return
