"""Splits that a table itself gives: by a column of stages, by groups, by time; and folds.
Legend: N rows.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldilocks.errors import Refused

STAGES = {
    "train": ("train", "training", "fit"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "holdout"),
}


def given_stages(series: Any, name: str) -> dict[str, NDArray[Any]]:
    """Row numbers by stage, from a column, [N], that says train, val or test;
    a stage that it leaves out is drawn.

    Raises:
        Refused: for a row that says anything else.
    """
    words = series.map(lambda value: str(value).strip().lower()).to_numpy(dtype=object)
    known = {word: stage for stage, words_of_stage in STAGES.items() for word in words_of_stage}
    stages = np.array([known.get(word, "") for word in words])
    if not (stages != "").all():
        place = int(np.argmax(stages == ""))
        raise Refused(
            f"data.split_column={name}: row {place + 1} says {series.iloc[place]}; write train,"
            " val or test"
        )
    if not (stages == "train").any():
        raise Refused(f"data.split_column={name}: no row says train")
    return {
        stage: np.flatnonzero(stages == stage)
        for stage in ("val", "test")
        if (stages == stage).any()
    }


def split_groups(
    groups: NDArray[Any], fractions: Mapping[str, float], seed: int, where: str
) -> dict[str, NDArray[Any]]:
    """Row numbers by stage, the rows of a group together; fractions are of the groups.

    Args:
        groups: Of the rows, [N].
        fractions: For `val` and `test`.
        seed: Of the split.
        where: The option, for messages.

    Raises:
        Refused: if there are too few groups.
    """
    from sklearn.model_selection import GroupShuffleSplit

    count, parts, rest = len(np.unique(groups)), {}, np.arange(len(groups))
    for stage in ("test", "val"):
        held = round(fractions[stage] * count)
        if fractions[stage] == 0:
            parts[stage] = rest[:0]
            continue
        left = len(np.unique(groups[rest]))
        if not 1 <= held < left:
            raise Refused(
                f"{where}: {count} groups are too few for data.{stage}_fraction={fractions[stage]}"
            )
        splitter = GroupShuffleSplit(1, test_size=held, random_state=seed)
        kept, chosen = next(splitter.split(rest, groups=groups[rest]))
        parts[stage], rest = rest[chosen], rest[kept]
    return {"train": rest, **parts}


def split_by_time(
    times: NDArray[np.float64], fractions: Mapping[str, float], where: str
) -> dict[str, NDArray[Any]]:
    """Row numbers by stage, the earliest for training, then the validation rows,
    the latest for the test.

    Rows of the same time stay in the same part.

    Args:
        times: Of the rows, [N], on any scale.
        fractions: Of all rows, for `val` and `test`.
        where: The option, for messages.

    Raises:
        Refused: if rows have no time, or a part would be empty.
    """
    if missing := int(np.isnan(times).sum()):
        raise Refused(
            f"{where}: {missing} of {len(times)} rows hold no date or number; fix or remove them"
        )
    order = np.argsort(times, kind="stable")
    parts, stop = {}, len(times)
    for stage in ("test", "val"):
        start = stop - round(fractions[stage] * len(times))
        while 0 < start < stop and times[order[start]] == times[order[start - 1]]:
            start -= 1
        if start <= 0 or (start == stop and fractions[stage] > 0):
            raise Refused(
                f"{where}: too few different times for data.{stage}_fraction={fractions[stage]}"
            )
        parts[stage], stop = np.sort(order[start:stop]), start
    return {"train": np.sort(order[:stop]), **parts}


def split_folds(
    target: NDArray[Any],
    folds: int,
    seed: int,
    *,
    stratify: bool,
    groups: NDArray[Any] | None = None,
) -> list[NDArray[Any]]:
    """Places of the rows of each fold, in their order: every row is in one fold;
    classes keep their shares.

    A class of fewer rows than folds is missing in some.

    Args:
        target: Of the rows, [N] or [N, targets].
        folds: How many, from 2.
        seed: Of the split.
        stratify: Whether the target holds classes.
        groups: Of the rows, [N]; the rows of a group are in the same fold.

    Raises:
        Refused: if there are too few rows or groups.
    """
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    classes = target.reshape(len(target), -1)[:, 0]
    units = [("groups", len(np.unique(groups)))] if groups is not None else [("rows", len(target))]
    if stratify and groups is None:
        units.append(
            ("rows of the largest class", int(np.unique(classes, return_counts=True)[1].max()))
        )
    for what, count in units:
        if count < folds:
            instead = f"from 2 to {count}" if count > 2 else "2" if count == 2 else "null"
            raise Refused(f"data.folds={folds}: there are {count} {what}; write {instead}")
    how: dict[str, Any] = {"shuffle": True, "random_state": seed}
    if groups is not None and not stratify:
        names = np.unique(groups)
        return [
            np.flatnonzero(np.isin(groups, names[held]))
            for _, held in KFold(folds, **how).split(names)
        ]
    if groups is not None:
        splitter = StratifiedGroupKFold(folds, **how)
    else:
        splitter = StratifiedKFold(folds, **how) if stratify else KFold(folds, **how)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return [held for _, held in splitter.split(classes, classes, groups)]
