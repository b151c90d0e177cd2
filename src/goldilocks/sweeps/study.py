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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import run_job, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from goldilocks import results
from goldilocks.checks import Settings, check, check_with_data
from goldilocks.errors import Refused
from goldilocks.report import trials_table

FINISHED = ("done", "diverged", "pruned")


@dataclass
class Trial:
    """One run of a sweep."""

    number: int
    overrides: list[str]
    config_hash: str
    varied: dict[str, str]  # the overrides that differ between trials
    result: Mapping[str, Any] | None = None
    config: DictConfig | None = None  # composed, Hydra's own part included

    @property
    def finished(self) -> bool:
        return self.result is not None and self.result["status"] in FINISHED


def run_study(sweeper: Any, arguments: Sequence[str]) -> None:
    """Runs a sweep. Ends the process with code 1 if a trial failed.

    Args:
        sweeper: What Hydra made: configuration, context, task and launcher.
        arguments: The words of the command line, values to sweep over among them.

    Raises:
        Refused: if any trial's configuration is wrong; then nothing has been written.
    """
    loader = sweeper.hydra_context.config_loader
    combinations = expand(OverridesParser.create(config_loader=loader).parse_overrides(list(arguments)))
    configs = [compose_trial(sweeper, words) for words, _ in combinations]
    check_trials(configs)
    folder, fresh = sweep_folder(configs[0])
    trials = number_trials(folder, combinations, configs)
    write_sweep(folder, arguments, configs[0], trials)
    waiting = [trial for trial in trials if not trial.finished]
    if not fresh:
        print(f"{folder}: {len(trials) - len(waiting)} of {len(trials)} trials are done already", file=sys.stderr)
    try:
        launch(folder, waiting, sweeper)
    finally:
        write_trials(folder, trials)
        Console(highlight=False, soft_wrap=True).print(trials_table(folder, trials, configs[0].objective))
    failed = [trial for trial in trials if not trial.finished]
    if failed:
        print(f"{len(failed)} of {len(trials)} trials failed", file=sys.stderr)
        raise SystemExit(1)


# --- before anything is written ---------------------------------------------------------------------------------------


def expand(overrides: Sequence[Override]) -> list[tuple[list[str], dict[str, str]]]:
    """Every combination of the values: the words of each trial, and those of them that vary."""
    values: list[list[tuple[str, str | None, str]]] = []
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise Refused(f"{override.input_line}: a range without steps; write values or range(start,stop,step)")
            words = [str(value) for value in override.sweep_string_iterator()]
            values.append([(f"{key}={word}", key, word) for word in words])
        else:
            values.append([(str(override.input_line), None, "")])
    return [
        ([word for word, _, _ in combination], {key: value for _, key, value in combination if key is not None})
        for combination in itertools.product(*values)
    ]


def compose_trial(sweeper: Any, words: list[str]) -> DictConfig:
    """A trial's whole configuration, Hydra's own part included: frozen here, before the first trial starts."""
    if any(word.startswith("resume=") for word in words):
        raise Refused("resume: is for a single run; a sweep goes on by the same command with the same name")
    return sweeper.hydra_context.config_loader.load_sweep_config(sweeper.config, words)


def without_hydra(cfg: DictConfig) -> DictConfig:
    """The configuration of a run."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def check_trials(configs: Sequence[DictConfig]) -> None:
    """Checks every trial. Data are loaded once for each way they are configured, networks built without memory."""
    from goldilocks.run import build_data, build_network, quiet_libraries

    quiet_libraries()
    specs: dict[str, Any] = {}
    for number, cfg in enumerate(configs):
        try:
            settings: Settings = check(without_hydra(cfg))
            key = str(settings.data)
            if key not in specs:
                specs[key] = build_data(settings).spec
            check_with_data(settings, specs[key])
            with torch.device("meta"):
                build_network(settings, specs[key])
        except Refused as refusal:
            raise Refused(f"{refusal} (trial {number} of {len(configs)}; none was started)") from refusal


# --- the folder -------------------------------------------------------------------------------------------------------


def sweep_folder(cfg: DictConfig) -> tuple[Path, bool]:
    """The sweep's folder and whether it is new: named by `name`, else by the time."""
    parent = Path(cfg.log_dir) / "sweeps"
    if cfg.name is None:
        return results.make_new_folder(parent, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")), True
    folder = parent / cfg.name
    fresh = not folder.exists()
    if not fresh and not (folder / "sweep.yaml").exists():
        raise Refused(f"name={cfg.name}: {folder} exists and is not a sweep; choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    return folder, fresh


def number_trials(
    folder: Path, combinations: Sequence[tuple[list[str], dict[str, str]]], configs: Sequence[DictConfig]
) -> list[Trial]:
    """Numbers the trials: those that the folder knows keep their number, new ones follow."""
    known = known_trials(folder)
    next_number = max(known.values(), default=-1) + 1
    trials: dict[str, Trial] = {}
    for (words, varied), cfg in zip(combinations, configs, strict=True):
        key = results.config_hash(without_hydra(cfg))
        if key in trials:
            continue  # the same configuration twice
        number = known.get(key, next_number)
        next_number = max(next_number, number + 1)
        trials[key] = Trial(number, words, key, varied, trial_result(folder / str(number)), cfg)
    return list(trials.values())


def known_trials(folder: Path) -> dict[str, int]:
    """Number by configuration hash of the trials that sweep.yaml lists."""
    path = folder / "sweep.yaml"
    if not path.exists():
        return {}
    stored = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(stored, dict)
    return {trial["config_hash"]: int(number) for number, trial in stored["trials"].items()}


def trial_result(folder: Path) -> dict[str, Any] | None:
    """The result of a trial's folder, if it has one."""
    return results.read_result(folder) if (folder / "result.json").exists() else None


def write_sweep(folder: Path, arguments: Sequence[str], cfg: DictConfig, trials: Sequence[Trial]) -> None:
    """Adds this command's trials to sweep.yaml."""
    path = folder / "sweep.yaml"
    stored = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else {"trials": {}, "commands": []}
    assert isinstance(stored, dict)
    command = "python train.py -m " + " ".join(arguments)
    stored["objective"] = OmegaConf.to_container(cfg.objective, resolve=True)
    stored["commands"] = list(dict.fromkeys([*stored["commands"], command]))
    stored["trials"] |= {t.number: {"config_hash": t.config_hash, "overrides": t.overrides} for t in trials}
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
    """Runs trials and reads their results: one by one in this process, or all at once with another launcher."""
    in_process = type(sweeper.launcher).__name__ == "BasicLauncher"  # Hydra may load the class twice
    batches = [[trial] for trial in trials] if in_process else [list(trials)]
    logging.getLogger("hydra").setLevel(logging.WARNING)  # one line for each trial is enough, and it is ours
    ended = 0
    for batch in batches:
        for trial in batch:
            shutil.rmtree(folder / str(trial.number), ignore_errors=True)  # of a trial that did not finish
            trial.result = None
        try:
            if in_process:
                launch_here(folder, batch[0], sweeper)
            elif batch:
                places = [place(folder, trial) for trial in batch]
                words = [[*trial.overrides, *where] for trial, where in zip(batch, places, strict=True)]
                sweeper.launcher.launch(words, initial_job_idx=batch[0].number)
        finally:
            for trial in batch:
                trial.result = trial_result(folder / str(trial.number))
        for trial in batch:
            ended += 1
            print_trial(trial, f"{ended}/{len(trials)}")


def place(folder: Path, trial: Trial) -> list[str]:
    """The overrides that tell Hydra a trial's folder."""
    return [f"hydra.sweep.dir='{folder.as_posix()}'", f"hydra.sweep.subdir='{trial.number}'"]


def launch_here(folder: Path, trial: Trial, sweeper: Any) -> None:
    """Runs a trial in this process, as Hydra's basic launcher does, but without composing it a second time."""
    setup_globals()
    config = trial.config
    assert config is not None
    with open_dict(config):
        config.hydra.sweep.dir, config.hydra.sweep.subdir = folder.as_posix(), str(trial.number)
        config.hydra.job.id, config.hydra.job.num = str(trial.number), trial.number
    run_job(
        hydra_context=sweeper.hydra_context,
        task_function=sweeper.task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def print_trial(trial: Trial, progress: str) -> None:
    """A line for a trial that has ended."""
    result = trial.result or {"status": "failed", "error": {"type": "Lost", "message": "it left no result"}}
    value = (result.get("objective") or {}).get("value")
    outcome = f"{value:.4g}" if value is not None else ""
    if result.get("error"):
        outcome = f"{result['error']['type']}: {result['error']['message']}"
    varied = " ".join(f"{key}={value}" for key, value in trial.varied.items())
    print(f"{progress}  trial {trial.number}  {varied}  {result['status']} {outcome}", file=sys.stderr, flush=True)
