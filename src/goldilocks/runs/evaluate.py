"""A finished run again: tested from its checkpoint, or trained again and compared."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from goldilocks.callbacks.predictions import FOLDER as PREDICTIONS
from goldilocks.callbacks.predictions import tested_of
from goldilocks.config.compose import compose, composed_differently
from goldilocks.data.fingerprint import check_same
from goldilocks.errors import Refused
from goldilocks.machine.devices import ONE_DEVICE
from goldilocks.machine.interrupts import passed_on
from goldilocks.machine.progress import shown_progress
from goldilocks.runs.assembly import build_trainer
from goldilocks.runs.ensembles import is_ensemble, members_of, together
from goldilocks.runs.folder import read_config, read_overrides, read_result, write_result
from goldilocks.runs.run import start, test_metrics
from goldilocks.runs.trained import task_of
from goldilocks.runs.uncertainty import judge
from goldilocks.tasks.task import Task
from goldilocks.training.checkpoints import load_checkpoint, load_weights
from goldilocks.training.components import prepare
from goldilocks.training.outcome import Outcome, metrics_of, save_outcome


def evaluate_run(folder: Path) -> dict[str, Any]:
    """Tests the best checkpoint of a run folder and writes the metrics into its result.json.

    Returns:
        The result, with `test/...` among its metrics.

    Raises:
        Refused: if the run has no best checkpoint, no test set,
            or the checkpoint is damaged or of another network.
    """
    result = read_result(folder)
    if is_ensemble(folder):
        return evaluate_together(folder, result)
    path = folder / "checkpoints" / "best.ckpt"
    if result["status"] == "running" and not path.exists():
        raise Refused(
            f"{folder}: has no checkpoint yet; resume it with: python train.py resume={folder}"
        )
    metrics, outcome, task = tested(folder, result.get("data_hash"))
    if outcome is not None:
        save_outcome(outcome, folder / PREDICTIONS / "test.npz", len(outcome.rows))
        metrics |= judge(folder, task, outcome, result)
    result["metrics"] = {**(result.get("metrics") or {}), **metrics}
    write_result(folder, result)
    return result


def tested(folder: Path, rows: str | None) -> tuple[dict[str, float], Outcome | None, Task]:
    """The metrics and the predictions of all test rows, as trained, of a run's best checkpoint,
    and what it has learnt; nothing is written.

    Args:
        folder: Of the run.
        rows: The fingerprint that the data must have, if it is known.
    """
    path = folder / "checkpoints" / "best.ckpt"
    checkpoint = load_checkpoint(path)
    parts = prepare(read_config(folder), fitted=checkpoint, warn=False)
    check_same(rows, parts.data.fingerprint, folder)
    if not parts.data.spec.num_rows["test"]:
        raise Refused(f"{folder}: data.test_fraction=0 leaves no test set")
    load_weights(parts.module, checkpoint, path)
    parts.settings.logger.clear()
    parts.settings.callbacks.clear()
    parts.settings.trainer |= ONE_DEVICE
    with TemporaryDirectory() as scratch:
        trainer = build_trainer(parts, Path(scratch))
        trainer.test(parts.module, parts.data, verbose=False)
        return test_metrics(parts.module), tested_of(trainer), parts.module.task


def evaluate_together(
    folder: Path, result: dict[str, Any], known: Mapping[Path, Outcome] | None = None
) -> dict[str, Any]:
    """Tests networks that predict together; see `evaluate_run`.

    Args:
        folder: Of the run.
        result: What its result.json holds.
        known: What members predict, by their folders, where they have been tested before.
    """
    members = members_of(folder)
    outcomes = []
    for own, _ in shown_progress(members, len(members), "networks"):
        outcome = (known or {}).get(own) or tested(own, result.get("data_hash"))[1]
        if outcome is None:
            raise Refused(f"{own}: kept_predictions=0 leaves nothing to take the mean of")
        outcomes.append(outcome)
    task = task_of(members[0][0])
    joined = together(task, outcomes, [weight for _, weight in members])
    save_outcome(joined, folder / PREDICTIONS / "test.npz", len(joined.rows))
    metrics = {**metrics_of(task, joined, "test"), **judge(folder, task, joined, result)}
    result["metrics"] = {**(result.get("metrics") or {}), **metrics}
    write_result(folder, result)
    return result


def rerun(folder: Path, overrides: list[str], log_dir: str = "logs") -> tuple[Path, dict[str, Any]]:
    """Trains a run again in a new folder:
    from its stored configuration, or composed again where overrides are given.

    Args:
        folder: Of the run.
        overrides: Beside its own.
        log_dir: Where the new folder is made, unless the overrides say it or the
            run's own is in its `log_dir`.

    Raises:
        Refused: if its files cannot be read, an override is wrong,
            or the options have changed since.
    """
    before = read_result(folder)
    if before.get("ensemble"):
        raise Refused(f"{folder}: is an ensemble, which is not trained; rerun the runs in it")
    cfg, settled, choices = (
        read_config(folder),
        read_overrides(folder),
        before.get("choices", {}),
    )
    if overrides:
        if changed := composed_differently(cfg, settled):
            raise Refused(
                f"{folder}: the options in conf/ have changed since ({changed});"
                " write python train.py with all overrides"
            )
        cfg, choices = compose([*settled, *overrides])
        settled = [*settled, *overrides]
    cfg.resume = None
    beside = {Path(cfg.log_dir).resolve() / kind for kind in ("runs", "sweeps")}
    if not beside & set(folder.resolve().parents) and not any(
        override.startswith("log_dir=") for override in overrides
    ):
        cfg.log_dir = log_dir
    asked = any(
        override.lstrip("+~").startswith("data") for override in overrides
    )  # for other rows
    return start(cfg, settled, choices, again=None if asked else folder)


def scores_by_split(
    overrides: list[str], seeds: int
) -> tuple[dict[str, list[float]], dict[int, str]]:
    """Trains a run for each seed of the split, `data.seed` from 0,
    in a folder that is removed afterwards.

    Returns:
        The test metrics by name, one value a seed;
        and the status of the runs that did not end well, by seed.
    """
    scores: dict[str, list[float]] = {}
    failed: dict[int, str] = {}
    with TemporaryDirectory() as folder:
        for seed in shown_progress(range(seeds), seeds, "splits"):
            quiet = [
                *(f"callbacks.{name}=null" for name in ("progress_bar", "evaluation", "baselines")),
                "logger=none",
            ]
            given = [
                *quiet,
                f"log_dir='{Path(folder).as_posix()}'",
                *overrides,
                f"data.seed={seed}",
            ]
            cfg, choices = compose(given)
            result = passed_on(start(cfg, given, choices)[1])
            if result["status"] != "done":
                failed[seed] = result["status"]
            for name, value in result["metrics"].items():
                if name.startswith("test/"):
                    scores.setdefault(name, []).append(value)
    return scores, failed
