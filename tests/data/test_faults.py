"""Tables that went wrong in the world:
their kinds, made here, and the shared files, each with its right outcome.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import goldilocks
from conftest import ROOT
from finished import command_of, finished
from goldilocks.data.sources.table_file import TableFile
from goldilocks.data.tables.card import lines_of
from goldilocks.data.tables.preparation import StrangeValues
from goldilocks.errors import Refused
from tables import write

FAULTS = ROOT.parent / "shared" / "data" / "faults"
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=120)
Y = X + 0.1 * RANDOM.normal(size=120)

predict = command_of("predict")


def table(tmp_path, encoding="utf-8", separator=",", target=Y, **columns):
    """A file of these columns and a target that follows x."""
    columns = {"x": [f"{value:.3f}" for value in X], **columns}
    rows = zip(*columns.values(), target, strict=True)
    lines = [separator.join([*columns, "y"]), *(separator.join(map(str, row)) for row in rows)]
    return write(tmp_path / "table.csv", lines, encoding)


def lines_in(path):
    return Path(path).read_text(encoding="utf-8").splitlines()


def ready(path, target="y", **options):
    data = TableFile(path=path, target=target, **options)
    data.setup()
    return data


def described(path, **options):
    """How each column was described."""
    return {column["name"]: column for column in ready(path, **options).described}


# --- what columns are -----------------------------------------------------------------------------

DAYS = pd.date_range("2023-01-01", periods=120, freq="17h")
NUMBERS = {
    "money": ([f'"${value:,.2f}"' for value in 1000 * np.exp(X)], 1000 * np.exp(X)),
    "negative money": ([f'"{value:,.0f} €"' for value in 2000 * X], 2000 * X),
    "percent": ([f"{value:.1f}%" for value in X], X),
    "a unit": ([f"{value:.2f} kg" for value in X], X),
    "decimal commas in quotation marks": ([f'"{value:.2f}"'.replace(".", ",") for value in X], X),
    "thousands": ([f'"{value:,.0f}"' for value in 1e6 * X], 1e6 * X),
    "times of day": ([f"{day:%H:%M}" for day in DAYS], DAYS.hour),
    "times with AM and PM": ([f"{day:%I:%M %p}" for day in DAYS], DAYS.hour),
    "durations": ([f"{row % 9}h {row % 60}m" for row in range(120)], None),
    "a word that many rows have": (["unknown" if r % 5 == 0 else v for r, v in enumerate(X)], None),
}


@pytest.mark.parametrize(("words", "values"), NUMBERS.values(), ids=NUMBERS)
def test_words_that_are_numbers(words, values, tmp_path):
    data = ready(table(tmp_path, more=words))
    column = data.described[1]
    assert column["kind"] == "numeric", column
    if values is not None:
        rows = np.asarray(values, float)[data.row_numbers["train"]]
        scaled = data.tensors["train"][0][:, data.spec.feature_names.index("more")].numpy()
        assert np.corrcoef(rows, scaled)[0, 1] > 0.999


DATES = {
    "AM and PM": "%m/%d/%Y %I:%M:%S %p",
    "one number": "%Y%m%d",
    "a month and a year": "%b-%y",
    "a month's name": "%B %d, %Y",
    "a day's name": "%a, %d %b %Y %H:%M:%S GMT",
    "the day first": "%d/%m/%Y",
}


@pytest.mark.parametrize("style", DATES.values(), ids=DATES)
def test_words_that_are_dates(style, tmp_path):
    words = [f'"{day.strftime(style)}"' for day in DAYS]
    column = described(table(tmp_path, more=words))["more"]
    assert column["kind"] == "date"
    assert (column["least"][:7], column["most"][:7]) == ("2023-01", "2023-03")


def test_all_dates_decide_which_number_is_the_day(tmp_path):
    early = [f"{1 + row // 10:02}/03/2024" for row in range(119)]
    column = described(table(tmp_path, when=[*early, "13/03/2024"]))["when"]
    assert (column["least"][:7], column["most"][:7]) == ("2024-03", "2024-03")
    both = ready(table(tmp_path, when=[*early[:-1], "13/03/2024", "03/14/2024"]))
    assert "1 dates begin with the day and 1 with the month" in " ".join(both.said)


def test_codes_keep_their_zeros(tmp_path):
    column = described(table(tmp_path, zip=[f"0{1000 + row % 7}" for row in range(120)]))["zip"]
    assert (column["kind"], next(iter(column["common"]))[0]) == ("categorical", "0")


INDEXES = {
    "all rows": lambda rows: rows,
    "rows were left out": lambda rows: np.flatnonzero(np.arange(rows.size * 2) % 7)[: rows.size],
    "shuffled": lambda rows: np.random.default_rng(0).permutation(rows),
}


@pytest.mark.parametrize("made", INDEXES.values(), ids=INDEXES)
def test_another_programs_index_is_no_feature(made, tmp_path):
    target = [*Y[:-1], ""]  # the rows that are left count with a gap
    data = ready(table(tmp_path, target=target, **{"": made(np.arange(120))}))
    assert data.described[1]["kind"] == "identifier"
    assert data.said == ["1 row without a target is left out"]


# --- numbers and targets --------------------------------------------------------------------------


def test_numbers_that_single_precision_cannot_hold(tmp_path):
    huge = [f"{value:.3f}" for value in X[:-1]] + ["1e300"]
    data = ready(table(tmp_path, more=huge))
    assert "more: 1 value is infinite or too large for single precision" in data.said[0]
    assert data.tensors["train"][0].abs().max() < 10
    with pytest.raises(Refused, match="1 of 120 rows hold no number that is finite in single"):
        ready(table(tmp_path, target=huge))


def test_a_frequent_mark_in_a_target_of_words_is_a_class(tmp_path):
    classes = [["None", "Minor", "None", "Major"][row % 4] for row in range(120)]
    data = ready(table(tmp_path, target=classes))
    assert data.spec.class_names == ("Major", "Minor", "None")
    assert data.said == ["y: None is a class of 60 rows, and no missing value"]
    rare = ready(table(tmp_path, target=["?", *classes[1:]]))
    assert "?" not in rare.spec.class_names
    assert rare.said[-1] == "1 row without a target is left out (? in 1)"
    numbers = ready(table(tmp_path, target=["NA" if row % 2 else row for row in range(120)]))
    assert sum(numbers.spec.num_rows.values()) == 60


def test_rare_classes_are_left_out_or_merged(tmp_path):
    path = table(tmp_path, target=["c"] * 2 + ["d"] * 2 + ["a", "b"] * 58)
    with pytest.raises(Refused, match=r"only 2 rows \(c, and 1 more\).*data\.min_class_rows=3"):
        ready(path)
    data = ready(path, min_class_rows=3)
    assert data.spec.class_names == ("a", "b")
    assert "left out: c (2), d (2)" in data.said[0]
    assert min(map(min, data.row_numbers.values())) >= 4
    merged = ready(path, min_class_rows=3, rare_classes="merge")
    assert merged.spec.class_names == ("(other)", "a", "b")


def test_amounts_that_are_taken_for_classes_name_the_way_out(tmp_path):
    path = table(tmp_path, target=[0, 1, 2, 8, *[row % 3 for row in range(116)]])
    with pytest.raises(Refused, match=r"or data\.task=regression if these are amounts"):
        ready(path)


def test_a_constant_target_is_no_leak(tmp_path):
    data = ready(
        table(tmp_path, more=RANDOM.normal(size=120), target=["5.5"] * 120), task="regression"
    )
    status = {check["name"]: check["status"] for check in data.card()["checks"]}
    assert (status["single features"], status["target"]) == ("ok", "failed")


# --- files ----------------------------------------------------------------------------------------


def test_what_is_in_front_of_a_table(tmp_path):
    lines = lines_in(table(tmp_path))
    for front, notes in ((["# exported 2024", "# by X, Y"], 2), (["sep=,"], 1)):
        data = ready(write(tmp_path / "front.csv", [*front, *lines]))
        assert sum(data.spec.num_rows.values()) == 120
        assert f"{notes} lines in front of the table are passed over" in data.notes
    numbered = ready(write(tmp_path / "front.csv", [f"#{lines[0]}", *lines[1:]]))
    assert numbered.spec.feature_names == ("#x",)


def test_two_rows_of_names(tmp_path):
    lines = lines_in(table(tmp_path, more=X))
    data = ready(write(tmp_path / "two.csv", [lines[0], "cm,kg,EUR", *lines[1:]]))
    assert data.spec.feature_names == ("x", "more")
    assert "the second row (cm, kg, EUR) belongs to the header" in data.notes
    above = write(tmp_path / "two.csv", ["size,,y", "least,most,", *lines[1:]])
    assert ready(above).spec.feature_names == ("size least", "size most")


def test_words_that_may_be_no_header(tmp_path):
    rows = [f"{'ab'[row % 2]},{'cd'[row % 3 // 2]},{'ef'[row % 2]}" for row in range(60)]
    with pytest.raises(Refused, match=r"if the first row is no header, write data.header=false"):
        ready(write(tmp_path / "words.csv", rows), target="column3")


def test_the_end_of_a_file_decides_too(tmp_path, monkeypatch):
    for module in ("dialect", "reading", "chunks"):
        monkeypatch.setattr(f"goldilocks.data.tables.{module}.SAMPLE_BYTES", 400)
    monkeypatch.setattr("goldilocks.data.tables.reading.PIECE_ROWS", 50)
    late = [*["1"] * 60, *["01"] * 59, "grün"]
    found = ready(table(tmp_path, encoding="cp1252", more=late), columns={"more": "categorical"})
    assert found.described[1]["common"].keys() <= {"1", "01", "grün"}
    commas = [f"{value:.2f}".replace(".", ",") for value in X]
    whole = [str(row % 50) for row in range(60)] + commas[60:]
    path = table(tmp_path, separator=";", more=whole)
    assert described(path)["more"]["kind"] == "numeric"


def test_pages_hold_no_tags(tmp_path):
    tag = "<script>alert(1)</script>"
    path = table(tmp_path, **{"a<img src=x>[b](c)": [tag, "ok", "no"] * 40}, target=[tag, "b"] * 60)
    page = "\n".join(lines_of(ready(path).card()))
    assert "<script" not in page and "<img" not in page and "](c)" not in page.replace("\\](c)", "")


# --- prediction -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on numbers, categories, codes, dates and a class that begins with an equals sign."""
    folder = tmp_path_factory.mktemp("trained")
    path = table(
        folder,
        größe=["rot", "grün", "NA"] * 40,
        code=[str(row % 4) for row in range(120)],
        when=[f"{day:%Y-%m-%d}" for day in DAYS],
        target=["=a", "b"] * 60,
        encoding="cp1252",
    )
    run = finished(
        folder, "data=table", f"data.path={path}", "data.target=y", "data.columns.code=categorical"
    )
    return run, path


def test_a_file_that_was_trained_on_predicts(trained, tmp_path, monkeypatch, capsys):
    run, path = trained
    output = tmp_path / "out.csv"
    assert predict(monkeypatch, run, path, "--output", output, "--safe-csv") == 0
    found = pd.read_csv(output)
    frame = pd.read_csv(path, encoding="cp1252", dtype=str, keep_default_na=False)
    with pytest.warns(StrangeValues):
        expected = goldilocks.load(run).predict_proba(frame)
    np.testing.assert_allclose(found.iloc[:, -2:], expected, rtol=1e-5)
    assert set(found["predicted_y"]) <= {"'=a", "b"}
    assert {"probability_=a", "probability_b"} <= set(found.columns)
    assert set(found["y"]) == {"'=a", "b"}
    capsys.readouterr()


def test_what_training_did_not_have_is_told_by_column(trained, tmp_path, monkeypatch, capsys):
    run, _ = trained
    words = ["abc", '"1,5"', "$3", "12 kg", "4%"]
    lines = ["x,größe,code,when", *(f"{word},blau,{n},soon" for n, word in enumerate(words))]
    path = write(tmp_path / "new.csv", [*lines, "99,rot,1,2099-01-01"])
    output = tmp_path / "out.csv"
    assert predict(monkeypatch, run, path, "--output", output) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("warning: x: 5 of the rows have no number that can be read")
    kinds = {(line.split(": ")[1], "range" in line) for line in told}
    assert {("x", False), ("x", True), ("größe", False), ("when", False), ("when", True)} <= kinds
    output.unlink()
    assert predict(monkeypatch, run, path, "--output", output, "--strict") == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: x: 5 of the rows have no number")
    assert not output.exists()
    with pytest.raises(Refused, match="x: 5 of the rows have no number"):
        goldilocks.load(run, strict=True).predict(pd.read_csv(path))


# --- the shared files -----------------------------------------------------------------------------

shared = pytest.mark.skipif(not FAULTS.is_dir(), reason=f"{FAULTS} is not there")
RIGHT = {
    "none_class.csv": ("damage", {}, lambda d: d.spec.class_names == ("Major", "Minor", "None")),
    "day_first_3900_rows.csv": ("y", {}, lambda d: d.described[0]["most"] == "2024-03-20"),
    "decimal_comma_odd_word.csv": (
        "ertrag",
        {},
        lambda d: {c["kind"] for c in d.described} == {"numeric"} and "defekt" in d.said[0],
    ),
    "cp1252_header.csv": ("preis", {"columns": {"größe": "drop"}}, lambda d: len(d.described) == 2),
    "index_and_gap.csv": ("price", {}, lambda d: d.described[0]["kind"] == "identifier"),
    "huge.csv": ("y", {}, lambda d: "too large" in d.said[0]),
    "marks.csv": ("y", {}, lambda d: d.spec.task == "binary"),
    "dates.csv": (
        "y",
        {},
        lambda d: (
            [c["kind"] for c in d.described] == ["date"] * 7 + ["numeric"] * 2
            and d.described[0]["most"] == "2023-07-31 02:00:00"
        ),
    ),
    "money_percent_units.csv": (
        "price",
        {},
        lambda d: [c["reason"].rpartition(" ")[2] for c in d.described] == ["$", "%", "kg"],
    ),
    "comments.csv": ("y", {}, lambda d: d.spec.feature_names == ("a", "b")),
    "html.csv": ("label", {}, lambda d: "<" not in "".join([*lines_of(d.card())][2:])),
}


@shared
@pytest.mark.parametrize("name", RIGHT)
def test_shared_tables_are_understood(name):
    target, options, right = RIGHT[name]
    assert right(ready(str(FAULTS / name), target, **options))


@shared
def test_a_shared_count_is_refused_with_the_way_out():
    with pytest.raises(Refused, match=r"data\.task=regression"):
        ready(str(FAULTS / "count_target.csv"), "goals")


@shared
@pytest.mark.parametrize(
    ("name", "other", "target", "told"),
    [
        ("cp1252_header.csv", "cp1252_header.csv", "preis", ""),
        ("base.csv", "pred_words.csv", "price", "x: 5 of the rows have no number"),
        ("marks.csv", "marks.csv", "y", ""),
    ],
)
def test_shared_files_predict(name, other, target, told, tmp_path, monkeypatch, capsys):
    words = ["data.columns.code=categorical"] if name == "base.csv" else []
    run = finished(
        tmp_path, "data=table", f"data.path={FAULTS / name}", f"data.target={target}", *words
    )
    output = tmp_path / "out.csv"
    capsys.readouterr()
    assert predict(monkeypatch, run, FAULTS / other, "--output", output) == 0
    assert told in capsys.readouterr().err
    encoding = "cp1252" if "cp1252" in other else "utf-8"
    frame = pd.read_csv(FAULTS / other, dtype=str, keep_default_na=False, encoding=encoding)
    expected = goldilocks.load(run).outputs(frame)
    np.testing.assert_allclose(
        pd.read_csv(output).iloc[:, -expected.shape[1] :], expected, rtol=1e-4
    )


@shared
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_shared_table_with_a_huge_number_is_learnt(seed, tmp_path):
    words = ["data=table", f"data.path={FAULTS / 'huge.csv'}", "data.target=y", f"data.seed={seed}"]
    run = finished(tmp_path, *words, "trainer.max_epochs=20")
    result = yaml.safe_load((run / "result.json").read_text(encoding="utf-8"))
    assert result["metrics"]["test/r2"] > 0.9
