"""The trials of a sweep: what is known of one, frozen in the sweep folder,
and run by whoever gets hold of it.

`trials/<number>.json` keeps a trial's configuration from the moment it is planned: files that are
edited later change nothing, and any process can run it. Whoever runs it holds the lock
`trials/<number>.lock`, which the system gives up with the process, so a killed trial is free at
once.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from goldilocks.config.choices import chosen
from goldilocks.config.plain import plain
from goldilocks.config.strangers import judged, judged_choices, judged_overrides, settled
from goldilocks.data.opened import Files, are_same, named_files
from goldilocks.errors import Refused
from goldilocks.machine.files import read_json, write_json
from goldilocks.machine.locks import held
from goldilocks.runs import failures
from goldilocks.runs.folder import can_resume, read_checked, read_result, write_result
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.sweeps.objectives import objectives_of
from goldilocks.sweeps.search import study
from goldilocks.training.fused.turns import Partner

FINISHED = ("done", "diverged", "pruned")
ENDED = (*FINISHED, "failed")
DEADLINE = "deadline.json"


@dataclass
class Trial:
    """One run of a sweep."""

    overrides: list[str]
    varied: dict[str, str]  # the overrides that differ between trials, by key
    config: DictConfig
    choices: dict[str, Any]  # option by group
    config_hash: str = ""
    number: int = -1  # until the sweep's folder is known
    study_number: int | None = None  # where a study proposed it
    siblings: list[int] = field(
        default_factory=list
    )  # trials with other seeds of the same proposal, itself included
    result: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def status(self) -> str:
        return self.result["status"] if self.result is not None else "waiting"

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    # --- what the tables of trials say of it: the screen's, trials.csv and the report's

    @property
    def outcome(self) -> Mapping[str, Any]:
        """Its result; of one without, nothing."""
        return self.result or {}

    def values(self, objectives: Iterable[str]) -> list[float | None]:
        """The value of each objective, None where it has none."""
        return objectives_of(self.outcome, objectives)

    @property
    def seconds(self) -> float | None:
        """That it took, None where that is not known."""
        return (self.outcome.get("seconds") or {}).get("total")

    @property
    def error(self) -> str | None:
        """What it failed with, in a line."""
        error = self.outcome.get("error")
        return f"{error['type']}: {error['message']}" if error else None


def freeze(folder: Path, trial: Trial) -> None:
    """Writes what a trial is, if the sweep does not know it yet."""
    path = folder / "trials" / f"{trial.number}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        kept = ("overrides", "varied", "config_hash", "study_number", "siblings", "choices")
        config = settled(trial.config)
        write_json(path, {key: getattr(trial, key) for key in kept} | {"config": config})


def frozen(folder: Path, number: int) -> Trial:
    """A trial as it was when it was planned, with the result that it has by now.

    Raises:
        Refused: if its file is missing or damaged.
    """
    path = folder / "trials" / f"{number}.json"
    known = read_checked(path, f"{folder}: what trial {number} is", frozen_keys)
    place = f"{folder}/trials/{number}.json"
    judged_overrides(known["overrides"], place)
    judged_choices(known["choices"], place)
    config = OmegaConf.create(judged(known.pop("config"), place, folder))
    return Trial(**known, config=config, number=number, result=trial_result(folder, number))


def frozen_keys(
    *,
    overrides: list[str],
    varied: dict[str, str],
    config_hash: str,
    study_number: int | None,
    siblings: list[int],
    choices: dict[str, Any],
    config: dict[str, Any],
) -> None:
    """The signature is the schema of `trials/<number>.json`."""


def data_folder(folder: Path) -> Path:
    """Where the processes of a sweep find rows that are prepared; see `data.shared`."""
    return folder / "trials" / "data"


def readable(folder: Path) -> Iterator[Trial]:
    """The trials that are planned, ascending, without those whose file is damaged."""
    for number in frozen_numbers(folder):
        try:
            yield frozen(folder, number)
        except Refused:
            continue


def set_deadline(folder: Path, until: float | None) -> None:
    """Says by when the trials of a sweep end with their epoch, in whatever process they are.

    Args:
        folder: Of the sweep.
        until: In seconds since 1970; None: not by the clock.
    """
    path = folder / "trials" / DEADLINE
    if until is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, {"until": until})


def deadline_of(folder: Path) -> float | None:
    """By when the trials of a sweep end; None: not by the clock."""
    path = folder / "trials" / DEADLINE
    return read_json(path, str(path))["until"] if path.exists() else None


def frozen_numbers(folder: Path) -> list[int]:
    """The numbers of the trials that are planned, ascending."""
    names = [path.stem for path in (folder / "trials").glob("*.json")]
    return sorted(int(name) for name in names if name.isdigit())


def trial_result(folder: Path, number: int) -> dict[str, Any] | None:
    """The result of a trial's folder, if it has one that can be read;
    else the trial is trained again.
    """
    own = folder / str(number)
    if not (own / "result.json").exists():
        return None
    try:
        return read_result(own)
    except Refused as refusal:
        print(f"warning: {refusal}; trial {number} counts as waiting", file=sys.stderr)
        return None


def run_trial(
    folder: Path, trial: Trial, *, wait: bool = False, partner: Partner | None = None
) -> bool:
    """Runs a trial unless another process does;
    an interrupted or killed one goes on from its last checkpoint.

    Args:
        folder: Of the sweep.
        trial: Gets its result.
        wait: Whether to wait for a process that runs it, and to take it over if that was killed.
        partner: Of the trials whose steps are taken together; None: it trains alone.

    Returns:
        Whether the trial has an outcome now. False: another process runs it.

    Raises:
        KeyboardInterrupt: if the run was interrupted.
    """
    with held(folder / "trials" / f"{trial.number}.lock", wait=wait) as mine:
        if not mine:
            return False
        known = trial_result(folder, trial.number)
        status = known["status"] if known is not None else "waiting"
        if status in FINISHED or (status == "failed" and known != trial.result):
            trial.result = known  # another process has run it meanwhile
        else:
            run_here(folder, trial, partner)
    if trial.status == "interrupted":
        raise KeyboardInterrupt
    return True


def run_here(folder: Path, trial: Trial, partner: Partner | None = None) -> None:
    """Runs a trial in its folder, and tells the study, if there is one."""
    own = folder / str(trial.number)
    study = study_of(folder)
    choices = chosen(trial.choices, trial.config)
    resumed = can_resume(own)
    number = trial.study_number
    try:
        if not resumed:
            shutil.rmtree(own, ignore_errors=True)
            own.mkdir()
        report = None
        if study is not None and study.known["pruner"] != "none":
            number = begun = study.begin(trial.number, trial.varied) if number is None else number
            report = lambda epochs, value: study.report(begun, epochs, value)  # noqa: E731
        request = RunRequest(
            trial.config,
            own,
            trial.overrides,
            choices,
            test=False,
            resumed=resumed,
            report=report,
            rows=rows_of(folder, trial),
            partner=partner,
            until=deadline_of(folder),
        )
        trial.result = run(request)
    except Exception as error:  # before training: the data are gone, or the folder cannot be made
        trial.result = {"status": "failed", "error": failures.summary(error)}
        if own.is_dir():
            with suppress(OSError):  # on a full disk
                write_result(own, trial.result)
    if trial.status == "failed":
        failures.give_back_memory()
    if study is not None and number is not None:
        tell(study, folder, number, trial.siblings or [trial.number])


def rows_of(folder: Path, trial: Trial) -> str | None:
    """The fingerprint of the rows that the first trial with a result was trained on,
    if it has the same data.
    """
    first = first_rows(folder)
    return first.fingerprint if first is not None and first.data == plain_data(trial) else None


class Rows(NamedTuple):
    """The rows of a trial that was trained.

    Attributes:
        data: How they are configured.
        fingerprint: Of them.
        files: In which that stands, as they were when they were read.
    """

    data: Any
    fingerprint: str
    files: Files


def first_rows(folder: Path) -> Rows | None:
    """The rows of the first trial with a result; read once, as long as its files are the same."""
    folder = folder.absolute()
    known = known_rows.get(folder)
    if known is None or not are_same(known.files):
        known_rows.pop(folder, None)
        for number in frozen_numbers(folder):
            result = trial_result(folder, number) or {}
            if (fingerprint := result.get("data_hash")) is None:
                continue
            with suppress(Refused):
                data, files = plain_data(frozen(folder, number)), files_of(folder, number)
                known_rows[folder] = Rows(data, fingerprint, files)
                break
    return known_rows.get(folder)


def plain_data(trial: Trial) -> Any:
    """How the data of a trial are configured, as plain values; None: not at all."""
    data = trial.config.get("data")
    return plain(data) if isinstance(data, DictConfig) else data


known_rows: dict[Path, Rows] = {}  # by the absolute folder of the sweep


def files_of(folder: Path, number: int) -> Files:
    """What a trial is and has come to, as the files are now."""
    paths = folder / "trials" / f"{number}.json", folder / str(number) / "result.json"
    return named_files([str(path) for path in paths])


def study_of(folder: Path) -> study.Study | None:
    """The study of a sweep, if it has one."""
    return study.open_study(folder) if (folder / study.FILE).exists() else None


def tell(study: study.Study, folder: Path, number: int, siblings: list[int]) -> None:
    """Tells the study the result of a proposal, once all its seeds have one."""
    outcomes = [trial_result(folder, sibling) for sibling in siblings]
    known = [outcome for outcome in outcomes if outcome and outcome["status"] in ENDED]
    if len(known) == len(siblings):
        with held(folder / "trials" / "study.lock", wait=True):
            study.tell(number, known)
