"""Whether data can be learnt from: what is looked at before any network is.

Pure functions of the rows as a network gets them, split and scaled.

Legend: N rows, F features, C columns of an encoded target.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldilocks.data.spec import TaskName
from goldilocks.data.verdict import Status, Verdict, grade, listed

Array = NDArray[Any]
Parts = Mapping[str, tuple[Array, Array]]  # inputs and targets by stage

VALUES = "missing values"
SAME = "a single value in all training rows"
SPREADS = 100.0  # between columns, above which they are not on one scale
FAR = 10.0  # a mean from zero, in standard deviations
EQUAL_ROWS = (
    0.1  # share of a split that is in the training rows too, from which a score is not believed
)
COINCIDENCE = 0.01  # expected share of equal rows, from which they are no sign of a leak
IMBALANCE = 5.0  # the largest class by the smallest
OUTLIER = 10.0  # standard deviations from the mean
SAMPLED_ROWS, SAMPLED_COLUMNS = 2000, 200  # for what scikit-learn fits
FOLDS = 3
ALONE, APART = (
    0.98,
    0.05,
)  # skill of one feature, and lead over the others, that only the target itself has
STRONG, AHEAD = 0.9, 0.3  # those that are worth a question
CLASS_ROWS = 10  # of a class, below which a feature may tell it by chance
PERMUTATIONS = 1000
BY_CHANCE = (0.002, 0.05)  # share of shuffled targets that are predicted as well


def check_values(parts: Parts) -> Verdict:
    """Missing and infinite values. A source's own are refused before; scaling may make some."""
    total = sum(x.size + y.size for x, y in parts.values())
    bad = sum(np.count_nonzero(~np.isfinite(values)) for rows in parts.values() for values in rows)
    if bad:
        advice = (
            "the numbers are too large for 32 bits: write data.scaling=standard, or clip them in"
            " load()"
        )
        return Verdict(VALUES, "failed", f"{bad:,} of {total:,} are not finite", advice)
    return Verdict(VALUES, "ok", f"none in {total:,} numbers")


def check_constant(x: Array, names: Sequence[str] = ()) -> Verdict:
    """Features with a single value in all training rows, x [N, ...]."""
    flat = x.reshape(len(x), -1)
    found = np.flatnonzero(flat.min(0) == flat.max(0)).tolist()
    if x.ndim > 2:
        return Verdict(
            "constant features",
            "ok",
            f"{len(found)} of {flat.shape[1]} pixels, as is usual in images",
        )
    if not found:
        return Verdict("constant features", "ok", f"none of {flat.shape[1]}")
    measured = (
        f"{len(found)} of {flat.shape[1]}: {listed(name_of(column, names) for column in found)}"
    )
    status: Status = "failed" if len(found) == flat.shape[1] else "warning"
    return Verdict(
        "constant features",
        status,
        measured,
        "they tell a network nothing: drop them from the table",
    )


def check_repeated(x: Array, names: Sequence[str] = ()) -> Verdict:
    """Features that are equal to another one in all training rows, x [N, F];
    constant ones are named elsewhere.
    """
    seen: dict[int, int] = {}
    pairs = []
    for column, values in enumerate(np.ascontiguousarray(x.T) + 0.0):
        if values.min() == values.max():
            continue
        first = seen.setdefault(hash(values.tobytes()), column)
        if first != column:
            pairs.append(f"{name_of(column, names)} is {name_of(first, names)}")
    if not pairs:
        return Verdict("repeated features", "ok", f"none of {x.shape[1]}")
    measured = f"{len(pairs)} of {x.shape[1]}: {listed(pairs, 3)}"
    return Verdict(
        "repeated features",
        "warning",
        measured,
        "each counts twice: drop one of each pair from the table",
    )


def check_scale(x: Array, names: Sequence[str] = ()) -> Verdict:
    """Features on scales of their own, x [N, F] or [N, channels, height, width]:
    the largest drowns the others.
    """
    values = x.reshape(len(x), -1) if x.ndim != 4 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
    means, spreads = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    varied = np.flatnonzero(spreads > 0)
    if not len(varied):
        return Verdict("scale of features", "ok", "no feature varies")
    means, spreads = means[varied], spreads[varied]
    ratio, offset = spreads.max() / spreads.min(), np.max(np.abs(means) / spreads)
    measured = (
        f"standard deviations from {spreads.min():.3g} to {spreads.max():.3g}, means up to"
        f" {offset:.1f} of them from 0"
    )
    if ratio < SPREADS and offset < FAR and spreads.max() < SPREADS and spreads.min() > 1 / SPREADS:
        return Verdict("scale of features", "ok", measured)
    if x.ndim == 2:
        places = np.argmin(spreads), np.argmax(spreads)
        few, many = (name_of(int(varied[place]), names) for place in places)
        measured += f"; least in {few}, most in {many}" if few != many else ""
    return Verdict(
        "scale of features", "warning", measured, "no common scale: write data.scaling=standard"
    )


def check_equal_rows(parts: Parts, dropped: bool | None = None) -> Verdict:
    """Rows of a split whose features are in the training rows too:
    there the network has seen the answer.

    Args:
        parts: By stage.
        dropped: `data.drop_duplicates`; None where the data have no such option.
    """
    name, seen = "rows in two splits", set(row_keys(parts["train"][0]))
    others = {stage: row_keys(x) for stage, (x, _) in parts.items() if stage != "train"}
    if not others:
        return Verdict(name, "ok", "all rows are training rows")
    counts = {stage: sum(key in seen for key in keys) for stage, keys in others.items()}
    shares = {stage: counts[stage] / len(keys) for stage, keys in others.items()}
    text = ", ".join(
        f"{counts[stage]} of {len(keys)} {stage} rows" for stage, keys in others.items()
    )
    measured = f"{text} equal a training row"
    worst = max(shares.values())
    if not worst:
        return Verdict(name, "ok", measured)
    if expected_equal(parts["train"][0]) > COINCIDENCE:
        return Verdict(name, "ok", measured + ", by coincidence: few values are possible")
    status = grade(worst, 0, EQUAL_ROWS)
    if dropped:
        advice = "their targets differ: no column says what tells these rows apart"
        return Verdict(name, status, measured, advice)
    advice = "these rows test memory: drop repeated rows before the split"
    if dropped is None:
        return Verdict(name, status, measured, f"{advice}, in load()")
    override = "data.drop_duplicates=true"
    return Verdict(name, status, measured, f"{advice}: write {override}", (override,))


def row_keys(x: Array) -> list[int]:
    """A number for each row, the same for equal rows."""
    return [hash(row.tobytes()) for row in np.ascontiguousarray(x.reshape(len(x), -1)) + 0.0]


def expected_equal(x: Array) -> float:
    """Rows among `x`, [N, ...], that equal one more row by chance,
    if features were independent of each other.
    """
    flat = evenly(x, SAMPLED_ROWS).reshape(min(len(x), SAMPLED_ROWS), -1)
    chance = 0.0  # its logarithm
    for values in flat.T:
        shares = np.unique(values, return_counts=True)[1] / len(values)
        chance += math.log(float(shares @ shares))
    return len(x) * math.exp(chance)


def check_classes(
    counts: Sequence[int], names: Sequence[str] = (), balanced_by: Sequence[str] = ()
) -> Verdict:
    """Whether every class has its share of the training rows.

    Args:
        counts: Training rows of each class.
        names: Of the classes.
        balanced_by: Keys of the configuration that make classes count alike already.
    """
    least, most = int(np.argmin(counts)), int(np.argmax(counts))
    rare, common = (
        f"{counts[place]:,} rows ({name_of(place, names, 'class')})" for place in (least, most)
    )
    measured = f"{len(counts)} of equally many rows"
    if counts[least] != counts[most]:
        measured = f"{len(counts)}, the rarest of {rare}, the commonest of {common}"
    if not counts[least]:
        return Verdict(
            "classes",
            "failed",
            measured,
            "a class without a row to train on: write another data.seed",
        )
    if counts[most] / counts[least] < IMBALANCE:
        return Verdict("classes", "ok", measured)
    if balanced_by:
        return Verdict("classes", "ok", f"{measured}, balanced by {' and '.join(balanced_by)}")
    advice = (
        "rare classes count little: write task.class_weight=balanced, and follow"
        " objective.metric=val/f1"
    )
    return Verdict("classes", "warning", measured, advice)


def check_target(y: Array, squared: bool = True) -> Verdict:
    """Whether a regression's target, [N, targets], varies,
    and has no values that rule a squared error.
    """
    spread, centre = y.std(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    if not spread.all():
        return Verdict(
            "target",
            "failed",
            SAME,
            "there is nothing to learn from it",
        )
    far = float(np.max(np.abs(y - centre) / spread))
    measured = f"at most {far:.1f} standard deviations from its mean"
    if far < OUTLIER or not squared:
        return Verdict("target", "ok", measured)
    return Verdict(
        "target",
        "warning",
        measured,
        "outliers rule a squared error: write loss=huber",
        ("loss=huber",),
    )


# --- what scikit-learn finds ----------------------------------------------------------------------


def check_single_features(
    x: Array,
    y: Array,
    task: TaskName,
    names: Sequence[str] = (),
    classes: Sequence[str] = (),
    owners: Sequence[str] = (),
) -> Verdict:
    """A feature that alone gives the target away:
    often it is known only after the target, or made from it.

    A small tree for each feature, cross-validated on training rows. Skill is the share of the error
    of a constant guess that it removes: 1 is perfect.

    Args:
        x: [N, F].
        y: Targets as a task's loss takes them.
        task: Whose.
        names: Of the features.
        classes: Their names.
        owners: The column of the table that each feature is of;
            () where there is no table to drop it from.
    """
    name, columns = "single features", evenly(np.arange(x.shape[1]), SAMPLED_COLUMNS)
    x, target = evenly(x, SAMPLED_ROWS), encoded(evenly(y, SAMPLED_ROWS), task)
    if len(columns) < 2 or len(x) < 2 * FOLDS:
        return Verdict(name, "ok", "too few to compare")
    if not target.std(0).any():
        return Verdict(name, "ok", SAME)
    guesses = [predicted(small_tree, x[:, [column]], target) for column in columns]
    skills = np.array([skill(guess, target, task) for guess in guesses])
    best = int(np.argmax(skills))
    perfect = skills[best] >= ALONE
    rest = max(
        float(np.max(skills[skills < ALONE] if perfect else np.delete(skills, best), initial=0)), 0
    )
    found = columns[skills >= ALONE] if perfect else columns[[best]]
    names_found = listed(name_of(int(column), names) for column in found)
    measured = (
        f"{names_found} alone: {max(skills[best], 0):.0%} of a guess's error removed, by the next"
        f" {rest:.0%}"
    )
    lead = float(skills[best]) - rest
    status: Status = "failed" if skills[best] >= ALONE and lead >= APART else "warning"
    if skills[best] < ALONE and (skills[best] < STRONG or lead < AHEAD):
        of_class = None if task == "regression" else tells_one_class(guesses, target)
        if of_class is None:
            return Verdict(name, "ok", measured)
        column, place, rest = of_class
        found, status = columns[[column]], "warning"
        names_found = name_of(int(columns[column]), names)
        measured = f"{names_found} alone tells the rows of {name_of(place, classes, 'class')}"
        measured += f" from all others, and no more; the next removes {rest:.0%} of a guess's error"
    advice = (
        "is it known before the target is? If not, the target has leaked into it: drop it from the"
        " table"
    )
    overrides = tuple(drop(owners[column]) for column in found) if owners else ()
    return Verdict(name, status, measured, advice, tuple(dict.fromkeys(filter(None, overrides))))


def tells_one_class(guesses: Sequence[Array], target: Array) -> tuple[int, int, float] | None:
    """A feature that tells one class of several from all others and nothing of these,
    as no other feature does.

    Where a class is easy to tell, as setosa among iris, several features tell it, and others too.

    Args:
        guesses: By feature, predictions [N, C].
        target: [N, C], 0 and 1.

    Returns:
        The number of the feature, that of the class, and the skill of the
        best feature that does not tell it.
    """
    for place in np.flatnonzero(target.sum(0) >= CLASS_ROWS).tolist():
        own, known = target[:, place] > 0.5, target[:, place].mean()
        wrong = [np.mean((guess[:, place] > 0.5) != own) for guess in guesses]
        skills = 1 - np.array(wrong) / max(min(known, 1 - known), 1e-12)
        rest = float(np.max(skills[skills < ALONE], initial=0))
        others = np.delete(np.arange(target.shape[1]), place)
        if len(others) < 2 or rest > ALONE - AHEAD:
            continue
        for column in np.flatnonzero(skills >= ALONE).tolist():
            among = guesses[column][~own][:, others]
            if skill(among, target[~own][:, others], "multiclass") < AHEAD:
                return column, place, rest
    return None


def drop(column: str) -> str:
    """What leaves a column out of a table;
    empty for a name that the command line does not take as it is.
    """
    return f"data.columns.{column}=drop" if re.fullmatch(r"[A-Za-z_]\w*", column, re.A) else ""


def check_signal(x: Array, y: Array, task: TaskName) -> Verdict:
    """Whether features tell anything about the target:
    predictions of rows left out against shuffled targets.

    A forest and a ridge regression, cross-validated;
    of a regression's target the ranks, so that outliers do not rule.

    Args:
        x: [N, ...], of training and validation rows.
        y: Targets as a task's loss takes them.
        task: Whose.
    """
    x = evenly(x, SAMPLED_ROWS).reshape(min(len(x), SAMPLED_ROWS), -1)
    target = encoded(evenly(y, SAMPLED_ROWS), task)
    if not target.std(0).any():
        return Verdict("something to learn", "failed", SAME, "there is nothing to learn from it")
    if task == "regression":
        target = target.argsort(0).argsort(0).astype(np.float64)
    target = target - target.mean(0)
    guess = standardised(predicted(forest, x, target)) + standardised(predicted(ridge, x, target))
    size = float(np.linalg.norm(guess) * np.linalg.norm(target)) or 1.0
    random = np.random.default_rng(0)
    shuffled = [
        float((guess * target[random.permutation(len(x))]).sum()) / size
        for _ in range(PERMUTATIONS)
    ]
    reached = float((guess * target).sum()) / size
    chance = float(np.mean(np.array(shuffled) >= reached))
    measured = (
        f"correlation {reached:.2f} with rows left out, by chance up to"
        f" {np.quantile(shuffled, 0.99):.2f}"
    )
    advice = (
        "a forest does no better than chance: do rows and targets belong together? Look at load()"
    )
    status = grade(chance, *BY_CHANCE)
    return Verdict("something to learn", status, measured, advice if status != "ok" else "")


def encoded(y: Array, task: TaskName) -> Array:
    """Targets as numbers, [N, C]: a column for each class, or a regression's values."""
    if task == "regression":
        return y.reshape(len(y), -1).astype(np.float64)
    labels = y.reshape(-1).astype(int)
    return np.eye(labels.max() + 1)[labels]


def skill(guess: Array, target: Array, task: TaskName) -> float:
    """Share of a constant guess's error that predictions, [N, C], remove;
    of several targets that vary, the best.
    """
    if task == "regression":
        errors, spread = ((target - guess) ** 2).sum(0), ((target - target.mean(0)) ** 2).sum(0)
        return float(np.max(1 - errors[spread > 0] / spread[spread > 0], initial=-1))
    wrong, guessed = np.mean(guess.argmax(1) != target.argmax(1)), 1 - target.mean(0).max()
    return float(1 - wrong / guessed) if guessed > 0 else 0.0


def predicted(make: Callable[[], Any], x: Array, target: Array) -> Array:
    """Predictions, [N, C], of each row by a model that was fitted without it."""
    guess = np.empty(target.shape)
    for fitted, left_out in folds(len(x)):
        model = make().fit(
            x[fitted], target[fitted].squeeze(-1) if target.shape[1] == 1 else target[fitted]
        )
        guess[left_out] = model.predict(x[left_out]).reshape(len(left_out), -1)
    return guess


def folds(rows: int) -> Iterator[tuple[Array, Array]]:
    """Row numbers to fit on, and those left out."""
    order = np.random.default_rng(0).permutation(rows)
    for place in range(FOLDS):
        left_out = order[place::FOLDS]
        yield np.setdiff1d(order, left_out), left_out


def small_tree() -> Any:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(max_depth=6, min_samples_leaf=2, random_state=0)


def forest() -> Any:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(100, max_features="sqrt", min_samples_leaf=2, random_state=0)


def ridge() -> Any:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge(alpha=10.0))


# --- helpers --------------------------------------------------------------------------------------


def standardised(values: Array) -> Array:
    """Columns around zero, and all of them together of variance 1."""
    values = values - values.mean(0)
    return values / (values.std() or 1.0)


def evenly(values: Array, most: int) -> Array:
    """At most so many of the rows, spread over all."""
    return (
        values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).astype(int)]
    )


def name_of(place: int, names: Sequence[str], what: str = "column") -> str:
    """A column's name, or its number where there are no names."""
    return names[place] if place < len(names) else f"{what} {place}"
