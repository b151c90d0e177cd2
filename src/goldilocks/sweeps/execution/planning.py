"""The trials of a sweep before any of them starts:
planned all at once, or one by one as a study proposes them.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from goldilocks.config.choices import hash_of
from goldilocks.config.strangers import refuse_paths
from goldilocks.errors import Refused
from goldilocks.machine import devices
from goldilocks.machine.locks import held
from goldilocks.machine.progress import shown_progress
from goldilocks.sweeps.execution.folder import Record
from goldilocks.sweeps.execution.trials import Trial, freeze, frozen, frozen_numbers, tell
from goldilocks.sweeps.search.comparable import Meaning, meaning, problem_of
from goldilocks.sweeps.search.compose import Composer
from goldilocks.sweeps.search.settings import COUNTS, SweepSettings
from goldilocks.sweeps.search.space import Space
from goldilocks.sweeps.search.study import Study, open_study
from goldilocks.tasks.objective import check_defined, check_objective
from goldilocks.tasks.task import Task
from goldilocks.training.checks import (
    check,
    check_values,
    check_with_data,
    followed,
    resolved,
    warnings_for,
)
from goldilocks.training.components import build_data, build_network
from goldilocks.training.fused.alike import count_trained
from goldilocks.training.settings import Settings
from goldilocks.training.trainer import quiet_libraries

# Proposals in a row that cannot be trained, or have been already, until none is expected any more.
TRIES = 50
MOST_REASONS = 3  # for which combinations of a grid are refused, in a line
MOST_WORDS = 3  # of a combination, tried to tell those that are refused from the others


class Checker:
    """Checks trials. Data are loaded once for each way they are configured,
    networks built without memory.

    Args:
        own_process: Whether each trial has a process of its own.
        objectives: That trials are ranked by in place of their own one.
    """

    def __init__(self, own_process: bool = False, objectives: Sequence[str] = ()) -> None:
        self.own_process = own_process
        self.objectives = [metric for metric in objectives if metric not in COUNTS]
        quiet_libraries()
        self.specs: dict[str, Any] = {}
        self.judged: dict[str, Any] = {}
        self.problems: dict[str, str] = {}  # what is predicted
        self.fingerprints: dict[str, str | None] = {}  # of all rows
        self.fitting: dict[str, Task] = {}  # by the data, and all that has to go with them
        self.network: tuple[str, nn.Module] | None = None  # the last one, and of what it was built
        self.defined: set[tuple[str, ...]] = set()  # data, and the metrics that they define
        self.warnings: dict[str, None] = {}  # each once, in the order of the trials
        self.sizes: dict[str, int] = {}  # parameters of the network, by configuration hash
        self.known: dict[
            frozenset[str], str
        ] = {}  # configuration hash, by the overrides of a trial

    def check(self, trial: Trial) -> None:
        """Refuses a trial that cannot be trained.
        One that the sweep knows was checked when it was planned.
        """
        if trial.config_hash:
            return
        values = resolved(trial.config)
        config_hash = hash_of(values)
        settings = check_values(values)
        refuse_paths(values, "a sweep", None, values["log_dir"])
        if not self.own_process and devices.plan(settings.trainer).strategy != "single":
            raise Refused(
                "hydra/launcher: a trial on several devices would end the sweep where one of them"
                " fails; write"
                " hydra/launcher=process hydra.launcher.slots=1, which gives each trial a process"
                " of its own"
            )
        key = self.loaded(settings)
        self.check_metrics(settings, key, self.check_fit(settings, key))
        network = self.network_of(settings, key)
        trial.config_hash = config_hash
        self.sizes[trial.config_hash] = count_trained(network)
        for warning in warnings_for(settings, network):
            if warning not in self.warnings:
                print(f"warning: {warning}", file=sys.stderr)
            self.warnings[warning] = None

    def network_for(self, trial: Trial) -> nn.Module:
        """The network of a trial, without memory, also of one that another command has checked."""
        settings = check(trial.config)
        return self.network_of(settings, self.loaded(settings))

    def check_fit(self, settings: Settings, key: str) -> Task:
        """The task of a trial, whose options go with the data;
        that of a trial before with the same ones.
        """
        watched = settings.objective, settings.callbacks, settings.scheduler
        learnt = settings.task, settings.loss, settings.metrics
        about = str((key, learnt, settings.regularization, settings.trainer, watched))
        if about not in self.fitting:
            self.fitting[about] = check_with_data(settings, self.specs[key])
        return self.fitting[about]

    def network_of(self, settings: Settings, key: str) -> nn.Module:
        """The network of a trial, without memory; that of the trial before where it is the same."""
        about = str((key, settings.model, settings.regularization, settings.packages))
        if self.network is None or self.network[0] != about:
            with torch.device("meta"):
                self.network = about, build_network(settings, self.specs[key])
        return self.network[1]

    def loaded(self, settings: Settings) -> str:
        """Loads the data of a trial unless that is done; returns under which key they are known."""
        key = str(settings.data)
        if key not in self.specs:
            data = build_data(settings)
            self.judged[key], self.problems[key] = data.judged, problem_of(data)
            self.fingerprints[key] = data.fingerprint
            self.specs[key] = data.spec
        return key

    def fingerprint(self, cfg: DictConfig) -> str | None:
        """That of the rows of a trial, as they are now."""
        return self.fingerprints[self.loaded(check(cfg))]

    def meaning(self, cfg: DictConfig, sweep: SweepSettings) -> Meaning:
        """What a trial's place in the ranking depends on."""
        settings = check(cfg)
        key = self.loaded(settings)
        return meaning(settings, self.specs[key], self.problems[key], sweep)

    def check_metrics(self, settings: Settings, key: str, task: Task) -> None:
        """Refuses metrics that the data do not have, or that their
        validation rows do not define.
        """
        metrics = followed(settings)
        known = (key, *metrics.values(), str(settings.metrics))
        if known in self.defined:
            return
        for metric in self.objectives:
            check_objective(metric, task, "sweep.objectives")
            check_defined({"sweep.objectives": metric}, task, self.judged[key])
        check_defined(metrics, task, self.judged[key])
        self.defined.add(known)

    def num_rows(self, cfg: DictConfig) -> dict[str, int]:
        """Rows of a trial by stage."""
        return self.specs[self.loaded(check(cfg))].num_rows


def plan(
    composer: Composer, space: Space, settings: SweepSettings, checker: Checker
) -> list[Trial]:
    """All trials of a sweep that does not learn.

    Raises:
        Refused: if a trial of a grid cannot be trained, or if hardly any of the drawn ones can.
    """
    if settings.sampler != "grid":
        return list(drawn(composer, space, settings, checker))
    trials: list[Trial] = []
    refused: list[tuple[str, dict[str, str]]] = []  # why, and which combination
    total = 0
    for chosen in shown_progress(space.grid(), space.size, "planning trials"):
        total += 1
        overrides, varied = space.trial(chosen)
        own = seeded(composer, overrides, varied, settings, checker.known)
        try:
            for trial in own:
                checker.check(trial)
            trials += own
        except Refused as refusal:
            refused.append((str(refusal), varied))
            if len(refused) >= TRIES and not trials:
                break
    if refused:
        tell_refused(refused, [trial.varied for trial in trials], total, settings)
    return trials


def tell_refused(
    refused: Sequence[tuple[str, dict[str, str]]],
    right: Sequence[Mapping[str, str]],
    total: int,
    settings: SweepSettings,
) -> None:
    """Says which combinations of a grid cannot be trained, and why.

    Args:
        refused: Reason and combination.
        right: The combinations that can be trained.
        total: Combinations that were looked at.
        settings: Of the sweep.

    Raises:
        Refused: unless they may be left out and there are others.
    """
    reasons: dict[str, list[dict[str, str]]] = {}
    for reason, varied in refused:
        reasons.setdefault(reason, []).append(varied)
    listed = [
        f"{reason} ({len(those)} of {total} combinations: {overrides_of(shared(those, right))})"
        for reason, those in list(reasons.items())[:MOST_REASONS]
    ]
    more = len(reasons) - len(listed)
    text = "; ".join([*listed, *([f"and {more} other reasons"] if more else [])])
    if not right:
        raise Refused(f"{text}; none was started")
    if not settings.skip_refused:
        raise Refused(
            f"{text}; none was started; write sweep.skip_refused=true to train the other"
            f" {len(right)}"
        )
    print(f"{len(refused)} of {total} combinations are left out: {text}", file=sys.stderr)


def shared(
    refused: Sequence[Mapping[str, str]], right: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """The fewest overrides that all of some combinations have,
    and none of those that can be trained.

    >>> shared([{"a": "1", "b": "1"}, {"a": "1", "b": "2"}], [{"a": "2", "b": "1"}])
    {'a': '1'}
    """
    common = [
        (key, value)
        for key, value in refused[0].items()
        if all(of.get(key) == value for of in refused)
    ]
    for size in range(1, min(len(common), MOST_WORDS) + 1):
        for some in itertools.combinations(common, size):
            if not any(all(of.get(key) == value for key, value in some) for of in right):
                return dict(some)
    return dict(common)


def overrides_of(varied: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in varied.items()) or "all"


def drawn(
    composer: Composer, space: Space, settings: SweepSettings, checker: Checker
) -> Iterator[Trial]:
    """As many trials as are asked for, no two the same.
    What cannot be trained is drawn again, and said.
    """
    known: set[str] = set()
    refused: list[Refused] = []
    idle, count = 0, settings.n_trials or 0
    points = space.points(settings.sampler, settings.seed)
    for chosen in shown_progress(points, count, "planning trials"):
        try:
            trials = seeded(composer, *space.trial(chosen), settings, checker.known)
            for trial in trials:
                checker.check(trial)
        except Refused as refusal:
            refused.append(refusal)
            if len(refused) >= TRIES and not known:
                raise Refused(
                    f"{refusal} (as are {len(refused)} trials in a row; none was started)"
                ) from refusal
            trials = []
        if not trials or trials[0].config_hash in known:
            idle += 1
            if idle >= TRIES:
                break
            continue
        idle = 0
        known |= {trial.config_hash for trial in trials}
        yield from trials
        if len(known) >= count * settings.seeds:
            break
    if refused:
        print(
            f"{len(refused)} trials were drawn again, since they cannot be trained: {refused[0]}",
            file=sys.stderr,
        )


def seeded(
    composer: Composer,
    overrides: list[str],
    varied: dict[str, str],
    settings: SweepSettings,
    known: Mapping[frozenset[str], str] | None = None,
) -> list[Trial]:
    """A trial, or one for each seed.
    Those that the sweep knows have their hash alone: they are frozen in its folder.
    """

    def made(overrides: list[str], varied: dict[str, str]) -> Trial:
        if config_hash := (known or {}).get(frozenset(overrides)):
            return Trial(overrides, varied, DictConfig({}), {}, config_hash)
        return Trial(overrides, varied, *composer.compose(overrides))

    if settings.seeds == 1:
        return [made(overrides, varied)]
    return [
        made([*overrides, f"seed={seed}"], varied | {"seed": str(seed)})
        for seed in range(settings.seeds)
    ]


class Proposals:
    """Trials that a study proposes, one after the other,
    until there are enough or nothing is left to propose.

    Args:
        folder: Of the sweep.
        composer: Composes what the study proposes.
        space: To search.
        settings: With the number of trials in all.
        checker: What cannot be trained is reported to the study, and the next proposal taken.
        study: Of the sweep.
    """

    def __init__(
        self,
        folder: Path,
        composer: Composer,
        space: Space,
        settings: SweepSettings,
        checker: Checker,
        study: Study,
    ) -> None:
        self.folder, self.composer, self.space, self.settings = folder, composer, space, settings
        self.checker, self.study = checker, study
        self.refused: list[Refused] = []
        self.made: list[Trial] = []

    def __iter__(self) -> Iterator[Trial]:
        while trials := self.propose():
            self.made += trials
            yield from trials

    def propose(self) -> list[Trial]:
        """The trials of the next proposal, a seed each; none where the sweep has enough."""
        with (
            held(self.folder / "trials" / "sweep.lock", wait=True),
            held(self.study_lock, wait=True),
        ):
            record, self.study = Record(self.folder), open_study(self.folder)
            if self.study.known["space"] != self.space.as_plain():
                print("another command has changed what is searched: no more here", file=sys.stderr)
                return []
            if (
                len(frozen_numbers(self.folder))
                >= (self.settings.n_trials or 0) * self.settings.seeds
            ):
                return []
            for _ in range(TRIES):
                if trials := self.trainable(record):
                    return trials
        why = f"cannot be trained: {self.refused[-1]}" if self.refused else "has been done"
        print(f"nothing is left to propose: every further trial {why}", file=sys.stderr)
        return []

    def trainable(self, record: Record) -> list[Trial]:
        """The trials of one proposal, frozen; none if it cannot be trained or is known."""
        number, chosen = self.study.ask(self.space)
        try:
            trials = seeded(self.composer, *self.space.trial(chosen), self.settings)
            for trial in trials:
                self.checker.check(trial)
        except Refused as refusal:
            self.refused.append(refusal)
            self.study.give_up(number)
            return []
        if (twin := record.by_hash.get(trials[0].config_hash)) is not None:
            same = frozen(self.folder, twin)
            if same.result is not None and same.finished:
                self.study.tell(number, [same.result])
            else:
                self.study.give_up(number)
            return []
        first = record.next_number()
        for trial, own in zip(trials, itertools.count(first), strict=False):
            trial.number, trial.study_number = own, number
            trial.siblings = list(range(first, first + len(trials)))
            freeze(self.folder, trial)
        record.add(trials)
        return trials

    @property
    def study_lock(self) -> Path:
        return self.folder / "trials" / "study.lock"


def catch_up(folder: Path, study: Study, trials: Sequence[Trial]) -> None:
    """Tells a study what it missed when a process was killed:
    results, and proposals that became no trial.
    """
    by_study = {trial.study_number: trial for trial in trials if trial.study_number is not None}
    for number in study.running():
        if (trial := by_study.get(number)) is not None:
            tell(study, folder, number, trial.siblings)
        elif study.known["sampler"] in ("tpe", "cmaes", "gp"):
            study.give_up(number)
