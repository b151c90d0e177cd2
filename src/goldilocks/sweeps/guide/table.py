"""The end table of a guided search: plain models, the default, the best network and the ensemble,
on validation rows and, once, on test rows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from goldilocks.callbacks.baselines import CHOICES, LEAST_SECONDS, as_array, fitted_models, judged
from goldilocks.callbacks.comparison import NETWORK, Entries, compare, merged
from goldilocks.errors import Refused
from goldilocks.runs.calibration import read_calibration
from goldilocks.runs.ensembles import is_ensemble, kept, members_of, together
from goldilocks.runs.evaluate import evaluate_together, tested
from goldilocks.runs.folder import read_config, read_result
from goldilocks.runs.trained import task_of
from goldilocks.runs.uncertainty import given_out
from goldilocks.sweeps.baselines import baselines_of, folds_of, prepared
from goldilocks.sweeps.ensemble import FOLDER as ENSEMBLE
from goldilocks.sweeps.report.summary import Summary
from goldilocks.tasks.task import Task
from goldilocks.training.outcome import Outcome, with_losses

SINGLE, DEFAULT = "best single network", "default network"
IN_UNITS = "val/rmse"  # of a regression, whose loss is of the scaled target
ORDER = ("constant", "linear", "trees", "forest", DEFAULT, SINGLE, NETWORK)


def end_table(summary: Summary, default: int, with_test: bool) -> Entries:
    """What each comes to, by name; `network` is the predictor: the ensemble, or the best network
    where there is none.

    Args:
        summary: Of the search.
        default: The number of the trial of the default.
        with_test: Whether the test rows are looked at.
    """
    folder, best = summary.folder, summary.best
    if best is None or not summary.objective.startswith("val/"):
        return {}
    single = folder / str(best.number)
    predictor = folder / ENSEMBLE if is_ensemble(folder / ENSEMBLE) else single
    places = {NETWORK: predictor, SINGLE: single, DEFAULT: folder / str(default)}
    task = task_of(members_of(single)[0][0])
    objective = {"metric": summary.objective, "mode": next(iter(summary.modes.values()))}
    if task.spec.task == "regression" and best.trials[0].outcome["metrics"].get(IN_UNITS):
        objective = {"metric": IN_UNITS, "mode": "min"}
    entries: Entries = {}
    known = on_validation(task, places, folder)
    if NETWORK in known:
        merged(entries, compare(task, objective, "val", known))
    if with_test and task.spec.num_rows.get("test"):
        merged(entries, compare(task, objective, "test", on_test(task, places, single)))
    return entries


def on_validation(task: Task, places: Mapping[str, Path], folder: Path) -> dict[str, Outcome]:
    """What each predicts for the validation rows of the predictor, in row order."""
    found: dict[str, Outcome] = {}
    for name, place in places.items():
        try:
            outcome = given_out(task, kept(place), read_calibration(place), "val")
        except Refused:
            continue
        outcome = outcome.take(np.argsort(outcome.rows, kind="stable"))
        found[name] = with_losses(task, outcome.rows, outcome.true, outcome.predicted)
    found |= {name: outcome for name, (outcome, _) in baselines_of(folder).items()}
    if NETWORK not in found:
        return {}
    rows = found[NETWORK].rows
    return {name: one for name, one in found.items() if np.array_equal(one.rows, rows)}


def on_test(task: Task, places: Mapping[str, Path], single: Path) -> dict[str, Outcome]:
    """What each predicts for the test rows. Every network is tested once; the ensemble's result has
    its metrics, trials have none.
    """
    seen: dict[Path, Outcome] = {}
    found: dict[str, Outcome] = {}
    for name, place in places.items():
        if name == DEFAULT and not (place / "result.json").exists():
            continue
        result = read_result(place)
        members = members_of(place)
        for own, _ in members:
            if own not in seen and (outcome := tested(own, result.get("data_hash"))[1]) is not None:
                seen[own] = outcome
        if not all(own in seen for own, _ in members):
            continue
        weights = [weight for _, weight in members]
        joined = together(task, [seen[own] for own, _ in members], weights)
        found[name] = given_out(task, joined, read_calibration(place), "test")
        if place.name == ENSEMBLE:
            evaluate_together(place, result, seen)
    return found | plain_models(task, single, found[NETWORK])


def plain_models(task: Task, single: Path, own: Outcome) -> dict[str, Outcome]:
    """What plain models predict for the test rows, fitted as they were for the validation rows: of
    folds together, as the networks do.
    """
    cfg = read_config(single)
    node = cfg.callbacks.get("baselines")
    if node is None or len(task.spec.input_shape) != 1 or task.quantiles:
        return {}
    names, most = CHOICES[node.get("models", "default")], node.get("max_rows", 100_000)
    parts: dict[str, list[Outcome]] = {name: [] for name in names}
    configs = list(folds_of(cfg))
    for one in configs:
        data, of_data = prepared(one)
        models, _ = fitted_models(data, of_data, names, most, LEAST_SECONDS / len(configs))
        x = as_array(data.tensors["test"][0][: len(own.rows)])
        for name, model in models.items():
            parts[name].append(judged(of_data, own, model.predict(x)))
    weights = [1 / len(configs)] * len(configs)
    return {name: together(task, outcomes, weights) for name, outcomes in parts.items()}


def keys_of(entries: Entries) -> dict[str, str]:
    """The metric that is compared, by stage."""
    known = entries.get(NETWORK, {"error": {}})["error"]
    return {key.partition("/")[0]: key for key in known}


def rows_of(entries: Entries) -> list[list[Any]]:
    """The table: a row for each, with value and standard error on both kinds of rows."""
    keys = keys_of(entries)
    stages = [keys.get("val", ""), keys.get("test", "")]
    found = []
    for name in ORDER:
        entry = entries.get(name)
        if entry is None:
            continue
        row: list[Any] = ["this search" if name == NETWORK else name]
        for key in stages:
            row += [entry["metrics"].get(key), entry["error"].get(key)]
        found.append(row)
    return found
