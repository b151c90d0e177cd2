"""A sweep: every trial checked before it starts, each in its own folder,
none stopped by another's failure.

command line -> space -> trials, all at once or as a study proposes them -> launcher -> table
"""

import _thread
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from goldilocks.config.choices import same_place
from goldilocks.config.signatures import shown
from goldilocks.errors import Refused, one_line
from goldilocks.machine import devices
from goldilocks.machine.clock import BEGAN
from goldilocks.machine.locks import held
from goldilocks.runs.cross_validation import are_asked
from goldilocks.runs.ensembles import is_ensemble
from goldilocks.runs.printing import print_board
from goldilocks.sweeps.baselines import try_baselines
from goldilocks.sweeps.ensemble import FOLDER, try_ensemble
from goldilocks.sweeps.execution.folder import (
    Record,
    all_trials,
    known_trials,
    sweep_folder,
    write_trials,
)
from goldilocks.sweeps.execution.forecast import print_forecast
from goldilocks.sweeps.execution.launching import Launch
from goldilocks.sweeps.execution.planning import MOST_REASONS, Checker, Proposals, catch_up, plan
from goldilocks.sweeps.execution.plugin_launchers import launcher_of
from goldilocks.sweeps.execution.printing import trials_table
from goldilocks.sweeps.execution.trials import Trial, frozen, frozen_numbers, readable
from goldilocks.sweeps.folds import folds_of
from goldilocks.sweeps.guide.allowance import Allowance
from goldilocks.sweeps.guide.conclusion import try_conclusion
from goldilocks.sweeps.guide.course import Course
from goldilocks.sweeps.report.page import try_report
from goldilocks.sweeps.report.summary import reasons_of
from goldilocks.sweeps.search.comparable import DATA, check_comparable
from goldilocks.sweeps.search.compose import Composer
from goldilocks.sweeps.search.settings import LEARNING, SweepSettings, sweep_settings
from goldilocks.sweeps.search.space import Space, space_of
from goldilocks.sweeps.search.study import check_storage, create_study, import_optuna
from goldilocks.sweeps.widening import follow

PROBLEM = ("_target_", "name", "path", "target")  # keys of data that tell what is predicted


def run_study(sweeper: Any, arguments: Sequence[str]) -> None:
    """Runs a sweep. Ends the process with code 1 if a trial failed.

    Args:
        sweeper: What Hydra made: configuration and context.
        arguments: The overrides on the command line, values to sweep over among them.

    Raises:
        Refused: if the sweep, or any trial of a grid, is wrong; then nothing has been written.
    """
    if devices.started_elsewhere():
        raise Refused(
            "-m: a sweep starts its processes itself; write it without torchrun, and with one task"
            " in Slurm"
        )
    cfg, settings, composer = sweeper.config, sweep_settings(sweeper.config), Composer(sweeper)
    if (settings.learns or settings.guides) and cfg.name is not None:
        composer.read_from(Path(cfg.log_dir) / "sweeps" / cfg.name / "conf")
    space = space_of(composer, arguments, settings)
    launcher = launcher_of(sweeper)  # or a refusal
    checker = Checker(type(launcher).__name__ == "ProcessLauncher", settings.objectives)
    more = folds_of(settings.folds, composer.compose(space.fixed)[0], checker)
    space.fixed.extend(more)
    first = Trial(space.fixed, {}, *composer.compose(space.fixed))
    modes = settings.modes or {first.config.objective.metric: first.config.objective.mode}
    if settings.needs_study:
        import_optuna(settings)
        check_storage(settings.storage)
    check_comparable(composer, space, settings, checker)
    if settings.learns or settings.guides:
        checker.check(first)
        planned = []
    else:
        checker.known = {} if settings.dry_run else known_trials(first.config)
        planned = plan(composer, space, settings, checker)
    if settings.dry_run:
        print_forecast(planned or [first], space, settings, checker, launcher)
        return
    before = time.perf_counter() - getattr(sweeper, "began", BEGAN)
    allowance = Allowance(settings.budget, settings.n_trials, before=before)
    folder, fresh = sweep_folder(cfg)
    command = "python train.py -m " + shlex.join(arguments)
    trials, proposals = begin(
        folder, command, planned, first, composer, space, settings, checker, modes
    )
    waiting = [trial for trial in trials if is_waiting(trial, settings)]
    if not fresh and not settings.guides:
        total = (settings.n_trials or 0) * settings.seeds if settings.learns else len(trials)
        done = len(trials) - len(waiting)
        print(f"{folder}: {done} of {total} trials are done already", file=sys.stderr)
    launch = Launch(folder, launcher_of(sweeper, folder), settings, modes, checker.network_for)
    course = None
    if settings.guides:
        course = Course(folder, launch, composer, checker, space, settings, modes, allowance)
    try:
        with time_limit(settings.timeout, launch):
            course.run() if course else launch.run(waiting, proposals)
    finally:
        mine = [*trials, *(proposals.made if proposals else [])]
        mine = list(course.trials.values()) if course else mine
        unchanged = not (waiting or proposals or course) and is_ensemble(folder / FOLDER)
        members = course.members if course else settings.ensemble
        finish(folder, mine, modes, 0 if unchanged else members, course is not None)
    end(mine, launch)


def begin(
    folder: Path,
    command: str,
    planned: Sequence[Trial],
    first: Trial,
    composer: Composer,
    space: Space,
    settings: SweepSettings,
    checker: Checker,
    modes: dict[str, str],
) -> tuple[list[Trial], Proposals | None]:
    """Writes what the sweep is; returns the trials that it has,
    and where further ones come from.
    """
    study = None
    with held(
        folder / "trials" / "sweep.lock", wait=True
    ):  # the same command may start twice at a time
        record = Record(folder)
        check_kind(record, settings, folder)
        fresh = next((trial.config for trial in planned if trial.config), None)
        one = fresh or composer.compose(space.first())[0]
        if fresh or not planned:  # what the sweep knows already was checked when it was planned
            check_problem(one, folder, settings, checker)
            check_rows(folder, checker)
        if settings.needs_study:
            epochs = one.trainer.max_epochs
            folds = one.data.folds if are_asked(one) else None
            searched = space if settings.learns else None
            study = create_study(folder, settings, modes, epochs, folds, searched)
        if settings.learns or settings.guides:
            composer.freeze(folder / "conf")
            trials = [frozen(folder, number) for number in frozen_numbers(folder)]
        else:
            trials = record.number(planned)
            if not fresh and any(is_waiting(trial, settings) for trial in trials):
                check_rows(folder, checker)
        record.write(command, first.config, settings, space, trials)
        if study is not None:
            if settings.learns:
                study = follow(folder, study, space, composer, trials)
            catch_up(folder, study, trials)
    proposals = None
    if study is not None and settings.learns:
        proposals = Proposals(folder, composer, space, settings, checker, study)
    return trials, proposals


def check_kind(record: Record, settings: SweepSettings, folder: Path) -> None:
    """Refuses to add planned trials to those of a study that learns, and the other way round."""
    before = record.stored.get("settings", {}).get("sampler")
    others = [before in LEARNING, before == "guide"] != [settings.learns, settings.guides]
    if before is not None and others:
        raise Refused(
            f"sweep.sampler={settings.sampler}: {folder} was started with {before}; choose another"
            " name"
        )


def check_problem(now: DictConfig, folder: Path, settings: SweepSettings, checker: Checker) -> None:
    """Refuses to rank a trial beside those of another problem, or by another metric."""
    first = next(readable(folder), None)
    if first is None:
        return
    for key, old, new in differences(first.config, now, settings, checker):
        if same_place(key.rpartition(".")[2], old) != same_place(key.rpartition(".")[2], new):
            raise Refused(
                f"{key}={shown(new)}: {folder} was started with {shown(old)}; choose another name"
            )


def check_rows(folder: Path, checker: Checker) -> None:
    """Refuses to train further trials on other rows than those before, each of which would fail."""
    trained = (trial for trial in readable(folder) if (trial.result or {}).get("data_hash"))
    first = next(trained, None)
    if first is None or first.result is None:
        return
    before, now = first.result["data_hash"], checker.fingerprint(first.config)
    if now is not None and before != now:
        raise Refused(
            f"{folder}: its data have changed since its trials were trained ({before} then, {now}"
            " now); bring the same rows back, or choose another name"
        )


def differences(
    before: DictConfig, now: DictConfig, settings: SweepSettings, checker: Checker
) -> Iterator[tuple[str, Any, Any]]:
    """On what the ranking of two trials depends, where it differs: the key, and both values."""
    new = checker.meaning(now, settings).facts
    try:
        old = checker.meaning(before, settings).facts
    except Refused:  # its data are gone
        old = {**new, ("", DATA): None}
    for about, value in new.items():
        if old.get(about) == value:
            continue
        key = about[1]
        if key == DATA:
            keys = [f"{DATA}.{name}" for name in PROBLEM]
            pairs = [(key, *(OmegaConf.select(cfg, key) for cfg in (before, now))) for key in keys]
            yield next((pair for pair in pairs if pair[1] != pair[2]), (DATA, "others", "these"))
        else:
            yield key, old.get(about), value


def is_waiting(trial: Trial, settings: SweepSettings) -> bool:
    """Whether a trial is to be run by this command. Failed ones only on request."""
    return not trial.finished and (trial.status != "failed" or settings.retry_failed)


@contextmanager
def time_limit(seconds: float | None, launch: Launch) -> Iterator[None]:
    """Interrupts the sweep, as Ctrl-C would, when the time is over;
    then it ends as one that is done.
    """
    if seconds is None:
        yield
        return
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored in a shell's background
    timer = threading.Timer(seconds, interrupt, [launch])
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if not launch.out_of_time:
            raise
        print("the time is over: the same command goes on from here", file=sys.stderr)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def interrupt(launch: Launch) -> None:
    launch.out_of_time = True
    _thread.interrupt_main()


def finish(
    folder: Path, mine: Sequence[Trial], modes: dict[str, str], members: int, guided: bool
) -> None:
    """Writes and prints the tables, and writes ensemble and report, however the sweep ended; of a
    guided search the answers too.
    """
    everything = all_trials(folder, mine)
    console = Console(highlight=False, soft_wrap=True)
    console.print(trials_table(folder, everything, modes))
    try:
        write_trials(folder, everything, modes)
    except OSError as error:  # a full disk: each trial has its result
        print(f"warning: trials.csv was not written: {one_line(error)}", file=sys.stderr)
    print_board(folder, console)
    try_ensemble(folder, everything, modes, members)
    try_baselines(folder, everything, modes)
    if guided:
        try_conclusion(folder, everything)
    try_report(folder, everything)


def end(trials: Sequence[Trial], launch: Launch) -> None:
    """Says why trials failed, each reason once, and ends the process with code 1 if any did."""
    failed = [trial for trial in trials if trial.status == "failed"]
    if launch.stopped:
        print(
            f"{launch.stopped} trials failed in a row, and the sweep was stopped", file=sys.stderr
        )
    if failed:
        hint = "sweep.retry_failed=true trains them once more"
        print(f"{len(failed)} of {len(trials)} trials failed; {hint}", file=sys.stderr)
        for reason, numbers in list(reasons_of(failed).items())[:MOST_REASONS]:
            print(f"{len(numbers)} of them: {reason}", file=sys.stderr)
        raise SystemExit(1)
