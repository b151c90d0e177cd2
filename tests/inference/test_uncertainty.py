"""What is given out beside predictions: intervals, sets, thresholds; in Python, files, graphs."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import goldilocks
from conftest import read_result
from finished import command_of, finished
from goldilocks.errors import Refused
from goldilocks.inference.export import export, matrix_of
from goldilocks.runs.conformal import margins, set_limit
from goldilocks.runs.ensembles import kept
from tables import cars, write

predict = command_of("predict")
pytestmark = pytest.mark.filterwarnings("ignore::goldilocks.data.tables.preparation.StrangeValues")
WORDS = {
    "price": ["data.target=price", "data.target_log=true"],
    "both": ["data.target=[price,size]"],
    "colour": ["data.target=colour"],
    "dear": [
        *(
            "data.target=dear",
            "data.columns.price=drop",
            "task.calibration=temperature",
            "task.threshold=cost",
        ),
        "task.false_negative_cost=5",
        "trainer.max_epochs=10",
    ],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs by name, and the file of their rows."""
    folder = tmp_path_factory.mktemp("tables")
    lines = [line.replace(",-", ",") for line in cars(300)]
    dear = ["no" if float(line.rpartition(",")[2]) < 20 else "yes" for line in lines[1:]]
    lines = [f"{line},{word}" for line, word in zip(lines, ["dear", *dear], strict=True)]
    path = write(folder / "cars.csv", lines)
    table = ["data=table", f"data.path={path}"]
    return {name: finished(folder, *table, *words) for name, words in WORDS.items()}, path


def test_a_regression_gives_values_and_both_ends(made):
    runs, path = made
    rows = pd.read_csv(path)
    model = goldilocks.load(runs["price"])
    values, lower, upper = model.predict(rows, interval=0.9)
    assert np.array_equal(values, model.predict(rows))
    assert values.shape == lower.shape == upper.shape == (300,)
    own = kept(runs["price"])
    ratios = np.sort(np.abs(np.log(own.true[:, 0] / own.predicted[:, 0].astype(float))))
    factor = np.exp(ratios[int(np.ceil((len(ratios) + 1) * 0.9)) - 1])
    assert np.allclose(upper, values * factor, rtol=1e-4)
    assert np.allclose(lower, values / factor, rtol=1e-4)
    wider = model.predict(rows, interval=0.95)
    assert (wider[1] < lower).all() and (wider[2] > upper).all()


def test_the_coverage_of_the_result_is_that_of_the_predictions(made):
    runs, path = made
    model = goldilocks.load(runs["price"])
    there = pd.read_csv(path).iloc[kept(runs["price"], "test").rows]
    _, lower, upper = model.predict(there, interval=0.9)
    known = read_result(runs["price"])["coverage"]
    inside = there["price"].between(lower, upper)
    assert known["reached"] == pytest.approx(inside.mean()) and known["rows"] == len(there)


def test_several_targets_have_intervals_by_themselves(made):
    runs, path = made
    model = goldilocks.load(runs["both"])
    values, lower, upper = model.predict(pd.read_csv(path), interval=0.8)
    margin = margins(model.spec, kept(runs["both"]), 0.8)
    assert values.shape == lower.shape == (300, 2) and margin[0] != margin[1]
    assert np.allclose(upper - values, np.broadcast_to(margin, (300, 2)), rtol=1e-3)
    assert list(read_result(runs["both"])["coverage"]["targets"]) == ["price", "size"]


def test_too_high_a_level_is_one_line_with_the_fewest_rows(made):
    model = goldilocks.load(made[0]["price"])
    with pytest.raises(Refused, match=r"level 0.999: needs 999 kept validation rows at least"):
        model.predict(pd.read_csv(made[1]), interval=0.999)
    with pytest.raises(Refused, match=r"level 9: is above 0 and below 1"):
        model.predict(pd.read_csv(made[1]), interval=9)


def test_without_kept_predictions_there_are_no_intervals(tmp_path):
    run = finished(tmp_path, "data=diabetes", "kept_predictions=0")
    assert read_result(run)["coverage"] is None
    with pytest.raises(Refused, match="there are no predictions; kept_predictions=0"):
        goldilocks.load(run).predict(np.zeros((1, 10)), interval=0.9)


@pytest.mark.parametrize("name", ["colour", "dear"])
def test_sets_have_the_true_class_as_often_as_asked_for(name, made):
    runs, path = made
    model = goldilocks.load(runs[name])
    rows = pd.read_csv(path)
    found = model.predict_set(rows, 0.9)
    assert found.shape == (300, len(model.classes_)) and found.dtype == bool
    own = kept(runs[name])
    there = rows.iloc[own.rows]
    inside = model.predict_set(there, 0.9)[np.arange(len(there)), own.true]
    assert inside.sum() == np.ceil((len(there) + 1) * 0.9)  # but for ties
    assert model.predict_set(rows, 0.95).sum() >= found.sum()
    assert read_result(runs[name])["coverage"]["size"] > 0


def test_a_file_gets_columns_of_ends(made, tmp_path, monkeypatch, capsys):
    runs, path = made
    output = tmp_path / "out.csv"
    assert predict(monkeypatch, runs["both"], path, "--output", output, "--interval", 0.8) == 0
    frame = pd.read_csv(output)
    added = ["predicted_price", "predicted_size", "lower_price", "upper_price", "lower_size"]
    assert list(frame.columns)[-6:] == [*added, "upper_size"]
    values, lower, upper = goldilocks.load(runs["both"]).predict(pd.read_csv(path), interval=0.8)
    for place, name in enumerate(("price", "size")):
        for word, each in (("predicted", values), ("lower", lower), ("upper", upper)):
            assert np.allclose(frame[f"{word}_{name}"], each[:, place], rtol=1e-5)


def test_a_file_gets_columns_of_sets_and_classes_by_the_threshold(
    made, tmp_path, monkeypatch, capsys
):
    runs, path = made
    output = tmp_path / "out.csv"
    assert predict(monkeypatch, runs["dear"], path, "--output", output, "--set", 0.9) == 0
    assert "; a threshold of 0.5 is what they are of\n" in capsys.readouterr().out
    frame, rows = pd.read_csv(output), pd.read_csv(path)
    model = goldilocks.load(runs["dear"])
    assert (frame["predicted_dear"] == model.predict(rows)).all()
    second = str(model.classes_[1])
    said = frame[f"probability_{second}"] > model.calibration.threshold
    assert ((frame["predicted_dear"] == second) == said).all()
    assert 0 < model.calibration.threshold != 0.5 and frame["predicted_dear"].nunique() == 2
    columns = [f"set_{name}" for name in model.classes_]
    assert np.array_equal(frame[columns].to_numpy(bool), model.predict_set(rows, 0.9))


@pytest.mark.parametrize(
    ("name", "flag", "level", "said"),
    [
        ("price", "--set", 0.8, "predicts values; write --interval 0.8"),
        ("colour", "--interval", 0.8, "predicts classes; write --set 0.8"),
        ("colour", "--interval", 2, "predicts classes; write --set 0.9"),
        ("price", "--set", 0, "predicts values; write --interval 0.9"),
    ],
)
def test_the_other_flag_is_refused(name, flag, level, said, made, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out.csv"
    assert predict(monkeypatch, made[0][name], made[1], "--output", output, flag, level) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {flag} {level}: ") and told.endswith(f"{said}\n")
    assert told.count("\n") == 1
    assert not output.exists()


def test_too_few_rows_leave_no_file(made, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out.csv"
    given = [made[0]["price"], made[1], "--output", output, "--interval", 0.99]
    assert predict(monkeypatch, *given) == 2
    assert "level 0.99: needs 99 kept validation rows at least" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("form", ["torch_export", "onnx"])
def test_a_graph_is_calibrated_and_its_json_tells_the_threshold(form, made, tmp_path):
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    model = goldilocks.load(made[0]["dear"])
    assert model.calibration.temperature != 1
    done = export(model, tmp_path, form)
    assert done.file is not None and done.difference <= 1e-5
    rules = json.loads((tmp_path / "preparation.json").read_text())
    assert rules["output"]["threshold"] == model.calibration.threshold
    if form == "torch_export":
        frame = pd.read_csv(made[1])
        program = torch.export.load(done.file).module()
        found = program(torch.from_numpy(matrix_of(model.preparation, frame))).numpy()
        assert np.allclose(found, model.predict_proba(frame), atol=1e-6)
        own = kept(made[0]["dear"])
        there = frame.iloc[own.rows]
        assert not np.allclose(model.predict_proba(there), own.predicted, atol=1e-4)


def test_the_limit_of_sets_is_that_of_calibrated_probabilities(made):
    model = goldilocks.load(made[0]["dear"])
    own = model.kept()
    raw = kept(made[0]["dear"])
    limit = set_limit(own.predicted, own.true, 0.9)
    assert limit != pytest.approx(set_limit(raw.predicted, raw.true, 0.9), rel=1e-4)
    assert model.set_limit(0.9) == limit
