"""Targets: which task they are, how the losses take them, and their scale."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from goldilocks.data.spec import TaskName
from goldilocks.errors import Refused

TargetScaling = Literal["standard", "minmax", "none"]

SKEWED = 1.0  # skewness
FEWEST_ROWS = 3  # of a class, one for each split
OTHER_CLASSES = "(other)"  # rare ones, merged
MAX_CLASSES = 20  # a target of more distinct whole numbers is taken for a quantity


def infer_task(target: NDArray[Any]) -> TaskName:
    """Reads the task from the target.

    >>> infer_task(np.array([0, 1, 1])), infer_task(np.array([0.5, 1.2, 3.3]))
    ('binary', 'regression')
    >>> infer_task(np.array(["a", "b", "c"]))
    'multiclass'
    """
    if target.ndim > 1 and target.shape[1] > 1:
        return "regression"
    values = np.unique(target)
    if len(values) == 2:
        return "binary"
    numbers = np.issubdtype(target.dtype, np.number)
    if numbers and (len(values) > MAX_CLASSES or not np.all(values == np.round(values))):
        return "regression"
    return "multiclass"


def encode_target(target: NDArray[Any], task: TaskName) -> tuple[NDArray[Any], NDArray[Any]]:
    """The target as the losses take it, and the classes.

    Returns:
        regression [N, targets]; binary [N, 1] of 0 and 1; multiclass [N] of class indices;
        and the sorted classes.
    """
    if task != "regression" and target.ndim > 1:
        if target.shape[1] > 1:
            raise Refused(
                f"data.task={task}: the target has {target.shape[1]} columns; write"
                " data.task=regression"
            )
        target = target[:, 0]
    if task == "regression":
        if not np.issubdtype(target.dtype, np.number):
            raise Refused(
                "data.task=regression: the target holds words, not numbers; write data.task=auto"
            )
        values = target.astype(np.float64).reshape(len(target), -1)
        if missing := np.count_nonzero(~np.isfinite(values)):
            raise Refused(
                f"data: the target holds {missing} missing or infinite values; drop those rows"
            )
        return values, np.array([])
    classes, index = np.unique(target, return_inverse=True)
    if task == "binary" and len(classes) != 2:
        raise Refused(
            f"data.task=binary: the target has {len(classes)} values, not 2; write data.task=auto"
        )
    if len(classes) < 2:
        raise Refused(
            f"data.task={task}: the target has a single value, {classes[0]}; there is nothing to"
            " learn"
        )
    check_rare(target, task)
    return (index[:, None] if task == "binary" else index), classes


def check_rare(target: NDArray[Any], task: TaskName, key: str = "") -> None:
    """Refuses a class of too few rows;
    `key` is the option that would leave it out, of a source that has one.
    """
    rare = rare_classes(target, FEWEST_ROWS)
    if not rare:
        return
    name, rows = min(rare.items(), key=lambda pair: pair[1])
    ways = [f"{key}={FEWEST_ROWS} to leave such classes out"] if key else []
    if np.issubdtype(target.dtype, np.number):
        ways.append("data.task=regression if these are amounts")
    others = f", and {len(rare) - 1} more" if rare.keys() - {name} else ""
    raise Refused(
        f"data.task={task}: a class has only {rows} rows ({name}{others}); at least {FEWEST_ROWS}"
        " are needed, one for"
        f" each split{'; write ' if ways else ''}{', or '.join(ways)}"
    )


def rare_classes(target: NDArray[Any], fewest: int) -> dict[Any, int]:
    """Classes of fewer rows, with their rows."""
    classes, counts = np.unique(target, return_counts=True)
    return {name: int(count) for name, count in zip(classes, counts, strict=True) if count < fewest}


def is_skewed(target: NDArray[Any]) -> NDArray[np.bool_]:
    """Which targets, of [N, targets], are above zero and lopsided on their own scale,
    and less so on a logarithmic one.

    Lopsided is a skewness above 1, as of incomes and prices.
    """
    from scipy.stats import skew

    positive = (target > 0).all(0)
    logged = np.log(np.where(positive, target, 1.0))
    return positive & (skew(target) > SKEWED) & (np.abs(skew(logged)) < skew(target) / 2)


def scale_target(
    target: NDArray[Any], train: NDArray[Any], scaling: TargetScaling, log: Sequence[bool] = ()
) -> tuple[NDArray[np.float64], dict[str, tuple[float, ...]]]:
    """Scales a regression's target, by the training rows.

    Args:
        target: [N, targets].
        train: Numbers of the training rows.
        scaling: standard: mean 0, variance 1; minmax: from 0 to 1; none.
        log: Whether each target's logarithm is scaled in its place; () for none.

    Returns:
        The scaled target, and what the spec says of it.
    """
    if any(log):
        target = np.where(log, np.log(np.where(log, target, 1.0)), target)
    rows = target[train]
    shift, scale = np.zeros(target.shape[1]), np.ones(target.shape[1])
    if scaling == "standard":
        shift, scale = rows.mean(0), rows.std(0)
    elif scaling == "minmax":
        shift, scale = rows.min(0), np.ptp(rows, 0)
    scale = np.maximum(scale, 1e-12)  # a constant target
    scaled = (target - shift) / scale
    rows = scaled[train]
    facts = {"target_shift": shift, "target_scale": scale, "target_centre": rows.mean(0)}
    return scaled, {
        **{name: tuple(values.tolist()) for name, values in facts.items()},
        **({"target_log": tuple(log)} if any(log) else {}),
        "target_range": (float(rows.min()), float(rows.max())),
    }
