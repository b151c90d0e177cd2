"""The folder of a sweep, `log_dir/sweeps/<name>/`:
sweep.yaml, trials/, a folder for each trial, trials.csv.

A trial is known by its overrides, then it is what it was when it was planned, or else by the hash
of its configuration: the same command, or a wider one, under the same name does only what is
missing.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from goldilocks.config.build import check_arguments
from goldilocks.config.choices import config_hash as hash_of_config
from goldilocks.config.privacy import without_passwords
from goldilocks.config.signatures import shown
from goldilocks.config.strangers import sealed
from goldilocks.errors import Refused, one_line
from goldilocks.runs.folder import make_new_folder, make_parent
from goldilocks.sweeps.execution.trials import (
    Trial,
    freeze,
    frozen,
    frozen_numbers,
    readable,
    trial_result,
)
from goldilocks.sweeps.search.settings import SweepSettings
from goldilocks.sweeps.search.space import Space


def sweep_folder(cfg: DictConfig) -> tuple[Path, bool]:
    """The sweep's folder and whether it is new: named by `name`, else by the time."""
    parent = Path(cfg.log_dir) / "sweeps"
    if cfg.name is None:
        return make_new_folder(parent, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")), True
    folder = parent / cfg.name
    fresh = not folder.exists()
    if not fresh and not (folder / "sweep.yaml").exists() and not (folder / "trials").is_dir():
        raise Refused(f"name={cfg.name}: {folder} exists and is not a sweep; choose another name")
    if not fresh:
        sealed(folder)
    make_parent(folder)
    return folder, fresh


def known_trials(cfg: DictConfig) -> dict[frozenset[str], str]:
    """The configuration hashes of the trials that the sweep named in a
    configuration has planned, by their overrides.
    """
    folder = Path(cfg.log_dir) / "sweeps" / str(cfg.name)
    if cfg.name is None or not (folder / "sweep.yaml").exists():
        return {}
    planned = set(frozen_numbers(folder))
    trials = Record(folder).stored["trials"].items()
    return {
        frozenset(trial["overrides"]): trial["config_hash"]
        for number, trial in trials
        if int(number) in planned
    }


class Dumper(yaml.CSafeDumper):
    """Writes as OmegaConf does, which takes 1e-3 for a number where YAML does not."""


def as_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    """An override, in quotes where it could be taken for a number."""
    style = "'" if text[:1] in "+-.0123456789" else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, as_text)


class Record:
    """What sweep.yaml and trials/ know. Used under the lock `trials/sweep.lock`.

    Args:
        folder: Of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "sweep.yaml"
        self.stored = read_or_restore(folder)
        listed = {int(number): trial for number, trial in self.stored["trials"].items()}
        self.listed = listed
        self.by_overrides = {
            frozenset(trial["overrides"]): number for number, trial in listed.items()
        }
        self.by_hash = {trial["config_hash"]: number for number, trial in listed.items()}

    def next_number(self) -> int:
        return max([*self.by_hash.values(), *frozen_numbers(self.folder)], default=-1) + 1

    def number(self, planned: Sequence[Trial]) -> list[Trial]:
        """Numbers trials: those that the folder knows keep their number, new ones follow;
        none is done twice.
        """
        following = self.next_number()
        trials: dict[int, Trial] = {}
        hashes: set[str] = set()
        for trial in planned:
            trial.config_hash = trial.config_hash or hash_of_config(trial.config)
            if trial.config_hash in hashes:
                continue
            hashes.add(trial.config_hash)
            number = self.by_overrides.get(
                frozenset(trial.overrides), self.by_hash.get(trial.config_hash, following)
            )
            following = max(following, number + 1)
            if (known := self.known(number, trial)) is not None:
                trials[number] = known
                trials[number].varied = trial.varied
                continue
            trial.number, trial.result = number, trial_result(self.folder, number)
            freeze(self.folder, trial)
            trials[number] = trial
        return list(trials.values())

    def known(self, number: int, planned: Trial) -> Trial | None:
        """A trial as it was first planned; of one that is finished only what the tables need.

        None if it is new, or its file is damaged and says the same as `planned`.
        """
        path = self.folder / "trials" / f"{number}.json"
        if not path.exists():
            return None
        entry = self.listed.get(number)
        known = earlier(self.folder, number, entry) if entry else None
        if known is not None and known.finished:
            return known
        try:
            return frozen(self.folder, number)
        except Refused as refusal:
            if self.by_hash.get(planned.config_hash) != number or not planned.config:
                raise
            print(f"warning: {refusal}; it is written again", file=sys.stderr)
            path.unlink()
            return None

    def write(
        self,
        command: str,
        cfg: DictConfig,
        settings: SweepSettings,
        space: Space,
        trials: Sequence[Trial],
    ) -> None:
        """Adds a command and its trials to sweep.yaml."""
        self.stored["objective"] = OmegaConf.to_container(cfg.objective, resolve=True)
        self.stored["settings"] = settings.as_plain()
        self.stored["space"] = {
            dimension.name: dimension.as_plain() for dimension in space.dimensions
        }
        self.stored["commands"] = list(
            dict.fromkeys([*self.stored["commands"], without_passwords(command)])
        )
        self.add(trials)

    def add(self, trials: Sequence[Trial]) -> None:
        """Adds trials to sweep.yaml."""
        self.stored["trials"] |= {trial.number: entry_of(trial) for trial in trials}
        with suppress(Refused):  # missing or damaged: it is written again
            if self.stored == read_sweep(self.folder):
                self.path.touch()  # by its time `last` is found
                return
        temporary = self.path.with_suffix(".tmp")
        text = yaml.dump(self.stored, Dumper=Dumper, sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path)


def entry_of(trial: Trial) -> dict[str, Any]:
    """What sweep.yaml says of a trial."""
    return {
        "config_hash": trial.config_hash,
        "overrides": trial.overrides,
        "varied": trial.varied,
    }


def read_or_restore(folder: Path) -> dict[str, Any]:
    """What sweep.yaml knows; if it is missing or damaged, what trials/ says."""
    path = folder / "sweep.yaml"
    if path.exists():
        try:
            return read_sweep(folder)
        except Refused as refusal:
            print(f"warning: {refusal}; its trials are taken from trials/", file=sys.stderr)
    known = {trial.number: entry_of(trial) for trial in readable(folder)}
    return {"trials": known, "commands": []}


def read_sweep(folder: Path) -> dict[str, Any]:
    """What sweep.yaml knows.

    Raises:
        Refused: if it is missing or damaged.
    """
    try:
        found = parsed((folder / "sweep.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, Refused) as error:
        raise Refused(f"{folder}: its sweep.yaml cannot be read ({one_line(error)})") from error
    return {**found, "trials": dict(found["trials"]), "commands": list(found["commands"])}


@lru_cache(maxsize=1)  # a second for 2,000 trials, and one command asks several times
def parsed(text: str) -> dict[str, Any]:
    """What the text of a sweep.yaml says.

    Raises:
        Refused: if it lacks something, or has something else; YAML's own errors.
    """
    found: Any = yaml.load(text, yaml.CSafeLoader)
    if not isinstance(found, dict):
        raise Refused("it holds no keys")
    checked = check_arguments(sweep_keys, found, "")
    for number, entry in checked["trials"].items():
        check_arguments(entry_keys, entry, f"trials.{number}")
    if lacking := {"sampler", "objectives", "seeds", "modes"} - found["settings"].keys():
        raise Refused(f"settings.{min(lacking)}: is missing")
    return found | {"trials": checked["trials"]}


def sweep_keys(
    *,
    objective: dict[str, Any],
    settings: dict[str, Any],
    space: dict[str, dict[str, Any]],
    trials: dict[int, dict[str, Any]],
    commands: list[str],
) -> None:
    """The signature is the schema of sweep.yaml."""


def entry_keys(*, config_hash: str, overrides: list[str], varied: dict[str, str]) -> None:
    """The signature is the schema of a trial in sweep.yaml."""


def all_trials(folder: Path, mine: Sequence[Trial]) -> list[Trial]:
    """The trials of a sweep with the results that they have by now;
    `mine` as they are, which this command varied.
    """
    own = {trial.number: trial for trial in mine}
    record = Record(folder).stored["trials"]
    others = {
        number: earlier(folder, number, entry)
        for number, entry in record.items()
        if number not in own
    }
    return distinguished(folder, [trial for _, trial in sorted((others | own).items())])


def distinguished(folder: Path, trials: Sequence[Trial]) -> list[Trial]:
    """Trials of several commands: what only the fixed overrides of some have set
    joins what is varied, for all of them.
    """
    given = [
        dict(override.lstrip("+").split("=", 1) for override in trial.overrides if "=" in override)
        for trial in trials
    ]
    searched = {key.lstrip("+") for trial in trials for key in trial.varied}
    every = dict.fromkeys(key for overrides in given for key in overrides if key not in searched)
    differing = [key for key in every if len({overrides.get(key) for overrides in given}) > 1]
    if not differing:
        return list(trials)
    found = []
    for trial, overrides in zip(trials, given, strict=True):
        own = frozen(folder, trial.number)
        rest = {key: own.choices.get(key, OmegaConf.select(own.config, key)) for key in differing}
        known = {key: overrides.get(key, shown(value)) for key, value in rest.items()}
        found.append(replace(trial, varied=known | trial.varied))
    return found


def earlier(folder: Path, number: int, entry: Mapping[str, Any]) -> Trial:
    """A trial of another command, or process, for the tables."""
    overrides, varied, config_hash = entry["overrides"], entry["varied"], entry["config_hash"]
    return Trial(
        overrides,
        varied,
        OmegaConf.create(),
        {},
        config_hash,
        number,
        result=trial_result(folder, number),
    )


# --- the table ------------------------------------------------------------------------------------


def write_trials(folder: Path, trials: Sequence[Trial], objectives: Iterable[str]) -> None:
    """Writes trials.csv, a row a trial."""
    rows = [dict(trial_row(trial, objectives)) for trial in trials]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def trial_row(trial: Trial, objectives: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """What trials.csv and report.json say of a trial."""
    yield "trial", trial.number
    yield "status", trial.status
    yield "objective", trial.values(objectives)[0]
    yield from trial.varied.items()
    yield from (trial.outcome.get("metrics") or {}).items()
    for key in ("best_epoch", "epochs", "steps", "num_parameters", "learning_rate"):
        yield key, trial.outcome.get(key)
    yield "seconds", trial.seconds
    yield "error", trial.error
