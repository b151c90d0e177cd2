"""The study that Optuna keeps of a sweep whose trials learn from each other: what to try next, and what to give up.

It is opened by every process that runs a trial, from `study.json` in the sweep folder. A trial is known in it by its
study number; with several seeds it stands for all of them.
"""

import json
import os
import uuid
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from goldilocks import failures, results
from goldilocks.errors import Refused, missing
from goldilocks.privacy import without_passwords
from goldilocks.report import objectives_of
from goldilocks.strangers import STORAGE
from goldilocks.sweeps.settings import SweepSettings
from goldilocks.sweeps.space import Dimension, Space

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
        Refused: if Optuna is not installed, its storage cannot be opened, or the sweep was started otherwise.
    """
    described = {
        **settings.as_plain(),
        "name": new_name(folder),
        "modes": dict(modes),
        "max_epochs": max_epochs,
        "folds": folds,
        "space": space.as_plain() if space is not None else None,
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


def new_name(folder: Path) -> str:
    """Of a study: a database may hold another sweep of this name."""
    return f"{folder.name}-{uuid.uuid4().hex[:8]}"


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
    storage = storage_of(known["storage"], folder)
    try:
        study = optuna.create_study(
            study_name=known["name"],
            storage=storage,
            directions=[
                "minimize" if mode == "min" else "maximize" for mode in known["modes"].values()
            ],
            pruner=pruner_of(known),
            load_if_exists=True,
        )
    except Exception as error:  # whatever a database and its driver say
        summary = failures.summary(error)
        what = without_passwords(summary["message"])
        raise Refused(f"sweep.storage={known['storage']}: {summary['type']}: {what}") from error
    return Study(study, known)


def storage_of(noted: str | None, folder: Path) -> Any:
    """A journal in the sweep folder, which any number of processes may write, or a database.

    Args:
        noted: The database that study.json names, without its password. Only the command says which one is opened.
        folder: Of the sweep.

    Raises:
        Refused: if the command names no database, or another one.
    """
    if noted is not None:
        said = os.environ.get(STORAGE) or None
        if said is None or without_passwords(said) != noted:
            raise Refused(
                f"sweep.storage={said and without_passwords(said)}: {folder / FILE} names {noted}; write sweep.storage"
                " as the sweep was started, or choose another name"
            )
        return said
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = str(folder / JOURNAL)
    return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))


def pruner_of(known: Mapping[str, Any]) -> Any:
    """Optuna's pruner. Epochs are counted from 1; with cross-validation folds are, from the first of which it cuts."""
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
                from goldilocks.sweeps.evolution import ReplayedCmaEs

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

        The sampler is made anew with a seed for each number: a sweep that is interrupted asks for the same trials.
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
                chosen[name] = dimension.word(number)
            else:
                chosen[name] = dimension.word(
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
            outcomes: What it has come to; none: nothing so far.
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
