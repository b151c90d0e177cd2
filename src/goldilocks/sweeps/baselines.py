"""What plain models predict for the validation rows of a sweep: `baselines/` in its folder.

They are fitted once, on the training rows of the best trial; no test row is touched. The report
puts them beside the best trial and the ensemble.
"""

import copy
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, open_dict

from goldilocks.callbacks.baselines import (
    CHOICES,
    LEAST_SECONDS,
    SHARE,
    as_array,
    fitted_models,
    judged,
)
from goldilocks.errors import Refused, one_line
from goldilocks.machine.files import read_json, write_json
from goldilocks.runs.cross_validation import are_asked
from goldilocks.runs.ensembles import kept, pooled
from goldilocks.runs.folder import read_config, read_result
from goldilocks.sweeps.ensemble import best_runs
from goldilocks.sweeps.execution.trials import Trial
from goldilocks.tasks.task import Task
from goldilocks.training.checks import check, check_with_data
from goldilocks.training.components import build_data
from goldilocks.training.outcome import Outcome, read_outcome, save_outcome

FOLDER, FILE = "baselines", "baselines.json"


def try_baselines(folder: Path, trials: Sequence[Trial], modes: Mapping[str, str]) -> None:
    """Fits the models at the end of a sweep, which does not fail because of it, unless they are
    known already.

    Args:
        folder: Of the sweep.
        trials: With their results.
        modes: Min or max by objective, of which the first decides.
    """
    best = best_runs(folder, trials, modes)
    if not best or not next(iter(modes)).startswith("val/"):
        return
    seconds = max(LEAST_SECONDS, SHARE * sum(trial.seconds or 0.0 for trial in trials))
    try:
        fit(folder, best[0], seconds)
    except Exception as error:  # data that are gone, a full disk
        print(
            f"warning: no baselines were fitted ({type(error).__name__}: {one_line(error)})",
            file=sys.stderr,
        )


def fit(folder: Path, run: Path, seconds: float) -> None:
    """Writes what the models predict for the rows that a trial has kept."""
    cfg = read_config(run)
    node = cfg.callbacks.get("baselines")
    if node is None:
        return
    try:
        own = kept(run)
    except Refused:
        return
    names, most = CHOICES[node.get("models", "default")], node.get("max_rows", 100_000)
    key = key_of(read_result(run).get("data_hash"), own, names, most)
    if key == known_key(folder):
        return
    configs = list(folds_of(cfg))
    entries: dict[str, Any] = {}
    parts: dict[str, list[Outcome]] = {name: [] for name in names}
    for one in configs:
        data, task = prepared(one)
        if len(data.spec.input_shape) != 1 or task.quantiles:
            return
        models, found = fitted_models(data, task, names, most, seconds / len(configs))
        x, y = rows_of(data, task, own)
        for name, model in models.items():
            parts[name].append(judged(task, y, model.predict(x)))
            before = entries.get(name, {"seconds": 0.0, "note": ""})
            spent = round(before["seconds"] + found[name]["seconds"], 3)
            entries[name] = {"seconds": spent, "note": found[name]["note"] or before["note"]}
    for name, outcomes in parts.items():
        (folder / FOLDER).mkdir(exist_ok=True)
        save_outcome(pooled(outcomes), folder / FOLDER / f"{name}.npz", len(own.rows))
    write_json(folder / FOLDER / FILE, {"key": key, "models": entries})


def folds_of(cfg: DictConfig) -> Iterator[DictConfig]:
    """The configuration of each network of a run."""
    for fold in range(cfg.data.folds) if are_asked(cfg) else [None]:
        own = copy.deepcopy(cfg)
        if fold is not None:
            with open_dict(own.data):
                own.data.fold = fold
        yield own


def prepared(cfg: DictConfig) -> tuple[Any, Task]:
    """The rows of a configuration, and its task on the CPU."""
    settings = check(cfg)
    data = build_data(settings)
    return data, check_with_data(settings, data.spec).cpu()


def rows_of(data: Any, task: Task, own: Outcome) -> tuple[Any, Outcome]:
    """The inputs of the validation rows that a trial has kept, and their targets."""
    numbers = np.asarray(data.row_numbers["val"])
    places = np.flatnonzero(np.isin(numbers, own.rows))
    at = {number: place for place, number in enumerate(own.rows)}
    of_own = own.take(np.array([at[number] for number in numbers[places]], dtype=int))
    return as_array(data.tensors["val"][0])[places], of_own


def key_of(data_hash: str | None, own: Outcome, names: Sequence[str], most: int) -> str:
    """What tells whether the models are of the same rows."""
    text = f"{data_hash} {hashlib.sha256(own.rows.tobytes()).hexdigest()} {names} {most}"
    return hashlib.sha256(text.encode()).hexdigest()


def known_key(folder: Path) -> str | None:
    """Of the models that there are; None if there are none, or they are damaged."""
    path = folder / FOLDER / FILE
    try:
        found = read_json(path, str(path)) if path.exists() else {}
        return found.get("key") if isinstance(found, dict) else None
    except Refused:
        return None


def baselines_of(folder: Path) -> dict[str, tuple[Outcome, str]]:
    """What each model predicts, and what was cut short of it; nothing where there are none."""
    path = folder / FOLDER / FILE
    if not path.exists():
        return {}
    try:
        entries = read_json(path, str(path))["models"]
        return {
            name: (read_outcome(folder / FOLDER / f"{name}.npz"), str(entry["note"]))
            for name, entry in entries.items()
        }
    except (Refused, KeyError, TypeError, AttributeError):
        return {}
