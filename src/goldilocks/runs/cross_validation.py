"""Cross-validation: a network for each fold of the rows, each in a run folder of its own, folded into one result.

`fold_0/`, `fold_1/` and so on lie in the run's folder. Each is an ordinary run with `data.fold` set; the run's own
`result.json` has the metrics' means over the folds and, as `spread`, their standard deviations.
"""

import copy
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from goldilocks.callbacks.pruning import Report
from goldilocks.config.choices import config_hash
from goldilocks.errors import Refused
from goldilocks.machine import devices
from goldilocks.machine.locks import run_lock
from goldilocks.runs import failures
from goldilocks.runs.folder import can_resume, read_result, write_result, write_start

FINISHED = ("done", "diverged", "pruned")
Train = Callable[..., dict[str, Any]]  # run.run


def are_asked(cfg: DictConfig) -> bool:
    """Whether a configuration is one of several networks, and not of one fold's."""
    return cfg.data.get("folds") is not None and cfg.data.get("fold") is None


def check_longer(cfg: DictConfig, longer: Sequence[str], folder: Path) -> None:
    """Refuses another length for all folds at once: they ended after different ones."""
    if longer and are_asked(cfg):
        words = " ".join(longer)
        raise Refused(
            f"{words}: is for a single network; write resume={folder}/fold_0 {words}, and so for each fold"
        )


def for_each_fold(train: Train) -> Train:
    """Lets `run.run` train a network for each fold, where that is asked for."""

    @wraps(train)
    def run(
        cfg: DictConfig, overrides: list[str], choices: Mapping[str, Any], **options: Any
    ) -> dict[str, Any]:
        with run_lock(options["folder"]):
            return (partial(run_folds, train) if are_asked(cfg) else train)(
                cfg, overrides, choices, **options
            )

    return run


def run_folds(
    train: Train,
    cfg: DictConfig,
    overrides: list[str],
    choices: Mapping[str, Any],
    *,
    folder: Path,
    parts: Any = None,
    test: bool = True,
    resumed: bool = False,
    report: Report | None = None,
    rows: str | None = None,
) -> dict[str, Any]:
    """Trains for every fold that is not finished, and folds the results into the run's own, whatever happens.

    Args:
        train: Trains one network in a folder; see `run.run`, also for the rest.
        cfg: The composed configuration.
        overrides: The words of the command line that chose it.
        choices: Option by group.
        folder: The run folder, which exists.
        parts: What `parts.prepare` built of this configuration, which is that of the first fold.
        test: Whether each network is tested, on test rows that are the same for all.
        resumed: Whether the folder holds an interrupted run to continue: with the fold that is missing.
        report: Is told the objective's mean over the folds so far, after each, and says whether to give up.
        rows: The fingerprint that the rows must have; the first fold's, if it is not given.

    Returns:
        What result.json holds.
    """
    found: list[dict[str, Any]] = []
    result = folded(cfg, choices, found)
    write_start(folder, cfg, overrides, result)
    try:
        for fold in range(cfg.data.folds):
            rows = rows or (found[0].get("data_hash") if found else None)
            words = {"parts": parts if fold == 0 else None, "test": test, "rows": rows}
            found.append(
                one_fold(
                    train, cfg, overrides, choices, folder / f"fold_{fold}", fold, resumed, words
                )
            )
            print_fold(fold, cfg.data.folds, found[-1])
            result = folded(cfg, choices, found)
            if result["status"] == "running" and is_given_up(result, fold + 1, report):
                result["status"] = "pruned"
            if result["status"] != "running":
                break
            write_result(folder, result)
    except (KeyboardInterrupt, SystemExit):
        result["status"] = "interrupted"
    except Exception as error:  # before a network is trained: the data are gone
        result |= {"status": "failed", "error": failures.summary(error)}
    write_result(folder, result)
    return result


def is_given_up(result: dict[str, Any], done: int, report: Report | None) -> bool:
    """Whether the mean over the folds so far is given up; then it is what the run has come to."""
    objective = result["objective"]
    mean = result["metrics"].get(objective["metric"])
    if report is None or mean is None or not report(done, mean):
        return False
    objective["value"] = mean
    return True


def one_fold(
    train: Train,
    cfg: DictConfig,
    overrides: list[str],
    choices: Mapping[str, Any],
    folder: Path,
    fold: int,
    resumed: bool,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The result of one fold: trained, continued, or read where it is finished already."""
    finished, started = devices.share(lambda: left_from_before(folder, resumed))
    if finished is not None:
        return finished
    own = copy.deepcopy(cfg)
    with open_dict(own.data):
        own.data.fold = fold
    words = [*overrides, f"data.fold={fold}"]
    return train(own, words, choices, folder=folder, resumed=started, **options)


def left_from_before(folder: Path, resumed: bool) -> tuple[dict[str, Any] | None, bool]:
    """The result of a fold that is finished, and whether one can be continued; a folder is made for any other."""
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
    """What the run has come to: of a metric that a network lacks, as of one that diverged, there is no mean.

    Args:
        cfg: Of the run.
        choices: Option by group.
        found: The results of the folds so far.
    """
    bad = next((result for result in found if result["status"] != "done"), None)
    ended, error = len(found) == cfg.data.folds, bad["error"] if bad else None
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
