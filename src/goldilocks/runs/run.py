"""One run, from a composed configuration to a result.

parts -> trainer -> result
"""

import math
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from goldilocks.callbacks import Recorder, recorder_of
from goldilocks.callbacks.baselines import baselines_in, baselines_of
from goldilocks.callbacks.comparison import lines
from goldilocks.callbacks.predictions import tested_of
from goldilocks.callbacks.pruning import was_pruned
from goldilocks.config.choices import chosen, flat_options, hash_of, plain_overrides
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
from goldilocks.machine.interrupts import ctrl_c_left_alone, uninterrupted
from goldilocks.machine.locks import run_lock
from goldilocks.runs import cross_validation, failures
from goldilocks.runs.assembly import build_trainer
from goldilocks.runs.calibration import read_calibration
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
from goldilocks.runs.request import RunRequest
from goldilocks.runs.uncertainty import NOTHING, given_out, judge, settle
from goldilocks.training.checkpoints import load_checkpoint, load_training
from goldilocks.training.checkpoints import load_weights as put_weights
from goldilocks.training.checks import check
from goldilocks.training.components import Parts, prepare
from goldilocks.training.fused.loop import take_steps_together
from goldilocks.training.lengths import LENGTHS, progress, reached, set_length
from goldilocks.training.lr_range.rules import draw_range_test, suggested_rate
from goldilocks.training.lr_range.sweep import range_test
from goldilocks.training.module import TrainingModule
from goldilocks.training.sharding import is_sharded, load_weights
from goldilocks.training.threads import threads_for
from goldilocks.training.trainer import Trainer

# Where the rows are: a run that resumes may find the same ones in another place.
PLACES = {"data.path", "data.val_path", "data.test_path", "data.root"}
EXIT_CODES = {"done": 0, "pruned": 0, "failed": 1, "diverged": 1, "interrupted": 130}


def train(cfg: DictConfig) -> None:
    """What Hydra calls: one run; ends the process with its exit code."""
    hydra = HydraConfig.get()
    cfg = of_run(cfg)
    choices = chosen(hydra.runtime.choices, cfg)
    overrides = plain_overrides(hydra.overrides.task)
    try:
        if hydra.mode == RunMode.MULTIRUN:
            raise Refused(
                "hydra/sweeper: trials of other sweepers are not run; write hydra/sweeper=study"
            )
        with devices.joined(cfg.trainer):
            if cfg.resume is not None:
                folder, result = resume(cfg, overrides)
            else:
                folder, result = start(cfg, overrides, choices)
            first = devices.is_first()
    except Refused as refusal:
        raise SystemExit(
            2
        ) from refusal  # Hydra would print a line of its own about any other exception
    except OSError as error:
        raise SystemExit(1) from error  # as above
    if first:
        print_result(folder, result)
    raise SystemExit(EXIT_CODES[result["status"]])


def start(
    cfg: DictConfig,
    overrides: list[str],
    choices: Mapping[str, Any],
    again: Path | None = None,
    began: float = BEGAN,
) -> tuple[Path, dict[str, Any]]:
    """Trains in a new folder under `log_dir/runs`;
    with `again`, on the rows of the run in that folder; for `began` see RunRequest.

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
        result = run(RunRequest(cfg, folder, overrides, choices, began=began), parts)
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
    """Whether a logger or callback would not be built:
    a mistake of the user's, found out in the run folder.
    """
    refused = (result["error"] or {}).get("type") == Refused.__name__
    return refused and not result["epochs"]


def announce(trainer: Mapping[str, Any]) -> None:
    """Says which devices train, and what they leave out."""
    plan = devices.plan(trainer)
    less = (
        "; without figures, importance, health, baselines and diagnosis"
        if plan.strategy == "fsdp"
        else ""
    )
    if devices.is_first():
        print(f"training on {plan.in_words()}{less}", file=sys.stderr)


def resume(
    cfg: DictConfig, overrides: list[str], began: float = BEGAN
) -> tuple[Path, dict[str, Any]]:
    """Continues the run `cfg.resume` in its own folder,
    with its own configuration and perhaps for longer.

    Raises:
        Refused: for an override of anything but the length,
            or a length that is less than what is done.
    """
    folder = devices.share(lambda: find_run(str(cfg.resume), cfg.log_dir))
    given = {override.partition("=")[0].lstrip("+"): override for override in overrides}
    longer = {key: override for key, override in given.items() if key in LENGTHS}
    moved = {key: given[key] for key in PLACES if key in given}
    allowed = (*LENGTHS, *PLACES, "resume", "log_dir")
    if ignored := [override for key, override in given.items() if key not in allowed]:
        raise Refused(
            f"{ignored[0]}: a resumed run keeps its own configuration; only {', '.join(LENGTHS)}"
            " and"
            " data.path may be given"
        )
    before = read_result(folder)
    if before.get("ensemble"):
        raise Refused(f"{folder}: is an ensemble, which is not trained; resume the runs in it")
    own = read_config(folder)
    move_data(own, cfg, moved)
    cross_validation.check_longer(own, list(longer.values()), folder)
    done = {unit: before.get(unit) or 0 for unit in LENGTHS.values()}
    stopped = False
    if longer and (last := folder / "checkpoints" / "last.ckpt").exists():
        done, stopped = progress(load_training(last))
    limits = reached(own, done)
    for key, override in longer.items():
        set_length(own, key, override, check(cfg).trainer[key.partition(".")[2]], done)
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
    kept = [
        override
        for override in read_overrides(folder)
        if override.partition("=")[0] not in {**longer, **moved}
    ]
    kept += [*longer.values(), *(override.lstrip("+") for override in moved.values())]
    request = RunRequest(
        own,
        folder,
        kept,
        before.get("choices", {}),
        test=not is_trial(folder),
        resumed=True,
        began=began,
    )
    return folder, run(request)


def move_data(own: DictConfig, cfg: DictConfig, moved: Mapping[str, str]) -> None:
    """Tells a run's own configuration where the same rows are now, as the command says by key."""
    for key, override in moved.items():
        name = key.removeprefix("data.")
        if name not in own.data:
            raise Refused(f"{override}: the data of this run have no {key}; leave it out")
        own.data[name] = cfg.data[name]
        with open_dict(cfg.data):
            del cfg.data[name]


# --- the run --------------------------------------------------------------------------------------


def run(request: RunRequest, parts: Parts | None = None) -> dict[str, Any]:
    """Trains in a folder and writes the result there, whatever happens.

    Args:
        request: What is asked for.
        parts: What `prepare` built of its configuration, if that was done already;
            of folds, of the first one.

    Returns:
        What result.json holds.

    Raises:
        Refused: if the rows are others.
    """
    with run_lock(request.folder):
        if cross_validation.are_asked(request.cfg):
            return cross_validation.run_folds(train_one, request, parts)
        return train_one(request, parts)


def train_one(request: RunRequest, parts: Parts | None = None) -> dict[str, Any]:
    """Trains one network, on all devices; see `run`."""
    parts = parts or prepare(request.values, warn=False)
    rows = request.rows
    if rows is None and request.resumed:
        known = (request.folder / "result.json").exists()
        rows = read_result(request.folder).get("data_hash") if known else None
    check_same(rows, parts.data.fingerprint, request.folder)
    with peer_processes(parts.settings.trainer, request.folder, request.for_other_process):
        return train_here(request, parts)


def train_here(request: RunRequest, parts: Parts) -> dict[str, Any]:
    """What the process of each device does. The first one's result counts."""
    folder = request.folder
    state = saved_training(request, parts)
    before = read_result(folder) if state and parts.settings.finds_rate else {}
    result = first_result(request, parts, before)
    known = recorded_threads(folder) if request.resumed else None
    alone = request.partner is None
    threads = devices.share(lambda: known or threads_for(parts)) if alone else 1
    write_start(folder, request.values, request.overrides, result, threads)
    try:
        torch.set_num_threads(threads)
        if parts.settings.finds_rate:
            find_rate(parts, folder, result)
        resume_step = state["global_step"] if state else None
        trainer = build_trainer(parts, folder, resume_step, request.report, request.until)
        if request.partner is not None:
            take_steps_together(trainer, parts.module, request.partner)
            recorder_of(trainer).tell_time(request.partner.clock)
        if not is_trial(folder):
            recorder_of(trainer).start_seconds = time.perf_counter() - request.began
        log_start(trainer, request, parts, resumed=state is not None)
    except Exception as error:  # a logger that cannot reach its server, a full disk
        record_failure(folder, error, parts, result)
        write_result(folder, result)
        return result
    tested = fit(trainer, request, parts, state is not None, result)
    finish(trainer, folder, result, tested)
    return result


def saved_training(request: RunRequest, parts: Parts) -> dict[str, Any] | None:
    """The checkpoint that a resumed run goes on from, with its weights put into the network;
    None: it begins.
    """
    if not request.resumed:
        return None
    checkpoint = request.folder / "checkpoints" / "last.ckpt"
    if not checkpoint.exists():
        forget_training(request.folder)
        return None
    state = load_training(checkpoint)
    put_weights(parts.module, state, checkpoint)
    return state


@ctrl_c_left_alone()
def fit(
    trainer: Trainer, request: RunRequest, parts: Parts, goes_on: bool, result: dict[str, Any]
) -> dict[str, float]:
    """Trains, and examines and tests what has ended well; the result gets the status.
    Returns the test's metrics.
    """
    folder = request.folder
    checkpoint = folder / "checkpoints" / "last.ckpt" if goes_on else None
    overrides = list(request.overrides)
    tested: dict[str, float] = {}
    try:
        trainer.fit(parts.module, parts.data, ckpt_path=checkpoint, weights_only=True)
        result["status"] = status_of(trainer, parts.module)
        if devices.is_first() and not is_sharded(parts.module):
            if result["status"] == "done":
                result |= settle(folder, parts.module.task)
                compare_as_given_out(trainer, parts.module, folder)
            result["diagnosis"] = examine(trainer, parts, folder, result["status"], overrides)
        if request.test and result["status"] == "done":
            tested = evaluate(trainer, parts, folder, result)
    except (KeyboardInterrupt, SystemExit):  # Lightning leaves Ctrl-C as SystemExit
        result["status"] = "interrupted"
    except Exception as error:
        record_failure(folder, error, parts, result)
    return tested


def compare_as_given_out(trainer: Trainer, module: TrainingModule, folder: Path) -> None:
    """Baselines are compared with what the run gives out, where it has a temperature."""
    calibration, baselines = read_calibration(folder), baselines_in(trainer)
    if baselines is not None and calibration.temperature != 1:
        baselines.compare_again(
            trainer,
            module,
            lambda stage, own: given_out(baselines.task, own, calibration, stage),
        )


def status_of(trainer: Trainer, module: TrainingModule) -> str:
    """How training ended by itself.

    Raises:
        FloatingPointError: if the losses were numbers and the objective never was.
    """
    recorder = recorder_of(trainer)
    if not module.diverged and recorder.best_epoch is None and has_finite_losses(recorder.history):
        raise FloatingPointError(
            f"objective.metric={recorder.objective.metric}: was NaN in every epoch, though"
            " the losses were; write objective.metric=val/loss"
        )
    if module.diverged or recorder.best_epoch is None:
        return "diverged"
    return "pruned" if was_pruned(trainer) else "done"


def has_finite_losses(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether no loss of any epoch was infinite or NaN."""
    losses = [of[f"{stage}/loss"] for of in history for stage in STAGES if f"{stage}/loss" in of]
    return all(map(math.isfinite, losses))


def finish(
    trainer: Trainer, folder: Path, result: dict[str, Any], tested: Mapping[str, float]
) -> None:
    """Writes the result of a run."""
    result |= recorder_of(trainer).outcome(trainer.global_step)
    result["metrics"] |= tested
    result["baselines"] = baselines_of(trainer)
    with uninterrupted():
        write_result(folder, result)
        log_end(trainer, result, tested)


def find_rate(parts: Parts, folder: Path, result: dict[str, Any]) -> None:
    """Gives the module the rate that the range test suggests, or did before the run was resumed."""
    if result["lr_range"] is None:
        result["lr_range"] = devices.share(lambda: measure_rates(parts))
    rate = suggested_rate(result["lr_range"])
    parts.module.found_rate = rate
    result["learning_rate"] = rate
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
    """Writes into the result, and into the folder,
    that the exception which is being handled has ended the run.

    result.json comes first: on a full disk there may be no room for the traceback.
    """
    summary = failures.summary(error, parts.settings)
    trace = traceback.format_exc()
    result |= {"status": "failed", "error": summary}
    write_result(folder, result)
    tell_failure(folder, summary, trace)
    result["error"] = first_failure(folder, summary)


def first_result(request: RunRequest, parts: Parts, before: Mapping[str, Any]) -> dict[str, Any]:
    """What result.json says while a run is running: every key, nothing achieved."""
    return {
        "status": "running",
        **Recorder(parts.objective).outcome(steps=0),
        "num_parameters": sum(
            p.numel() for p in parts.module.network.parameters() if p.requires_grad
        ),
        "learning_rate": parts.learning_rate,
        "lr_range": before.get("lr_range"),
        "choices": dict(request.choices),
        "config_hash": hash_of(request.values),
        "data_hash": parts.data.fingerprint,
        "diagnosis": None,
        **NOTHING,
        "baselines": None,
        "error": None,
    }


def log_start(trainer: Trainer, request: RunRequest, parts: Parts, resumed: bool = False) -> None:
    """Tells the loggers the options and, once, the network;
    shows what was found out before training.

    At once: a run may be killed in its first epoch.
    Trials of a sweep share their data, and have no card.
    """
    folder = request.folder
    if devices.is_first() and not is_trial(folder) and (card := parts.data.card()) is not None:
        write_card(folder, card)
    for name, figure in parts.figures.items():
        save_figure(figure, folder, name, trainer.loggers, step=0)
    options = flat_options(request.cfg, request.choices)
    for logger in trainer.loggers:
        logger.log_hyperparams(options)
    for logger in takers(trainer.loggers, "log_text") if not resumed else []:
        logger.log_text("network", str(parts.module.network))
    for logger in trainer.loggers:
        logger.save()


def log_end(trainer: Trainer, result: Mapping[str, Any], tested: Mapping[str, float]) -> None:
    """Tells the loggers the test's metrics and how the run ended,
    which no longer fails because of them.
    """
    for logger in trainer.loggers:
        try:
            if tested:
                logger.log_metrics(dict(tested), step=trainer.global_step)
            for ours in takers([logger], "log_text") if result["baselines"] else []:
                ours.log_text("baselines", "\n".join(lines(result["baselines"])))
            for ours in takers([logger], "close"):
                ours.close(result["status"], result["metrics"])
        except Exception as error:  # a server that is gone, a full disk
            name = type(logger).__name__
            print(f"warning: {name} was not closed: {one_line(error)}", file=sys.stderr)


def evaluate(
    trainer: Trainer, parts: Parts, folder: Path, result: dict[str, Any]
) -> dict[str, float]:
    """Tests the best checkpoint, or the last weights where none is kept.
    Empty without a test set. The result gets what is told beside the metrics.
    """
    if not parts.module.task.spec.num_rows.get("test"):
        return {}
    best = folder / "checkpoints" / "best.ckpt"
    if best.exists():
        load_weights(parts.module, load_checkpoint(best), best)
    trainer.test(parts.module, parts.data, verbose=False)
    metrics = test_metrics(parts.module)
    if (outcome := tested_of(trainer)) is not None:
        metrics |= judge(folder, parts.module.task, outcome, result)
    return metrics


def test_metrics(module: TrainingModule) -> dict[str, float]:
    """The result of the last test."""
    return {key: value for key, value in module.epoch_metrics.items() if key.startswith("test/")}
