"""The study that Optuna keeps of a sweep whose trials learn from each other: what to try next, and what to give up.

It is opened by every process that runs a trial, from `study.json` in the sweep folder. A trial is known in it by its
study number; with several seeds it stands for all of them.
"""

import json
import uuid
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from goldilocks import failures, results
from goldilocks.errors import Refused, missing
from goldilocks.report import objectives_of
from goldilocks.sweeps.settings import SweepSettings
from goldilocks.sweeps.space import Space

FILE, JOURNAL = "study.json", "study.journal"


def create_study(
    folder: Path, settings: SweepSettings, modes: Mapping[str, str], max_epochs: int
) -> "Study":
    """Writes down what the study of a sweep is, and opens it.

    Raises:
        Refused: if Optuna is not installed, its storage cannot be opened, or the sweep was started otherwise.
    """
    described = {
        **settings.as_plain(),
        "name": f"{folder.name}-{uuid.uuid4().hex[:8]}",  # a database may hold another sweep of this name
        "modes": dict(modes),
        "max_epochs": max_epochs,
    }
    path = folder / FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for key in ("sampler", "seeds", "objectives", "pruner", "storage", "modes"):
            if before[key] != described[key]:
                raise Refused(
                    f"sweep.{key}={described[key]}: this sweep was started with {before[key]}; choose another name"
                )
    else:
        import_optuna(settings)
        results.write_json(path, described)
    return open_study(folder)


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
    """The study of a sweep folder."""
    return study_in(folder.resolve(), (folder / FILE).read_text(encoding="utf-8"))


@cache
def study_in(folder: Path, described: str) -> "Study":
    """The study that study.json describes in these words."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = json.loads(described)
    try:
        study = optuna.create_study(
            study_name=known["name"],
            storage=storage_of(known["storage"], folder),
            directions=[
                "minimize" if mode == "min" else "maximize" for mode in known["modes"].values()
            ],
            pruner=pruner_of(known),
            load_if_exists=True,
        )
    except Exception as error:  # whatever a database and its driver say
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
        raise unusable(url, error) from error


def unusable(url: str | None, error: Exception) -> Refused:
    """What is said of a storage that cannot be used."""
    summary = failures.summary(error)
    return Refused(
        f"sweep.storage={url}: {summary['type']}: {summary['message']}; write a URL that SQLAlchemy"
        " knows, such as sqlite:///study.db, or leave it out"
    )


def storage_of(url: str | None, folder: Path) -> Any:
    """A journal in the sweep folder, which any number of processes may write, or a database."""
    if url is not None:
        return url
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = str(folder / JOURNAL)
    return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))


def pruner_of(known: Mapping[str, Any]) -> Any:
    """Optuna's pruner. Epochs are counted from 1."""
    from optuna import pruners

    first, factor = known["min_epochs"], known["reduction_factor"]
    match known["pruner"]:
        case "asha":  # Li et al. 2020, arXiv 1810.05934
            return pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
        case "hyperband":  # Li et al. 2018, arXiv 1603.06560
            most = max(known["max_epochs"], first)
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
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case "gp":
                return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
            case _:
                return samplers.TPESampler(seed=seed, multivariate=True, group=True)


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

        The sampler is made anew with a seed for each number: a sweep that is interrupted asks for the same trials.
        """
        count = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = sampler_of(self.known["sampler"], self.known["seed"] + count)
        trial = self.study.ask()
        chosen: dict[str, str] = {}
        for dimension in space.active(chosen):
            name = dimension.name
            if dimension.choices:
                chosen[name] = trial.suggest_categorical(name, dimension.choices)
            elif dimension.whole:
                number = trial.suggest_int(
                    name, int(dimension.low), int(dimension.high), log=dimension.log
                )
                chosen[name] = dimension.word(number)
            else:
                chosen[name] = dimension.word(
                    trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
                )
        return trial.number, chosen

    def begin(self, number: int, varied: Mapping[str, str]) -> int:
        """The study number of a trial that the study did not propose, by its number in the sweep."""
        from optuna.trial import TrialState, create_trial

        for trial in self.study.get_trials(deepcopy=False):
            if trial.user_attrs.get("trial") == number:
                return trial.number
        # Not as parameters: a wider grid under the same name has other choices, which Optuna does not allow.
        self.study.add_trial(
            create_trial(state=TrialState.RUNNING, user_attrs={"trial": number, **varied})
        )
        return self.begin(number, varied)

    def report(self, number: int, epochs: int, value: float) -> bool:
        """Reports the objective after some epochs; returns whether the pruner gives the trial up."""
        storage, study = self.study._storage, self.study
        own = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        storage.set_trial_intermediate_value(own, epochs, value)
        return study.pruner.prune(study, storage.get_trial(own))

    def tell(self, number: int, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Tells what a trial has come to: the mean over its runs. One that diverged is worse than any that did not."""
        from optuna.trial import TrialState

        statuses = {outcome["status"] for outcome in outcomes}
        state = self.study.get_trials(deepcopy=False)[number].state
        if state.is_finished():
            return
        columns = zip(*(objectives_of(outcome, self.names) for outcome in outcomes), strict=True)
        values = [mean(column) for column in columns]
        if "failed" in statuses or (statuses != {"done"} and len(self.names) > 1):
            self.study.tell(number, state=TrialState.FAIL)
        elif statuses != {"done"} or None in values:
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, values)

    def give_up(self, number: int) -> None:
        """Tells that a proposal cannot be trained."""
        from optuna.trial import TrialState

        self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def running(self) -> list[int]:
        """Study numbers that have not been told."""
        return [
            trial.number
            for trial in self.study.get_trials(deepcopy=False)
            if not trial.state.is_finished()
        ]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean, None if any is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
