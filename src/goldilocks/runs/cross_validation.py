"""Cross-validation: a network for each fold of the rows, each in a run folder of its own,
folded into one result.

`fold_0/`, `fold_1/` and so on are in the run's folder. Each is an ordinary run with `data.fold`
set; the run's own `result.json` has the metrics' means over the folds and, as `spread`, their
standard deviations. From then on the networks predict together, as one: the run's
`predictions/val.npz` has every row's by the network that was not trained on it, and on the test
rows, which are the same for all, they are judged together.
"""

import copy
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from goldilocks.callbacks.baselines import file_of
from goldilocks.callbacks.comparison import NETWORK, Entries, compare, merged
from goldilocks.callbacks.predictions import FOLDER as PREDICTIONS
from goldilocks.callbacks.pruning import Report
from goldilocks.config.choices import config_hash
from goldilocks.errors import Refused, one_line
from goldilocks.machine import devices
from goldilocks.runs import failures
from goldilocks.runs.calibration import read_calibration
from goldilocks.runs.ensembles import Member, pooled, together, write_members
from goldilocks.runs.folder import can_resume, read_result, write_result, write_start
from goldilocks.runs.request import RunRequest
from goldilocks.runs.trained import task_of
from goldilocks.runs.uncertainty import NOTHING, calibrated, given_out, judge, settle
from goldilocks.tasks.task import Task
from goldilocks.training.components import Parts
from goldilocks.training.fused.alike import reason_against, threads_of, too_large
from goldilocks.training.fused.steps import StepsTogether
from goldilocks.training.fused.turns import Partner, Works, answer_all
from goldilocks.training.outcome import Outcome, metrics_of, read_outcome, save_outcome

FINISHED = ("done", "diverged", "pruned")
Train = Callable[[RunRequest, Parts | None], dict[str, Any]]  # run.train_one


def are_asked(cfg: DictConfig) -> bool:
    """Whether a configuration is one of several networks, and not of one fold's."""
    return cfg.data.get("folds") is not None and cfg.data.get("fold") is None


def check_longer(cfg: DictConfig, longer: Sequence[str], folder: Path) -> None:
    """Refuses another length for all folds at once: they ended after different ones."""
    if longer and are_asked(cfg):
        overrides = " ".join(longer)
        raise Refused(
            f"{overrides}: is for a single network; write resume={folder}/fold_0 {overrides}, and"
            " so for each fold"
        )


def run_folds(train: Train, request: RunRequest, parts: Parts | None = None) -> dict[str, Any]:
    """Trains for every fold that is not finished, and folds the results
    into the run's own, whatever happens.

    Args:
        train: Trains one network as a request says.
        request: Of the run; each fold's networks are tested on test rows that are the same for all.
        parts: What `prepare` built of its configuration, which is that of the first fold.

    Returns:
        What result.json holds.
    """
    cfg = request.cfg
    choices = request.choices
    folder = request.folder
    rows = request.rows
    found: list[dict[str, Any]] = []
    result = folded(cfg, choices, found)
    write_start(folder, request.values, request.overrides, result)
    try:
        known = run_together(train, request, parts) if are_together(request, parts) else {}
        for fold in range(cfg.data.folds):
            rows = rows or (found[0].get("data_hash") if found else None)
            own_parts = parts if fold == 0 else None
            one = known.get(fold) or run_fold(train, replace(request, rows=rows), fold, own_parts)
            found.append(one)
            if request.partner is None:
                print_fold(fold, cfg.data.folds, found[-1])
            result = folded(cfg, choices, found)
            if result["status"] == "running" and is_given_up(result, fold + 1, request.report):
                result["status"] = "pruned"
            if result["status"] != "running":
                break
            write_result(folder, result)
    except (KeyboardInterrupt, SystemExit):
        result["status"] = "interrupted"
    except Exception as error:  # before a network is trained: the data are gone
        result |= {"status": "failed", "error": failures.summary(error)}
    if result["status"] == "done" and devices.is_first():
        join(folder, found, result)
    write_result(folder, result)
    return result


def are_together(request: RunRequest, parts: Parts | None) -> bool:
    """Whether the networks of all folds are trained as one: where that is faster, and none of them
    decides on the next. A trial that trains together with others has been found to be so.
    """
    if request.report is not None:
        return False
    if request.partner is not None:
        return True
    if parts is None:
        return False
    settings = parts.settings
    network = parts.module.network
    return reason_against(settings) is None and too_large(settings, network) is None


def run_together(train: Train, request: RunRequest, parts: Parts | None) -> dict[int, Any]:
    """The results of all folds, whose networks are trained at once."""
    found: dict[int, Any] = {}

    def work_of(fold: int) -> Callable[[Partner], None]:
        own = parts if fold == 0 else None

        def work(partner: Partner) -> None:
            found[fold] = run_fold(train, replace(request, partner=partner), fold, own)

        return work

    works = [work_of(fold) for fold in range(request.cfg.data.folds)]
    if request.partner is not None:
        partners = request.partner.ask(Works(works))
    else:
        partners = [Partner(work) for work in works]
        assert parts is not None
        answer_all(partners, StepsTogether(threads_of(parts.settings)))
    for partner in partners:
        if partner.error is not None:
            raise partner.error
    return found


def join(folder: Path, found: Sequence[Mapping[str, Any]], result: dict[str, Any]) -> None:
    """Makes one predictor of all networks; the result gets its metrics of the test rows.

    `alone` of the result then has what a single network reaches there, in the mean.

    Args:
        folder: Of the run.
        found: The results of the folds.
        result: Of the run.
    """
    folds = [folder / f"fold_{number}" for number in range(len(found))]
    if not all((fold / "checkpoints" / "best.ckpt").exists() for fold in folds):
        return  # callbacks=none
    write_members(folder, [Member(fold, 1 / len(folds)) for fold in folds], "mean")
    try:
        keep_joined(folder, folds, result)
        result["baselines"] = compared(folder, folds, found)
    except (Refused, OSError) as error:
        print(f"warning: no predictions were kept: {one_line(error)}", file=sys.stderr)


def keep_joined(folder: Path, folds: Sequence[Path], result: dict[str, Any]) -> None:
    """Writes the predictions of all networks, if they have kept theirs, and judges those of the
    test rows.
    """
    known = {stage: kept_by(folds, stage) for stage in ("val", "test")}
    task = task_of(folds[0])
    if known["val"]:
        save(folder, "val", pooled(known["val"]))
        result |= settle(folder, task)
    if not known["test"]:
        return
    joined = together(task, known["test"], [1 / len(folds)] * len(folds))
    save(folder, "test", joined)
    if len(joined.rows) < task.spec.num_rows["test"]:
        return  # only some were kept
    result["metrics"] |= metrics_of(task, joined, "test")
    result["metrics"] |= judge(folder, task, joined, result)
    alone = [
        calibrated(one, read_calibration(fold))
        for fold, one in zip(folds, known["test"], strict=True)
    ]
    result["alone"] = mean_and_spread([metrics_of(task, one, "test") for one in alone])
    for name in result["alone"]["metrics"]:
        result["spread"].pop(name, None)


def compared(
    folder: Path, folds: Sequence[Path], found: Sequence[Mapping[str, Any]]
) -> Entries | None:
    """The networks of all folds beside the baselines of all folds, out of fold and together on the
    test rows; None where not all were compared.
    """
    each = [result["baselines"] for result in found if result.get("baselines")]
    if len(each) < len(found):
        return None
    task, objective = task_of(folds[0]), found[0]["objective"]
    names = [name for name in each[0] if name != NETWORK]
    entries: Entries = {name: spent([of[name] for of in each]) for name in names}
    for stage in ("val", "test"):
        own = folder / PREDICTIONS / f"{stage}.npz"
        joined = {name: joined_baseline(task, folds, name, stage) for name in names}
        known = {name: outcome for name, outcome in joined.items() if outcome is not None}
        if own.exists() and len(known) == len(names):
            network = given_out(task, read_outcome(own), read_calibration(folder), stage)
            outcomes = {NETWORK: network, **known}
            merged(entries, compare(task, objective, stage, outcomes))
    return entries if NETWORK in entries else None


def joined_baseline(task: Task, folds: Sequence[Path], name: str, stage: str) -> Outcome | None:
    """What the models of all folds predict, as the networks do; None where it was not kept."""
    paths = [file_of(fold, name, stage) for fold in folds]
    if not all(map(Path.exists, paths)):
        return None
    parts = [read_outcome(path) for path in paths]
    if stage == "val":
        return pooled(parts)
    return together(task, parts, [1 / len(parts)] * len(parts))


def spent(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The time of a baseline's models, and what was cut short of any."""
    return {
        "metrics": {},
        "seconds": round(sum(entry["seconds"] for entry in entries), 3),
        "note": "; ".join(dict.fromkeys(entry["note"] for entry in entries if entry["note"])),
    }


def mean_and_spread(metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of several networks, in the target's scale of the first: each has one of its own."""
    values = {name: [of[name] for of in metrics] for name in metrics[0]}
    return {
        "metrics": {name: statistics.fmean(of) for name, of in values.items()},
        "spread": {name: statistics.stdev(of) for name, of in values.items()},
    }


def kept_by(folds: Sequence[Path], stage: str) -> list[Outcome]:
    """The predictions of a stage that the networks have kept; [] if not all have."""
    paths = [fold / PREDICTIONS / f"{stage}.npz" for fold in folds]
    return [read_outcome(path) for path in paths] if all(map(Path.exists, paths)) else []


def save(folder: Path, stage: str, outcome: Outcome) -> None:
    """Writes the predictions of the run as a whole."""
    save_outcome(outcome, folder / PREDICTIONS / f"{stage}.npz", len(outcome.rows))


def is_given_up(result: dict[str, Any], done: int, report: Report | None) -> bool:
    """Whether the mean over the folds so far is given up; then it is the result of the run."""
    objective = result["objective"]
    mean = result["metrics"].get(objective["metric"])
    if report is None or mean is None or not report(done, mean):
        return False
    objective["value"] = mean
    return True


def run_fold(train: Train, request: RunRequest, fold: int, parts: Parts | None) -> dict[str, Any]:
    """The result of one fold: trained, continued, or read where it is finished already."""
    folder = request.folder / f"fold_{fold}"
    finished, started = devices.share(lambda: left_from_before(folder, request.resumed))
    if finished is not None:
        return finished
    own = request_of_fold(request, fold, folder, started)
    return train(own if fold == 0 else replace(own, began=time.perf_counter()), parts)


def request_of_fold(request: RunRequest, fold: int, folder: Path, resumed: bool) -> RunRequest:
    """What is asked of one fold; only the run as a whole reports."""
    cfg = copy.deepcopy(request.cfg)
    with open_dict(cfg.data):
        cfg.data.fold = fold
    overrides = [*request.overrides, f"data.fold={fold}"]
    return replace(
        request, cfg=cfg, folder=folder, overrides=overrides, resumed=resumed, report=None
    )


def left_from_before(folder: Path, resumed: bool) -> tuple[dict[str, Any] | None, bool]:
    """The result of a fold that is finished, and whether one can be continued;
    a folder is made for any other.
    """
    if (
        resumed
        and (folder / "result.json").exists()
        and (before := read_result(folder))["status"] in FINISHED
    ):
        return before, False
    if started := resumed and can_resume(folder):
        return None, started
    shutil.rmtree(
        folder, ignore_errors=True
    )  # of a run that was killed before its first checkpoint
    folder.mkdir()
    return None, False


def folded(
    cfg: DictConfig, choices: Mapping[str, Any], found: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The result of the run: of a metric that a network lacks, as of one that diverged,
    there is no mean.

    Args:
        cfg: Of the run.
        choices: Option by group.
        found: The results of the folds so far.
    """
    bad = next((result for result in found if result["status"] != "done"), None)
    ended = len(found) == cfg.data.folds
    error = bad["error"] if bad else None
    metrics = [] if bad else [result["metrics"] for result in found]
    names = (
        [name for name in metrics[0] if all(known(of, name) for of in metrics)] if metrics else []
    )
    values = {name: [of[name] for of in metrics] for name in names}
    means = {name: statistics.fmean(of) for name, of in values.items()}
    seconds = {
        key: round(sum(result["seconds"][key] for result in found), 3) for key in ("total", "train")
    }
    rows = sum(
        (result["examples_per_second"] or 0) * result["seconds"]["train"] for result in found
    )
    return {
        "status": bad["status"] if bad else "done" if ended else "running",
        "objective": {
            "metric": cfg.objective.metric,
            "mode": cfg.objective.mode,
            "value": means.get(cfg.objective.metric) if ended else None,
        },
        "metrics": means,
        "spread": {
            name: statistics.stdev(of) if len(of) > 1 else None for name, of in values.items()
        },
        "folds": cfg.data.folds,
        "best_epoch": None,
        "epochs": sum(result["epochs"] for result in found),
        "steps": sum(result["steps"] for result in found),
        "seconds": seconds,
        "examples_per_second": round(rows / seconds["train"], 1) if seconds["train"] else None,
        "num_parameters": found[0]["num_parameters"] if found else None,
        "learning_rate": (bad or found[0])["learning_rate"] if found else None,
        "lr_range": None,
        "choices": dict(choices),
        "config_hash": config_hash(cfg),
        "data_hash": found[0].get("data_hash") if found else None,
        "diagnosis": None,
        **NOTHING,
        "baselines": None,
        "error": {**error, "message": f"fold_{len(found) - 1}: {error['message']}"}
        if error
        else None,
    }


def known(metrics: Mapping[str, Any], name: str) -> bool:
    """Whether there is a number; one that is not finite is null in a file."""
    value = metrics.get(name)
    return value is not None and abs(value) < float("inf")


def print_fold(fold: int, folds: int, result: Mapping[str, Any]) -> None:
    """A line for a fold that has ended."""
    if not devices.is_first():
        return
    objective = result["objective"]
    value = "" if objective["value"] is None else f"{objective['metric']} {objective['value']:.4g}"
    print(
        f"{fold + 1}/{folds}  fold_{fold}  {result['status']}  {value}", file=sys.stderr, flush=True
    )
