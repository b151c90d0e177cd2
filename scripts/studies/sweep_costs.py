"""Where a sweep's seconds go: `python scripts/studies/sweep_costs.py OVERRIDES`, as of train.py -m.

planning: the trials are composed, checked and written down. outside: a trial's time but for the
training itself, so checks, data, folder, loggers and diagnosis. Seconds are those of this process
on the CPU, so another process beside it matters little; `clock` is by the clock. The sweep is run
in this process, and left where train.py would leave it.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `studies` is
from studies.stopwatch import Watch

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    sys.path.insert(0, str(ROOT))
    import train

    from goldilocks.sweeps import sweep
    from goldilocks.sweeps.execution.launching import Launch
    from goldilocks.training.trainer import Trainer

    watches = {
        "planning": watched(sweep, "plan"),
        "written": watched(sweep, "begin"),
        "trials": watched(Launch, "run"),
        "training": watched(Trainer, "fit"),
        "reported": watched(Launch, "ended"),
    }
    sys.argv = ["train.py", "-m", *arguments]
    began = time.perf_counter()
    code = train.main()
    clock = time.perf_counter() - began
    trials = watches["reported"].calls
    cpu = {name: watch.cpu / max(trials, 1) * 1000 for name, watch in watches.items()}
    planning = cpu["planning"] + cpu["written"]
    outside = cpu["trials"] - cpu["training"]
    print(
        f"{trials} trials, each: planning {planning:.1f} ms, outside of training"
        f" {outside:.1f} ms, training {cpu['training']:.1f} ms; clock {clock:.1f} s in all"
    )
    return code


class CountingWatch(Watch):
    """A stopwatch that counts how often it was started."""

    calls = 0

    def start(self) -> None:
        self.calls += 1
        super().start()


def watched(owner: Any, name: str) -> CountingWatch:
    """A stopwatch that runs while a function does."""
    watch, function = CountingWatch(), getattr(owner, name)
    setattr(owner, name, timed(function, watch))
    return watch


def timed(function: Callable, watch: Watch) -> Callable:
    def call(*given: Any, **named: Any) -> Any:
        watch.start()
        try:
            return function(*given, **named)
        finally:
            watch.pause()

    return call


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
