"""Files as they come: read, or refused in one line."""

import bz2
import gzip
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest

from goldilocks.data.tables.dialect import Layout, column_names
from goldilocks.data.tables.reading import find_files, read_files
from goldilocks.errors import Refused
from tables import cars, write


def read(path, target="price", **layout):
    return read_files(
        find_files(str(path), "data.path"), Layout(**layout), "data.path", target
    ).frame


@pytest.fixture
def expected(tmp_path):
    return read(write(tmp_path / "expected.csv", cars()))


SEPARATED = {"comma": ",", "tab": "\t", "semicolon": ";", "bar": "|"}


@pytest.mark.parametrize("separator", SEPARATED.values(), ids=SEPARATED)
def test_the_separator_is_found(separator, tmp_path, expected):
    lines = [line.replace(",", separator) for line in cars()]
    pd.testing.assert_frame_equal(read(write(tmp_path / "cars.txt", lines)), expected)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas_are_found(separator, tmp_path, expected):
    lines = [line.replace(",", separator).replace(".", ",") for line in cars()]
    pd.testing.assert_frame_equal(read(write(tmp_path / "cars.csv", lines)), expected)


def test_columns_between_spaces(tmp_path):
    lines = ["size  weight price", *(f"{n}.5   {n * n} {n % 7}" for n in range(30))]
    frame = read(write(tmp_path / "cars.dat", lines))
    assert list(frame.columns) == ["size", "weight", "price"]
    assert frame["weight"].tolist() == [n * n for n in range(30)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_the_encoding_is_found(encoding, tmp_path):
    lines = [line.replace("blue", "grün") for line in cars()]
    assert set(read(write(tmp_path / "cars.csv", lines, encoding))["colour"]) == {
        "red",
        "green",
        "grün",
    }


def test_an_umlaut_behind_the_sample_is_found_too(tmp_path, monkeypatch):
    for module in ("dialect", "reading"):
        monkeypatch.setattr(f"goldilocks.data.tables.{module}.SAMPLE_BYTES", 200)
    lines = [*cars(), cars()[1].replace("red", "grün")]
    assert read(write(tmp_path / "cars.csv", lines, "cp1252"))["colour"].iloc[-1] == "grün"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_end_of_line(end, tmp_path, expected):
    pd.testing.assert_frame_equal(read(write(tmp_path / "cars.csv", cars(), end=end)), expected)


@pytest.mark.parametrize("pack", [gzip, bz2, lzma], ids=lambda module: module.__name__)
def test_packed_files_whatever_their_names(pack, tmp_path, expected):
    (tmp_path / "cars.csv").write_bytes(pack.compress("\n".join(cars()).encode()))
    pd.testing.assert_frame_equal(read(tmp_path / "cars.csv"), expected)


def test_a_file_in_a_zip(tmp_path, expected):
    with zipfile.ZipFile(tmp_path / "cars.zip", "w") as archive:
        archive.writestr("cars.csv", "\n".join(cars()))
    pd.testing.assert_frame_equal(read(tmp_path / "cars.zip"), expected)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "\n".join(cars()))
        archive.writestr("b.csv", "\n".join(cars()))
    with pytest.raises(Refused, match=r"two\.zip: holds 2 files; unpack it"):
        read(tmp_path / "two.zip")


@pytest.mark.parametrize(("kind", "writer"), [("parquet", "to_parquet"), ("feather", "to_feather")])
def test_parquet_and_feather(kind, writer, tmp_path, expected):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    getattr(expected, writer)(tmp_path / f"cars.{kind}")
    pd.testing.assert_frame_equal(read(tmp_path / f"cars.{kind}"), expected)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "cars.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(
        Refused, match=r"Parquet needs the package pyarrow.*pip install -e '\.\[parquet\]'"
    ):
        read(tmp_path / "cars.parquet")


@pytest.mark.parametrize("mark", ["?", "NA", "", "n/a", "null", "-", "nan", "None", ".", "\\N"])
def test_marks_of_missing_values(mark, tmp_path):
    lines = ["size,price", *(f"{mark if n % 3 == 0 else n + 0.5},{n}" for n in range(30))]
    frame = read(write(tmp_path / "cars.csv", lines))
    assert frame["size"].dtype == np.float64
    assert frame["size"].isna().tolist() == [n % 3 == 0 for n in range(30)]


HEADERS = {
    "words over numbers": (["a,b", "1,2", "3,4"], "", True),
    "numbers": (["1,2", "3,4", "5,6"], "", False),
    "the target's name is a number": (["2019,2020", "1,2", "3,4"], "2020", True),
    "words over words": (["make,colour", "audi,red", "ford,blue"], "", True),
    "a gap in the first row": (["audi,?", "ford,3", "seat,4"], "", False),
}


@pytest.mark.parametrize(("lines", "target", "header"), HEADERS.values(), ids=HEADERS)
def test_the_header_is_found(lines, target, header, tmp_path):
    frame = read(write(tmp_path / "cars.csv", lines), target)
    assert len(frame) == len(lines) - header
    assert list(frame.columns) == (lines[0].split(",") if header else ["column1", "column2"])


def test_header_separator_and_encoding_can_be_said(tmp_path):
    path = write(tmp_path / "cars.csv", ["a:b", "1:ä"], "latin-1")
    frame = read(path, separator=":", header=False, encoding="latin-1")
    assert frame.to_numpy().tolist() == [["a", "b"], ["1", "ä"]]


def test_several_files_are_one_table(tmp_path):
    header, *rows = cars()
    write(tmp_path / "1.csv", [header, *rows[:40]])
    write(tmp_path / "2.csv", [header, *rows[40:]])
    assert read(tmp_path / "*.csv")["id"].tolist() == list(range(1, 91))
    write(tmp_path / "3.csv", ["id,size", "1,2"])
    with pytest.raises(
        Refused, match=r"3\.csv: lacks the column age; all must have the columns of .*1\.csv"
    ):
        read(tmp_path / "*.csv")


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = write(tmp_path / "cars.csv", cars(30))
    assert len(read(path)) == 30
    write(tmp_path / "cars.csv", cars(40))
    assert len(read(path)) == 40


def test_names_of_ten_thousand_columns():
    names, notes = column_names(["a"] * 5000 + [""] * 5000)
    assert len(set(names)) == 10_000
    assert names[:2] == ["a", "a.2"]
    assert names[-1] == "column10000"
    assert len(notes) == 4999
