"""How far predictions may be off: intervals and sets with a share of rows that they cover.

Split conformal prediction (Vovk et al. 2005; Lei et al. 2018): of n rows that the network was not
trained on, the error that `ceil((n + 1) * level)` of them do not exceed bounds that of a new row
with at least the probability `level`, if new rows are like these. With `data.folds` the errors are
out of fold and the networks predict together: their mean is rather better than each, and intervals
are rather too wide than too narrow.

Legend: N rows, n kept rows, C classes, T targets.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldilocks.data.spec import Spec
from goldilocks.errors import Refused
from goldilocks.training.outcome import Outcome

Array = NDArray[Any]
LEVEL = 0.9  # that is shown at the end of a run
ROUNDING = 1e-9  # (n + 1) * 0.9 may be a whole number that is a bit more


def rank(rows: int, level: float) -> int:
    """Which error of so many, the least being the first, bounds a new one: it may be more than
    there are.
    """
    return math.ceil((rows + 1) * level - ROUNDING)


def fewest_rows(level: float) -> int:
    """The least number of kept rows that a level can be promised with."""
    rows = max(1, math.floor(level / (1 - level)) - 1)
    while rank(rows, level) > rows:
        rows += 1
    return rows


def bound(errors: Array, level: float) -> NDArray[np.float64]:
    """The error that a new row's does not exceed with the probability `level`, [T].

    Args:
        errors: [n, T] of rows that the network was not trained on.
        level: Above 0 and below 1.

    Raises:
        Refused: for another level, or too few rows.
    """
    if not 0 < level < 1:
        raise Refused(f"level {level:g}: is above 0 and below 1, such as 0.9")
    if (place := rank(len(errors), level)) > len(errors):
        raise Refused(
            f"level {level:g}: needs {fewest_rows(level)} kept validation rows at least, and there"
            f" are {len(errors)}; ask for a lower level, or train with more validation rows or"
            " data.folds"
        )
    return np.asarray(np.sort(np.asarray(errors, np.float64), axis=0)[place - 1])


# --- a regression ---------------------------------------------------------------------------------


def compared(spec: Spec, values: Array) -> NDArray[np.float64]:
    """Values, [N, T], in double precision, as logarithms where that is what is learnt."""
    values = np.asarray(values, np.float64)
    if not any(spec.target_log):
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spec.target_log, np.log(values), values)


def margins(spec: Spec, kept: Outcome, level: float) -> NDArray[np.float64]:
    """How far a new row's value is from its prediction at most, [T], each target by itself; as a
    logarithm where that is what is learnt.
    """
    return bound(np.abs(compared(spec, kept.true) - compared(spec, kept.predicted)), level)


def interval(spec: Spec, predicted: Array, margin: Array) -> tuple[Array, Array]:
    """Lower and upper ends, [N, T], around values in the targets' own units."""
    centre = compared(spec, predicted)
    return in_units(spec, centre - margin), in_units(spec, centre + margin)


def in_units(spec: Spec, values: Array) -> Array:
    """The inverse of `compared`."""
    return np.where(spec.target_log, np.exp(values), values) if any(spec.target_log) else values


# --- a regression with quantiles ------------------------------------------------------------------


def band(
    spec: Spec, quantiles: Array, shares: Sequence[float], level: float
) -> tuple[Array, Array]:
    """The two quantiles of each row, [N, T] each, that are nearest to a level; as logarithms where
    that is what is learnt.

    Args:
        spec: Of the data.
        quantiles: [N, T * Q], in the targets' own units.
        shares: Of which they are, [Q].
        level: The share of rows that is to be between both.
    """
    below = min((q for q in shares if q < 0.5), key=lambda q: abs(q - (1 - level) / 2))
    above = min((q for q in shares if q > 0.5), key=lambda q: abs(q - (1 + level) / 2))
    found = [quantiles[:, shares.index(q) :: len(shares)] for q in (below, above)]
    one, other = (compared(spec, values) for values in found)
    return np.minimum(one, other), np.maximum(one, other)  # they may cross


def band_margins(
    spec: Spec, kept: Outcome, shares: Sequence[float], level: float
) -> NDArray[np.float64]:
    """By how much the ends of a new row's band are to be moved outwards, [T], or inwards: Romano et
    al. (2019), "Conformalized quantile regression".
    """
    assert kept.quantiles is not None
    lower, upper = band(spec, kept.quantiles, shares, level)
    true = compared(spec, kept.true)
    return bound(np.maximum(lower - true, true - upper), level)


def band_interval(
    spec: Spec, quantiles: Array, shares: Sequence[float], level: float, margin: Array
) -> tuple[Array, Array]:
    """Lower and upper ends, [N, T], in the targets' own units; for the arguments see `band`."""
    lower, upper = band(spec, quantiles, shares, level)
    middle = (lower + upper) / 2  # a band that is moved inwards may have no width left
    ends = [np.minimum(lower - margin, middle), np.maximum(upper + margin, middle)]
    return in_units(spec, ends[0]), in_units(spec, ends[1])


# --- classes --------------------------------------------------------------------------------------


def rest_of(predicted: Array) -> NDArray[np.float64]:
    """1 - the probability of each class, [N, C], as the sum of the others: exact near 0."""
    values = np.asarray(predicted, np.float64)
    likeliest = values.argmax(1)[:, None]
    others = values.copy()
    np.put_along_axis(others, likeliest, 0.0, 1)
    rest = 1 - values
    np.put_along_axis(rest, likeliest, others.sum(1, keepdims=True), 1)
    return rest


def set_limit(predicted: Array, true: Array, level: float) -> float:
    """How improbable a class of a set may be: 1 - its probability, of n kept rows.

    Sadinle et al. (2019), "Least ambiguous set-valued classifiers".
    """
    own = np.take_along_axis(rest_of(predicted), np.asarray(true)[:, None], 1)
    return float(bound(own, level)[0])


def sets(predicted: Array, limit: float) -> NDArray[np.bool_]:
    """Which classes are in the set of each row, [N, C]. It may be empty: no class is as probable as
    the true ones are.
    """
    return np.asarray(rest_of(predicted) <= limit)


# --- what was asked for, and what came -----------------------------------------------------------


def coverage(
    spec: Spec,
    kept: Outcome,
    tested: Outcome,
    level: float = LEVEL,
    shares: Sequence[float] = (),
) -> dict[str, Any] | None:
    """The share of test rows that intervals or sets cover, for result.json; None if too few rows
    were kept.

    Args:
        spec: Of the data.
        kept: Rows that the network was not trained on, with probabilities as they are given out.
        tested: Test rows in the same form.
        level: What is asked for.
        shares: Of the quantiles that are learnt.
    """
    if rank(len(kept.rows), level) > len(kept.rows) or not len(tested.rows):
        return None
    entry: dict[str, Any] = {"level": level, "rows": len(tested.rows), "kept": len(kept.rows)}
    if spec.task != "regression":
        found = sets(tested.predicted, set_limit(kept.predicted, kept.true, level))
        own = np.take_along_axis(found, np.asarray(tested.true)[:, None], 1)
        return {**entry, "reached": float(own.mean()), "size": float(found.sum(1).mean())}
    if tested.quantiles is not None and kept.quantiles is not None:
        margin = band_margins(spec, kept, shares, level)
        lower, upper = band_interval(spec, tested.quantiles, shares, level, margin)
    else:
        lower, upper = interval(spec, tested.predicted, margins(spec, kept, level))
    inside = (lower <= tested.true) & (tested.true <= upper)
    names = spec.target_names or [f"target {number}" for number in range(inside.shape[1])]
    targets = {
        name: {"reached": float(one.mean()), "width": float(wide.mean())}
        for name, one, wide in zip(names, inside.T, (upper - lower).T, strict=True)
    }
    return {**entry, "reached": float(inside.mean()), "targets": targets}


def in_words(entry: Mapping[str, Any]) -> str:
    """What was asked for and what came, in a line.

    >>> known = {"level": 0.9, "rows": 100, "kept": 80, "reached": 0.88, "size": 1.25}
    >>> in_words(known)  # doctest: +NORMALIZE_WHITESPACE
    'sets of 90 %: 0.880 ± 0.030 of the 100 test rows have their class in them, 1.25 classes in
    the mean'
    """
    level, rows, reached = entry["level"], entry["rows"], entry["reached"]
    luck = (level * (1 - level) / rows) ** 0.5
    if "size" in entry:
        return (
            f"sets of {100 * level:g} %: {reached:.3f} ± {luck:.3f} of the {rows:,} test rows have"
            f" their class in them, {entry['size']:.3g} classes in the mean"
        )
    targets: Sequence[Any] = list(entry["targets"].items())
    each = [
        f"{f'{name} ' if targets[1:] else ''}{own['reached']:.3f} ± {luck:.3f}"
        f" of the {rows:,} test rows, {own['width']:.4g} wide in the mean"
        for name, own in targets
    ]
    return f"intervals of {100 * level:g} % cover {'; '.join(each)}"
