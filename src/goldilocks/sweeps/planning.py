"""The trials of a sweep before any of them starts: planned all at once, or one by one as a study proposes them."""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from goldilocks import devices, results
from goldilocks.checks import Settings, check, check_with_data, warnings_for
from goldilocks.errors import Refused
from goldilocks.locks import held
from goldilocks.network import build_network
from goldilocks.parts import build_data
from goldilocks.sweeps.asking import Study
from goldilocks.sweeps.compose import Composer
from goldilocks.sweeps.folder import Record, frozen_numbers
from goldilocks.sweeps.settings import SweepSettings
from goldilocks.sweeps.space import Space
from goldilocks.sweeps.trials import Trial, freeze, frozen, tell
from goldilocks.sweeps.waiting import shown_progress
from goldilocks.trainer import quiet_libraries

TRIES = 50  # proposals in a row that cannot be trained, or have been already, before there is nothing left to propose


class Checker:
    """Checks trials. Data are loaded once for each way they are configured, networks built without memory.

    Args:
        own_process: Whether each trial has a process of its own.
    """

    def __init__(self, own_process: bool = False) -> None:
        self.own_process = own_process
        quiet_libraries()
        self.specs: dict[str, Any] = {}
        self.warnings: dict[str, None] = {}  # each once, in the order of the trials
        self.sizes: dict[str, int] = {}  # parameters of the network, by configuration hash
        self.known: dict[frozenset[str], str] = {}  # configuration hash, by the words of a trial

    def check(self, trial: Trial) -> None:
        """Refuses a trial that cannot be trained. One that the sweep knows was checked when it was planned."""
        if trial.config_hash:
            return
        settings: Settings = check(trial.config)
        if not self.own_process and devices.plan(settings.trainer).strategy != "single":
            raise Refused(
                "hydra/launcher: a trial on several devices would end the sweep where one of them fails; write"
                " hydra/launcher=process hydra.launcher.slots=1, which gives each trial a process of its own"
            )
        key = str(settings.data)
        if key not in self.specs:
            self.specs[key] = build_data(settings).spec
        check_with_data(settings, self.specs[key])
        with torch.device("meta"):
            network = build_network(settings, self.specs[key])
        trial.config_hash = results.config_hash(trial.config)
        self.sizes[trial.config_hash] = sum(
            p.numel() for p in network.parameters() if p.requires_grad
        )
        for warning in warnings_for(settings, network):
            if warning not in self.warnings:
                print(f"warning: {warning}", file=sys.stderr)
            self.warnings[warning] = None

    def rows(self, trial: Trial) -> int:
        """Training rows of a trial that was checked."""
        return self.specs[str(check(trial.config).data)].num_rows["train"]


def plan(
    composer: Composer, space: Space, settings: SweepSettings, checker: Checker
) -> list[Trial]:
    """All trials of a sweep that does not learn.

    Raises:
        Refused: if a trial of a grid cannot be trained, or if hardly any of the drawn ones can.
    """
    if settings.sampler != "grid":
        return list(drawn(composer, space, settings, checker))
    total = space.size * settings.seeds
    trials: list[Trial] = []
    for chosen in shown_progress(space.grid(), space.size, "planning trials"):
        for trial in seeded(composer, *space.trial(chosen), settings, checker.known):
            try:
                checker.check(trial)
            except Refused as refusal:
                raise Refused(
                    f"{refusal} (trial {len(trials)} of {total}; none was started)"
                ) from refusal
            trials.append(trial)
    return trials


def drawn(
    composer: Composer, space: Space, settings: SweepSettings, checker: Checker
) -> Iterator[Trial]:
    """As many trials as are asked for, no two the same. What cannot be trained is drawn again, and said."""
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
            f"{len(refused)} trials were drawn anew, since they cannot be trained: {refused[0]}",
            file=sys.stderr,
        )


def seeded(
    composer: Composer,
    words: list[str],
    varied: dict[str, str],
    settings: SweepSettings,
    known: Mapping[frozenset[str], str] | None = None,
) -> list[Trial]:
    """A trial, or one for each seed. Those that the sweep knows have their hash alone: they are frozen in its folder."""

    def made(words: list[str], varied: dict[str, str]) -> Trial:
        if config_hash := (known or {}).get(frozenset(words)):
            return Trial(words, varied, DictConfig({}), {}, config_hash)
        return Trial(words, varied, *composer.compose(words))

    if settings.seeds == 1:
        return [made(words, varied)]
    return [
        made([*words, f"seed={seed}"], varied | {"seed": str(seed)})
        for seed in range(settings.seeds)
    ]


class Proposals:
    """Trials that a study proposes, one after the other, until there are enough or nothing is left to propose.

    Args:
        folder: Of the sweep.
        composer: Composes what the study proposes.
        space: To search.
        settings: With the number of trials in all.
        checker: What cannot be trained is told to the study, and the next proposal taken.
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
            record = Record(self.folder)
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
    """Tells a study what it missed when a process was killed: results, and proposals that became no trial."""
    by_study = {trial.study_number: trial for trial in trials if trial.study_number is not None}
    for number in study.running():
        if (trial := by_study.get(number)) is not None:
            tell(study, folder, number, trial.siblings)
        elif study.known["sampler"] in ("tpe", "cmaes", "gp"):
            study.give_up(number)
