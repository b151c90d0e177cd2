"""Trials in processes of their own: `hydra/launcher=process`, and what runs in such a process.

A trial gets a fresh process, so it may use several devices, leak memory or be killed,
and the others go on.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from goldilocks.data import shared
from goldilocks.machine.interrupts import killed_as_by_ctrl_c, uninterrupted
from goldilocks.runs import failures
from goldilocks.runs.peers import environment
from goldilocks.sweeps.execution.trials import (
    Trial,
    data_folder,
    frozen,
    run_trial,
    trial_result,
)

ELSEWHERE = 75  # exit code of a process whose trial another one runs


def run_in_processes(
    folder: Path, trials: Iterator[Trial], launcher: Any, ended: Callable[[Trial], None], wait: bool
) -> list[Trial]:
    """Runs trials side by side, each in a fresh process,
    and takes the next as soon as one has ended.

    Args:
        folder: Of the sweep.
        trials: To be run; each is taken when there is a slot for it.
        launcher: See `slots_of`.
        ended: Called for each trial that has an outcome.
        wait: Whether to wait for trials that other sweeps run.

    Returns:
        The trials that other sweeps run.
    """
    slots = slots_of(launcher)
    running: set[subprocess.Popen] = set()
    elsewhere: list[Trial] = []
    one_at_a_time = threading.Lock()
    stopped = False

    def work(device: str | None) -> None:
        """Fills one slot as long as there are trials."""
        while not stopped:
            with one_at_a_time:
                trial = next(trials, None)
            if trial is None:
                return
            process = start_process(folder, trial, wait, environment(len(slots), device))
            running.add(process)
            code = process.wait()
            running.discard(process)
            trial.result = trial_result(folder, trial.number) or lost(code)
            if code == ELSEWHERE:
                elsewhere.append(trial)
            elif not stopped:
                if (
                    trial.result["status"] == "running"
                ):  # killed: by the system for its memory, or by somebody
                    trial.result = lost(code)
                with one_at_a_time:
                    ended(trial)

    with ThreadPoolExecutor(len(slots)) as threads:
        futures = [threads.submit(work, device) for device in slots]
        try:
            for future in futures:
                future.result()
        except (KeyboardInterrupt, SystemExit):
            stopped = True
            with uninterrupted():
                for process in list(running):
                    process.send_signal(signal.SIGINT)
                threads.shutdown(cancel_futures=True)
            raise
    return elsewhere


def slots_of(launcher: Any) -> list[str | None]:
    """What `CUDA_VISIBLE_DEVICES` is in each place for a trial; None leaves it as it is.

    Args:
        launcher: With `devices`, a list, or `auto` for the GPUs that this process sees;
            `trials_per_device`; and `slots`, the number of places where there are no devices.
    """
    devices = launcher.devices
    if devices == "auto":
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count()  # asks the driver, and takes nothing of a GPU
        devices = (seen.split(",") if seen else range(count))[:count]
    devices = [str(device) for device in devices or []]
    return devices * launcher.trials_per_device or [None] * launcher.slots


def start_process(
    folder: Path, trial: Trial, wait: bool, environment: dict[str, str]
) -> subprocess.Popen:
    """A process for a trial; what it prints is in `trials/<number>.log`.
    Ctrl-C is handed on to it, once.
    """
    command = [
        sys.executable,
        "-m",
        "goldilocks.sweeps.execution.processes",
        str(folder),
        str(trial.number),
        str(int(wait)),
    ]
    with (folder / "trials" / f"{trial.number}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def lost(code: int) -> dict[str, Any]:
    """The result of a trial whose process ended without one."""
    return {"status": "failed", "error": failures.lost(code)}


def main(folder: str, number: str, wait: str) -> int:
    """Runs one trial in this process."""
    from goldilocks.config.compose import prepare_hydra

    prepare_hydra()
    shared.join(data_folder(Path(folder)))
    try:
        with killed_as_by_ctrl_c():
            return (
                0
                if run_trial(Path(folder), frozen(Path(folder), int(number)), wait=wait == "1")
                else ELSEWHERE
            )
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
