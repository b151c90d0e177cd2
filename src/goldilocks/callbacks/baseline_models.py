"""What the network of a table is compared with: a constant, and scikit-learn's models.

scikit-learn is imported where a model is fitted: that is after the training.

Legend: N rows, F inputs, C classes or targets.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from goldilocks.tasks.task import Task, constant_prediction
from goldilocks.training.outcome import predicted_from

Array = NDArray[Any]
Predict = Callable[[Array], Array]

MOST_NUMBERS = 5_000_000  # rows * inputs * outputs that a model is fitted on
CHOSEN = 300_000  # of these, up to which the linear model's penalty is chosen
PENALTIES = (0.01, 0.1, 1.0, 10.0)  # of classes, scikit-learn's C
RIDGES = tuple(10.0**power for power in range(-2, 5))  # of a regression, its alpha
PARTS = 3  # of the rows, by which a penalty is chosen
HELD = 0.1  # of the training rows, by which boosting stops
MOST_TREES, FOREST_TREES = 300, 100
MOST_CATEGORIES = 255  # of a column that boosting takes as categories


@dataclass(frozen=True)
class Rows:
    """Training rows as the network gets them.

    Attributes:
        task: What is learnt.
        x: [N, F], the numbers of categories last.
        y: [N] class indices, or [N, C] scaled values.
        balanced: Whether every class counts alike.
        ends: When no more trees are grown, by `time.monotonic`.
    """

    task: Task
    x: Array
    y: Array
    balanced: bool
    ends: float

    @property
    def is_regression(self) -> bool:
        return self.task.spec.task == "regression"

    @property
    def numbers(self) -> int:
        """How many inputs, the first ones, are no categories."""
        return self.x.shape[1] - len(self.task.spec.category_counts)

    @property
    def size(self) -> int:
        """How many numbers a model is fitted on."""
        return self.x.size * self.task.spec.num_outputs


@dataclass(frozen=True)
class Fitted:
    """A model.

    Attributes:
        predict: From inputs [N, F] to probabilities of all classes, or scaled values, [N, C].
        note: What of it was cut short; empty for nothing.
    """

    predict: Predict
    note: str = ""


def fit_constant(rows: Rows) -> Fitted:
    """The training rows' shares of the classes, each with a row more; or the constant of the loss:
    their mean or median.
    """
    task = rows.task
    y = torch.from_numpy(rows.y)
    values = constant_prediction(task, y[:, None] if task.spec.task == "binary" else y).float()
    if not rows.is_regression:
        values = predicted_from(task, values)
    constant = values.numpy()
    return Fitted(lambda x: np.repeat(constant, len(x), 0))


# --- linear ---------------------------------------------------------------------------------------


def fit_linear(rows: Rows) -> Fitted:
    """Logistic regression, or ridge regression, of standardized numbers and one input for each
    category.
    """
    if rows.is_regression:
        return fit_ridge(rows)
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline

    plain = LogisticRegression(max_iter=300)
    model = make_pipeline(standardized(rows), plain)
    if rows.size <= CHOSEN and np.bincount(rows.y).min() >= PARTS:
        parts = StratifiedKFold(PARTS, shuffle=True, random_state=0)
        choices = {"logisticregression__C": PENALTIES}
        model = GridSearchCV(model, choices, cv=parts, scoring="neg_log_loss")
    return Fitted(of_all_classes(quietly(model.fit, rows.x, rows.y), rows))


def fit_ridge(rows: Rows) -> Fitted:
    """Each target has a penalty of its own, chosen by leaving out a row at a time."""
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.pipeline import make_pipeline

    chosen = RidgeCV(alphas=RIDGES, alpha_per_target=rows.y.shape[1] > 1)
    ridge = chosen if rows.size <= CHOSEN else Ridge()
    model = quietly(make_pipeline(standardized(rows), ridge).fit, rows.x, rows.y)
    return Fitted(lambda x: model.predict(x).reshape(len(x), -1))


def standardized(rows: Rows) -> Any:
    """Numbers with mean 0 and variance 1, an input for each category."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    places = list(range(rows.x.shape[1]))
    return ColumnTransformer(
        [
            ("numbers", StandardScaler(), places[: rows.numbers]),
            ("categories", OneHotEncoder(handle_unknown="ignore"), places[rows.numbers :]),
        ]
    )


def quietly(fit: Callable[[Array, Array], Any], x: Array, y: Array) -> Any:
    """Fits without warnings: one that did not converge is a baseline too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(x, y)


# --- trees ----------------------------------------------------------------------------------------


def fit_trees(rows: Rows) -> Fitted:
    """Histogram gradient boosting as scikit-learn has it, with early stopping by a tenth of the
    training rows.

    Of several targets each has a model of its own.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    counts = rows.task.spec.category_counts
    categories = [False] * rows.numbers + [count <= MOST_CATEGORIES for count in counts]
    options: dict[str, Any] = {
        "categorical_features": categories if any(categories) else None,
        "early_stopping": can_hold_out(rows),
        "validation_fraction": HELD,
        "random_state": 0,
        "warm_start": True,
    }
    if not rows.is_regression:
        model = HistGradientBoostingClassifier(**options)
        note = grow([(model, rows.y)], rows, "max_iter", MOST_TREES)
        return Fitted(of_all_classes(model, rows), note)
    models = [(HistGradientBoostingRegressor(**options), target) for target in rows.y.T]
    note = grow(models, rows, "max_iter", MOST_TREES)
    return Fitted(lambda x: np.stack([model.predict(x) for model, _ in models], 1), note)


def can_hold_out(rows: Rows) -> bool:
    """Whether a tenth of the rows has all classes, each of which has two rows."""
    held = int(HELD * len(rows.x))
    if rows.is_regression:
        return held > 1
    counts = np.bincount(rows.y)
    return held >= len(counts) and bool(counts.min() > 1)


def fit_forest(rows: Rows) -> Fitted:
    """A random forest as scikit-learn has it.

    Its shares of trees are often 0, of which the loss is infinite: every class counts as if it had
    an equal part of a tree more.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    options: dict[str, Any] = {"random_state": 0, "warm_start": True}
    if rows.is_regression:
        target = rows.y.squeeze(1) if rows.y.shape[1] == 1 else rows.y
        regressor = RandomForestRegressor(**options)
        note = grow([(regressor, target)], rows, "n_estimators", FOREST_TREES)
        return Fitted(lambda x: regressor.predict(x).reshape(len(x), -1), note)
    model = RandomForestClassifier(**options)
    note = grow([(model, rows.y)], rows, "n_estimators", FOREST_TREES)
    shares, trees = of_all_classes(model, rows), model.n_estimators

    def predict(x: Array) -> Array:
        found = shares(x)
        return (trees * found + 1 / found.shape[1]) / (trees + 1)

    return Fitted(predict, note)


def grow(models: list[tuple[Any, Array]], rows: Rows, count: str, most: int) -> str:
    """Grows trees until all have as many as they want, or the time is over.

    Args:
        models: That keep their trees when they are fitted again, each with its target.
        rows: To fit on.
        count: The name of the models' number of trees.
        most: Trees of each.

    Returns:
        What was cut short, in words; empty for nothing.
    """
    for trees in growing(most):
        for model, target in models:
            if wants_more(model, count):
                model.set_params(**{count: trees})
                quietly(model.fit, rows.x, target)
        if not any(wants_more(model, count) for model, _ in models):
            return ""
        if trees < most and time.monotonic() > rows.ends:
            return f"its time was over after {trees} of {most} trees"
    return ""


def growing(most: int) -> Iterator[int]:
    """Numbers of trees after which the clock is looked at.

    >>> list(growing(100))
    [1, 10, 20, 30, 45, 67, 100]
    """
    trees = 1
    while trees < most:
        yield trees
        trees = min(max(trees // 10 * 10 + 10, trees * 3 // 2), most)
    yield most


def wants_more(model: Any, count: str) -> bool:
    """Whether early stopping has not ended it."""
    grown = getattr(model, "n_iter_", None)
    if grown is None:  # not fitted yet, or a forest
        return True
    return grown == model.get_params()[count] and not is_stopped(model)


def is_stopped(model: Any) -> bool:
    """Whether early stopping has ended it with the last tree that it was allowed: scikit-learn
    would grow one more before it looks again.
    """
    scores, patience = model.validation_score_, model.n_iter_no_change
    if len(scores) <= patience:
        return False
    return not (scores[-patience:] > scores[-patience - 1] + model.tol).any()


def of_all_classes(model: Any, rows: Rows) -> Predict:
    """Its probabilities with a column for every class, those too that the training rows lack.

    Where every class counts alike, they are divided by the classes' shares of the training rows, by
    Bayes' rule: weights while fitting take boosting thirty times as long.
    """
    classes = max(rows.task.spec.num_outputs, 2)
    counts = np.bincount(rows.y, minlength=classes) if rows.balanced else np.ones(classes)

    def predict(x: Array) -> Array:
        found = np.zeros((len(x), classes))
        found[:, model.classes_] = model.predict_proba(x)
        found /= np.maximum(counts, 1)
        return found / found.sum(1, keepdims=True)

    return predict


MODELS: dict[str, Callable[[Rows], Fitted]] = {
    "constant": fit_constant,
    "linear": fit_linear,
    "trees": fit_trees,
    "forest": fit_forest,
}
