"""A finished run's network in ONNX and torch.export agrees with its checkpoint;
so does the JSON that prepares rows.
"""

import csv
import datetime
import json
import math
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

import goldilocks
from finished import TABLES, command_of, finished, finished_tables
from goldilocks.data.scaling import apply_scaler, fit_scaler
from goldilocks.errors import Refused
from goldilocks.inference import export as exporting
from goldilocks.inference.export import drawn_rows, export, graph_inputs, matrix_of
from goldilocks.inference.graph import Graph, TableFeatures, normal_quantile, to_normal
from tables import write

command = command_of("export")


def onnxruntime():
    """The packages of the extra `onnx`, or the test is skipped."""
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="needs pip install -e '.[onnx]' -c constraints.txt")
    return pytest.importorskip(
        "onnxruntime", reason="needs pip install -e '.[onnx]' -c constraints.txt"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return finished_tables(tmp_path_factory.mktemp("tables"))


def prepared_by_the_json(rules, rows):
    """The graph's input, [N, M], from rows of words, by what docs/using.md says of
    preparation.json, and no more.
    """
    x = np.full((len(rows), rules["input"]["shape"][1]), np.nan)
    for column in rules["columns"]:
        for at, row in enumerate(rows):
            word, place = row[column["name"]].strip(), column["at"]
            gone = word in rules["missing"] and word not in column.get("not_missing", [])
            if column["kind"] == "number" and not gone:
                x[at, place] = float(word)
            elif column["kind"] == "date" and not gone:
                date = datetime.datetime.fromisoformat(word)
                seconds = (date - datetime.datetime(1970, 1, 1)).total_seconds()
                shares = {
                    "month": (date.month - 1) / 12,
                    "weekday": date.weekday() / 7,
                    "hour": seconds % 86400 / 86400,
                }
                for part, name in enumerate(column["parts"]):
                    cycle, _, wave = name.partition(" ")
                    angle = 2 * math.pi * shares.get(cycle, 0)
                    values = {"sin": math.sin(angle), "cos": math.cos(angle), "": seconds / 86400}
                    x[at, place + part] = values[wave]
            elif column["kind"] == "category":
                word = column.get("truth", {}).get(word, word)
                if column["written"] == "numbers" and not gone and float(word) == int(float(word)):
                    word = str(int(float(word)))
                x[at, place] = (
                    column["missing"] if gone else column["categories"].get(word, column["unseen"])
                )
    return x


@pytest.mark.parametrize("name", TABLES)
def test_checkpoint_python_and_onnx_agree(name, made, tmp_path):
    runtime = onnxruntime()
    runs, path = made
    model = goldilocks.load(runs[name])
    done = export(model, tmp_path / "export", "onnx")
    assert done.difference <= 1e-5 and done.real and done.rows == 150
    assert {file.name for file in (tmp_path / "export").iterdir()} == {
        "model.onnx",
        "preparation.json",
    }
    rules = json.loads((tmp_path / "export" / "preparation.json").read_text(encoding="utf-8"))
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= {"make": "tesla", "sold": "", "size": "NA", "colour": "", "fuel": "coal"}
    x = prepared_by_the_json(rules, rows)
    session = runtime.InferenceSession(tmp_path / "export" / "model.onnx")
    (found,) = session.run(None, {rules["input"]["name"]: x})
    frame = pd.DataFrame(rows).replace({"": None, "NA": None})
    expected = model.outputs(frame)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert [output.name for output in session.get_outputs()] == [rules["output"]["name"]]
    assert rules["output"]["target"] == [name]
    assert rules["output"].get("classes", []) == list(model.spec.class_names)
    for part in (x[:1], x[:77]):
        np.testing.assert_allclose(
            session.run(None, {"x": part})[0], expected[: len(part)], rtol=1e-5, atol=1e-6
        )


def test_words_of_numbers_and_of_truth_and_times_of_day(tmp_path):
    random = np.random.default_rng(0)
    lines = ["doors,abs,code,sold,y"]
    for n in range(60):
        words = [
            ["1.0", "2.0", "3.0", "?"][n % 4],
            ["TRUE", "false", ""][n % 3],
            ["01", "1", "x"][n % 3],
        ]
        sold = "" if n % 7 == 3 else f"2024-{n % 12 + 1:02}-05 {n % 24:02}:30:00"
        lines.append(",".join([*words, sold, f"{random.normal():.3f}"]))
    path = write(tmp_path / "cars.csv", lines)
    kinds = ["data.columns.doors=categorical", "data.columns.code=categorical"]
    model = goldilocks.load(
        finished(tmp_path, "data=table", f"data.path={path}", "data.target=y", *kinds)
    )
    rules = json.loads(json.dumps(exporting.description(model)))
    assert [column.get("written") for column in rules["columns"]] == [
        None,
        "numbers",
        "truth",
        "words",
    ]
    with open(path, encoding="utf-8") as file:
        x = prepared_by_the_json(rules, list(csv.DictReader(file)))
    rows, _ = exporting.some_rows(model)
    np.testing.assert_allclose(x[rows.index], graph_inputs(model, rows), rtol=1e-12, atol=1e-12)
    assert np.isnan(x[:, 0]).sum() == 9 and rules["columns"][0]["width"] == 7


@pytest.mark.parametrize("name", TABLES)
def test_torch_export_agrees(name, made, tmp_path):
    model = goldilocks.load(made[0][name])
    done = export(model, tmp_path, "torch_export")
    assert done.difference <= 1e-5
    frame = pd.read_csv(made[1])
    program = torch.export.load(tmp_path / "model.pt2").module()
    found = program(torch.from_numpy(matrix_of(model.preparation, frame))).numpy()
    np.testing.assert_allclose(found, model.outputs(frame), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "words",
    [["data=digits", "model=cnn"], ["data=diabetes", "data.scaling=quantile", "model=realmlp"]],
)
def test_other_sources_and_networks(words, tmp_path):
    runtime = onnxruntime()
    model = goldilocks.load(finished(tmp_path, *words))
    done = export(model, tmp_path, "onnx")
    assert done.difference <= 1e-5 and done.real and done.file
    rows = drawn_rows(model)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    expected = model.outputs(rows)
    assert np.ptp(expected) > 0
    found = session.run(None, {"x": rows})[0]
    assert exporting.largest_difference(found, expected) <= 1e-5
    rules = json.loads((tmp_path / "preparation.json").read_text(encoding="utf-8"))
    assert rules["input"]["shape"] == ["rows", *model.spec.input_shape]
    assert len(rules["columns"]) == len(model.spec.feature_names)


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_drawn_where_the_data_are_gone(name, made, tmp_path):
    runs, path = made
    hidden = shutil.move(path, tmp_path / "hidden.csv")
    try:
        rows, real = exporting.some_rows(goldilocks.load(runs[name]))
    finally:
        shutil.move(hidden, path)
    assert not real
    frame, model = pd.read_csv(path), goldilocks.load(runs[name])
    assert rows["size"].mean() == pytest.approx(frame["size"].mean(), abs=frame["size"].std())
    assert rows["size"].std() == pytest.approx(frame["size"].std(), rel=0.8)
    assert rows["sold"].dt.year.between(2022, 2026).mean() > 0.7
    assert rows["make"].isna().any() and "never seen" in set(rows["make"])
    assert np.isfinite(model.outputs(rows)).all()


@pytest.mark.parametrize(
    "options", [[], ["data.scaling=none"], ["data.scaling=quantile"], ["data.scaling=minmax"]]
)
def test_the_graph_prepares_as_the_checkpoint_does(options, made, tmp_path):
    words = ["data=table", f"data.path={made[1]}", "data.target=price", "data.pieces=5", *options]
    model = goldilocks.load(finished(tmp_path, *words))
    rows = drawn_rows(model)
    expected = model.preparation.transform(rows)
    found = TableFeatures(model.preparation)(torch.from_numpy(graph_inputs(model, rows))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert (expected.std(0) > 0).all()


def test_quantiles_are_scikit_learns():
    random = np.random.default_rng(0)
    x = np.stack(
        [
            random.normal(size=3000),
            random.integers(0, 5, 3000),
            np.zeros(3000),
            1e6 * random.exponential(size=3000),
        ],
        1,
    )
    scaler = fit_scaler(x[:1500], "quantile")
    found = to_normal(torch.from_numpy(x), scaler["quantiles"]).float().numpy()
    np.testing.assert_allclose(found, apply_scaler(x, scaler), atol=1e-6)
    p = torch.cat(
        [torch.logspace(-7, -1, 1000), torch.linspace(0.1, 1 - 1e-7, 1000, dtype=torch.double)]
    ).double()
    np.testing.assert_allclose(normal_quantile(p), norm.ppf(p), rtol=1e-12, atol=1e-12)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_says_what_it_wrote(made, monkeypatch, capsys):
    folder = made[0]["price"]
    assert command(monkeypatch, folder, "--format", "torch_export") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("largest difference to the checkpoint's predictions ")
    assert lines[0].endswith(" of the largest, on 150 of the rows")
    assert lines[1:] == [
        str(folder / "export" / "model.pt2"),
        str(folder / "export" / "preparation.json"),
    ]


def test_a_graph_that_differs_is_not_kept(made, tmp_path, monkeypatch, capsys):
    real = Graph.forward
    monkeypatch.setattr(Graph, "forward", lambda self, x: real(self, x) * 1.0001)
    output = tmp_path / "export"
    assert (
        command(monkeypatch, made[0]["price"], "--format", "torch_export", "--output", output) == 1
    )
    assert capsys.readouterr().err == "error: that is more than 1e-05; nothing was kept\n"
    assert not output.exists()


def test_what_is_not_installed_is_said(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert command(monkeypatch, made[0]["price"], "--output", tmp_path / "export") == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --format onnx: ") and told.count("\n") == 1
    assert "pip install -e '.[onnx]' -c constraints.txt" in told
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_exported_is_refused(made, tmp_path, monkeypatch):
    def depends_on_values(self, x):
        return x if x.sum() > 0 else -x

    monkeypatch.setattr(Graph, "forward", depends_on_values)
    with pytest.raises(Refused, match="--format torch_export: this network cannot be exported"):
        export(goldilocks.load(made[0]["price"]), tmp_path, "torch_export")
    assert list(tmp_path.iterdir()) == []
