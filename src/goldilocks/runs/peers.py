"""The processes of a run's other devices: started, watched, and ended with the run.

Lightning would start them with the command line of this process, which may be that of a sweep. Here
a process is handed the run itself.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import distributed

from goldilocks.config.places import SOURCE, home
from goldilocks.machine import devices
from goldilocks.machine.files import write_json
from goldilocks.machine.interrupts import uninterrupted
from goldilocks.runs import failures
from goldilocks.runs.folder import read_result, write_result

# Seconds from the death of a process until this one, which may wait for it without end, is ended.
GRACE = 20.0
NEWS = 2.0  # seconds in which a process that has failed has said so
POLL_SECONDS = 0.2


@contextmanager
def peer_processes(
    options: Mapping[str, Any], folder: Path, job: Callable[[], Any]
) -> Iterator[None]:
    """Within the block, the processes of all devices train together. Does nothing for a single one.

    Args:
        options: The trainer's.
        folder: Of the run.
        job: What each of them needs to know.
    """
    plan = devices.plan(options)
    if plan.strategy == "single" or distributed.is_initialized():
        with heard(folder):  # torchrun or Slurm has started the others
            yield
        return
    forget_failures(folder)
    store = devices.open_store()
    arguments = [
        sys.executable,
        "-m",
        "goldilocks.runs.worker",
        plan.kind,
        str(store.port),
        str(plan.size),
    ]
    processes = [start([*arguments, str(rank)], plan.size) for rank in range(1, plan.size)]
    over = threading.Event()
    threading.Thread(target=watch, args=(processes, folder, over), daemon=True).start()
    try:
        with devices.member(plan.kind, 0, plan.size, store):
            devices.share(job)
            yield
    except BaseException:  # interrupted before training: they may still be starting
        for process in processes:
            process.kill()
        raise
    finally:
        over.set()
        with uninterrupted():
            end(processes)
        forget_failures(folder)


@contextmanager
def heard(folder: Path) -> Iterator[None]:
    """Within the block, a failure that another process reports ends this one too,
    if it is the first and waits.
    """
    over = threading.Event()
    if devices.is_first():
        forget_failures(folder)
    if devices.size() > 1 and devices.is_first():
        threading.Thread(target=listen, args=(folder, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def listen(folder: Path, over: threading.Event) -> None:
    """Ends the run if another process has failed and this one does not notice:
    it may wait for it on the GPU.
    """
    while not over.wait(POLL_SECONDS):
        if any(folder.glob("failure_*.json")) and not over.wait(GRACE):
            give_up(folder)
            return


def start(arguments: Sequence[str], size: int) -> subprocess.Popen:
    """A process with its share of the cores, which ends when this one does:
    its standard input is closed then.
    """
    return subprocess.Popen(
        arguments,
        env=environment(size),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def environment(sharers: int, device: str | None = None) -> dict[str, str]:
    """The variables of a process: where our package and yours are, its share of the cores,
    and its device.

    It imports nothing from the current directory, which may be a run folder of somebody else's.
    """
    given = filter(None, [os.environ.get("PYTHONPATH")])
    path = os.pathsep.join([str(home() / "src"), str(SOURCE), *given, str(home())])
    threads = os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // sharers, 1)))
    own = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": threads}
    return own if device is None else {**own, "CUDA_VISIBLE_DEVICES": device}


def end(processes: Sequence[subprocess.Popen]) -> None:
    """Lets the processes end by themselves, for a moment."""
    until = time.monotonic() + GRACE
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watch(processes: Sequence[subprocess.Popen], folder: Path, over: threading.Event) -> None:
    """Ends everything if a process has died and the run does not notice:
    it may wait for that process for ever.
    """
    while not over.wait(POLL_SECONDS):
        dead = [
            (rank, code)
            for rank, process in enumerate(processes, start=1)
            if (code := process.poll())
        ]
        if not dead:
            continue
        for rank, code in dead:
            if not (folder / f"failure_{rank}.json").exists():
                write_json(
                    folder / f"failure_{rank}.json", {**failures.lost(code), "traceback": ""}
                )
        if over.wait(GRACE):  # it has noticed
            return
        for process in processes:
            process.kill()
        give_up(folder)


def give_up(folder: Path) -> None:
    """Ends this process, which cannot be interrupted,
    with the error that another one has reported as the run's.
    """
    if (folder / "result.json").exists() and (error := reported(folder)):
        write_result(folder, {**read_result(folder), "status": "failed", "error": error})
        print(f"error: {failures.in_words(error)}", file=sys.stderr, flush=True)
    os._exit(1)


def forget_failures(folder: Path) -> None:
    """Removes what other processes have said of themselves,
    now or in a run before this one was resumed.
    """
    for left in folder.glob("failure_*.json"):
        left.unlink(missing_ok=True)


# --- failures -------------------------------------------------------------------------------------


def tell_failure(folder: Path, summary: Mapping[str, Any], trace: str) -> None:
    """Writes a traceback into the run folder;
    where this is not the first process, for the first one to find.
    """
    if devices.is_first():
        with suppress(OSError):  # result.json says it in a line
            (folder / "traceback.txt").write_text(trace, encoding="utf-8")
    else:
        write_json(folder / f"failure_{devices.rank()}.json", {**summary, "traceback": trace})


def first_failure(folder: Path, own: dict[str, Any]) -> dict[str, Any]:
    """The error of whichever process failed first: the others only say that it is gone."""
    if devices.size() == 1 or not devices.is_first():
        return own
    until = time.monotonic() + NEWS
    while (found := reported(folder, own["type"])) is None and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return found or own


def reported(folder: Path, own: str = "") -> dict[str, Any] | None:
    """The error that another process has left, unless it is of the kind of this one's own;
    with its traceback.
    """
    for path in sorted(folder.glob("failure_*.json")):
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["type"] == own:
            continue
        (folder / "traceback.txt").write_text(known.pop("traceback"), encoding="utf-8")
        return {**known, "message": f"device {path.stem.partition('_')[2]}: {known['message']}"}
    return None
