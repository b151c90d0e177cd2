"""`sweep.dry_run=true`: what a sweep would train, and how long it would take."""

import copy
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from goldilocks.machine.clock import duration
from goldilocks.runs.cross_validation import are_asked
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.sweeps.execution.planning import Checker
from goldilocks.sweeps.execution.printing import varied_columns
from goldilocks.sweeps.execution.processes import slots_of
from goldilocks.sweeps.execution.trials import Trial
from goldilocks.sweeps.search.settings import SweepSettings
from goldilocks.sweeps.search.space import Space

MOST_PROBES = 6  # networks that are timed; others are taken to be like the one nearest in size
EPOCHS, BATCHES = 3, 50  # of a probe, at most


def print_forecast(
    trials: Sequence[Trial], space: Space, settings: SweepSettings, checker: Checker, launcher: Any
) -> None:
    """Prints the trials, the parameters of each network and the time
    that all of them would take at most.

    Args:
        trials: All of a sweep that is planned; of one that learns, what its fixed overrides give.
        space: What is searched.
        settings: Of the sweep.
        checker: Which has checked the trials.
        launcher: Of Hydra; its slots run side by side.
    """
    console = Console(highlight=False, soft_wrap=True)
    console.print(space_table(space) if settings.learns else planned_table(trials, checker))
    seconds = estimates(trials, checker)
    if settings.learns:
        seconds *= (settings.n_trials or 0) * settings.seeds
    kind = type(launcher).__name__
    slots = len(slots_of(launcher)) if kind == "ProcessLauncher" else 1
    less = ", less where they are trained as one network" if kind == "FusedLauncher" else ""
    print(
        f"{len(seconds)} trials, {slots} at a time: {duration(sum(seconds) / slots)} if none stops"
        f" early{less}"
    )


def planned_table(trials: Sequence[Trial], checker: Checker) -> Table:
    """A row for each trial."""
    columns = varied_columns(trials)
    table = Table("trial", *columns, "parameters", box=None, pad_edge=False)
    for number, trial in enumerate(trials):
        cells = [escape(cell(trial.varied)) for cell in columns.values()]
        table.add_row(str(number), *cells, f"{checker.sizes[trial.config_hash]:,}")
    return table


def space_table(space: Space) -> Table:
    """A row for each thing that is searched."""
    table = Table("searched", "values", "where", box=None, pad_edge=False)
    for dimension in space.dimensions:
        scale = ", by its logarithm" if dimension.log else ""
        values = ", ".join(dimension.choices) or f"{dimension.low:g} to {dimension.high:g}{scale}"
        table.add_row(dimension.key, escape(values), escape("=".join(dimension.when or ())))
    return table


def estimates(trials: Sequence[Trial], checker: Checker) -> list[float]:
    """Seconds for each trial if nothing stops it early, from probes of the smallest,
    the largest and some between.
    """
    kinds = {kind_of(trial, checker): trial for trial in trials}
    ordered = sorted(kinds)
    step = max((len(ordered) - 1) / (MOST_PROBES - 1), 1)
    probed = dict.fromkeys(
        ordered[min(round(place * step), len(ordered) - 1)] for place in range(MOST_PROBES)
    )
    print(f"timing {len(probed)} of {len(kinds)} kinds of trials", file=sys.stderr)
    seconds = {
        kind: probe(kinds[kind], checker.num_rows(kinds[kind].config)["train"]) for kind in probed
    }
    found = []
    for trial in trials:
        size, batch = kind_of(trial, checker)
        nearest = min(seconds, key=lambda kind: (abs(kind[1] - batch), abs(kind[0] - size)))
        epoch, start = seconds[nearest]
        networks = trial.config.data.folds if are_asked(trial.config) else 1
        found.append(networks * epoch * trial.config.trainer.max_epochs + start)
    return found


def kind_of(trial: Trial, checker: Checker) -> tuple[int, int]:
    """What the time of an epoch depends on most: parameters, and rows in a batch."""
    return checker.sizes[trial.config_hash], int(trial.config.data.get("batch_size") or 0)


def probe(trial: Trial, rows: int) -> tuple[float, float]:
    """Seconds for an epoch of some rows, and for what comes before and after the epochs.

    Measured over a few short epochs in a folder that is thrown away.
    """
    cfg = copy.deepcopy(trial.config)
    with open_dict(cfg):
        cfg.trainer.max_epochs, cfg.trainer.limit_train_batches = (
            min(EPOCHS, cfg.trainer.max_epochs),
            BATCHES,
        )
        cfg.callbacks, cfg.logger = OmegaConf.create({}), OmegaConf.create({})
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        request = RunRequest(cfg, Path(place), trial.overrides, trial.choices, test=False)
        result = run(request)
    rest = time.perf_counter() - begun - result["seconds"]["total"]
    if not result["epochs"]:  # it diverged at once
        return 0.0, rest
    share = min(BATCHES * int(cfg.data.get("batch_size") or rows) / rows, 1.0)
    validating = result["seconds"]["total"] - result["seconds"]["train"]
    return (result["seconds"]["train"] / share + validating) / result["epochs"], rest
