"""A finished run's network, ready to predict, with scikit-learn's manners:
`goldilocks.load(RUN).predict(rows)`.

Legend: N rows, F features, C classes, T targets.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from goldilocks.config.build import check_arguments
from goldilocks.data.base import EVALUATION_ROWS_ON_CPU
from goldilocks.data.scaling import apply_scaler, check_finite
from goldilocks.data.spec import Spec
from goldilocks.data.tables.dialect import column_names
from goldilocks.data.tables.preparation import Preparation, StrangeValues
from goldilocks.data.tables.values import Form
from goldilocks.errors import Refused, near_miss
from goldilocks.runs.folder import find_run, read_config, read_result
from goldilocks.tasks.task import Task
from goldilocks.training.checkpoints import evaluated_weights, load_checkpoint, load_weights
from goldilocks.training.checks import resolved
from goldilocks.training.components import build_network
from goldilocks.training.settings import Settings, build_task

Array = NDArray[Any]


class Predictor:
    """A finished run's network: rows in, predictions out, on the CPU.

    Args:
        network: In evaluation mode, with the weights that were tested.
        task: What was learnt.
        preparation: Of a table's columns; None for a source that loads numbers.
        scaler: Of those numbers.
        settings: Of the run.
        target_forms: How the words of a table's targets are read, by name.
        strict: Whether values that the training rows did not have are refused,
            in place of a warning.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        preparation: Preparation | None,
        scaler: Mapping[str, Tensor],
        settings: Settings,
        target_forms: Mapping[str, Form],
        strict: bool = False,
    ) -> None:
        self.target_forms, self.strict = target_forms, strict
        self.network, self.task, self.spec, self.settings = network, task, task.spec, settings
        self.preparation, self.scaler = preparation, scaler
        names = (
            [column.name for column in preparation.columns]
            if preparation
            else list(self.spec.feature_names)
        )
        self.feature_names_in_ = np.array(names, dtype=object)
        self.n_features_in_ = len(names) if preparation else int(np.prod(self.spec.input_shape))
        self.origin: list[str] = []  # the run's score and folder, where it is of a run

    def __repr__(self) -> str:
        """What is predicted from what, how well, and by which run."""
        spec, shape = self.spec, self.spec.input_shape
        what = f"{len(spec.class_names)} classes"
        if spec.task == "regression":
            what = ", ".join(spec.target_names) or f"{spec.num_outputs} numbers"
        rows = f"{self.n_features_in_} columns" if len(shape) == 1 else f"[{shown(shape)}]"
        return f"{type(self).__name__}({', '.join([f'{what} from {rows}', *self.origin])})"

    def prepared(self, rows: Any) -> NDArray[np.float32]:
        """Inputs of the network, [N, *input_shape].

        Args:
            rows: A pandas DataFrame, whose other columns are ignored; or an array: of a table [N,
                columns], in the order of `feature_names_in_`, of images as the source of data loads
                them.

        Raises:
            Refused: a ValueError, for rows that lack a column or have another shape.
        """
        if self.preparation is not None:
            return self.preparation.transform(self.framed(rows))
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
        return apply_scaler(values, self.scaler)

    def tell(self, rows: Any) -> None:
        """Warns of values that the training rows did not have, a line a column.

        Raises:
            Refused: a ValueError, in place of the warning, if `strict`.
        """
        if self.preparation is None:
            return
        strange = self.preparation.strange(self.framed(rows))
        if strange and self.strict:
            raise Refused(f"rows: {'; '.join(map(str, strange))}")
        for found in strange:
            warnings.warn(str(found), StrangeValues, stacklevel=3)

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

    @torch.no_grad()
    def raw_outputs(self, inputs: NDArray[np.float32]) -> Iterator[Tensor]:
        """What the network gives for prepared rows, batch by batch."""
        for first in range(0, len(inputs), EVALUATION_ROWS_ON_CPU):
            yield self.network(torch.from_numpy(inputs[first : first + EVALUATION_ROWS_ON_CPU]))

    @torch.no_grad()
    def outputs(self, rows: Any) -> NDArray[np.float32]:
        """Probabilities of the classes, [N, C], or values in the targets' own units, [N,
        T], without warnings.
        """
        width = len(self.spec.class_names) or self.spec.num_outputs
        return np.concatenate(
            [np.empty((0, width), np.float32), *self.batches(self.prepared(rows))]
        )

    @torch.no_grad()
    def batches(self, inputs: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """`outputs` of prepared rows, batch by batch."""
        for output in self.raw_outputs(inputs):
            yield both_classes(self.task.predict(output), self.spec).numpy()


class Regressor(Predictor):
    """Predicts values in the targets' own units."""

    def predict(self, rows: Any) -> NDArray[np.float32]:
        """Values of rows, [N], or [N, T] of several targets; for `rows` see `prepared`."""
        self.tell(rows)
        values = self.outputs(rows)
        return values[:, 0] if values.shape[1] == 1 else values


class Classifier(Predictor):
    """Predicts classes; `classes_` holds them in the order of the probabilities, [C]."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.classes_ = classes_of(self.spec.class_names)

    def predict(self, rows: Any) -> Array:
        """The likeliest class of each row, [N]; for `rows` see `prepared`."""
        self.tell(rows)
        return self.classes_[self.outputs(rows).argmax(1)]

    def predict_proba(self, rows: Any) -> NDArray[np.float32]:
        """The probability of each class, [N, C]; for `rows` see `prepared`."""
        self.tell(rows)
        return self.outputs(rows)


def load(
    run: str | Path, log_dir: str | Path = "logs", strict: bool = False
) -> Regressor | Classifier:
    """The best network of a run, from its folder alone:
    neither the data nor the folder's place are needed.

    Rows of a table are read as a file's are. Values that the training rows did not have, numbers
    that cannot be read, categories, numbers out of range, are warned of by column.

    Args:
        run: A run folder, or `last`.
        log_dir: Where `last` looks.
        strict: Refuses such rows.

    Raises:
        Refused: if there is no such run, or no checkpoint of it that can be read.
    """
    folder = find_run(str(run), log_dir)
    path = folder / "checkpoints" / "best.ckpt"
    if not path.exists():
        raise Refused(f"{folder}: has no checkpoints/best.ckpt to predict with")
    checkpoint = load_checkpoint(path)
    settings = Settings(**check_arguments(Settings, resolved(read_config(folder)), ""))
    if settings.model["_target_"].startswith("goldilocks.models.pretrained."):
        settings.model["weights"] = (
            False  # those of the run replace the library's, which would be downloaded
        )
    spec = Spec.from_plain(checkpoint["spec"])
    with torch.random.fork_rng(devices=[]):
        network = build_network(settings, spec)
    load_weights(network, {"state_dict": evaluated_weights(checkpoint["state_dict"])}, path)
    network.requires_grad_(False).eval()
    fitted = checkpoint.get(settings.data["_target_"].rpartition(".")[2])
    if fitted is None:
        raise Refused(
            f"{path}: does not hold how the rows of {settings.data['_target_']} are prepared"
        )
    preparation = Preparation.from_plain(fitted["preparation"]) if "preparation" in fitted else None
    forms = {name: Form(**form) for name, form in fitted.get("target_forms", {}).items()}
    kind = Regressor if spec.task == "regression" else Classifier
    predictor = kind(
        network,
        build_task(settings, spec).eval(),
        preparation,
        fitted["scaler"],
        settings,
        forms,
        strict,
    )
    predictor.origin = [*score_of(folder), str(folder)]
    return predictor


def score_of(folder: Path) -> list[str]:
    """The objective of a run in words; nothing where its result cannot be read."""
    try:
        objective = read_result(folder).get("objective") or {}
    except Refused:
        return []
    value = objective.get("value")
    return [] if value is None else [f"{objective['metric']} {value:.4g}"]


# --- small ----------------------------------------------------------------------------------------


def both_classes(predictions: Tensor, spec: Spec) -> Tensor:
    """Predictions of a task, with those of two classes, [N, 1], as a column for each."""
    return (
        torch.cat([1 - predictions, predictions], dim=1) if spec.task == "binary" else predictions
    )


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
