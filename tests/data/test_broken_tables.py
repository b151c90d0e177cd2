"""Broken files: each is refused in one line that says what is wrong, or it works."""

import gzip

import numpy as np
import pytest

from goldilocks.data.sources.table_file import TableFile
from goldilocks.errors import Refused
from tables import cars, write

RANDOM = np.random.default_rng(0)


def rows(*columns, header="a,b,price", count=60):
    """Lines of as many rows; a column is a function of the row's number."""
    return [header, *(",".join(str(column(row)) for column in columns) for row in range(count))]


def number(row):
    return f"{RANDOM.normal():.4f}"


def text(lines):
    return ("\n".join(lines) + "\n").encode()


REFUSED = {
    "empty": (b"", r"cars\.csv: is empty"),
    "blank lines": (b"\n\n\n", r"cars\.csv: is empty"),
    "header only": (b"a,b,price\n", "has a header and no rows"),
    "a single column": (text(rows(number, header="price")), "separates no columns"),
    "too many values in a row": (
        text([*cars(), "1,2,3,4,5,6,7,8,9,10"]),
        "line 92 has 10 columns where 8 are",
    ),
    "more values than names": (
        text(["a,price", *rows(number, number, number)[1:]]),
        "the header names 2",
    ),
    "an open quotation mark": (text([*cars(), '1,"2,3']), "a quotation mark is never closed"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "its bytes are no text"),
    "random bytes": (RANDOM.bytes(5000), "its bytes are no text"),
    "a workbook": (b"PK\x03\x04 and more", "is damaged"),
    "a truncated archive": (gzip.compress(text(cars()))[:100], "is damaged"),
    "Parquet that is none": (b"PAR1 and more", "Parquet"),
    "no target in any row": (
        text(rows(number, number, lambda row: "")),
        "price: no row has a value",
    ),
    "a target of one value": (
        text(rows(number, number, lambda row: 5)),
        "single value, 5; there is nothing to learn",
    ),
    "a target of names": (
        text(rows(number, number, lambda row: f"n{row}")),
        "60 different words in 60 rows",
    ),
    "an infinite target": (
        text(rows(number, number, lambda row: "inf" if row % 9 else 1.5)),
        "no number that is finite in single precision, such as inf",
    ),
    "a word among targets": (
        text(rows(number, number, lambda row: number(row) if row else "abc")),
        "such as abc",
    ),
    "a class of one row": (
        text(rows(number, number, lambda row: "xyz"[2 * (row == 7)])),
        r"only 1 rows \(z\)",
    ),
    "two targets of one name": (
        text(rows(number, number, number, header="a,price,price")),
        "two columns have this",
    ),
    "constant features": (
        text(rows(lambda row: 1, lambda row: 2, number)),
        "no column is left as a feature",
    ),
    "identifiers only": (
        text(rows(lambda row: row, lambda row: f"n{row}", number)),
        "no column is left as a feature",
    ),
    "two rows": (b"a,b,price\n1,2,3\n2,3,4\n", "at least 3 are needed"),
    "no header": (
        text(rows(number, number, number)[1:]),
        "no such column; write one of: column1, column2, column3",
    ),
}


@pytest.mark.parametrize(("content", "line"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_learnt_from_is_refused(content, line, tmp_path):
    (tmp_path / "cars.csv").write_bytes(content)
    with pytest.raises(Refused, match=line) as refused:
        TableFile(path=str(tmp_path / "cars.csv"), target="price").setup()
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("data")


WORKS = {
    "a missing last value": (text([*cars(), "91,2.5"]), 6),
    "an empty column": (text(rows(lambda row: "", number, number)), 1),
    "infinities": (text(rows(lambda row: number(row) if row % 5 else "-inf", number, number)), 3),
    "two columns of one name": (text(rows(number, number, number, header="a,a,price")), 2),
    "a separator after each row": (
        text(["a,b,price", *(line + "," for line in rows(number, number, number)[1:])]),
        2,
    ),
    "rows without a target": (
        text(rows(number, number, lambda row: number(row) if row % 2 else "")),
        2,
    ),
    "huge numbers": (text(rows(number, lambda row: RANDOM.normal() * 1e300, number)), 1),
    "another number in each row": (text(rows(number, number, lambda row: row * 7)), 2),
}


@pytest.mark.parametrize(("content", "inputs"), WORKS.values(), ids=WORKS)
def test_what_can_be_learnt_from_works(content, inputs, tmp_path):
    (tmp_path / "cars.csv").write_bytes(content)
    data = TableFile(path=str(tmp_path / "cars.csv"), target="price")
    data.setup()
    assert data.spec.task == "regression"
    assert all(x.isfinite().all() and y.isfinite().all() for x, y in data.tensors.values())
    assert inputs in (data.spec.input_shape[0], len(data.preparation.columns))


def test_thousands_of_columns(tmp_path):
    header = ",".join([*(f"c{place}" for place in range(2000)), "price"])
    body = [",".join(map("{:.2f}".format, RANDOM.normal(size=2001))) for _ in range(30)]
    data = TableFile(path=write(tmp_path / "cars.csv", [header, *body]), target="price")
    data.setup()
    assert data.spec.input_shape == (2000,)


def test_paths_that_lead_nowhere(tmp_path):
    write(tmp_path / "cars.csv", cars())
    for path, line in (
        (tmp_path / "bikes.csv", r"bikes\.csv: there is no such file; in .* there are: cars\.csv"),
        (tmp_path / "none" / "*.csv", "is no folder with files"),
        (tmp_path, r"is a folder; write a file in it, or a pattern such as .*\*\.csv"),
    ):
        with pytest.raises(Refused, match=line):
            TableFile(path=str(path), target="price").setup()


def test_the_wrong_encoding(tmp_path):
    path = write(
        tmp_path / "cars.csv", [line.replace("blue", "grün") for line in cars()], "latin-1"
    )
    with pytest.raises(
        Refused, match=r"is no utf-8 text \(byte \d+: .*\); write another data\.encoding"
    ):
        TableFile(path=path, target="price", encoding="utf-8").setup()
    with pytest.raises(Refused, match=r"^data\.encoding=klingon: there is no such encoding"):
        TableFile(path=path, target="price", encoding="klingon").setup()
