"""The networks of a finished run, ready to predict: `goldilocks.load(RUN).predict(rows)`.

Legend: N rows, F features, C classes, T targets.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from goldilocks.data.base import EVALUATION_ROWS_ON_CPU
from goldilocks.data.scaling import apply_scaler, check_finite
from goldilocks.data.tables.dialect import column_names
from goldilocks.data.tables.preparation import Strange, StrangeValues
from goldilocks.errors import Refused, near_miss
from goldilocks.runs import conformal
from goldilocks.runs.calibration import read_calibration, tempered
from goldilocks.runs.ensembles import kept, members_of
from goldilocks.runs.folder import find_run, read_result
from goldilocks.runs.trained import TrainedNetwork, load_network
from goldilocks.runs.uncertainty import calibrated
from goldilocks.training.outcome import Outcome, predicted_from

Array = NDArray[Any]


class Predictor:
    """What a run has learnt: rows in, predictions out, on the CPU.

    Several networks predict together: the weighted mean of their probabilities or values.

    Args:
        members: The networks and their weights, whose sum is 1; the first one with the greatest.
        folder: Of the run.
        strict: Whether values that the training rows did not have are refused, in place of a
            warning.
    """

    def __init__(
        self, members: Sequence[tuple[TrainedNetwork, float]], folder: Path, strict: bool = False
    ) -> None:
        self.members = [member for member, _ in members]
        self.weights = [weight for _, weight in members]
        self.folder = folder
        self.strict = strict
        self.calibration = read_calibration(folder)
        lead = self.members[0]
        self.task = lead.task
        self.spec = lead.spec
        self.settings = lead.settings
        self.preparation = lead.preparation
        self.target_forms = lead.target_forms
        names = list(dict.fromkeys(name for member in self.members for name in columns_of(member)))
        self.feature_names_in_ = np.array(names, dtype=object)
        self.n_features_in_ = (
            len(names) if self.preparation else int(np.prod(self.spec.input_shape))
        )

    def __repr__(self) -> str:
        """What is predicted from what, how well, and by which run."""
        spec, shape = self.spec, self.spec.input_shape
        what = f"{len(spec.class_names)} classes"
        if spec.task == "regression":
            what = ", ".join(spec.target_names) or f"{spec.num_outputs} numbers"
        rows = f"{self.n_features_in_} columns" if len(shape) == 1 else f"[{shown(shape)}]"
        networks = [f"{len(self.members)} networks"] if len(self.members) > 1 else []
        parts = [f"{what} from {rows}", *networks, *score_of(self.folder), str(self.folder)]
        return f"{type(self).__name__}({', '.join(parts)})"

    # --- what scikit-learn asks of an estimator ---------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        """A classifier's or a regressor's, of several targets perhaps."""
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags

        classifies = bool(self.spec.class_names)
        several = not classifies and self.spec.num_outputs > 1
        return Tags(
            estimator_type="classifier" if classifies else "regressor",
            target_tags=TargetTags(required=True, multi_output=several),
            classifier_tags=ClassifierTags() if classifies else None,
            regressor_tags=None if classifies else RegressorTags(),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> "Predictor":
        """Itself, as scikit-learn's FrozenEstimator: there is nothing to fit again."""
        return self

    def fit(self, rows: Any, targets: Any = None) -> "Predictor":
        """Refuses: the network is trained. scikit-learn's tools ask whether there is the method."""
        raise Refused("fit: this network is trained; train another one with goldilocks.train")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What it was loaded with."""
        return {"folder": self.folder, "strict": self.strict}

    # --- rows -------------------------------------------------------------------------------------

    def prepared(self, rows: Any) -> list[NDArray[np.float32]]:
        """Inputs of each network, [N, *input_shape].

        Args:
            rows: A pandas DataFrame, whose other columns are ignored; or an array: of a table [N,
                columns], in the order of `feature_names_in_`, of images as the source of data loads
                them.

        Raises:
            Refused: a ValueError, for rows that lack a column or have another shape.
        """
        if self.preparation is not None:
            frame = self.framed(rows)
            return [one.preparation.transform(frame) for one in self.members if one.preparation]
        if hasattr(rows, "columns"):
            from goldilocks.data.tables.columns import numbers_of

            names = list(self.feature_names_in_)
            if not names:
                raise Refused(
                    f"rows: an array [N, {shown(self.spec.input_shape)}] is expected, not a table"
                )
            check_columns(names, list(rows.columns))
            rows = np.stack([numbers_of(rows[name]) for name in names], axis=1)
        values = np.asarray(rows)
        if values.shape[1:] != self.spec.input_shape:
            raise Refused(
                f"rows: [N, {shown(self.spec.input_shape)}] is expected, not"
                f" [{shown(values.shape)}]"
            )
        if values.dtype.kind not in "fiub":
            values = values.astype(np.float64)
        check_finite(values, self.spec.feature_names)
        return [apply_scaler(values, member.scaler) for member in self.members]

    def tell(self, rows: Any) -> None:
        """Warns of values that the training rows did not have, a line a column.

        Raises:
            Refused: a ValueError, in place of the warning, if `strict`.
        """
        if self.preparation is None:
            return
        strange = self.strange(self.framed(rows))
        if strange and self.strict:
            raise Refused(f"rows: {'; '.join(map(str, strange))}")
        for found in strange:
            warnings.warn(str(found), StrangeValues, stacklevel=3)

    def strange(self, frame: Any) -> list[Strange]:
        """Values of a table, by column, that none of the networks has had in training."""
        found = [
            {(each.column, each.what): each for each in one.preparation.strange(frame)}
            for one in self.members
            if one.preparation is not None
        ]
        everywhere = [key for key in found[0] if all(key in of for of in found)]
        return [min((of[key] for of in found), key=lambda each: each.rows) for key in everywhere]

    def framed(self, rows: Any) -> Any:
        """Rows as a pandas DataFrame that has all columns that are needed."""
        import pandas as pd

        names = list(self.feature_names_in_)
        if hasattr(rows, "columns"):
            rows = renamed(rows, names)
            check_columns(names, list(rows.columns))
            return rows
        values = np.asarray(rows)
        if values.ndim != 2 or values.shape[1] != len(names):
            raise Refused(
                f"rows: [N, {len(names)}] is expected, not [{shown(values.shape)}]; the columns"
                f" are {', '.join(names)}"
            )
        return pd.DataFrame(values, columns=names).infer_objects()

    def outputs(self, rows: Any) -> NDArray[np.float32]:
        """Probabilities of the classes, [N, C], or values in the targets' own units, [N, T];
        nothing is told.
        """
        return self.given_out(self.whole(rows))

    def given_out(self, whole: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of what `whole` gives what is predicted: of quantiles the median."""
        return np.asarray(self.task.middle(torch.from_numpy(whole)).numpy())

    def whole(self, rows: Any) -> NDArray[np.float32]:
        """As `outputs`, but of a regression that learns several quantiles all of them, of each
        target in turn, [N, T * Q].
        """
        total: Any = 0.0
        for member, weight, inputs in zip(
            self.members, self.weights, self.prepared(rows), strict=True
        ):
            total = total + weight * predictions(member, inputs)
        return tempered(np.asarray(total, np.float32), self.calibration.temperature)

    def kept(self) -> Outcome:
        """The run's kept predictions of validation rows, with probabilities as they are given out.

        Raises:
            Refused: if there are none.
        """
        return calibrated(kept(self.folder), self.calibration)


def columns_of(member: TrainedNetwork) -> list[str]:
    """Names of the columns that a network needs; none of images."""
    if member.preparation is None:
        return list(member.spec.feature_names)
    return [column.name for column in member.preparation.columns]


@torch.no_grad()
def predictions(member: TrainedNetwork, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What one network predicts for prepared rows, batch by batch: [N, C], [N, T] or all quantiles,
    [N, T * Q].
    """
    task = member.task
    width = len(member.spec.class_names) or task.outputs
    found = [np.empty((0, width), np.float32)]
    for first in range(0, len(inputs), EVALUATION_ROWS_ON_CPU):
        x = torch.from_numpy(inputs[first : first + EVALUATION_ROWS_ON_CPU])
        output = member.network(x)
        quantiles = bool(task.quantiles)
        said = task.unscale(task.combine(output)) if quantiles else predicted_from(task, output)
        found.append(said.numpy())
    return np.concatenate(found)


class Regressor(Predictor):
    """Predicts values in the targets' own units."""

    _estimator_type = "regressor"  # scikit-learn before 1.6 looks here

    def predict(self, rows: Any, interval: float | None = None) -> Any:
        """Values of rows, [N], or [N, T] of several targets; with `interval` a tuple of three such
        arrays: values, lower ends, upper ends.

        Args:
            rows: See `prepared`.
            interval: The share of rows whose value is to be between the ends, such as 0.9.

        Raises:
            Refused: a ValueError, for a share that the run has too few kept predictions for.
        """
        self.tell(rows)
        whole = self.whole(rows)
        values = self.given_out(whole)
        found = [values]
        if interval is not None:
            ends = self.ends_by(interval)(whole)
            found += [end.astype(np.float32) for end in ends]
        if values.shape[1] == 1:
            found = [each[:, 0] for each in found]
        return found[0] if interval is None else tuple(found)

    def score(self, rows: Any, targets: Any, sample_weight: Any = None) -> float:
        """R2 of the predictions, as of scikit-learn's regressors."""
        from sklearn.metrics import r2_score

        return float(r2_score(targets, self.outputs(rows), sample_weight=sample_weight))

    def ends_by(self, level: float) -> Callable[[Array], tuple[Array, Array]]:
        """What makes lower and upper ends, [N, T] each in double precision, of what `whole` gives.

        Raises:
            Refused: if the run has kept too few predictions for the level.
        """
        spec, kept, shares = self.spec, self.kept(), self.task.quantiles
        if not shares:
            margin = conformal.margins(spec, kept, level)
            return lambda whole: conformal.interval(spec, whole, margin)
        margin = conformal.band_margins(spec, kept, shares, level)
        return lambda whole: conformal.band_interval(spec, whole, shares, level, margin)


class Classifier(Predictor):
    """Predicts classes; `classes_` holds them in the order of the probabilities, [C]."""

    _estimator_type = "classifier"  # scikit-learn before 1.6 looks here

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.classes_ = classes_of(self.spec.class_names)

    def predict(self, rows: Any) -> Array:
        """The likeliest class of each row, [N], or of two classes the second where its probability
        is above the run's threshold; for `rows` see `prepared`.
        """
        self.tell(rows)
        return self.chosen(self.outputs(rows))

    def score(self, rows: Any, targets: Any, sample_weight: Any = None) -> float:
        """The accuracy, as of scikit-learn's classifiers."""
        from sklearn.metrics import accuracy_score

        predicted = self.chosen(self.outputs(rows))
        return float(accuracy_score(targets, predicted, sample_weight=sample_weight))

    def chosen(self, probabilities: Array) -> Array:
        """The class that is predicted, [N], by probabilities, [N, C]."""
        if self.calibration.threshold == 0.5 or self.spec.task != "binary":
            return self.classes_[probabilities.argmax(1)]
        above = probabilities[:, 1].astype(np.float64) > self.calibration.threshold
        return self.classes_[above.astype(int)]

    def predict_set(self, rows: Any, level: float) -> NDArray[np.bool_]:
        """Which classes are in the set of each row, [N, C], in the order of `classes_`.

        A share `level` of rows, if they are like the validation rows, has its true class in the
        set. A row's set is empty where no class is as probable as true ones are.

        Args:
            rows: See `prepared`.
            level: Such as 0.9.

        Raises:
            Refused: a ValueError, for a share that the run has too few kept predictions for.
        """
        self.tell(rows)
        return conformal.sets(self.outputs(rows), self.set_limit(level))

    def set_limit(self, level: float) -> float:
        """How improbable a class of a set may be; see `conformal.set_limit`."""
        own = self.kept()
        return conformal.set_limit(own.predicted, own.true, level)

    def predict_proba(self, rows: Any) -> NDArray[np.float32]:
        """The probability of each class, [N, C]; for `rows` see `prepared`."""
        self.tell(rows)
        return self.outputs(rows)


def load(
    run: str | Path, log_dir: str | Path = "logs", strict: bool = False
) -> Regressor | Classifier:
    """The best network of a run, or the networks of an ensemble, from the folder alone.

    Rows of a table are read as a file's are. Values that the training rows did not have, numbers
    that cannot be read, categories, numbers out of range, are warned of by column.

    Args:
        run: A run folder, that of a cross-validation, a sweep or an ensemble; or `last`.
        log_dir: Where `last` looks.
        strict: Refuses such rows.

    Raises:
        Refused: if there is no such run, or no checkpoint of it that can be read.
    """
    folder = find_run(str(run), log_dir, ensembles=True)
    members = [(load_network(own), weight) for own, weight in members_of(folder)]
    members.sort(key=lambda member: -member[1])
    kind = Regressor if members[0][0].spec.task == "regression" else Classifier
    return kind(members, folder, strict)


def score_of(folder: Path) -> list[str]:
    """The objective of a run in words; nothing where its result cannot be read."""
    try:
        objective = read_result(folder).get("objective") or {}
    except Refused:
        return []
    value = objective.get("value")
    return [] if value is None else [f"{objective['metric']} {value:.4g}"]


# --- small ----------------------------------------------------------------------------------------


def classes_of(names: Sequence[str]) -> Array:
    """Classes by their names: as numbers, where all of them are.

    >>> classes_of(("0", "1")), classes_of(("no", "yes"))
    (array([0, 1]), array(['no', 'yes'], dtype='<U3'))
    """
    for kind in (int, float):
        try:
            numbers = [kind(name) for name in names]
        except ValueError:
            continue
        if [str(number) for number in numbers] == list(names):
            return np.array(numbers)
    return np.array(names)


def renamed(rows: Any, names: Sequence[str]) -> Any:
    """A DataFrame whose columns have the names that reading a file gives them,
    where those of `names` are not there.

    Reading takes spaces off names, and numbers those that are empty or twice there;
    pandas does so in another way.
    """
    found = [str(name) for name in rows.columns]
    if set(names) <= set(found):
        return rows
    bare = ["" if name.startswith("Unnamed: ") else name.strip() for name in found]
    plain = column_names(bare)[0]
    counts = Counter(plain)
    for place, name in enumerate(plain):
        stem, dot, number = name.rpartition(".")
        if dot and number.isdigit() and stem in counts and name not in names:
            plain[place] = f"{stem}.{int(number) + 1}"  # pandas counts from 1
    return rows.set_axis(plain, axis=1)


def check_columns(names: list[str], found: list[str], where: str = "rows") -> None:
    """Refuses rows that lack a column."""
    if lacking := [name for name in names if name not in found]:
        others = (
            f", and {len(lacking) - 1} more that are needed"
            if lacking[1:]
            else ", which the network needs"
        )
        hint = near_miss(lacking[0], map(str, found[:200])).replace("write one of:", "it has:")
        raise Refused(f"{where}: lacks the column {lacking[0]}{others}; {hint}")


def shown(shape: Sequence[int]) -> str:
    """A shape in words."""
    return ", ".join(map(str, shape))
