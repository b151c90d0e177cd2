"""What columns are taken for, and why."""

import numpy as np
import pandas as pd
import pytest

from goldilocks.data.tables.columns import Column, describe, describe_columns
from goldilocks.data.tables.values import numbers_of, words_of
from goldilocks.errors import Refused

RANDOM = np.random.default_rng(0)
N = 60
NUMBERS = RANDOM.normal(size=N)
PLACES = np.arange(N)
SENTENCES = [f"the car number {place} is in good order" for place in PLACES]

COLUMNS = {
    "numbers": (NUMBERS, "numeric", "numbers"),
    "whole numbers": (PLACES % 7, "numeric", "numbers"),
    "unordered whole numbers that differ": (RANDOM.permutation(10 * N)[:N], "numeric", "numbers"),
    "two numbers": (PLACES % 2 + 1, "binary", "two values"),
    "two words": (np.array(["yes", "no"])[PLACES % 2], "binary", "two values"),
    "true and false": (PLACES % 3 == 0, "binary", "two values"),
    "words": (np.array(["red", "green", "blue"])[PLACES % 3], "categorical", "3 different words"),
    "numbers written as words": (
        list(map(str, NUMBERS)),
        "numeric",
        "100% of its words are numbers",
    ),
    "a word among numbers": (
        [*map(str, NUMBERS[1:]), "ask"],
        "numeric",
        "such as ask, count as missing",
    ),
    "dates": (
        pd.date_range("2024-01-01", periods=N).strftime("%Y-%m-%d"),
        "date",
        "its words are dates",
    ),
    "German dates": (
        pd.date_range("2024-01-01", periods=N).strftime("%d.%m.%Y"),
        "date",
        "its words are dates",
    ),
    "dates with a time": (
        pd.date_range("2024-01-01", periods=N, freq="7h").map(str),
        "date",
        "its words are dates",
    ),
    "dates with a month's name": (
        pd.date_range("2024-01-01", periods=N).strftime("%d %b %Y"),
        "date",
        "its words are",
    ),
    "points in time": (pd.date_range("2024-01-01", periods=N), "date", "dates in the file"),
    "a number for each row": (PLACES + 5, "identifier", "numbers the rows"),
    "a word for each row": (
        [f"n{place}" for place in PLACES],
        "identifier",
        "100% of the values are different",
    ),
    "sentences": (SENTENCES, "text", "8 words on average"),
    "one value": (np.ones(N), "drop", "a single value in all rows"),
    "one word": (["a"] * N, "drop", "a single value in all rows"),
    "nothing": ([None] * N, "drop", "no row has a value"),
    "no numbers": (np.full(N, np.nan), "drop", "no row has a value"),
    "one value or nothing": (np.where(PLACES % 3, np.nan, 1.0), "numeric", "numbers"),
    "lists": ([[1, 2]] * N, "drop", "holds lists or tables"),
}


@pytest.mark.parametrize(("values", "kind", "reason"), COLUMNS.values(), ids=COLUMNS)
def test_what_a_column_is(values, kind, reason):
    found = describe(pd.Series(values, name="x"))
    assert found.kind == kind
    assert reason in found.reason


@pytest.mark.parametrize(
    ("name", "kind"), [("zip", "categorical"), ("zip_code", "categorical"), ("zipper", "numeric")]
)
def test_a_name_may_say_that_numbers_are_codes(name, kind):
    assert describe(pd.Series(10_000 + PLACES % 17, name=name)).kind == kind


@pytest.mark.parametrize(
    ("name", "kind"), [("car_id", "identifier"), ("userId", "identifier"), ("width", "numeric")]
)
def test_a_name_may_say_that_numbers_are_identifiers(name, kind):
    assert describe(pd.Series(RANDOM.permutation(10 * N)[:N], name=name)).kind == kind


def test_missing_and_distinct_values_are_counted():
    found = describe(pd.Series(["a", "b", None, "c", "a"], name="x"))
    assert (found.missing, found.distinct) == (pytest.approx(0.2), 3)
    found = describe(pd.Series([1.0, np.inf, 2.0, np.nan, 1.0, 3.0], name="x"))
    assert found.missing == pytest.approx(1 / 3)


def test_days_come_first_where_a_date_says_so():
    assert describe(
        pd.Series([f"{day:02}/03/2024" for day in range(1, 28)], name="x")
    ).form.day_first
    assert not describe(
        pd.Series([f"03/{day:02}/2024" for day in range(1, 28)], name="x")
    ).form.day_first


def test_decisions_of_the_user():
    frame = pd.DataFrame({"zip": PLACES % 9, "size": NUMBERS, "note": SENTENCES, "price": NUMBERS})
    roles = {"price": "data.target"}
    found = describe_columns(frame, {"zip": "categorical", "size": "drop"}, roles)
    assert [(column.name, column.kind, column.used) for column in found] == [
        ("zip", "categorical", True),
        ("size", "drop", False),
        ("note", "text", False),
    ]
    assert found[0].reason == "as data.columns says"
    for given, line in (
        ({"zap": "drop"}, r"^data\.columns\.zap=drop: there is no such column; did you mean zip\?"),
        ({"price": "drop"}, r"^data\.columns\.price=drop: this column is data\.target"),
        ({"note": "numeric"}, r"^data\.columns\.note=numeric: none of its values is a number"),
        ({"note": "date"}, r"^data\.columns\.note=date: none of its values is a date"),
        ({"zip": "binary"}, r"^data\.columns\.zip=binary: it has 9 values; write categorical"),
    ):
        with pytest.raises(Refused, match=line):
            describe_columns(frame, given, roles)


def test_values_as_numbers():
    assert numbers_of(pd.Series([1, None, np.inf, -np.inf])).tolist()[0] == 1
    assert np.isnan(numbers_of(pd.Series(["a", " 2 ", None, "inf", "1e3"]))).tolist() == [
        True,
        False,
        True,
        True,
        False,
    ]
    assert numbers_of(pd.Series([True, False])).tolist() == [1, 0]


def test_values_as_words():
    assert words_of(pd.Series([1.0, 2.5, np.nan])).tolist()[:2] == ["1", "2.5"]
    assert words_of(pd.Series([1, 2])).tolist() == ["1", "2"]
    assert words_of(pd.Series([True, False])).tolist() == ["True", "False"]
    assert words_of(pd.Series([" a", "b "])).tolist() == ["a", "b"]
    assert words_of(pd.Series([None, "b"])).isna().tolist() == [True, False]


def test_a_column_as_plain_data():
    assert Column("x", "numeric", "numbers").as_plain()["kind"] == "numeric"
