"""The process of a further device:
joins those that train a run, and is handed the run by the first of them.
"""

import os
import sys
import threading
import time
from typing import Any, cast

from goldilocks.config.compose import prepare_hydra
from goldilocks.machine import devices
from goldilocks.runs.peers import NEWS
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run


def main(kind: str, port: str, size: str, rank: str) -> int:
    """Trains beside the others; returns the exit code."""
    threading.Thread(target=end_with_the_first, daemon=True).start()
    prepare_hydra()
    try:
        with devices.member(kind, int(rank), int(size), devices.open_store(int(port))):
            request: RunRequest = devices.share(lambda: cast("Any", None))  # the first one's
            result = run(request)
    except RuntimeError:
        time.sleep(
            NEWS
        )  # within which this process is ended if it only fails because the first one is gone
        raise
    return int(result["status"] == "failed")


def end_with_the_first() -> None:
    """Waits until the first process is gone, however it ended:
    a process that waits for it would never end.
    """
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
