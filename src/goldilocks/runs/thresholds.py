"""Where one class of two ends and the other begins: a threshold, chosen on kept predictions.

Legend: N rows, K thresholds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Costs = tuple[float, float]


def chosen_threshold(rule: str, probability: Array, positive: Array, costs: Costs) -> float:
    """The threshold that a rule likes best, 0.5 if it is as good.

    Args:
        rule: `f1` of the second class, `balanced_accuracy`, or `cost`, whose mean is least.
        probability: [N] of the second class.
        positive: [N] whether rows are of it.
        costs: Of a false positive and of a false negative.
    """
    values = np.unique(np.asarray(probability, np.float64))
    between = (values[1:] + values[:-1]) / 2
    candidates = np.concatenate([[0.5], between, [0.0, 1.0]])
    found = scores(rule, counts(candidates, probability, positive), costs)
    best = candidates[found >= found.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def counts(thresholds: Array, probability: Array, positive: Array) -> Array:
    """Rows by threshold, [K, 2, 2]: by the true class, then by the predicted one."""
    rows = np.asarray(probability, np.float64)
    above = [
        len(own) - np.searchsorted(own, thresholds, side="right")
        for own in (np.sort(rows[~positive]), np.sort(rows[positive]))
    ]
    totals = [int((~positive).sum()), int(positive.sum())]
    return np.stack(
        [np.stack([total - said, said], 1) for total, said in zip(totals, above, strict=True)], 1
    )


def scores(rule: str, table: Array, costs: Costs) -> NDArray[np.float64]:
    """What a rule makes of counts, [K, 2, 2]; more is better.

    A mean cost is given below zero. A class without rows does not count.
    """
    (negative, false), (missed, right) = table[:, 0].T, table[:, 1].T
    if rule == "f1":
        return np.asarray(2 * right / np.maximum(2 * right + false + missed, 1))
    if rule == "balanced_accuracy":
        totals = table.sum(2)
        recalls = [negative / np.maximum(totals[:, 0], 1), right / np.maximum(totals[:, 1], 1)]
        known = (totals > 0).sum(1)
        return np.asarray(sum(recalls) / np.maximum(known, 1))
    return np.asarray(-(costs[0] * false + costs[1] * missed) / table.sum((1, 2)))


def judged(
    rule: str | float, threshold: float, probability: Array, positive: Array, costs: Costs
) -> dict[str, Any]:
    """What a threshold does on rows, for result.json: its confusion matrix, and what the rule makes
    of it and of 0.5.
    """
    table = counts(np.array([threshold, 0.5]), probability, positive)
    entry: dict[str, Any] = {"rows": len(positive), "confusion": table[0].tolist()}
    if isinstance(rule, str):
        sign = -1 if rule == "cost" else 1
        own, half = (sign * scores(rule, table, costs)).tolist()
        entry |= {"value": own, "value_at_half": half}
    return entry


def in_words(entry: Mapping[str, Any]) -> list[str]:
    """A threshold and its confusion matrices, in lines."""
    first, second = entry["classes"]
    rule = entry["by"]
    lines = [
        f"threshold {entry['threshold']:.4g}: {second} is predicted above that probability"
        + (f", which is best by {rule}" if isinstance(rule, str) else "")
    ]
    for stage in ("val", "test"):
        if not (own := entry.get(stage)):
            continue
        (right, false), (missed, found) = own["confusion"]
        value = ""
        if "value" in own:
            value = f"; {rule} {own['value']:.4g}, {own['value_at_half']:.4g} at 0.5"
        lines.append(
            f"  {stage}: {right} of {right + false} rows of {first} right, {false} taken for"
            f" {second}; {found} of {missed + found} of {second} right, {missed} missed{value}"
        )
    return lines
