"""`python train.py` in a process of its own, as a user starts it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT

LONG = [
    "data=digits",
    "trainer=cpu",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
    "callbacks.early_stopping=null",
]


def start(*words: str, cwd: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    # A shell's background job ignores Ctrl-C; a process group of its own takes it.
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
