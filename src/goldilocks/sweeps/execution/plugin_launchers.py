"""Trials run by launchers of others, `hydra/launcher=joblib`, `submitit_local`,
`submitit_slurm`, `ray`.

They compose a configuration for each job, of which only the folder and the number are used here:
a trial is frozen.
"""

import copy
import importlib.util
import itertools
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from goldilocks.config.compose import prepare_hydra
from goldilocks.config.privacy import without_passwords
from goldilocks.data import shared
from goldilocks.errors import Refused, missing
from goldilocks.sweeps.execution.trials import (
    Trial,
    data_folder,
    frozen,
    run_trial,
    trial_result,
)
from goldilocks.sweeps.search.compose import without_launcher

PLUGINS = "hydra_plugins"
QUEUES = (
    "JoblibLauncher",
    "SlurmLauncher",
    "RayLauncher",
)  # hold jobs back by themselves until there is room
POLL_SECONDS = 0.5


def launcher_of(sweeper: Any, folder: Path | None = None) -> Any:
    """The launcher that `hydra/launcher` names, for a sweep's folder once there is one.

    Raises:
        Refused: if its package is not installed, or it does not take its options.
    """
    cfg = copy.deepcopy(sweeper.config)
    parts = str(cfg.hydra.launcher.get("_target_")).split(".")
    choice = f"hydra/launcher={cfg.hydra.runtime.choices.get('hydra/launcher')}"
    if parts[0] == PLUGINS and importlib.util.find_spec(".".join(parts[:2])) is None:
        raise Refused(f"{choice}: {missing(ModuleNotFoundError(name=parts[1]))} -c constraints.txt")
    if parts[-1] == "SlurmLauncher" and shutil.which("srun") is None:
        raise Refused(
            f"{choice}: this is no Slurm cluster, srun is not there; write"
            " hydra/launcher=submitit_local"
        )
    if folder is not None:
        cfg.hydra.sweep.dir = folder.resolve().as_posix()
        # A job composes a configuration of which nothing is used: it needs no launcher.
        cfg.hydra.overrides.hydra = without_launcher(cfg.hydra.overrides.hydra)
        cfg.sweep.storage = None  # some launchers write all of this into files
        cfg.hydra.overrides.task = list(map(without_passwords, cfg.hydra.overrides.task))
        if (
            "submitit_folder" in cfg.hydra.launcher
        ):  # holds pickles, which nobody can have put there before
            jobs = folder.resolve() / "trials" / "submitit" / uuid.uuid4().hex
            cfg.hydra.launcher.submitit_folder = f"{jobs.as_posix()}/%j"
    return Plugins.instance().instantiate_launcher(
        hydra_context=sweeper.hydra_context, task_function=run_one, config=cfg
    )


def run_one(_: DictConfig) -> None:
    """What a launcher's job does: trains the trial that its folder names."""
    prepare_hydra()
    place = HydraConfig.get().sweep
    folder, number = Path(place.dir), int(place.subdir)
    shared.join(data_folder(folder))
    run_trial(folder, frozen(folder, number), wait=True)


def run_elsewhere(
    folder: Path,
    launcher: Any,
    trials: Iterator[Trial],
    ended: Callable[[Trial], None],
    learns: bool,
) -> None:
    """Hands trials to a launcher, which takes a batch and returns when all of it has ended.

    Args:
        folder: Of the sweep.
        launcher: For this folder.
        trials: To be run.
        ended: Called for each trial soon after it has ended.
        learns: Whether a batch is to be small, because the next one learns from it.
    """
    size = batch_size(launcher, learns)
    while batch := list(itertools.islice(trials, size)):
        overrides = [
            [f"hydra.sweep.dir='{folder.resolve().as_posix()}'", f"hydra.sweep.subdir='{t.number}'"]
            for t in batch
        ]
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(folder, batch, ended, done))
        watcher.start()
        try:
            launcher.launch(overrides, initial_job_idx=batch[0].number)
        finally:
            done.set()
            watcher.join()


def watch(
    folder: Path, batch: Sequence[Trial], ended: Callable[[Trial], None], done: threading.Event
) -> None:
    """Tells of trials as their results appear;
    of those without one at last, when the launcher is done.
    """
    left = list(batch)
    while left:
        over = done.wait(POLL_SECONDS)
        for trial in list(left):
            known = trial_result(folder, trial.number)
            if known != trial.result and (known or {}).get("status") not in (
                None,
                "running",
                "interrupted",
            ):
                trial.result = known
                left.remove(trial)
                ended(trial)
        if over:
            break
    for trial in left:
        trial.result = trial_result(folder, trial.number)
        if trial.status != "interrupted":
            ended(trial)


def batch_size(launcher: Any, learns: bool) -> int:
    """How many trials a launcher is given at once:
    as many as run side by side, or all, where it keeps a queue.
    """
    if type(launcher).__name__ in QUEUES and not learns:
        return sys.maxsize
    own = dict(getattr(launcher, "joblib", None) or {}).get("n_jobs", 0)
    own = own or (getattr(launcher, "params", None) or {}).get("array_parallelism", 0)
    return own if own > 0 else os.cpu_count() or 1
