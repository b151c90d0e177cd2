"""A finished run's network for other programs:
ONNX or torch.export, with all that follows from numbers in the graph.

Legend: N rows, M inputs of the graph, F features of the network, C classes, T targets.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from goldilocks.config.build import build
from goldilocks.data.base import TableData
from goldilocks.data.scaling import undo_scaling
from goldilocks.data.tables.preparation import (
    MISSING,
    OTHER,
    SECONDS_OF_DAY,
    Fitted,
    Preparation,
    number_names,
    places_of,
)
from goldilocks.data.tables.values import MARKS, TRUTH
from goldilocks.errors import Refused, missing, one_line
from goldilocks.inference.graph import Calibrated, Graph, OwnInput, Together, merged
from goldilocks.inference.predict import Predictor
from goldilocks.machine.files import write_json

Format = Literal["onnx", "torch_export"]
FILES: dict[str, str] = {"onnx": "model.onnx", "torch_export": "model.pt2"}

ROWS = 1000  # that are compared
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Exported:
    """The outcome of an export.

    Attributes:
        file: The graph; None if it is not right, and was not kept.
        difference: The largest to the checkpoint's predictions, as a share of the largest of those.
        rows: That were compared.
        real: Whether they are the run's own.
    """

    file: Path | None
    difference: float
    rows: int
    real: bool


def export(predictor: Predictor, folder: Path, form: Format) -> Exported:
    """Writes `model.onnx` or `model.pt2`, and `preparation.json`,
    which tells how rows become its input.

    The graph is compared with the checkpoint's predictions before it takes its name.

    Args:
        predictor: Of a run.
        folder: To write to; made if it is not there.
        form: onnx, run by any onnxruntime; torch_export, by torch.export.load.

    Raises:
        Refused: if a package is missing, the folder cannot be written to or
            the network cannot be exported.
    """
    rows, real = some_rows(predictor)
    inputs, expected = graph_inputs(predictor, rows), predictor.outputs(rows)
    graph = graph_of(predictor).eval()
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"--output {folder}: cannot be written to ({error.strerror})") from error
    file = folder / FILES[form]
    temporary = file.with_name(f".{os.getpid()}.{file.name}")  # torch.export's must end with .pt2
    save: Callable[..., Callable[[Any], Any]] = save_onnx if form == "onnx" else save_program
    try:
        with quiet_exporters():
            run = save(graph, inputs, temporary)
            parts = [run(part) for part in (inputs[:1], inputs[1:])]  # of any number of rows
        difference = largest_difference(np.concatenate(parts), expected)
        kept = difference <= TOLERANCE
        if kept:
            os.replace(temporary, file)
            write_json(folder / "preparation.json", description(predictor))
    except OSError as error:
        raise Refused(
            f"--output {folder}: cannot be written to ({error.strerror or one_line(error)})"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        if new and not any(folder.iterdir()):
            folder.rmdir()
    return Exported(file if kept else None, difference, len(expected), real)


def graph_of(predictor: Predictor) -> Graph | Together | Calibrated:
    """One graph of all networks that predict, and of their temperature."""
    graph = graph_of_networks(predictor)
    temperature = predictor.calibration.temperature
    return graph if temperature == 1 else Calibrated(graph, temperature)


def graph_of_networks(predictor: Predictor) -> Graph | Together:
    """One graph of all networks, as they were trained."""
    graphs = [
        Graph(one.network, one.task, one.preparation, one.scaler) for one in predictor.members
    ]
    if len(graphs) == 1:
        return graphs[0]
    own = [one.preparation for one in predictor.members if one.preparation is not None]
    common = common_preparation(predictor)
    same = common is predictor.preparation
    assert same or common is not None
    adapted = (
        [] if same or common is None else [OwnInput(common.columns, one.columns) for one in own]
    )
    return Together(graphs, predictor.weights, adapted)


def common_preparation(predictor: Predictor) -> Preparation | None:
    """What makes the graph's input from a table's columns; None for a source that loads numbers."""
    own = [one.preparation for one in predictor.members if one.preparation is not None]
    return merged(own) if own else None


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Without what the exporters say about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def save_onnx(
    graph: Graph | Together | Calibrated, inputs: NDArray[np.float64], file: Path
) -> Callable[[Any], Any]:
    """Writes ONNX by torch's own exporter; returns what runs it in onnxruntime."""
    try:
        import onnx  # noqa: F401 - torch says less clearly what is missing
        import onnxruntime
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise Refused(f"--format onnx: {missing(error)} -c constraints.txt") from error
    output = output_name(graph.spec.task)
    try:
        torch.onnx.export(
            graph,
            (torch.from_numpy(inputs[:2]),),
            file,
            input_names=["x"],
            output_names=[output],
            dynamic_shapes={"x": {0: torch.export.Dim("rows")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except OSError:
        raise
    except Exception as error:  # the library raises many kinds
        raise Refused(
            f"--format onnx: this network cannot be exported ({one_line(error)[:200]})"
        ) from error
    return lambda rows: session.run([output], {"x": rows})[0]


def save_program(
    graph: Graph | Together | Calibrated, inputs: NDArray[np.float64], file: Path
) -> Callable[[Any], Any]:
    """Writes a program of torch.export; returns what runs it, read from the file."""
    rows = {"x": {0: torch.export.Dim("rows")}}
    try:
        program = torch.export.export(graph, (torch.from_numpy(inputs[:2]),), dynamic_shapes=rows)
        torch.export.save(program, file)
        loaded = torch.export.load(file).module()
    except OSError:
        raise
    except Exception as error:  # the library raises many kinds
        raise Refused(
            f"--format torch_export: this network cannot be exported ({one_line(error)[:200]})"
        ) from error
    return lambda rows: loaded(torch.from_numpy(rows)).numpy()


def largest_difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """As a share of the largest expected value; infinite where only one of them is finite."""
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    least = np.finfo(np.float32).tiny
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), least))


# --- rows -----------------------------------------------------------------------------------------


def some_rows(predictor: Predictor) -> tuple[Any, bool]:
    """Rows to compare on, and whether they are the run's own:
    those of its validation, or drawn from what is known.
    """
    settings = predictor.settings
    try:
        data = build(settings.data, TableData, "data", packages=settings.packages)
        if predictor.preparation is not None:
            rows = data.load().features
            rows = rows.sample(min(ROWS, len(rows)), random_state=0)
        else:
            data.setup()
            numbers = data.row_numbers["val" if len(data.row_numbers["val"]) else "train"]
            rows = data.load().features[numbers[:ROWS]]
        predictor.prepared(rows[:1])  # the file may be another one by now
        if len(rows) >= 3:  # torch takes a dimension of 1 for a constant
            return rows, True
    except (ValueError, OSError, MemoryError):
        pass
    return drawn_rows(predictor), False


def drawn_rows(predictor: Predictor) -> Any:
    """Rows around the centre of the training rows,
    with gaps and categories that were never seen.
    """
    random, preparation = np.random.default_rng(0), predictor.preparation
    if preparation is None:
        values = random.normal(size=(ROWS, *predictor.spec.input_shape))
        return spread(values, predictor.members[0].scaler)
    import pandas as pd

    wide = sum(len(number_names(column)) for column in preparation.columns)
    numbers = random.normal(size=(ROWS, wide))
    numbers = (
        spread(numbers, preparation.scaler) if preparation.scaler else around(numbers, preparation)
    )
    columns, first = {}, 0
    for column in preparation.columns:
        if names := number_names(column):
            values = pd.Series(numbers[:, first])
            first += len(names)
            if column.kind == "date":
                values = pd.to_datetime(values * SECONDS_OF_DAY, unit="s").dt.floor("s")
        else:
            values = pd.Series(
                random.choice([*column.categories, "never seen"], ROWS), dtype=object
            )
        columns[column.name] = values.mask(random.random(ROWS) < 0.1)
    return pd.DataFrame(columns)


def around(values: NDArray[Any], preparation: Preparation) -> NDArray[Any]:
    """Values of about one spread, put around the medians of numbers that are on no scale:
    a year for dates.
    """
    steps: list[float] = []
    for column in preparation.columns:
        wide = (
            (column.edges[-1] - column.edges[0]) / 2
            if column.edges
            else 365.0
            if column.kind == "date"
            else 1.0
        )
        steps += [wide] * len(number_names(column))
    return values * steps + preparation.medians.numpy()


def spread(values: NDArray[Any], scaler: Any) -> NDArray[Any]:
    """Values of about one spread, put where the training rows were."""
    if "quantiles" in scaler:
        quantiles = scaler["quantiles"].numpy()
        low, high = quantiles[0], quantiles[-1]
        return np.moveaxis(np.moveaxis(values, 1, -1) * (high - low) / 3 + (low + high) / 2, -1, 1)
    return undo_scaling(np.clip(values, -2.5, 2.5), scaler)  # a smooth clip reaches 3 nowhere


def graph_inputs(predictor: Predictor, rows: Any) -> NDArray[np.float64]:
    """The numeric matrix that the graph takes, [N, M]; images and other numbers as they are."""
    preparation = common_preparation(predictor)
    if preparation is None:
        return np.ascontiguousarray(rows, dtype=np.float64)
    return matrix_of(preparation, predictor.framed(rows))


def matrix_of(preparation: Preparation, frame: Any) -> NDArray[np.float64]:
    """Numbers and parts of dates, NaN where they are missing;
    then the place of each category, [N, M].
    """
    places = [
        places_of(column, frame[column.name]) for column in preparation.columns if column.categories
    ]
    return np.column_stack([preparation.raw_numbers(frame), *places]).astype(np.float64)


# --- preparation.json -----------------------------------------------------------------------------


def output_name(task: str) -> str:
    """Of the graph's output."""
    return "values" if task == "regression" else "probabilities"


def description(predictor: Predictor) -> dict[str, Any]:
    """How rows become the graph's input, and what its output is;
    docs/using.md explains every key.
    """
    spec = predictor.spec
    schema: dict[str, Any] = {"format": 1, "input": {"name": "x", "type": "float64"}}
    if (preparation := common_preparation(predictor)) is not None:
        columns = column_rules(preparation.columns)
        schema["input"]["shape"] = ["rows", sum(column.get("width", 1) for column in columns)]
        schema["missing"] = sorted(MARKS)
        schema["columns"] = columns
    else:
        schema["input"]["shape"] = ["rows", *spec.input_shape]
        schema["columns"] = [
            {"name": n, "kind": "number", "at": at} for at, n in enumerate(spec.feature_names)
        ]
    names = list(spec.target_names or ["target"])
    schema["output"] = {"name": output_name(spec.task), "task": spec.task, "target": names}
    if spec.class_names:
        schema["output"]["classes"] = list(spec.class_names)
    if spec.task == "binary":
        schema["output"]["threshold"] = predictor.calibration.threshold
    return schema


def column_rules(columns: list[Fitted]) -> list[dict[str, Any]]:
    """Of each column: where its numbers are in the input, and what they are."""
    rules: list[dict[str, Any]] = []
    place = 0
    for column in columns:
        if names := number_names(column):
            rule: dict[str, Any] = {"name": column.name, "kind": "number", "at": place}
            form = asdict(column.form)
            rule |= {key: form[key] for key in ("unit", "comma", "stamp") if form[key]}
            if column.form.meaning == "hours":
                rule["hours"] = True
            if column.kind == "date":
                parts = [name.removeprefix(f"{column.name} ") for name in names]
                rule |= {
                    "kind": "date",
                    "day_first": column.form.day_first,
                    "width": len(parts),
                    "parts": parts,
                }
            rules.append(rule)
            place += len(names)
    for column in columns:
        if column.categories:
            words = {
                word: at
                for at, word in enumerate(column.categories)
                if word not in (MISSING, OTHER)
            }
            places = {
                name: column.categories.index(word) if word in column.categories else -1
                for name, word in (("missing", MISSING), ("unseen", OTHER))
            }
            written = column.form.meaning
            rule = {"name": column.name, "kind": "category", "at": place, "written": written}
            if column.form.meaning == "truth":
                rule["truth"] = dict(TRUTH)
            if column.form.not_missing:
                rule["not_missing"] = list(column.form.not_missing)
            rules.append({**rule, "categories": words, **places})
            place += 1
    return rules
