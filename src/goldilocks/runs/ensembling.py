"""An ensemble is made of finished runs: chosen by their kept predictions, left in a run folder like
any other.

runs -> kept predictions -> selection -> ensemble.json, result.json, predictions, figures
"""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldilocks.callbacks.evaluation import class_figures, regression_figures
from goldilocks.callbacks.predictions import FOLDER as PREDICTIONS
from goldilocks.config.choices import config_hash
from goldilocks.errors import Refused
from goldilocks.figures.charts import save_figure
from goldilocks.loggers import takers
from goldilocks.runs.assembly import build_loggers
from goldilocks.runs.ensembles import (
    Member,
    copy_members,
    kept,
    members_of,
    together,
    write_members,
)
from goldilocks.runs.folder import read_config, read_overrides, read_result, write_start
from goldilocks.runs.selection import Selection, select
from goldilocks.runs.trained import settings_of, task_of
from goldilocks.runs.uncertainty import NOTHING, settle
from goldilocks.tasks.losses import build_loss, loss_in_words
from goldilocks.tasks.task import Task
from goldilocks.training.checks import resolved
from goldilocks.training.outcome import Outcome, metrics_of, save_outcome, scores

GIVES, JUDGED = "gives", "is judged by"
OTHERWISE = {JUDGED: ", or train with objective.metric=val/rmse, or val/accuracy of classes"}


def make_ensemble(
    runs: Sequence[Path], into: Path, members: int = 8, *, copy: bool = False
) -> dict[str, Any]:
    """Chooses among finished runs and leaves an ensemble in a folder, in place of one that was
    there.

    Args:
        runs: Their folders, all of one problem. Of other rows than most are left out.
        into: The folder.
        members: Runs to choose at most.
        copy: Whether what predicting needs of the members is copied into the folder.

    Returns:
        What its result.json holds.

    Raises:
        Refused: if fewer than two of the runs have kept predictions of the same rows, or the
            outputs of two do not mean the same.
    """
    began = time.perf_counter()
    known = comparable(runs)
    results = [read_result(run) for run, _ in known]
    objective = common_objective(results)
    task = task_of_run(known[0][0])
    check_alike(known, task, objective["metric"])
    outcomes = [outcome for _, outcome in known]
    selection = choose(task, outcomes, objective, members)
    chosen = [Member(known[place][0], weight) for place, weight in selection.weights.items()]
    chosen.sort(key=lambda member: -member.weight)
    lead = chosen[0].folder  # whose configuration the ensemble has
    task = task_of_run(lead)
    joined = together(
        task, [outcomes[place] for place in selection.weights], list(selection.weights.values())
    )
    temporary = into.with_name(f".{into.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        result = summary(known, chosen, selection, task, joined, objective)
        cfg = read_config(lead)
        # Of the same depth, so that the paths are those of the folder that it becomes.
        write_members(temporary, copy_members(temporary, chosen) if copy else chosen, selection.how)
        result["config_hash"] = config_hash(cfg)
        result["seconds"]["total"] = round(time.perf_counter() - began, 3)
        save_outcome(joined, temporary / PREDICTIONS / "val.npz", len(joined.rows))
        result |= settle(temporary, task)
        write_start(temporary, resolved(cfg), read_overrides(lead), result)
        draw(temporary, task, joined, result)
        shutil.rmtree(into, ignore_errors=True)
        os.replace(temporary, into)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return result


def comparable(runs: Sequence[Path]) -> list[tuple[Path, Outcome]]:
    """The runs that are done and have kept predictions of the same rows as most, with these."""
    known: list[tuple[Path, Outcome]] = []
    for run in runs:
        try:
            if read_result(run)["status"] == "done":
                known.append((run, kept(run)))
        except Refused:
            continue
    sets = Counter(one.rows.tobytes() for _, one in known)
    if not sets or sets.most_common(1)[0][1] < 2:
        raise Refused(
            "an ensemble needs two finished runs that have kept predictions of the same rows;"
            f" there {'is' if len(known) == 1 else 'are'} {len(known)} with any"
        )
    same = sets.most_common(1)[0][0]
    if left_out := len(known) - sets[same]:
        print(
            f"warning: {left_out} runs have predictions of other validation rows and are left out",
            file=sys.stderr,
        )
    return [(run, one) for run, one in known if one.rows.tobytes() == same]


def task_of_run(run: Path) -> Task:
    """What a run has learnt, or the networks of a cross-validation have."""
    return task_of(members_of(run)[0][0])


def check_alike(known: Sequence[tuple[Path, Outcome]], task: Task, metric: str) -> None:
    """Refuses runs whose outputs do not mean the same, or whose metric does not.

    Class weights, label smoothing and the scale of the target may differ: what is kept are
    probabilities, or values in the target's own units.

    Args:
        known: The runs with their kept predictions of the same rows.
        task: Of the first.
        metric: By which they are chosen.
    """
    lead, first = known[0]
    before = facts_of(lead, task, metric)
    for run, outcome in known[1:]:
        if outcome.predicted.shape != first.predicted.shape or not same(outcome.true, first.true):
            raise Refused(f"{run}: has other targets than {lead.name}; choose runs of one problem")
        now = facts_of(run, task, metric)
        for key, said in now.items():
            if said != before[key]:
                raise Refused(
                    f"{run}: {key} {said}, and {lead.name} {before[key]}; choose runs that have the"
                    f" same{OTHERWISE.get(key, '')}"
                )


def same(true: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether targets are equal, to single precision."""
    return np.allclose(true, other, rtol=1e-5)


def facts_of(run: Path, task: Task, metric: str) -> dict[str, str]:
    """On what it depends whether a run may predict together with others, in words."""
    settings, name = settings_of(run), metric.partition("/")[2]
    kind = task.spec.task
    loss = build_loss(settings.loss, task.spec, settings.packages)
    facts = {GIVES: loss.estimate or loss_in_words(settings.loss, kind)}
    if name != "loss":
        facts[JUDGED] = f"{name} {dict(settings.metrics.get(name) or {})}"
        return facts
    facts[JUDGED] = loss_in_words(settings.loss, kind)
    if kind == "regression":
        keys = ("target_scaling", "target_log")
        units = [f"data.{key}={settings.data[key]}" for key in keys if key in settings.data]
        facts[JUDGED] += f" with {' '.join(units)}"
    return facts


def common_objective(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The objective of runs, which must be the same, and one of validation rows."""
    objective = results[0]["objective"]
    for result in results[1:]:
        if result["objective"]["metric"] != objective["metric"]:
            raise Refused(
                f"objective.metric={result['objective']['metric']}: another run has"
                f" {objective['metric']}; choose runs of one objective"
            )
    if not objective["metric"].startswith("val/"):
        raise Refused(
            f"objective.metric={objective['metric']}: an ensemble is chosen by validation rows;"
            " train with an objective.metric of val/..."
        )
    return {"metric": objective["metric"], "mode": objective["mode"]}


def choose(
    task: Task, outcomes: Sequence[Outcome], objective: Mapping[str, Any], members: int
) -> Selection:
    """Which of the candidates predict together."""
    name = objective["metric"].partition("/")[2]
    predicted = np.stack([one.whole if name == "loss" else one.predicted for one in outcomes])
    true = outcomes[0].true
    return select(
        predicted,
        lambda values, places: scores(task, name, values, true[places]),
        objective["mode"],
        members,
    )


def summary(
    known: Sequence[tuple[Path, Outcome]],
    chosen: Sequence[Member],
    selection: Selection,
    task: Task,
    joined: Outcome,
    objective: Mapping[str, Any],
) -> dict[str, Any]:
    """What result.json says of an ensemble: the keys of any run's, and how it was chosen."""
    metrics = metrics_of(task, joined, "val")
    results = [read_result(member.folder) for member in chosen]
    lead = results[0]
    return {
        "status": "done",
        "objective": {**objective, "value": metrics[objective["metric"]]},
        "metrics": metrics,
        "best_epoch": None,
        "epochs": sum(result["epochs"] for result in results),
        "steps": sum(result["steps"] for result in results),
        "seconds": {"total": 0.0, "train": 0.0},
        "examples_per_second": None,
        "num_parameters": sum(
            (result["num_parameters"] or 0) * len(members_of(member.folder))
            for result, member in zip(results, chosen, strict=True)
        ),
        "learning_rate": None,
        "lr_range": None,
        "choices": lead.get("choices", {}),
        "data_hash": lead.get("data_hash"),
        "diagnosis": None,
        **NOTHING,
        "baselines": None,
        "error": None,
        "ensemble": {
            "how": selection.how,
            "members": [
                {"run": member.folder.name, "weight": round(member.weight, 4)} for member in chosen
            ],
            "candidates": len(known),
            "rows": selection.rows,
            "value": selection.value,
            "single": known[selection.best][0].name,
            "single_value": selection.best_value,
            "gain": selection.gain,
            "gain_error": selection.error,
        },
    }


def draw(folder: Path, task: Task, outcome: Outcome, result: Mapping[str, Any]) -> None:
    """The figures of any run, and its metrics, in its folder and its loggers."""
    settings = settings_of(folder)
    offered = {"save_dir": str(folder), "is_trial": False, "resume_step": None}
    settings.logger = {
        key: node for key, node in settings.logger.items() if key in ("tensorboard", "csv")
    }
    loggers = build_loggers(settings, offered)
    for logger in loggers:
        logger.log_metrics(dict(result["metrics"]), step=0)
    if task.spec.task == "regression":
        figures = regression_figures(outcome, task.spec)
    else:
        figures = class_figures(outcome, task.spec.class_names)
    for name, figure in figures.items():
        save_figure(figure, folder, f"evaluation/{name}", loggers, step=0)
    for ours in takers(loggers, "close"):
        ours.close(result["status"], result["metrics"])


def in_words(result: Mapping[str, Any]) -> str:
    """What an ensemble gains, and how sure that is, in a sentence."""
    known = result["ensemble"]
    metric = result["objective"]["metric"]
    ways = {
        "mean": "the plain mean of the best",
        "shrunk": "the mean of the best half and greedy additions",
        "greedy": "a greedy selection",
    }
    gain, error = known["gain"], known["gain_error"]
    sure = "is more than" if abs(gain) > 2 * error else "may be"
    side = "better" if gain >= 0 else "worse"
    return (
        f"{len(known['members'])} of {known['candidates']} networks predict together, chosen as"
        f" {ways[known['how']]}: {metric} {known['value']:.4g}, {abs(gain):.2g} ± {error:.2g}"
        f" {side} than the best single network ({known['single_value']:.4g}; the optimism of"
        f" choosing by these rows is taken off both), which {sure} luck"
    )
