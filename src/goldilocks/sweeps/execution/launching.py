"""Running the trials of a sweep:
one by one in this process, each in a process of its own, or by another launcher.
"""

import itertools
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from goldilocks.data import shared
from goldilocks.machine.clock import duration
from goldilocks.runs.failures import in_words
from goldilocks.sweeps.execution.fusing import Grouping, run_fused
from goldilocks.sweeps.execution.plugin_launchers import run_elsewhere
from goldilocks.sweeps.execution.processes import run_in_processes
from goldilocks.sweeps.execution.trials import Trial, data_folder, run_trial
from goldilocks.sweeps.search.settings import SweepSettings

OURS = ("BasicLauncher", "FusedLauncher", "ProcessLauncher")


class Launch:
    """What happens while a sweep runs: trials are taken, run and reported.

    Args:
        folder: Of the sweep.
        launcher: For this folder.
        settings: Of the sweep.
        modes: Min or max by objective, the first of which is printed.
        network_of: A trial's network, with or without memory.
    """

    def __init__(
        self,
        folder: Path,
        launcher: Any,
        settings: SweepSettings,
        modes: Mapping[str, str],
        network_of: Callable[[Trial], nn.Module],
    ) -> None:
        self.folder, self.launcher, self.settings, self.modes = folder, launcher, settings, modes
        self.network_of = network_of
        self.objectives = list(modes)
        self.kind = type(launcher).__name__  # Hydra may load the class twice
        self.out_of_time = False
        self.in_a_row = self.stopped = 0  # failures
        self.began, self.count, self.total = time.monotonic(), 0, 0
        self.outcomes: Counter[str] = Counter()
        self.best: Trial | None = None

    def run(self, waiting: Sequence[Trial], proposals: Iterable[Trial] | None) -> None:
        """Runs trials that are planned and then those that are proposed.

        First what no other process is at, then what others have not finished: they are waited for.
        """
        logging.getLogger("hydra").setLevel(
            logging.WARNING
        )  # one line for each trial is enough, and it is ours
        made = (self.settings.n_trials or 0) * self.settings.seeds if proposals is not None else 0
        self.total = self.count + max(len(waiting), made - self.done_before(waiting, made))
        trials: Iterator[Trial] = itertools.chain(waiting, proposals or [])
        if self.kind != "BasicLauncher" and (waiting or proposals is not None):
            shared.keep_in(data_folder(self.folder))
        if self.kind not in OURS:
            taken = itertools.takewhile(lambda _: not self.stopped, trials)
            run_elsewhere(self.folder, self.launcher, taken, self.ended, self.settings.learns)
            return
        for wait in (False, True):
            taken = itertools.takewhile(lambda _: not self.stopped, trials)
            if self.kind == "FusedLauncher":
                batch = self.launcher.batch if self.settings.learns else None
                grouping = Grouping(self.launcher.always, self.network_of)
                left = run_fused(self.folder, taken, grouping, batch, self.ended, wait)
            elif self.kind == "ProcessLauncher":
                left = run_in_processes(self.folder, taken, self.launcher, self.ended, wait)
            else:
                left = [trial for trial in taken if not self.run_here(trial, wait)]
            trials = iter(left)

    def done_before(self, waiting: Sequence[Trial], made: int) -> int:
        """Trials of a study that earlier commands have finished."""
        planned = len(list((self.folder / "trials").glob("*.json"))) if made else 0
        return planned - len(waiting) if made else 0

    def run_here(self, trial: Trial, wait: bool) -> bool:
        """Runs a trial in this process; see `run_trial`."""
        done = run_trial(self.folder, trial, wait=wait)
        if done:
            self.ended(trial)
        return done

    def ended(self, trial: Trial) -> None:
        """Called for each trial that has an outcome: prints a line, counts failures in a row."""
        self.count += 1
        if trial.result is None:
            trial.result = {
                "status": "failed",
                "error": {"type": "Lost", "message": "it left no result"},
            }
        self.in_a_row = self.in_a_row + 1 if trial.status == "failed" else 0
        if self.settings.max_failures is not None and self.in_a_row >= self.settings.max_failures:
            self.stopped = self.in_a_row
        value = trial.values(self.objectives)[0]
        if trial.finished and value is not None and self.is_best(value):
            self.best = trial
        self.outcomes[trial.status] += 1
        line = f"{self.count}/{self.total}  {outcome_of(trial, self.objectives)}"
        print(f"{line}  ({self.progress()})", file=sys.stderr, flush=True)

    def is_best(self, value: float) -> bool:
        if self.best is None or self.best.result is None:
            return True
        before = self.best.values(self.objectives)[0]
        sign = 1 if self.modes[self.objectives[0]] == "min" else -1
        return before is None or sign * value < sign * before

    def progress(self) -> str:
        """The best so far, how many did not get to their end, and how long the rest will take."""
        parts = []
        if self.best is not None and self.best.result is not None:
            parts.append(
                f"best {self.best.values(self.objectives)[0]:.4g} of trial {self.best.number}"
            )
        parts += [
            f"{count} {status}" for status, count in self.outcomes.items() if status != "done"
        ]
        if (left := self.total - self.count) > 0:
            parts.append(f"{duration(left * (time.monotonic() - self.began) / self.count)} left")
        return ", ".join(parts) or "nothing to compare"


def outcome_of(trial: Trial, objectives: Sequence[str]) -> str:
    """A trial that has ended, in a line."""
    value = trial.values(objectives)[0]
    outcome = f"{value:.4g}" if value is not None else ""
    if error := trial.outcome.get("error"):
        outcome = in_words(error)
    varied = " ".join(f"{key}={value}" for key, value in trial.varied.items())
    return f"trial {trial.number}  {varied}  {trial.status} {outcome}"
