"""A file of rows to a file of the same rows with predictions beside them, piece by piece.

Legend: N rows of a piece, C outputs.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goldilocks.data.tables.chunks import Stream, open_stream
from goldilocks.data.tables.dialect import NUMBER, Layout
from goldilocks.data.tables.preparation import Strange
from goldilocks.data.tables.values import MARKS, NUMBERS, classes_of, numbers_of
from goldilocks.data.targets import OTHER_CLASSES
from goldilocks.errors import Refused
from goldilocks.inference.predict import Classifier, Predictor, Regressor, check_columns
from goldilocks.runs import conformal
from goldilocks.training.outcome import values_of

PIECE_ROWS, FEWEST_ROWS = 2**14, 2**9
PIECE_INPUTS = 2**24  # of the network, in all
NO_TEXT = {".parquet": "Parquet", ".feather": "Feather", ".xlsx": "a workbook"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")


@dataclass
class Predicted:
    """The outcome of predicting a file.

    Attributes:
        rows: That were predicted.
        ignored: Columns that the network does not know.
        compared: Rows whose target is in the file.
        metrics: Of those rows, by name.
        strange: Values that the training rows did not have, by column.
    """

    rows: int = 0
    ignored: list[str] = field(default_factory=list)
    compared: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    strange: list[Strange] = field(default_factory=list)

    def add(self, strange: list[Strange]) -> None:
        """Adds those of a further piece."""
        known = {(found.column, found.what): found for found in self.strange}
        for found in strange:
            if before := known.get((found.column, found.what)):
                before.rows += found.rows
            else:
                self.strange.append(found)


def predict_file(
    predictor: Predictor,
    file: Path,
    output: Path,
    layout: Layout | None = None,
    safe: bool = False,
    level: float | None = None,
) -> Predicted:
    """Writes the rows of a file with columns of predictions after them.

    `predicted_TARGET` holds the class or the value, `probability_CLASS` the probability of a class.
    Rows and words are those of the file. In memory there are never more than some thousands of
    rows.

    Args:
        predictor: Of a run on a table.
        file: CSV, TSV and their likes, packed or not, or Parquet.
        output: Text in UTF-8, separated as the file is.
            It appears when it is whole, in place of what was there.
        layout: What is known of the file; None takes what the run's options say of theirs.
        safe: Whether a word that a spreadsheet would take for a formula is
            written with a ' in front.
        level: The share of rows that intervals, `lower_TARGET` to `upper_TARGET`, or sets of
            classes, `set_CLASS` of 1 and 0, are to cover; None: there are none.

    Raises:
        Refused: for rows that lack a column, a file that is no table, an output that cannot be
            written; with the predictor's `strict` for values that the training rows did not have.
    """
    names = list(predictor.feature_names_in_)
    if not names:
        raise Refused(
            f"{file}: the rows of this run are no table with named columns; predict in Python,"
            " with goldilocks.load"
        )
    if not file.is_file():
        raise Refused(f"{file}: there is no such file")
    stream = open_stream(file, layout or layout_of(predictor), names[0])
    check_columns(names, stream.names, str(file))
    added = [*added_names(predictor), *names_of_level(predictor, level)]
    beside = columns_of_level(predictor, level)
    if taken := [name for name in added if name in stream.header]:
        raise Refused(f"{file}: has a column {taken[0]} already; rename it")
    with written_whole(file, output) as target:
        done = write_pieces(predictor, stream, target, added, safe, beside)
        if done.strange and predictor.strict:
            raise Refused(f"{file}: {'; '.join(map(str, done.strange))}")
        return done


def write_pieces(
    predictor: Predictor,
    stream: Stream,
    target: Any,
    added: list[str],
    safe: bool,
    of_level: Callable[[Any], list[Any]],
) -> Predicted:
    """Predicts piece by piece; for the arguments see `predict_file` and `columns_of_level`."""
    import pandas as pd

    spec, targets = predictor.spec, list(predictor.spec.target_names)
    known = bool(targets) and set(targets) <= set(stream.names)
    needed = [*predictor.feature_names_in_, *(targets if known else [])]
    done = Predicted(ignored=[name for name in stream.names if name not in {*needed, *targets}])
    predictor.task.reset_metrics("test")
    for piece in stream.pieces(
        max(FEWEST_ROWS, min(PIECE_ROWS, PIECE_INPUTS // spec.input_shape[0]))
    ):
        values = stream.values(piece, needed)
        if predictor.preparation is not None:
            done.add(predictor.strange(predictor.framed(values)))
        whole = predictor.whole(values)
        predictions = predictor.given_out(whole)
        if known:
            rows, truth = truth_of(predictor, values[targets])
            done.compared += len(truth)
            if len(truth):
                own = values_of(predictor.task, predictions[rows])
                predictor.task.update_metrics("test", own, truth, combined=True)
        columns = list(predictions.T)
        if isinstance(predictor, Classifier):
            columns.insert(0, predictor.chosen(predictions))
        columns += of_level(whole)
        beside = pd.DataFrame(dict(zip(added, columns, strict=True)), index=piece.index)
        table, names = pd.concat([piece, beside], axis=1), [*stream.header, *added]
        if safe:
            table, names = table.map(without_formula), [*map(without_formula, names)]
        table.to_csv(
            target,
            index=False,
            header=False if done.rows else names,
            sep=stream.separator,
            decimal=stream.decimal,
        )
        done.rows += len(piece)
    if done.compared:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics' about a single class
            metrics = predictor.task.compute_metrics("test")
        done.metrics = {name.removeprefix("test/"): value for name, value in metrics.items()}
    return done


def without_formula(value: Any) -> Any:
    """A word that no spreadsheet takes for a formula; what is no word, and numbers, as they are.

    >>> without_formula("=2+5"), without_formula("@sum")
    ("'=2+5", "'@sum")
    >>> without_formula("-1.5"), without_formula("a=b")
    ('-1.5', 'a=b')
    """
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    return value if NUMBER.fullmatch(value) else f"'{value}"


@contextmanager
def written_whole(file: Path, output: Path) -> Iterator[Any]:
    """A file of text that takes its name when it is whole, and leaves nothing behind otherwise.

    Raises:
        Refused: if it cannot be written, or is the file that is read.
    """
    ending = output.suffix.lower()
    if ending in NO_TEXT or ending in PACKED:
        kind = NO_TEXT.get(ending, "packed")
        raise Refused(
            f"--output {output}: predictions are written as text, not as {kind}; write a name in"
            " .csv"
        )
    if output.is_dir():
        raise Refused(f"--output {output}: is a folder; write a file in it")
    if output.exists() and output.samefile(file):
        raise Refused(f"--output {output}: is the file of the rows; write another")
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        os.replace(temporary, output)
    except OSError as error:
        raise Refused(
            f"--output {output}: cannot be written ({error.strerror or error})"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


# --- columns --------------------------------------------------------------------------------------


def added_names(predictor: Predictor) -> list[str]:
    """The columns of predictions."""
    spec = predictor.spec
    names = [f"predicted_{name}" for name in spec.target_names or ["target"]]
    return [*names, *(f"probability_{name}" for name in spec.class_names)]


def names_of_level(predictor: Predictor, level: float | None) -> list[str]:
    """The columns of intervals or sets."""
    if level is None:
        return []
    if isinstance(predictor, Classifier):
        return [f"set_{name}" for name in predictor.spec.class_names]
    names = predictor.spec.target_names or ["target"]
    return [f"{end}_{name}" for name in names for end in ("lower", "upper")]


def columns_of_level(predictor: Predictor, level: float | None) -> Callable[[Any], list[Any]]:
    """What makes those columns from what `Predictor.whole` gives.

    Raises:
        Refused: if the run has kept too few predictions for the level.
    """
    if level is None:
        return lambda predictions: []
    if isinstance(predictor, Classifier):
        limit = predictor.set_limit(level)
        return lambda predictions: list(conformal.sets(predictions, limit).astype(int).T)
    assert isinstance(predictor, Regressor)
    ends_of = predictor.ends_by(level)

    def ends(whole: Any) -> list[Any]:
        both = ends_of(whole)
        targets = range(both[0].shape[1])
        return [end[:, place].astype(np.float32) for place in targets for end in both]

    return ends


def layout_of(predictor: Predictor) -> Layout:
    """What the run's options say of its files."""
    data = predictor.settings.data
    return Layout(
        *(
            data.get(name) if predictor.preparation else None
            for name in ("separator", "header", "encoding")
        )
    )


def truth_of(predictor: Predictor, frame: Any) -> tuple[NDArray[Any], Tensor]:
    """Which rows of a piece have a target, [N], and those targets as the metrics take them."""
    spec, task = predictor.spec, predictor.task
    if spec.task == "regression":
        values = np.stack(
            [numbers_of(frame[name], predictor.target_forms.get(name, NUMBERS)) for name in frame],
            axis=1,
        )
        if task.logged:
            with np.errstate(invalid="ignore", divide="ignore"):
                values = np.where(spec.target_log, np.log(values), values)
        rows: Any = np.isfinite(values).all(axis=1)
        scaled = (values[rows] - np.array(spec.target_shift)) / np.array(spec.target_scale)
        return rows, torch.from_numpy(scaled).float()
    (name,) = frame
    words = classes_of(frame[name], predictor.target_forms[name], MARKS & {*spec.class_names})
    if OTHER_CLASSES in spec.class_names:
        words = words.where(words.isna() | words.isin(spec.class_names), OTHER_CLASSES)
    places = words.map({name: place for place, name in enumerate(spec.class_names)}).to_numpy(
        np.float64
    )
    rows = np.isfinite(places)
    truth = torch.from_numpy(places[rows])
    return rows, truth[:, None].float() if spec.task == "binary" else truth.long()
