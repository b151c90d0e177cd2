"""A finished run predicts: from Python, and a file's rows; from its folder alone."""

import gzip
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import goldilocks
from finished import TABLES, command_of, finished, finished_tables
from goldilocks.data.base import TableData
from goldilocks.data.sources.table_file import TableFile
from goldilocks.data.tables.dialect import PANDAS_MISSING
from goldilocks.errors import Refused
from goldilocks.inference import predict_file
from goldilocks.runs.folder import read_config, read_result
from goldilocks.training.checkpoints import load_checkpoint, load_weights
from goldilocks.training.components import prepare
from tables import write

predict = command_of("predict")
pytestmark = pytest.mark.filterwarnings("ignore::goldilocks.data.tables.preparation.StrangeValues")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return finished_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture
def runs(made):
    return made[0]


@pytest.fixture
def frame(made):
    return pd.read_csv(made[1])


@pytest.fixture
def lines(made):
    with open(made[1], encoding="utf-8") as file:
        return file.read().splitlines()


def by_the_module(folder):
    """The test rows' numbers, and what the checkpoint's module makes of them:
    what the run was tested with.
    """
    path = folder / "checkpoints" / "best.ckpt"
    checkpoint = load_checkpoint(path)
    parts = prepare(read_config(folder), fitted=checkpoint, warn=False)
    load_weights(parts.module, checkpoint, path)
    with torch.no_grad():
        return parts.data.row_numbers["test"], parts.module.eval()(
            parts.data.tensors["test"][0]
        ).numpy()


# --- from Python ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_predictions_are_those_of_the_checkpoint(name, runs, frame):
    rows, expected = by_the_module(runs[name])
    model = goldilocks.load(runs[name])
    found = model.outputs(frame.iloc[rows])
    if name == "fuel":
        assert np.allclose(found[:, 0], 1 - found[:, 1])
        found = found[:, 1:]
    assert found.shape == expected.shape
    assert np.ptp(found) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_was_loaded_says_what_it_is(runs, tmp_path):
    for name, kind in {"price": "Regressor(price", "colour": "Classifier(3 classes"}.items():
        value = read_result(runs[name])["objective"]["value"]
        told = repr(goldilocks.load(runs[name]))
        assert re.fullmatch(rf"{re.escape(kind)} from \d columns, val/loss {value:.4g}, .*", told)
        assert told.endswith(f", {runs[name]})")
    digits = goldilocks.load(finished(tmp_path, "data=digits", "model=cnn", "trainer.max_epochs=1"))
    assert repr(digits).startswith("Classifier(10 classes from [1, 8, 8], val/loss ")
    (runs_copy := tmp_path / "copy").mkdir()
    shutil.copytree(runs["fuel"], runs_copy / "r")
    (runs_copy / "r" / "result.json").write_text("{")
    assert repr(goldilocks.load(runs_copy / "r")).endswith(f" columns, {runs_copy / 'r'})")


def test_the_mean_of_the_weights_predicts_where_there_is_one(runs):
    for name in ("colour", "fuel"):
        state = load_checkpoint(runs[name] / "checkpoints" / "best.ckpt")["state_dict"]
        network = goldilocks.load(runs[name]).members[0].network.state_dict()
        assert state["average.updates"] > 0
        assert all(
            torch.equal(value, state[f"average.network.{key}"]) for key, value in network.items()
        )
        assert not all(
            torch.equal(value, state[f"network.{key}"]) for key, value in network.items()
        )


def test_a_run_that_was_moved_predicts_without_its_data(made, frame, tmp_path, monkeypatch):
    runs, _ = made
    before = {name: goldilocks.load(run).outputs(frame) for name, run in runs.items()}
    for name, run in runs.items():
        shutil.copytree(run, tmp_path / "elsewhere" / name)
    monkeypatch.chdir(tmp_path)

    def unreadable(*words):
        raise AssertionError("the data were asked for")

    monkeypatch.setattr(TableFile, "load", unreadable)
    monkeypatch.setattr(TableData, "setup", unreadable)
    for name, expected in before.items():
        assert np.array_equal(goldilocks.load(f"elsewhere/{name}").outputs(frame), expected)


def test_the_manners_are_scikit_learns(runs, frame):
    model = goldilocks.load(runs["colour"])
    assert model.classes_.tolist() == ["blue", "green", "red"]
    assert model.feature_names_in_.tolist() == ["size", "age", "make", "fuel", "sold", "price"]
    assert model.n_features_in_ == 6
    probabilities = model.predict_proba(frame)
    assert probabilities.shape == (150, 3)
    assert np.allclose(probabilities.sum(1), 1)
    assert model.predict(frame).tolist() == model.classes_[probabilities.argmax(1)].tolist()
    price = goldilocks.load(runs["price"])
    assert price.predict(frame).shape == (150,)
    assert abs(np.median(price.predict(frame)) - frame["price"].median()) < frame["price"].std()
    assert not hasattr(price, "predict_proba") and not hasattr(price, "classes_")
    assert model.predict(frame[:0]).shape == (0,) and model.predict_proba(frame[:0]).shape == (0, 3)


def test_columns_may_come_in_any_order_and_as_an_array(runs, frame):
    for run in runs.values():
        model = goldilocks.load(run)
        expected = model.outputs(frame)
        assert np.array_equal(model.outputs(frame[frame.columns[::-1]].assign(more="x")), expected)
        assert np.array_equal(
            model.outputs(frame[list(model.feature_names_in_)].to_numpy()), expected
        )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda rows: rows.drop(columns="size"),
            "rows: lacks the column size, which the network needs; it has: ",
        ),
        (
            lambda rows: rows.drop(columns=["age", "make"]),
            "rows: lacks the column age, and 1 more that are needed; ",
        ),
        (
            lambda rows: rows.to_numpy(),
            "rows: [N, 6] is expected, not [150, 8]; the columns are size, age, make, ",
        ),
        (lambda rows: rows["size"], "rows: [N, 6] is expected, not [150]; the columns are size"),
    ],
)
def test_other_rows_are_refused(change, line, runs, frame):
    with pytest.raises(ValueError) as refused:
        goldilocks.load(runs["price"]).predict(change(frame))
    assert str(refused.value).startswith(line)


def test_what_was_never_seen_is_taken_as_in_training(runs, frame):
    model = goldilocks.load(runs["price"])
    odd = frame.assign(make="tesla", fuel=None, age="old", size=np.inf, sold="some day")
    known = model.preparation.transform(odd)
    assert np.isfinite(known).all()
    assert np.array_equal(
        model.predict(odd), model.predict(odd.assign(age=np.nan, size=np.nan, sold=None))
    )


@pytest.mark.parametrize(
    "words",
    [["data=digits", "model=cnn"], ["data=iris"], ["data=diabetes", "data.scaling=quantile"]],
)
def test_arrays_as_the_source_loads_them(words, tmp_path):
    folder = finished(tmp_path, *words)
    rows, expected = by_the_module(folder)
    model = goldilocks.load("last", tmp_path)
    features = prepare(read_config(folder), warn=False).data.load().features
    np.testing.assert_allclose(model.outputs(features[rows]), expected, rtol=1e-5)
    if words == ["data=iris"]:
        table = pd.DataFrame(features, columns=model.feature_names_in_)
        assert np.array_equal(model.predict(table[table.columns[::-1]]), model.predict(features))
        assert set(model.classes_) == {"setosa", "versicolor", "virginica"}
        with pytest.raises(
            Refused, match=r"feature sepal length .* holds 1 missing or infinite values"
        ):
            model.predict(table.assign(**{"sepal length (cm)": [np.nan, *[1.0] * 149]}))
    if words[0] == "data=digits":
        assert model.classes_.tolist() == list(range(10))
        with pytest.raises(Refused, match=r"rows: \[N, 1, 8, 8\] is expected, not \[1797, 64\]"):
            model.predict(features.reshape(-1, 64))
        with pytest.raises(Refused, match=r"an array .* is expected, not a table"):
            model.predict(pd.DataFrame(features.reshape(-1, 64)))


def test_loading_draws_no_random_numbers(runs):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    goldilocks.load(runs["price"])
    assert torch.equal(torch.get_rng_state(), before)


def test_runs_that_cannot_be_loaded_are_refused(runs, tmp_path):
    with pytest.raises(Refused, match="nowhere: no such run folder"):
        goldilocks.load("nowhere")
    shutil.copytree(runs["price"], tmp_path / "run", ignore=shutil.ignore_patterns("*.ckpt"))
    with pytest.raises(Refused, match=r"has no checkpoints/best\.ckpt"):
        goldilocks.load(tmp_path / "run")


# --- a file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_kept_and_predictions_stand_behind(
    name, made, runs, frame, lines, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "out.csv"
    assert predict(monkeypatch, runs[name], made[1], "--output", output) == 0
    written = output.read_text(encoding="utf-8").splitlines()
    assert len(written) == len(lines)
    assert all(line.startswith(f"{given},") for line, given in zip(written, lines, strict=True))
    model, found = goldilocks.load(runs[name]), pd.read_csv(output)
    if name == "price":
        assert list(found)[8:] == ["predicted_price"]
        np.testing.assert_allclose(found["predicted_price"], model.predict(frame), rtol=1e-6)
    else:
        assert list(found)[8:] == [
            f"predicted_{name}",
            *(f"probability_{word}" for word in model.classes_),
        ]
        assert found[f"predicted_{name}"].tolist() == model.predict(frame).tolist()
        np.testing.assert_allclose(found.iloc[:, 9:], model.predict_proba(frame), rtol=1e-6)
    told = capsys.readouterr()
    first, *others = told.err.splitlines()
    assert first == "ignored columns, which the network does not take: id"
    assert all("out of the training rows' range" in line for line in others)
    assert told.out.endswith(f"150 rows in {output}\n")
    assert f" of the 150 rows that have {name}\n" in told.out
    measure = {
        "price": lambda: f"mae {np.abs(model.predict(frame) - frame['price']).mean():.4f}",
        "colour": lambda: f"accuracy {(model.predict(frame) == frame['colour']).mean():.4f}",
        "fuel": lambda: f"accuracy {(model.predict(frame) == frame['fuel']).mean():.4f}",
    }
    assert measure[name]() in told.out


@pytest.mark.parametrize("name", TABLES)
def test_pieces_make_no_difference(name, made, runs, tmp_path, monkeypatch):
    whole, pieces = tmp_path / "whole.csv", tmp_path / "pieces.csv"
    assert predict(monkeypatch, runs[name], made[1], "--output", whole) == 0
    monkeypatch.setattr(predict_file, "PIECE_ROWS", 7)
    monkeypatch.setattr(predict_file, "FEWEST_ROWS", 7)
    assert predict(monkeypatch, runs[name], made[1], "--output", pieces) == 0
    one, other = pd.read_csv(whole), pd.read_csv(pieces)
    numbers = one.select_dtypes("number").columns
    np.testing.assert_allclose(one[numbers], other[numbers], rtol=1e-5)
    assert one.drop(columns=numbers).equals(other.drop(columns=numbers))


def test_another_layout_is_found_out(runs, frame, lines, tmp_path, monkeypatch, capsys):
    swapped = frame[["sold", "make", "price", "size", "age", "colour", "fuel"]].assign(
        Käufer="Müller"
    )
    path = tmp_path / "neu.csv"
    swapped.to_csv(path, sep=";", decimal=",", encoding="cp1252", index=False, na_rep="NA")
    output = tmp_path / "out.csv"
    assert predict(monkeypatch, runs["price"], path, "--output", output) == 0
    found = pd.read_csv(output, sep=";", decimal=",")
    np.testing.assert_allclose(
        found["predicted_price"], goldilocks.load(runs["price"]).predict(frame), rtol=1e-5
    )
    assert set(found["Käufer"]) == {"Müller"}
    assert any(";NA;" in line for line in output.read_text(encoding="utf-8").splitlines())
    told = capsys.readouterr().err
    assert told.startswith("ignored columns, which the network does not take: Käufer\n")


def test_parquet_and_packed_text(runs, frame, lines, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    frame.drop(columns="price").to_parquet(tmp_path / "cars.parquet")
    frame.to_csv(tmp_path / "cars.csv.gz", index=False)
    expected = goldilocks.load(runs["price"]).predict(frame)
    for name in ("cars.parquet", "cars.csv.gz"):
        assert (
            predict(monkeypatch, runs["price"], tmp_path / name, "--output", tmp_path / "out.csv")
            == 0
        )
        np.testing.assert_allclose(
            pd.read_csv(tmp_path / "out.csv")["predicted_price"], expected, rtol=1e-6
        )


def changed(lines, **words):
    """Lines with another first row, or a row of more words."""
    lines = list(lines)
    lines[0] = lines[0].replace(*words["header"]) if "header" in words else lines[0]
    return [*lines, *words.get("more", [])]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            {"header": ("size", "length")},
            "lacks the column size, which the network needs; it has: ",
        ),
        ({"header": ("id", "predicted_price")}, "has a column predicted_price already; rename it"),
        (
            {"more": ["1,2,3,audi,gas,red,2024-01-01,5,6"]},
            "line 152 has 9 columns where 8 are expected; correct it",
        ),
    ],
)
def test_bad_files_are_refused_and_leave_nothing(
    words, line, runs, lines, tmp_path, monkeypatch, capsys
):
    path = write(tmp_path / "new.csv", changed(lines, **words))
    output = tmp_path / "out.csv"
    output.write_text("before")
    monkeypatch.setattr(predict_file, "PIECE_ROWS", 20)
    monkeypatch.setattr(predict_file, "FEWEST_ROWS", 20)
    assert predict(monkeypatch, runs["price"], path, "--output", output) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {path}: {line}") and told.count("\n") == 1
    assert output.read_text() == "before"
    assert {file.name for file in tmp_path.iterdir()} == {"new.csv", "out.csv"}


def test_damaged_files_are_refused(runs, lines, tmp_path, monkeypatch, capsys):
    packed = gzip.compress(("\n".join([*lines, *lines[1:] * 300]) + "\n").encode())
    middle = len(packed) // 2
    for content, line in (
        (
            packed[:middle],
            "is damaged (Compressed file ended before the end-of-stream marker was reached)",
        ),
        (packed[:middle] + bytes(50) + packed[middle + 50 :], ""),
        (b"", "is empty"),
        (b"\0\1\2" * 100, "is not a table: its bytes are no text"),
    ):
        (tmp_path / "new.csv").write_bytes(content)
        assert (
            predict(
                monkeypatch, runs["price"], tmp_path / "new.csv", "--output", tmp_path / "out.csv"
            )
            == 2
        )
        told = capsys.readouterr().err
        assert told.startswith(f"error: {tmp_path / 'new.csv'}: {line}") and told.count("\n") == 1
        assert [file.name for file in tmp_path.iterdir()] == ["new.csv"]


def test_bad_outputs_are_refused(made, runs, tmp_path, monkeypatch, capsys):
    for output, line in (
        (made[1], "is the file of the rows; write another"),
        (tmp_path, "is a folder; write a file in it"),
        (
            tmp_path / "out.parquet",
            "predictions are written as text, not as Parquet; write a name in .csv",
        ),
        (tmp_path / "none" / "out.csv", "cannot be written (No such file or directory)"),
    ):
        assert predict(monkeypatch, runs["price"], made[1], "--output", output) == 2
        assert capsys.readouterr().err == f"error: --output {output}: {line}\n"
    assert list(tmp_path.iterdir()) == []
    assert predict(monkeypatch, runs["price"], tmp_path / "none.csv") == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.csv'}: there is no such file\n"


def test_categories_are_the_same_however_a_piece_is_read(tmp_path, monkeypatch):
    """Words of numbers, of truth, and both beside others,
    of which a piece of a file may hold none.
    """
    random = np.random.default_rng(0)
    rows = [
        [
            ["1.0", "2.0", "3.0"][n % 3],
            ["TRUE", "false"][n % 2],
            ["01", "1", "x"][n % 3],
            f"{random.normal():.3f}",
        ]
        for n in range(60)
    ]
    kinds = ["data.columns.doors=categorical", "data.columns.code=categorical"]
    table = [",".join(["doors", "abs", "code", "y"]), *map(",".join, rows)]
    path = write(tmp_path / "cars.csv", table)
    folder = finished(tmp_path, "data=table", f"data.path={path}", "data.target=y", *kinds)
    written = {
        column.name: column.form.meaning for column in goldilocks.load(folder).preparation.columns
    }
    assert written == {"doors": "numbers", "abs": "truth", "code": "words"}
    monkeypatch.setattr(predict_file, "PIECE_ROWS", 1)
    monkeypatch.setattr(predict_file, "FEWEST_ROWS", 1)
    assert predict(monkeypatch, folder, path, "--output", tmp_path / "out.csv") == 0
    expected = goldilocks.load(folder).predict(pd.read_csv(path))
    found = pd.read_csv(tmp_path / "out.csv", dtype=str)
    np.testing.assert_allclose(found["predicted_y"].astype(float), expected, rtol=1e-4)
    assert found["abs"].tolist()[:2] == ["TRUE", "false"]
    odd = pd.DataFrame({"doors": ["1.0", "many"], "abs": [True, None], "code": ["01", "1"]})
    np.testing.assert_allclose(goldilocks.load(folder).predict(odd)[0], expected[0], rtol=1e-4)


def test_a_file_of_a_single_column(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    path = write(
        tmp_path / "line.csv", ["x,y", *(f"{x:.3f},{2 * x:.3f}" for x in random.normal(size=60))]
    )
    folder = finished(tmp_path, "data=table", f"data.path={path}", "data.target=y")
    new = write(tmp_path / "new.csv", ["x", "0.5", "-1"])
    assert predict(monkeypatch, folder, new, "--output", tmp_path / "out.csv") == 0
    found = pd.read_csv(tmp_path / "out.csv")
    expected = goldilocks.load(folder).predict([[0.5], [-1]])
    np.testing.assert_allclose(found["predicted_y"], expected, rtol=1e-6)


def test_pandas_takes_these_words_for_missing_values(tmp_path):
    path = write(
        tmp_path / "words.csv", ["a,b", *(f"{word},1" for word in PANDAS_MISSING), "word,1"]
    )
    assert pd.read_csv(path)["a"].isna().tolist() == [*[True] * len(PANDAS_MISSING), False]
