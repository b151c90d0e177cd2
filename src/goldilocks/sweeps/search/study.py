"""The study that Optuna keeps of a sweep whose trials learn from each other:
what to try next, and what to give up.

It is opened by every process that runs a trial, from `study.json` in the sweep folder. A trial is
known in it by its study number; with several seeds it stands for all of them.
"""

import json
import os
import sys
import uuid
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from goldilocks.config.privacy import without_passwords
from goldilocks.config.strangers import STORAGE
from goldilocks.errors import Refused, missing, one_line
from goldilocks.machine.files import write_json
from goldilocks.runs import failures
from goldilocks.runs.folder import read_checked
from goldilocks.sweeps.objectives import objectives_of
from goldilocks.sweeps.search.settings import LEARNING, SweepSettings
from goldilocks.sweeps.search.space import Dimension, Space

FILE, JOURNAL = "study.json", "study.journal"


def create_study(
    folder: Path,
    settings: SweepSettings,
    modes: Mapping[str, str],
    max_epochs: int,
    folds: int | None = None,
    space: Space | None = None,
) -> "Study":
    """Writes down what the study of a sweep is, and opens it.

    Args:
        folder: Of the sweep.
        settings: Of the sweep.
        modes: Min or max by objective.
        max_epochs: Of a trial.
        folds: After which a trial reports; None: it reports after epochs.
        space: That a study searches; None: it only prunes.

    Raises:
        Refused: if Optuna is not installed, its storage cannot be opened,
            or the sweep was started otherwise.
    """
    optuna = import_optuna(settings)
    described = {
        **settings.as_plain(),
        "name": new_name(folder),
        "modes": dict(modes),
        "max_epochs": max_epochs,
        "folds": folds,
        "space": space.as_plain() if space is not None else None,
    }
    if (before := read_or_forget(folder)) is not None:
        for key in ("sampler", "seeds", "objectives", "pruner", "storage", "modes"):
            if before[key] != described[key]:
                raise Refused(
                    f"sweep.{key}={described[key]}: this sweep was started with {before[key]};"
                    " choose another name"
                )
    else:
        if settings.storage is None and (folder / JOURNAL).exists():
            described["name"] = name_in_journal(folder, optuna) or described["name"]
        write_json(folder / FILE, described)
    return open_study(folder)


def new_name(folder: Path) -> str:
    """Of a study: a database may hold another sweep of this name."""
    return f"{folder.name}-{uuid.uuid4().hex[:8]}"


def read_or_forget(folder: Path) -> dict[str, Any] | None:
    """What study.json says; None if it is missing or damaged, for then it is written again."""
    if not (folder / FILE).exists():
        return None
    try:
        return read_study(folder)
    except Refused as refusal:
        print(f"warning: {refusal}; it is written again", file=sys.stderr)
        return None


def read_study(folder: Path) -> dict[str, Any]:
    """What study.json says.

    Raises:
        Refused: if it is missing or damaged.
    """
    return read_checked(folder / FILE, f"{folder}: its {FILE}", study_keys)


def study_keys(
    *,
    name: str,
    modes: dict[str, str],
    max_epochs: int,
    sampler: str,
    seed: int,
    seeds: int,
    objectives: list[str],
    pruner: str,
    min_epochs: int,
    reduction_factor: int,
    storage: str | None,
    **others: Any,
) -> None:
    """The signature is the schema of study.json."""


def name_in_journal(folder: Path, optuna: Any) -> str | None:
    """The name of the study that a journal holds."""
    try:
        return next(iter(optuna.get_all_study_names(storage_of(None, folder))), None)
    except Exception as error:  # what is no journal
        raise damaged_journal(folder, error) from error


def damaged_journal(folder: Path, error: BaseException) -> Refused:
    return Refused(
        f"{folder}: its {JOURNAL} cannot be read ({one_line(error)}), and what its trials have"
        " learnt is in it; choose another name"
    )


def import_optuna(settings: SweepSettings) -> Any:
    """The package, quiet, with all that a sampler needs.

    Raises:
        Refused: if it is not installed.
    """
    try:
        import optuna

        if settings.sampler == "cmaes":
            import cmaes  # noqa: F401
    except ModuleNotFoundError as error:
        reason = f"sampler={settings.sampler}" if settings.learns else f"pruner={settings.pruner}"
        raise Refused(f"sweep.{reason}: {missing(error)}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(folder: Path) -> "Study":
    """The study of a sweep folder.

    Raises:
        Refused: if it is missing or damaged.
    """
    return study_in(folder.resolve(), json.dumps(read_study(folder)))


@cache
def study_in(folder: Path, described: str, new: bool = False) -> "Study":
    """The study that study.json describes in these words; `new`: it need not be there yet."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = json.loads(described)
    storage = storage_of(known["storage"], folder)
    try:
        if not new:
            check_not_lost(folder, known, optuna.get_all_study_names(storage))
        study = optuna.create_study(
            study_name=known["name"],
            storage=storage,
            directions=[
                "minimize" if mode == "min" else "maximize" for mode in known["modes"].values()
            ],
            pruner=pruner_of(known),
            load_if_exists=True,
        )
    except Refused:
        raise
    except Exception as error:  # whatever a database and its driver say
        if known["storage"] is None:
            raise damaged_journal(folder, error) from error
        raise unusable(known["storage"], error) from error
    return Study(study, known)


def check_storage(url: str | None) -> None:
    """Refuses a database that cannot be opened, before the sweep has a folder."""
    from optuna.storages import get_storage

    if url is None:
        return
    try:
        get_storage(url)
    except Exception as error:  # whatever a database and its driver say
        raise unusable(without_passwords(url), error) from error


def unusable(noted: str | None, error: Exception) -> Refused:
    """What is said of a storage that cannot be used."""
    summary = failures.summary(error)
    what = without_passwords(summary["message"])
    return Refused(
        f"sweep.storage={noted}: {summary['type']}: {what}; write a URL that SQLAlchemy"
        " knows, such as sqlite:///study.db, or leave it out"
    )


def check_not_lost(folder: Path, known: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuses to go on without the study of which a sweep's trials are."""
    if (
        known["name"] not in names
        and known["sampler"] in LEARNING
        and any((folder / "trials").glob("*.json"))
    ):
        where = known["storage"] or folder / JOURNAL
        raise Refused(
            f"{where}: does not hold the study {known['name']}, from which the trials in {folder}"
            " have come; bring it back, or choose another name"
        )


def storage_of(noted: str | None, folder: Path) -> Any:
    """A journal in the sweep folder, which any number of processes may write, or a database.

    Args:
        noted: The database that study.json names, without its password.
            Only the command says which one is opened.
        folder: Of the sweep.

    Raises:
        Refused: if the command names no database, or another one.
    """
    if noted is not None:
        said = os.environ.get(STORAGE) or None
        if said is None or without_passwords(said) != noted:
            raise Refused(
                f"sweep.storage={said and without_passwords(said)}: {folder / FILE} names {noted};"
                " write sweep.storage"
                " as the sweep was started, or choose another name"
            )
        return said
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = str(folder / JOURNAL)
    lock = JournalFileOpenLock(path)
    cut_torn_line(folder / JOURNAL, lock)
    return JournalStorage(JournalFileBackend(path, lock_obj=lock))


def cut_torn_line(journal: Path, lock: Any) -> None:
    """Takes away what a power cut or a full disk has left of the last line,
    of which nothing else knows yet.

    Whole lines before it are kept. A line after it would end in the middle of it.
    """
    if torn_at(journal) is None:
        return
    lock.acquire()  # or another process was writing it
    try:
        if (end := torn_at(journal)) is not None:
            os.truncate(journal, end)
    finally:
        lock.release()


def torn_at(journal: Path) -> int | None:
    """Where the last line of a journal begins, if that is damaged and not the only one."""
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    if len(lines) < 2 or is_whole(lines[-1]):
        return None
    return sum(map(len, lines[:-1]))


def is_whole(line: bytes) -> bool:
    """Whether a line of a journal has its end and is JSON."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def pruner_of(known: Mapping[str, Any]) -> Any:
    """Optuna's pruner. Epochs are counted from 1;
    with cross-validation folds are, from the first of which it cuts.
    """
    from optuna import pruners

    folds, factor = known["folds"], known["reduction_factor"]
    first = 1 if folds else known["min_epochs"]
    match known["pruner"]:
        case "asha":  # Li et al. 2020, arXiv 1810.05934
            return pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
        case "hyperband":  # Li et al. 2018, arXiv 1603.06560
            most = max(folds or known["max_epochs"], first)
            return pruners.HyperbandPruner(
                min_resource=first, max_resource=most, reduction_factor=factor
            )
        case "median":
            return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=first)
        case _:
            return pruners.NopPruner()


def sampler_of(name: str, seed: int) -> Any:
    """Optuna's sampler."""
    from optuna import samplers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that `group` is experimental
        match name:
            case "cmaes":
                from goldilocks.sweeps.search.evolution import ReplayedCmaEs

                return ReplayedCmaEs(seed=seed, warn_independent_sampling=False)
            case "gp":
                return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
            case _:
                return samplers.TPESampler(seed=seed, multivariate=True, group=True)


def distribution_of(dimension: Dimension) -> Any:
    """What is searched, as Optuna has it."""
    from optuna import distributions

    if dimension.choices:
        return distributions.CategoricalDistribution(dimension.choices)
    low, high, log = dimension.low, dimension.high, dimension.log
    if dimension.whole:
        return distributions.IntDistribution(int(low), int(high), log=log)
    return distributions.FloatDistribution(low, high, log=log)


class Study:
    """Asks, reports and tells. Safe to use from several processes.

    Args:
        study: Of Optuna's.
        known: What study.json says.
    """

    def __init__(self, study: Any, known: Mapping[str, Any]) -> None:
        self.study, self.known = study, known
        self.names = list(known["modes"])

    def ask(self, space: Space) -> tuple[int, dict[str, str]]:
        """A new trial: its study number and its values by name.

        The sampler is made again with a seed for each number:
        a sweep that is interrupted asks for the same trials.
        """
        count = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = sampler_of(self.known["sampler"], self.known["seed"] + count)
        trial = self.study.ask()
        try:
            return trial.number, self.suggested(trial, space)
        except BaseException:
            self.give_up(trial.number)  # it would stay running
            raise

    def suggested(self, trial: Any, space: Space) -> dict[str, str]:
        """The values of a trial of Optuna's, by name."""
        chosen: dict[str, str] = {}
        for dimension in space.active(chosen):
            name = dimension.name
            if dimension.choices:
                chosen[name] = trial.suggest_categorical(name, dimension.choices)
            elif dimension.whole:
                number = trial.suggest_int(
                    name, int(dimension.low), int(dimension.high), log=dimension.log
                )
                chosen[name] = dimension.text(number)
            else:
                chosen[name] = dimension.text(
                    trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
                )
        return chosen

    def add(
        self,
        space: Space,
        chosen: Mapping[str, str] | None,
        outcomes: Sequence[Mapping[str, Any]],
        reported: Mapping[int, float],
    ) -> None:
        """Adds a trial of a study before, under the next number.

        Args:
            space: That is searched.
            chosen: Where in the space it lies; None: nowhere.
            outcomes: Its results; none: nothing so far.
            reported: The objective by epochs, of what was pruned.
        """
        from optuna.trial import TrialState, create_trial

        found: dict[str, Any] = {"state": TrialState.FAIL}
        if chosen is not None:
            active = [one for one in space.dimensions if one.name in chosen]
            state, values = self.outcome(outcomes) if outcomes else (TrialState.RUNNING, None)
            found = {
                "state": state,
                "values": values,
                "params": {one.name: one.value(chosen[one.name]) for one in active},
                "distributions": {one.name: distribution_of(one) for one in active},
            }
        self.study.add_trial(create_trial(**found, intermediate_values=dict(reported)))

    def begin(self, number: int, varied: Mapping[str, str]) -> int:
        """The study number of a trial that the study did not propose,
        by its number in the sweep.
        """
        from optuna.trial import TrialState, create_trial

        for trial in self.study.get_trials(deepcopy=False):
            if trial.user_attrs.get("trial") == number:
                return trial.number
        # Not as parameters: a wider grid under the same name has other choices,
        # which Optuna does not allow.
        self.study.add_trial(
            create_trial(state=TrialState.RUNNING, user_attrs={"trial": number, **varied})
        )
        return self.begin(number, varied)

    def report(self, number: int, epochs: int, value: float) -> bool:
        """Reports the objective after some epochs;
        returns whether the pruner gives the trial up.
        """
        storage, study = self.study._storage, self.study
        own = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        storage.set_trial_intermediate_value(own, epochs, value)
        return study.pruner.prune(study, storage.get_trial(own))

    def tell(self, number: int, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Tells the result of a trial: the mean over its runs.
        One that diverged is worse than any that did not.
        """
        if not self.study.get_trials(deepcopy=False)[number].state.is_finished():
            state, values = self.outcome(outcomes)
            self.study.tell(number, values, state=state)

    def outcome(self, outcomes: Sequence[Mapping[str, Any]]) -> tuple[Any, list[float] | None]:
        """Optuna's state of a trial with these results, and its values if it is complete."""
        from optuna.trial import TrialState

        statuses = {outcome["status"] for outcome in outcomes}
        columns = zip(*(objectives_of(outcome, self.names) for outcome in outcomes), strict=True)
        values = [value for column in columns if (value := mean(column)) is not None]
        if "failed" in statuses or (statuses != {"done"} and len(self.names) > 1):
            return TrialState.FAIL, None
        if statuses != {"done"} or len(values) < len(self.names):
            return TrialState.PRUNED, None
        return TrialState.COMPLETE, values

    def give_up(self, number: int) -> None:
        """Tells that a proposal cannot be trained."""
        from optuna.trial import TrialState

        self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def running(self) -> list[int]:
        """Study numbers without a result."""
        return [
            trial.number
            for trial in self.study.get_trials(deepcopy=False)
            if not trial.state.is_finished()
        ]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean, None if any is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
