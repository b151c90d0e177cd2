"""One run, from a composed configuration to a result.

parts -> trainer -> result
"""

import math
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from goldilocks.callbacks import Recorder, recorder_of
from goldilocks.callbacks.pruning import Report, go_on, was_pruned
from goldilocks.config.choices import chosen, flat_options, plain_words
from goldilocks.config.choices import config_hash as hash_of_config
from goldilocks.config.metric_directions import STAGES
from goldilocks.config.search_ranges import of_run
from goldilocks.data.fingerprint import check_same
from goldilocks.data.tables.card import write_card
from goldilocks.diagnosis.after import examine
from goldilocks.errors import Refused, one_line
from goldilocks.figures.charts import save_figure
from goldilocks.loggers import takers
from goldilocks.machine import devices
from goldilocks.machine.clock import BEGAN
from goldilocks.machine.interrupts import uninterrupted
from goldilocks.machine.threads import threads_for
from goldilocks.runs import cross_validation, failures
from goldilocks.runs.assembly import build_trainer
from goldilocks.runs.environment import recorded_threads
from goldilocks.runs.folder import (
    find_run,
    forget_training,
    is_trial,
    make_run_folder,
    read_config,
    read_overrides,
    read_result,
    write_result,
    write_start,
)
from goldilocks.runs.peers import first_failure, peer_processes, tell_failure
from goldilocks.runs.printing import print_result
from goldilocks.training.checkpoints import load_checkpoint, load_training
from goldilocks.training.checkpoints import load_weights as put_weights
from goldilocks.training.checks import check
from goldilocks.training.components import Parts, prepare
from goldilocks.training.lengths import LENGTHS, progress, reached, set_length
from goldilocks.training.lr_range.rules import draw_range_test, suggested_rate
from goldilocks.training.lr_range.sweep import range_test
from goldilocks.training.module import TrainingModule
from goldilocks.training.sharding import is_sharded, load_weights
from goldilocks.training.trainer import Trainer

# Where the rows are: a run that resumes may find the same ones in another place.
PLACES = {"data.path", "data.val_path", "data.test_path", "data.root"}
EXIT_CODES = {"done": 0, "pruned": 0, "failed": 1, "diverged": 1, "interrupted": 130}


def train(cfg: DictConfig) -> None:
    """What Hydra calls: one run; ends the process with its exit code."""
    hydra, cfg = HydraConfig.get(), of_run(cfg)
    choices, overrides = (
        chosen(hydra.runtime.choices, cfg),
        plain_words(hydra.overrides.task),
    )
    try:
        if hydra.mode == RunMode.MULTIRUN:
            raise Refused(
                "hydra/sweeper: trials of other sweepers are not run; write hydra/sweeper=study"
            )
        with devices.joined(cfg.trainer):
            folder, result = (
                resume(cfg, overrides) if cfg.resume is not None else start(cfg, overrides, choices)
            )
            first = devices.is_first()
    except Refused as refusal:
        raise SystemExit(
            2
        ) from refusal  # Hydra would print a line of its own about any other exception
    except OSError as error:
        raise SystemExit(1) from error  # likewise
    if first:
        print_result(folder, result)
    raise SystemExit(EXIT_CODES[result["status"]])


def start(
    cfg: DictConfig,
    overrides: list[str],
    choices: Mapping[str, Any],
    again: Path | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Trains in a new folder under `log_dir/runs`; with `again`, on the rows of the run in that folder.

    Raises:
        Refused: if anything is wrong, or the rows are others.
    """
    parts = prepare(cfg)
    if again is not None:
        check_same(read_result(again).get("data_hash"), parts.data.fingerprint, again)
    name = cfg.name or f"{choices.get('model', 'model')}-{choices.get('optimizer', 'optimizer')}"
    config_hash = hash_of_config(cfg)[:6]
    folder = devices.share(lambda: make_run_folder(Path(cfg.log_dir) / "runs", name, config_hash))
    announce(parts.settings.trainer)
    try:
        result = run(cfg, overrides, choices, folder=folder, parts=parts)
    except BaseException:
        if (
            devices.is_first() and not (folder / "result.json").exists()
        ):  # interrupted before it was a run's
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if was_refused(result) and devices.is_first():
        shutil.rmtree(folder)
        raise Refused(result["error"]["message"])
    return folder, result


def was_refused(result: Mapping[str, Any]) -> bool:
    """Whether a logger or callback would not be built: a mistake of the user's, found out in the run folder."""
    refused = (result["error"] or {}).get("type") == Refused.__name__
    return refused and not result["epochs"]


def announce(trainer: Mapping[str, Any]) -> None:
    """Says which devices train, and what they leave out."""
    plan = devices.plan(trainer)
    less = "; without figures, importance, health and diagnosis" if plan.strategy == "fsdp" else ""
    if devices.is_first():
        print(f"training on {plan.in_words()}{less}", file=sys.stderr)


def resume(cfg: DictConfig, overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    """Continues the run `cfg.resume` in its own folder, with its own configuration and perhaps for longer.

    Raises:
        Refused: for an override of anything but the length, or a length that is less than what is done.
    """
    folder = devices.share(lambda: find_run(str(cfg.resume), cfg.log_dir))
    given = {word.partition("=")[0].lstrip("+"): word for word in overrides}
    longer = {key: word for key, word in given.items() if key in LENGTHS}
    moved = {key: given[key] for key in PLACES if key in given}
    allowed = (*LENGTHS, *PLACES, "resume", "log_dir")
    if ignored := [word for key, word in given.items() if key not in allowed]:
        raise Refused(
            f"{ignored[0]}: a resumed run keeps its own configuration; only {', '.join(LENGTHS)} and"
            " data.path may be given"
        )
    before, own = read_result(folder), read_config(folder)
    move_data(own, cfg, moved)
    cross_validation.check_longer(own, list(longer.values()), folder)
    done, stopped = {unit: before.get(unit) or 0 for unit in LENGTHS.values()}, False
    if longer and (last := folder / "checkpoints" / "last.ckpt").exists():
        done, stopped = progress(load_training(last))
    limits = reached(own, done)
    for key, word in longer.items():
        set_length(own, key, word, check(cfg).trainer[key.partition(".")[2]], done)
    done_by_length = before["status"] == "done" and limits and not stopped
    extended = done_by_length and not reached(own, done)
    if before["status"] in cross_validation.FINISHED and not extended:
        early = (
            before["status"] == "done"
            and not done_by_length
            and not cross_validation.are_asked(own)
        )
        how = f" since epoch {before['epochs']}, stopped early" if early else ""
        how = f" at {' and '.join(reached(own, done))}" if longer and done_by_length else how
        print(f"{folder} is {before['status']}{how}: nothing to resume", file=sys.stderr)
        return folder, before
    if extended and not (folder / "checkpoints" / "last.ckpt").exists():
        raise Refused(f"{folder}: has no checkpoints/last.ckpt to go on from")
    words, test = read_overrides(folder), not is_trial(folder)
    words = [word for word in words if word.partition("=")[0] not in {**longer, **moved}]
    words += [*longer.values(), *(word.lstrip("+") for word in moved.values())]
    return folder, run(
        own, words, before.get("choices", {}), folder=folder, test=test, resumed=True
    )


def move_data(own: DictConfig, cfg: DictConfig, moved: Mapping[str, str]) -> None:
    """Tells a run's own configuration where the same rows are now, as the command says by key."""
    for key, word in moved.items():
        name = key.removeprefix("data.")
        if name not in own.data:
            raise Refused(f"{word}: the data of this run have no {key}; leave it out")
        own.data[name] = cfg.data[name]
        with open_dict(cfg.data):
            del cfg.data[name]


# --- the run ----------------------------------------------------------------------------------------------------------


@cross_validation.for_each_fold
def run(
    cfg: DictConfig,
    overrides: list[str],
    choices: Mapping[str, Any],
    *,
    folder: Path,
    parts: Parts | None = None,
    test: bool = True,
    resumed: bool = False,
    report: Report | None = None,
    rows: str | None = None,
) -> dict[str, Any]:
    """Trains in a folder and writes the result there, whatever happens.

    Args:
        cfg: The composed configuration.
        overrides: The words of the command line that chose it.
        choices: Option by group.
        folder: The run folder, which exists.
        parts: What `prepare` built, if that was done already.
        test: Whether the test set is touched, once, at the end. Never in a trial of a sweep.
        resumed: Whether the folder holds an interrupted run to continue.
        report: Is told the objective after each epoch and says whether to give up; of a sweep with a pruner.
        rows: The fingerprint that the rows must have; null: any, or where it resumes, that of its own.

    Returns:
        What result.json holds.

    Raises:
        Refused: if the rows are others.
    """
    parts = parts or prepare(cfg, warn=False)
    if rows is None and resumed:
        rows = read_result(folder).get("data_hash")
    check_same(rows, parts.data.fingerprint, folder)
    job = {
        "cfg": OmegaConf.to_container(of_run(cfg), resolve=True),
        "folder": folder,
        "test": test,
        "resumed": resumed,
    }
    with peer_processes(
        parts.settings.trainer, folder, lambda: {**job, "report": go_on if report else None}
    ):
        return train_network(cfg, overrides, choices, folder, parts, test, resumed, report)


def train_network(
    cfg: DictConfig,
    overrides: list[str],
    choices: Mapping[str, Any],
    folder: Path,
    parts: Parts,
    test: bool,
    resumed: bool,
    report: Report | None,
) -> dict[str, Any]:
    """What the process of each device does; see `run`. The first one's result counts."""
    checkpoint = folder / "checkpoints" / "last.ckpt"
    state = load_training(checkpoint) if resumed and checkpoint.exists() else None
    if state is not None:
        put_weights(parts.module, state, checkpoint)
    elif resumed:
        forget_training(folder)
    before = read_result(folder) if state and parts.settings.finds_rate else {}
    result = first_result(cfg, parts, choices, before)
    known = recorded_threads(folder) if resumed else None
    threads = devices.share(lambda: known or threads_for(parts))
    write_start(folder, cfg, overrides, result, threads)
    try:
        torch.set_num_threads(threads)
        if parts.settings.finds_rate:
            find_rate(parts, folder, result)
        trainer = build_trainer(
            parts, folder, resume_step=state["global_step"] if state else None, report=report
        )
        if not is_trial(folder):
            recorder_of(trainer).start_seconds = time.perf_counter() - BEGAN
        log_start(trainer, cfg, parts, choices, folder, resumed=state is not None)
    except Exception as error:  # a logger that cannot reach its server, a full disk
        record_failure(folder, error, parts, result)
        write_result(folder, result)
        return result
    finish(
        trainer,
        folder,
        result,
        fit(trainer, parts, folder, checkpoint if state else None, result, overrides, test),
    )
    return result


def fit(
    trainer: Trainer,
    parts: Parts,
    folder: Path,
    ckpt: Path | None,
    result: dict[str, Any],
    said: list[str],
    test: bool,
) -> dict[str, float]:
    """Trains, and examines and tests what has ended well; the result gets the status. Returns the test's metrics."""
    tested: dict[str, float] = {}
    handler = signal.getsignal(signal.SIGINT)  # Lightning switches it off when it is interrupted
    try:
        trainer.fit(parts.module, parts.data, ckpt_path=ckpt, weights_only=True)
        result["status"] = status_of(trainer, parts.module)
        if devices.is_first() and not is_sharded(parts.module):
            result["diagnosis"] = examine(trainer, parts, folder, result["status"], said)
        if test and result["status"] == "done":
            tested = evaluate(trainer, parts, folder)
    except (KeyboardInterrupt, SystemExit):  # Lightning leaves Ctrl-C as SystemExit
        result["status"] = "interrupted"
    except Exception as error:
        record_failure(folder, error, parts, result)
    finally:
        signal.signal(signal.SIGINT, handler)
    return tested


def status_of(trainer: Trainer, module: TrainingModule) -> str:
    """How training ended by itself.

    Raises:
        FloatingPointError: if the losses were numbers and the objective never was.
    """
    recorder = recorder_of(trainer)
    if not module.diverged and recorder.best_epoch is None and has_finite_losses(recorder.history):
        raise FloatingPointError(
            f"objective.metric={recorder.objective.metric}: was not a number in any epoch, though"
            " the losses were; write objective.metric=val/loss"
        )
    if module.diverged or recorder.best_epoch is None:
        return "diverged"
    return "pruned" if was_pruned(trainer) else "done"


def has_finite_losses(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether no loss of any epoch was infinite or not a number."""
    losses = [of[f"{stage}/loss"] for of in history for stage in STAGES if f"{stage}/loss" in of]
    return all(map(math.isfinite, losses))


def finish(
    trainer: Trainer, folder: Path, result: dict[str, Any], tested: Mapping[str, float]
) -> None:
    """Writes what a run has come to."""
    result |= recorder_of(trainer).outcome(trainer.global_step)
    result["metrics"] |= tested
    with uninterrupted():
        write_result(folder, result)
        log_end(trainer, result, tested)


def find_rate(parts: Parts, folder: Path, result: dict[str, Any]) -> None:
    """Sets the optimizer's rate to what the range test suggests, or to what it suggested before the run was resumed."""
    if result["lr_range"] is None:
        result["lr_range"] = devices.share(lambda: measure_rates(parts))
    rate = result["learning_rate"] = parts.settings.optimizer["lr"] = suggested_rate(
        result["lr_range"]
    )
    if devices.is_first():
        print(
            f"optimizer.lr=auto: {rate:.3g} ({parts.settings.lr_range.rule} of the range test)",
            file=sys.stderr,
        )
    write_result(folder, result)


def measure_rates(parts: Parts) -> dict[str, Any]:
    """The range test; its figure is kept for the loggers."""
    found = range_test(parts.module, parts.data, parts.settings.trainer, parts.settings.lr_range)
    parts.figures["lr_range"] = draw_range_test(found)
    return found.as_plain()


def record_failure(
    folder: Path, error: BaseException, parts: Parts, result: dict[str, Any]
) -> None:
    """Writes into the result, and into the folder, that the exception which is being handled has ended the run.

    result.json comes first: on a full disk there may be no room for the traceback.
    """
    summary, trace = failures.summary(error, parts.settings), traceback.format_exc()
    result |= {"status": "failed", "error": summary}
    write_result(folder, result)
    tell_failure(folder, summary, trace)
    result["error"] = first_failure(folder, summary)


def first_result(
    cfg: DictConfig, parts: Parts, choices: Mapping[str, Any], before: Mapping[str, Any]
) -> dict[str, Any]:
    """What result.json says while a run is running: every key, nothing achieved."""
    return {
        "status": "running",
        **Recorder(parts.objective).outcome(steps=0),
        "num_parameters": sum(
            p.numel() for p in parts.module.network.parameters() if p.requires_grad
        ),
        "learning_rate": None if parts.settings.finds_rate else parts.settings.optimizer.get("lr"),
        "lr_range": before.get("lr_range"),
        "choices": dict(choices),
        "config_hash": hash_of_config(cfg),
        "data_hash": parts.data.fingerprint,
        "diagnosis": None,
        "error": None,
    }


def log_start(
    trainer: Trainer,
    cfg: DictConfig,
    parts: Parts,
    choices: Mapping[str, Any],
    folder: Path,
    resumed: bool,
) -> None:
    """Tells the loggers the options and, once, the network; shows what was found out before training.

    At once: a run may be killed in its first epoch. Trials of a sweep share their data, and have no card.
    """
    if devices.is_first() and not is_trial(folder) and (card := parts.data.card()) is not None:
        write_card(folder, card)
    for name, figure in parts.figures.items():
        save_figure(figure, folder, name, trainer.loggers, step=0)
    for logger in trainer.loggers:
        logger.log_hyperparams(flat_options(cfg, choices))
    for logger in takers(trainer.loggers, "log_text") if not resumed else []:
        logger.log_text("network", str(parts.module.network))
    for logger in trainer.loggers:
        logger.save()


def log_end(trainer: Trainer, result: Mapping[str, Any], tested: Mapping[str, float]) -> None:
    """Tells the loggers the test's metrics and how the run ended, which no longer fails because of them."""
    for logger in trainer.loggers:
        try:
            if tested:
                logger.log_metrics(dict(tested), step=trainer.global_step)
            for ours in takers([logger], "close"):
                ours.close(result["status"], result["metrics"])
        except Exception as error:  # a server that is gone, a full disk
            name = type(logger).__name__
            print(f"warning: {name} was not closed: {one_line(error)}", file=sys.stderr)


def evaluate(trainer: Trainer, parts: Parts, folder: Path) -> dict[str, float]:
    """Tests the best checkpoint, or the last weights where none is kept. Empty without a test set."""
    if not parts.module.task.spec.num_rows.get("test"):
        return {}
    best = folder / "checkpoints" / "best.ckpt"
    if best.exists():
        load_weights(parts.module, load_checkpoint(best), best)
    trainer.test(parts.module, parts.data, verbose=False)
    return test_metrics(parts.module)


def test_metrics(module: TrainingModule) -> dict[str, float]:
    """What the last test has come to."""
    return {key: value for key, value in module.epoch_metrics.items() if key.startswith("test/")}
