"""A sweep: every trial checked before the first starts, each in its own folder, none stopped by another's failure.

The sweep folder, `log_dir/sweeps/<name>/`, holds sweep.yaml, one folder a trial named by its number, and trials.csv. A
trial is known by the hash of its configuration: the same command, or a wider one, under the same name does only what is
missing.
"""

import csv
import itertools
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from goldilocks import results
from goldilocks.checks import Settings, check, check_with_data, warnings_for
from goldilocks.errors import Refused
from goldilocks.network import build_network
from goldilocks.report import trials_table
from goldilocks.run import build_data, quiet_libraries
from goldilocks.sweeps.compose import Composer
from goldilocks.sweeps.processes import run_in_processes
from goldilocks.sweeps.trials import Trial, freeze, frozen, held, run_trial, trial_result


def run_study(sweeper: Any, arguments: Sequence[str]) -> None:
    """Runs a sweep. Ends the process with code 1 if a trial failed.

    Args:
        sweeper: What Hydra made: configuration, context, task and launcher.
        arguments: The words of the command line, values to sweep over among them.

    Raises:
        Refused: if any trial's configuration is wrong; then nothing has been written.
    """
    composer = Composer(sweeper)
    planned = [Trial(words, varied, *composer.compose(words)) for words, varied in composer.expand(arguments)]
    check_trials(planned)
    first = planned[0].config
    folder, fresh = sweep_folder(first)
    with held(folder / "trials" / "sweep.lock", wait=True):  # the same command may start twice at a time
        trials = number_trials(folder, planned)
        write_sweep(folder, arguments, first, trials)
    everything = sorted([*earlier_trials(folder, trials), *trials], key=lambda trial: trial.number)
    waiting = [trial for trial in trials if not trial.finished]
    if not fresh:
        print(f"{folder}: {len(trials) - len(waiting)} of {len(trials)} trials are done already", file=sys.stderr)
    try:
        launch(folder, waiting, sweeper)
    finally:
        write_trials(folder, everything)
        Console(highlight=False, soft_wrap=True).print(trials_table(folder, everything, first.objective))
    failed = [trial for trial in trials if not trial.finished]
    if failed:
        print(f"{len(failed)} of {len(trials)} trials failed", file=sys.stderr)
        raise SystemExit(1)


# --- before anything is written ---------------------------------------------------------------------------------------


def check_trials(trials: Sequence[Trial]) -> None:
    """Checks every trial. Data are loaded once for each way they are configured, networks built without memory."""
    quiet_libraries()
    specs: dict[str, Any] = {}
    warnings: dict[str, None] = {}  # each once, in the order of the trials
    for number, trial in enumerate(trials):
        try:
            settings: Settings = check(trial.config)
            key = str(settings.data)
            if key not in specs:
                specs[key] = build_data(settings).spec
            check_with_data(settings, specs[key])
            with torch.device("meta"):
                network = build_network(settings, specs[key])
            warnings.update(dict.fromkeys(warnings_for(settings, network)))
        except Refused as refusal:
            raise Refused(f"{refusal} (trial {number} of {len(trials)}; none was started)") from refusal
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


# --- the folder -------------------------------------------------------------------------------------------------------


def sweep_folder(cfg: DictConfig) -> tuple[Path, bool]:
    """The sweep's folder and whether it is new: named by `name`, else by the time."""
    parent = Path(cfg.log_dir) / "sweeps"
    if cfg.name is None:
        return results.make_new_folder(parent, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")), True
    folder = parent / cfg.name
    fresh = not folder.exists()
    if not fresh and not (folder / "sweep.yaml").exists() and not (folder / "trials").is_dir():
        raise Refused(f"name={cfg.name}: {folder} exists and is not a sweep; choose another name")
    results.make_parent(folder)
    return folder, fresh


def number_trials(folder: Path, planned: Sequence[Trial]) -> list[Trial]:
    """Numbers the trials: those that the folder knows keep their number, new ones follow; none is done twice.

    A trial is known by its words, then it is what it was when the sweep started, or else by its configuration.
    """
    by_words, by_hash = known_trials(folder)
    next_number = max(by_hash.values(), default=-1) + 1
    trials: dict[int, Trial] = {}
    hashes: set[str] = set()
    for trial in planned:
        trial.config_hash = results.config_hash(trial.config)
        if trial.config_hash in hashes:
            continue
        hashes.add(trial.config_hash)
        number = by_words.get(frozenset(trial.overrides), by_hash.get(trial.config_hash, next_number))
        next_number = max(next_number, number + 1)
        if (folder / "trials" / f"{number}.json").exists():
            trials[number] = frozen(folder, number)
            trials[number].varied = trial.varied
            continue
        trial.number, trial.result = number, trial_result(folder, number)
        freeze(folder, trial)
        trials[number] = trial
    return list(trials.values())


def known_trials(folder: Path) -> tuple[dict[frozenset[str], int], dict[str, int]]:
    """Number by words, and by configuration hash, of the trials that sweep.yaml lists."""
    path = folder / "sweep.yaml"
    if not path.exists():
        return {}, {}
    stored = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(stored, dict)
    listed = {int(number): trial for number, trial in stored["trials"].items()}
    by_words = {frozenset(trial["overrides"]): number for number, trial in listed.items()}
    return by_words, {trial["config_hash"]: number for number, trial in listed.items()}


def earlier_trials(folder: Path, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of earlier commands under this name, for the tables."""
    mine = {trial.number for trial in trials}
    stored = OmegaConf.to_container(OmegaConf.load(folder / "sweep.yaml"))
    assert isinstance(stored, dict)
    return [
        Trial(
            entry["overrides"],
            entry["varied"],
            OmegaConf.create(),
            {},
            entry["config_hash"],
            int(number),
            trial_result(folder, int(number)),
        )
        for number, entry in sorted(stored["trials"].items())
        if int(number) not in mine
    ]


def write_sweep(folder: Path, arguments: Sequence[str], cfg: DictConfig, trials: Sequence[Trial]) -> None:
    """Adds this command's trials to sweep.yaml."""
    path = folder / "sweep.yaml"
    stored = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else {"trials": {}, "commands": []}
    assert isinstance(stored, dict)
    command = "python train.py -m " + " ".join(arguments)
    stored["objective"] = OmegaConf.to_container(cfg.objective, resolve=True)
    stored["commands"] = list(dict.fromkeys([*stored["commands"], command]))
    stored["trials"] |= {
        t.number: {"config_hash": t.config_hash, "overrides": t.overrides, "varied": t.varied} for t in trials
    }
    temporary = path.with_suffix(".tmp")
    OmegaConf.save(OmegaConf.create(stored), temporary)
    temporary.replace(path)


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Writes trials.csv, a row a trial."""
    rows = [trial_row(trial) for trial in trials]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def trial_row(trial: Trial) -> dict[str, Any]:
    """What trials.csv says of a trial."""
    result = trial.result or {"status": "waiting"}
    error = result.get("error")
    return {
        "trial": trial.number,
        "status": result["status"],
        "objective": (result.get("objective") or {}).get("value"),
        **trial.varied,
        **(result.get("metrics") or {}),
        **{key: result.get(key) for key in ("best_epoch", "epochs", "steps", "num_parameters", "learning_rate")},
        "seconds": (result.get("seconds") or {}).get("total"),
        "error": f"{error['type']}: {error['message']}" if error else None,
    }


# --- running ----------------------------------------------------------------------------------------------------------


def launch(folder: Path, trials: Sequence[Trial], sweeper: Any) -> None:
    """Runs trials: one by one in this process, each in a process of its own, or all at once with another launcher.

    First what no other process is at, then what others have not finished: they are waited for.
    """
    logging.getLogger("hydra").setLevel(logging.WARNING)  # one line for each trial is enough, and it is ours
    kind = type(sweeper.launcher).__name__  # Hydra may load the class twice
    count = itertools.count(1)

    def ended(trial: Trial) -> None:
        print_trial(trial, f"{next(count)}/{len(trials)}")

    if kind not in ("BasicLauncher", "ProcessLauncher"):
        launch_elsewhere(folder, trials, sweeper.launcher)
        for trial in trials:
            ended(trial)
        return
    left = list(trials)
    for wait in (False, True):
        if kind == "ProcessLauncher":
            left = run_in_processes(folder, left, sweeper.launcher, ended, wait)
        else:
            left = [trial for trial in left if not run_and_tell(folder, trial, ended, wait)]


def run_and_tell(folder: Path, trial: Trial, ended: Callable[[Trial], None], wait: bool) -> bool:
    """Runs a trial in this process; see `run_trial`."""
    done = run_trial(folder, trial, wait=wait)
    if done:
        ended(trial)
    return done


def launch_elsewhere(folder: Path, trials: Sequence[Trial], launcher: Any) -> None:
    """Runs trials by a launcher of somebody else's, which composes them again and takes them all at once."""
    words = []
    for trial in trials:
        shutil.rmtree(folder / str(trial.number), ignore_errors=True)  # of a trial that did not finish
        place = [f"hydra.sweep.dir='{folder.as_posix()}'", f"hydra.sweep.subdir='{trial.number}'"]
        words.append([*trial.overrides, *place])
    try:
        if words:
            launcher.launch(words, initial_job_idx=trials[0].number)
    finally:
        for trial in trials:
            trial.result = trial_result(folder, trial.number)


def print_trial(trial: Trial, progress: str) -> None:
    """A line for a trial that has ended."""
    result = trial.result or {"status": "failed", "error": {"type": "Lost", "message": "it left no result"}}
    value = (result.get("objective") or {}).get("value")
    outcome = f"{value:.4g}" if value is not None else ""
    if result.get("error"):
        outcome = f"{result['error']['type']}: {result['error']['message']}"
    varied = " ".join(f"{key}={value}" for key, value in trial.varied.items())
    print(f"{progress}  trial {trial.number}  {varied}  {result['status']} {outcome}", file=sys.stderr, flush=True)
