"""After training: what the kept predictions decide, and what that is worth on the test rows.

kept predictions -> temperature, threshold -> calibration.json -> test metrics, coverage

A run, a cross-validation and an ensemble go the same way. Files of predictions and metrics of
validation rows stay as trained; everything that is given out, the test metrics too, is calibrated.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from goldilocks.callbacks.predictions import FOLDER as PREDICTIONS
from goldilocks.errors import Refused, one_line
from goldilocks.runs import calibration as calibrations
from goldilocks.runs import conformal, thresholds
from goldilocks.runs.calibration import (
    FEWEST,
    MOST_FITTED,
    Calibration,
    calibrate,
    out_of_fold,
    read_calibration,
    tempered,
    write_calibration,
)
from goldilocks.runs.ensembles import kept
from goldilocks.tasks.task import Task
from goldilocks.training.outcome import Outcome, metrics_of, with_losses

NOTHING = {"calibration": None, "threshold": None, "coverage": None}  # of result.json


def settle(folder: Path, task: Task) -> dict[str, Any]:
    """Decides by the kept predictions of a run whose training is over; writes calibration.json.

    Returns:
        What result.json says of it: `calibration` and `threshold`.
    """
    entries: dict[str, Any] = dict(NOTHING)
    options = task.decisions
    chooses = options.calibration != "none" or options.threshold != 0.5
    try:
        if not chooses or not (folder / PREDICTIONS / "val.npz").exists():
            write_calibration(folder, Calibration())
            return entries
        outcome = kept(folder)
        found = Calibration()
        if options.calibration != "none":
            known = calibrate(options.calibration, outcome.predicted, outcome.true)
            found = replace(found, temperature=known["temperature"])
            entries["calibration"] = known
        if options.threshold != 0.5:
            threshold, known = settled_threshold(task, calibrated(outcome, found))
            found = replace(found, threshold=threshold)
            entries["threshold"] = known
        write_calibration(folder, found)
    except (Refused, OSError) as error:
        print(f"warning: nothing was calibrated: {one_line(error)}", file=sys.stderr)
    return entries


def settled_threshold(task: Task, outcome: Outcome) -> tuple[float, dict[str, Any]]:
    """The threshold of two classes, and what result.json says of it."""
    rule, costs = task.decisions.threshold, task.decisions.costs
    probability, positive = outcome.predicted[:, 1], outcome.true == 1
    threshold = rule
    if isinstance(threshold, str):
        threshold = thresholds.chosen_threshold(threshold, probability, positive, costs)
    entry: dict[str, Any] = {"by": rule, "threshold": threshold}
    entry["classes"] = list(task.spec.class_names)
    entry["val"] = thresholds.judged(rule, threshold, probability, positive, costs)
    return threshold, entry


def judge(folder: Path, task: Task, tested: Outcome, result: dict[str, Any]) -> dict[str, float]:
    """The test metrics of what is given out, where that is not what was tested; the result gets
    what the threshold does, and the coverage.

    Args:
        folder: Of the run.
        task: What it has learnt.
        tested: The test rows, as trained; all of them.
        result: Of the run.
    """
    calibration = read_calibration(folder)
    given_out = calibrated(tested, calibration)
    if known := result.get("threshold"):
        probability, positive = given_out.predicted[:, 1], given_out.true == 1
        rule, threshold = known["by"], calibration.threshold
        own = thresholds.judged(rule, threshold, probability, positive, task.decisions.costs)
        result["threshold"] = {**known, "test": own}
    if (folder / PREDICTIONS / "val.npz").exists():
        rows = calibrated(kept(folder), calibration)
        result["coverage"] = conformal.coverage(task.spec, rows, given_out, shares=task.quantiles)
    return {} if calibration.temperature == 1 else metrics_of(task, given_out, "test")


def calibrated(outcome: Outcome, calibration: Calibration) -> Outcome:
    """Predictions as they are given out; the losses stay as they were."""
    return replace(outcome, predicted=tempered(outcome.predicted, calibration.temperature))


def given_out(task: Task, outcome: Outcome, calibration: Calibration, stage: str) -> Outcome:
    """Predictions and losses as they are given out; of validation rows, by which the temperature
    was fitted, each row by that of the others.
    """
    if calibration.temperature == 1:
        return outcome
    predicted = calibrated(outcome, calibration).predicted
    if stage == "val" and FEWEST <= len(outcome.rows) <= MOST_FITTED:
        predicted = out_of_fold(outcome.predicted, outcome.true)
    return with_losses(task, outcome.rows, outcome.true, predicted)


def in_words(result: Mapping[str, Any]) -> list[str]:
    """What a result says of its probabilities and intervals, in lines."""
    lines = []
    if known := result.get("calibration"):
        lines.append(calibrations.in_words(known))
    if known := result.get("threshold"):
        lines += thresholds.in_words(known)
    if known := result.get("coverage"):
        lines.append(conformal.in_words(known))
    return lines
