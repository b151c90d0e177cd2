"""The course of a guided search: look, portfolio, explore, refine, finalists.

Each step hands batches of trials to the launcher and keeps to its part of the time. Every decision
follows from the results of trials, so the same command goes on where it was stopped.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from goldilocks.errors import Refused, one_line
from goldilocks.machine.clock import duration
from goldilocks.machine.locks import held
from goldilocks.runs.cross_validation import are_asked
from goldilocks.runs.ensembles import members_of
from goldilocks.runs.folder import read_config
from goldilocks.sweeps.baselines import try_baselines
from goldilocks.sweeps.execution.folder import Record
from goldilocks.sweeps.execution.launching import Launch
from goldilocks.sweeps.execution.planning import Checker
from goldilocks.sweeps.execution.trials import Trial, frozen, set_deadline, trial_result
from goldilocks.sweeps.guide.allowance import Allowance, Speed, units
from goldilocks.sweeps.guide.configurations import (
    BATCH,
    EPOCHS,
    PATIENCE,
    RATE,
    RATES,
    SEED,
    Words,
    at_rates,
    batch_for,
    changed,
    changes,
    drawn,
    portfolio,
)
from goldilocks.sweeps.guide.record import Batch, Story, read_story, write_story
from goldilocks.sweeps.search.compose import Composer
from goldilocks.sweeps.search.settings import SweepSettings
from goldilocks.sweeps.search.space import Space
from goldilocks.training.checkpoints import load_checkpoint
from goldilocks.training.checks import check
from goldilocks.training.components import prepare
from goldilocks.training.fused.alike import count_trained, layers_of

SHORT_PATIENCE = 10  # epochs without improvement, half of the default's
OF_OPENING = 1.7  # seconds that a test takes, for each that opening the network does
FULL = 100  # epochs at most, unless the command says another number
FACTOR = 3  # of those that are explored one in so many goes on, for as many times the epochs
RUNGS = 3
NETWORKS, EACH = 4, 8  # explored at a time, and trials of each
FINALISTS = 3
MOST_SEEDS = 7


class Course:
    """Runs the steps.

    Args:
        folder: Of the sweep.
        launch: Trains.
        composer: Of the sweep.
        checker: Of the sweep.
        space: What is explored, and the words of the command.
        settings: Of the sweep.
        modes: Min or max by objective.
        allowance: Time, or trials, that it may take.
    """

    def __init__(
        self,
        folder: Path,
        launch: Launch,
        composer: Composer,
        checker: Checker,
        space: Space,
        settings: SweepSettings,
        modes: dict[str, str],
        allowance: Allowance,
    ) -> None:
        self.folder, self.launch, self.composer, self.checker = folder, launch, composer, checker
        self.space, self.settings, self.modes = space, settings, modes
        self.objective, self.sign = next((m, 1 if w == "min" else -1) for m, w in modes.items())
        self.story: Story = read_story(folder)
        self.allowance = allowance
        allowance.spent = self.story.spent
        self.speed = Speed()
        self.sizes: dict[str, int] = {}  # parameters by configuration
        self.members = settings.ensemble  # of the ensemble at most
        self.trials: dict[int, Trial] = {}
        self.said = {word.partition("=")[0].lstrip("+") for word in space.fixed}
        self.first = composer.compose(space.fixed)[0]

    def run(self) -> None:
        """All steps, as far as the time goes."""
        steps = (self.look, self.portfolio, self.explore, self.refine, self.finalists)
        try:
            for step in steps:
                self.say(step.__name__)
                step()
        finally:
            set_deadline(self.folder, None)
            self.save()

    def save(self) -> None:
        self.story.spent = round(self.allowance.elapsed, 1)
        write_story(self.folder, self.story)

    def say(self, step: str) -> None:
        """What comes next, and what there is by now."""
        best = self.best()
        known = f", best {self.objective} {self.value(best):.4g}" if best is not None else ""
        left = self.allowance.left(step)
        unit = (
            f"{max(left, 0):.0f} trials" if self.settings.budget is None else duration(max(left, 0))
        )
        print(f"-- {step}: {unit}{known}", file=sys.stderr, flush=True)

    # --- the steps --------------------------------------------------------------------------------

    def look(self) -> None:
        """The default, and what plain models reach beside it."""
        self.train("look", "default", [{}])
        if not self.trials:
            return
        before = self.allowance.now()
        try_baselines(self.folder, list(self.trials.values()), self.modes)
        baselines = self.allowance.now() - before
        each = self.seconds_to_test(next(iter(self.trials.values())))
        self.members = self.allowance.members(self.settings.ensemble, each)
        self.allowance.ending = baselines + (self.members + 2) * each

    def seconds_to_test(self, trial: Trial) -> float:
        """How long it takes to open the networks of a run and to predict; no test row is read."""
        members = members_of(self.folder / str(trial.number))
        path = members[0][0] / "checkpoints" / "best.ckpt"
        if not path.exists():
            return 0.0
        before = self.allowance.now()
        prepare(read_config(members[0][0]), fitted=load_checkpoint(path), warn=False)
        return len(members) * OF_OPENING * (self.allowance.now() - before)

    def portfolio(self) -> None:
        """Configurations that are known to do well, each at a few rates."""
        for number, words in enumerate(portfolio(self.settings.portfolio, self.said)):
            if not self.has_room("portfolio", str(number)):
                break
            self.train("portfolio", str(number), self.at_rates(words))

    def explore(self) -> None:
        """Many draws for few epochs, of which a third goes on, twice."""
        networks, each = NETWORKS, EACH
        round_, skip = 0, 0
        while self.has_room("explore", f"{round_}-0"):
            known = self.story.batch("explore", f"{round_}-0")
            if known is None:
                networks, each = self.that_fit(networks, each)
                if not networks:
                    break
            pool = [
                words | {EPOCHS: str(self.epochs_of(0))}
                for same in drawn(self.space, self.settings.seed, networks, each, skip)
                for words in same
            ]
            skip += networks
            done = self.train("explore", f"{round_}-0", pool)
            for rung in range(1, RUNGS):
                if not done or not self.has_room("explore", f"{round_}-{rung}"):
                    break
                best = self.ranked(done)[: max(len(done) // FACTOR, 1)]
                again = [self.words_of(one) | {EPOCHS: str(self.epochs_of(rung))} for one in best]
                done = self.train("explore", f"{round_}-{rung}", again)
            round_ += 1
            if not done and self.settings.budget is None:
                break

    def that_fit(self, networks: int, each: int) -> tuple[int, int]:
        """How many networks, and trials of each, there is room for; 0: none."""
        left = self.allowance.left("explore")
        if self.settings.budget is None:
            count = int(left / (1 + 1 / FACTOR + 1 / FACTOR**2))
            if count < networks * each:
                each = min(each, max(count // 2, 1))
                networks = min(networks, count // each)
            return (networks, each) if left >= 1 else (0, 0)
        size = self.typical()
        while networks:
            count = networks * each
            epochs = sum(self.epochs_of(r) / FACTOR**r for r in range(RUNGS))
            if self.speed.seconds(count * epochs * size) <= left or self.speed.per_unit is None:
                break
            networks, each = (networks - 1, each) if networks > 1 else (int(each > 3), each // 2)
        return networks, each

    def refine(self) -> None:
        """One change at a time of what is best, each at a few rates: what is better is kept."""
        leader = self.best(full=True)
        if leader is None:
            return
        own = self.base_of(leader)
        tried: set[str] = set()
        asked: set[str] = set()
        number = 0
        home = self.train("refine", "rates", self.at_rates(own, self.rate_of(leader)))
        leader = self.better_of(leader, home)
        while self.has_room("refine", str(number)):
            question, change = self.next_change(leader, own, tried, asked)
            if not change:
                break
            other = changed(own, change)
            tried.add(str(sorted(other.items())))
            asked.add(question)
            rate = None if "optimizer" in change else self.rate_of(leader)
            before = {key: self.shown(leader, key) for key in change}
            batch = Batch("refine", str(number), [], None, question, change, before)
            batch.against = [one.number for one in home]
            found = self.train("refine", str(number), self.at_rates(other, rate), batch)
            number += 1
            now = self.better_of(leader, found)
            if now is not leader:
                leader, own, home = now, other, found

    def next_change(
        self, leader: Trial, own: Words, tried: set[str], asked: set[str]
    ) -> tuple[str, Words]:
        """The next question and what to change for it: each question once, then again."""
        open_ = [
            (question, change)
            for question, change in changes(leader.config, leader.choices)
            if str(sorted(changed(own, change).items())) not in tried and not self.is_said(change)
        ]
        new = [one for one in open_ if one[0] not in asked]
        return next(iter(new or open_), ("", {}))

    def finalists(self) -> None:
        """The best few, and the simplest that is not shown to be worse, with other seeds."""
        chosen = self.chosen()
        for seeds in ((1, 2), (3, 4), (5, 6)):
            for one in chosen:
                key = f"{one.number}-{seeds[0]}"
                if not self.has_room("finalists", key):
                    return
                words = self.words_of(one)
                self.train("finalists", key, [words | {SEED: str(seed)} for seed in seeds])

    def chosen(self) -> list[Trial]:
        """The finalists: different networks, the best first, and the smallest of the good ones."""
        if (known := self.story.of("finalists")) and self.settings.budget is None:
            numbers = dict.fromkeys(int(one.key.partition("-")[0]) for one in known)
            fixed = [self.trials[number] for number in numbers if number in self.trials]
            if len(fixed) >= FINALISTS:
                return fixed
        found: list[Trial] = []
        networks: set[str] = set()
        for one in self.ranked(self.full()):
            if SEED in one.varied or (kind := str(self.base_of(one))) in networks:
                continue
            networks.add(kind)
            found.append(one)
            if len(found) == FINALISTS:
                break
        return found

    # --- trials -----------------------------------------------------------------------------------

    def train(
        self, step: str, key: str, wanted: Sequence[Words], batch: Batch | None = None
    ) -> list[Trial]:
        """Trains a batch, or what is missing of it; returns what is done.

        What is planned is written down first. Networks are trained one after the other, as far as
        the time of the step goes.
        """
        known = self.story.batch(step, key)
        if known is not None:
            trials = [self.frozen(number) for number in known.trials]
        else:
            known = batch or Batch(step, key, [])
            trials = self.plan(wanted)
            known.trials = [trial.number for trial in trials]
            self.story.batches.append(known)
            self.save()
        self.allowance.trials += sum(trial.number not in self.trials for trial in trials)
        self.trials |= {trial.number: trial for trial in trials}
        missing = [one for one in trials if not one.finished and one.status != "failed"]
        for same in by_layers(missing) if self.launch.kind != "ProcessLauncher" else [missing]:
            if not same or not self.may_begin(step, same):
                break
            set_deadline(self.folder, self.allowance.until(step))
            began = self.allowance.now()
            self.launch.run(same, None)
            for one in same:
                one.result = trial_result(self.folder, one.number) or one.result
            took = self.allowance.now() - began
            self.speed.note(sum(map(self.spent, same)), sum(map(self.units_of, same)), took)
        if missing:
            known.at = round(self.allowance.elapsed, 1)
            self.save()
        return [one for one in trials if one.status == "done" and self.value(one) < math.inf]

    def plan(self, wanted: Iterable[Words]) -> list[Trial]:
        """Trials of these words that can be trained, numbered and frozen."""
        made: list[Trial] = []
        for words in self.that_count(list(wanted)):
            overrides = [*self.space.fixed, *(f"{key}={value}" for key, value in words.items())]
            try:
                trial = Trial(overrides, dict(words), *self.composer.compose(overrides))
                self.checker.check(trial)
            except (Refused, HydraException, OmegaConfBaseException) as refusal:
                note = f"{' '.join(f'{k}={v}' for k, v in words.items())}: {one_line(refusal)}"
                self.story.notes.append(note)
                continue
            made.append(trial)
        with held(self.folder / "trials" / "sweep.lock", wait=True):
            record = Record(self.folder)
            numbered = record.number(made)
            record.add(numbered)
        return numbered

    def that_count(self, wanted: list[Words]) -> list[Words]:
        """What is trained of a batch: all, or as many as are left where trials are counted; with
        the epochs and the batch of a guided search, unless something else is said.
        """
        if self.settings.n_trials is not None:
            wanted = wanted[: max(self.settings.n_trials - self.allowance.trials, 0)]
        usual = {EPOCHS: str(self.epochs_of(RUNGS - 1)), BATCH: str(self.batch)}
        if self.first.callbacks.get("early_stopping") is not None:
            usual[PATIENCE] = str(SHORT_PATIENCE)
        usual = {key: value for key, value in usual.items() if key not in self.said}
        return [with_usual(words, usual) for words in wanted]

    def frozen(self, number: int) -> Trial:
        return self.trials.get(number) or frozen(self.folder, number)

    def at_rates(self, words: Words, rate: float | None = None) -> list[Words]:
        """A configuration at a few rates around its own, unless the command says the rate."""
        if RATE in self.said:
            return [words]
        overrides = [*self.space.fixed, *(f"{key}={value}" for key, value in words.items())]
        try:
            own = rate or float(self.composer.compose(overrides)[0].optimizer.lr)
        except (Refused, HydraException, OmegaConfBaseException, TypeError, ValueError):
            return [words]
        return at_rates(words, own, RATES)

    def epochs_of(self, rung: int) -> int:
        """Epochs of a rung; the last one has all."""
        full = min(self.first.trainer.max_epochs, FULL)
        full = self.first.trainer.max_epochs if EPOCHS in self.said else full
        return max(math.ceil(full / FACTOR ** (RUNGS - 1 - rung)), 1)

    @property
    def batch(self) -> int:
        """Rows of a batch."""
        return batch_for(self.checker.num_rows(self.first)["train"])

    # --- what trials say --------------------------------------------------------------------------

    def value(self, trial: Trial | None) -> float:
        """Of the objective; less is better, whatever it is."""
        known = trial.values([self.objective])[0] if trial is not None else None
        return self.sign * known if known is not None and math.isfinite(known) else math.inf

    def ranked(self, trials: Iterable[Trial]) -> list[Trial]:
        """The best first."""
        return sorted(trials, key=lambda one: (self.value(one), one.number))

    def full(self) -> list[Trial]:
        """Trials that are done and had all epochs."""
        most = str(self.epochs_of(RUNGS - 1))
        done = [one for one in self.trials.values() if one.status == "done"]
        return [one for one in done if one.varied.get(EPOCHS, most) == most]

    def best(self, full: bool = False) -> Trial | None:
        found = self.ranked(self.full() if full else self.trials.values())
        return found[0] if found and self.value(found[0]) < math.inf else None

    def better_of(self, leader: Trial, others: Sequence[Trial]) -> Trial:
        """The leader, unless another one has a better value."""
        return self.ranked([leader, *others])[0]

    def words_of(self, trial: Trial) -> Words:
        return dict(trial.varied)

    def base_of(self, trial: Trial) -> Words:
        """The words of a trial without its rate."""
        return {key: value for key, value in trial.varied.items() if key not in (RATE, SEED)}

    def rate_of(self, trial: Trial) -> float | None:
        rate = trial.config.optimizer.get("lr")
        return float(rate) if isinstance(rate, int | float) else None

    def is_said(self, change: Words) -> bool:
        """Whether the command has decided what would be changed."""
        return any(key in self.said for key in change)

    def shown(self, trial: Trial, key: str) -> str:
        """What a trial has for a key of a change."""
        if key in trial.choices:
            return str(trial.choices[key])
        node: Any = trial.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, DictConfig) else None
        return str(node)

    # --- time -------------------------------------------------------------------------------------

    def has_room(self, step: str, key: str) -> bool:
        """Whether a batch is to be trained: it was planned before, or there is time for one."""
        return self.story.batch(step, key) is not None or self.allowance.has_room(step)

    def may_begin(self, step: str, trials: Sequence[Trial]) -> bool:
        """Whether there is time for trials, of which most will end early; the default always."""
        if self.settings.budget is None or step == "look":
            return True
        share = self.speed.share or 1.0
        planned = sum(self.units_of(one) * (1 if falls(one.varied) else share) for one in trials)
        seconds = self.speed.seconds(planned)
        return self.allowance.has_room(step, seconds)

    def units_of(self, trial: Trial, epochs: float | None = None) -> float:
        """What a trial costs, to its end or for so many epochs of all its networks together."""
        cfg = trial.config
        networks = cfg.data.folds if are_asked(cfg) else 1
        rows = self.checker.num_rows(self.first)["train"]
        each = cfg.trainer.max_epochs if epochs is None else epochs / networks
        batch = cfg.data.get("batch_size") or 32
        if (key := trial.config_hash) not in self.sizes:
            self.sizes[key] = count_trained(self.checker.network_for(trial))
        size = self.sizes[key]
        return units(networks, each, rows, batch, size)

    def spent(self, trial: Trial) -> float:
        """What a trial has cost."""
        return self.units_of(trial, trial.outcome.get("epochs") or 0)

    def typical(self) -> float:
        """What an epoch of a trial costs, in the mean of those that are known."""
        known = [self.units_of(one, 1) for one in self.trials.values()]
        networks = self.first.data.folds if are_asked(self.first) else 1
        return networks * sum(known) / len(known) if known else 0.0


def with_usual(words: Words, usual: Words) -> Words:
    """A trial's words with what all have; the default stays as it is, and what a schedule ends is
    not stopped early.
    """
    if not words:
        return words
    kept = {key: v for key, v in usual.items() if not (key == PATIENCE and falls(words))}
    return kept | words


def falls(words: Words) -> bool:
    """Whether a trial's rate falls towards its last epoch, which it needs then."""
    return words.get("scheduler", "constant") != "constant"


def by_layers(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of the same layers together, in their order."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(layers_of(check(trial.config)), []).append(trial)
    return list(found.values())
