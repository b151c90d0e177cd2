"""How the words of a column become numbers, dates and categories:
one way, for training and for prediction.

A `Form` is found out from all values of a column (`columns.describe`) and kept with the network.
What is read already, by pandas or from Parquet, passes through as it is.

Legend: N rows, U different words.
"""

import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from goldilocks.data.tables.dialect import MISSING, PANDAS_MISSING

Meaning = Literal["words", "truth", "numbers", "hours", "dates"]

MARKS = frozenset((*MISSING, *PANDAS_MISSING))  # words that stand for a missing value
TRUTH = {
    **dict.fromkeys(("True", "TRUE", "true"), "True"),
    **dict.fromkeys(("False", "FALSE", "false"), "False"),
}  # as pandas reads
LARGEST = float(np.finfo(np.float32).max)  # what is beyond counts as infinity does
THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")
COMMA = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+|\d*)(,\d+)?([eE][-+]?\d+)?")
UNIT = re.compile(
    r"[-+]?(?P<before>[^\w\s.,+-]|[A-Z]{3} )? ?[-+]?(\d[\d,.]*|\.\d+)\s?"
    r"(?P<after>[^\W\d_][^\s\d]{0,7}|[^\w\s.,+-]C?)?"
)
CLOCK = re.compile(r"(?P<h>\d{1,2}):(?P<m>\d{2})(:(?P<s>\d{2}(\.\d+)?))?( ?(?P<half>[AaPp])[Mm])?")
DURATION = re.compile(r"(?P<h>\d+) ?h(ours?)?( (?P<m>\d+) ?m(in)?(utes?)?)?")
DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?)?"
    r"\s*(Z|UTC|GMT|[-+]\d{2}:?\d{2})?"
)
NAMED_DATE = re.compile(
    r"([A-Za-z]{3,9},? )?(\d{1,2}[- ][A-Za-z]{3,9}[- ,]+\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4}).*"
)
MONTH = re.compile(r"(?P<month>[A-Za-z]{3,9})[-/ ']{1,2}(?P<year>\d{2}|\d{4})|\d{4}-\d{2}")
PARTS = re.compile(r"(\d{1,2})([-/.])(\d{1,2})[-/.]\d{2,4}")


@dataclass(frozen=True)
class Form:
    """How the words of a column are read.

    Attributes:
        meaning: What they are.
        comma: Of numbers: whether a comma is in front of decimals,
            in a file where a point is elsewhere.
        unit: Of numbers: what is written before or after them, and taken off.
        day_first: Of dates: whether 01.02. is the first of February.
        stamp: Of dates that are whole numbers: `day` is 20240115, `s` and `ms` count from 1970.
        not_missing: Of words: those that are values, though they are marks of a missing one
            elsewhere.
    """

    meaning: Meaning = "words"
    comma: bool = False
    unit: str = ""
    day_first: bool = False
    stamp: Literal["", "day", "s", "ms"] = ""
    not_missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "not_missing", tuple(self.not_missing))  # a list in a file


NUMBERS, WORDS = Form("numbers"), Form("words")


# --- columns --------------------------------------------------------------------------------------


def numbers_of(series: Any, form: Form = NUMBERS) -> NDArray[np.float64]:
    """Values as numbers, [N]; NaN for what is none, or is infinite in single precision."""
    from pandas.api import types

    if types.is_datetime64_any_dtype(series):
        return np.full(len(series), np.nan)
    if types.is_numeric_dtype(series):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        convert = hours_in if form.meaning == "hours" else partial(numbers_in, form=form)
        values = by_word(series, convert, np.nan)
    large = np.abs(values) > LARGEST
    return np.where(large, np.nan, values) if large.any() else values


def dates_of(series: Any, form: Form) -> Any:
    """Values as points in time without a time zone, a pandas Series [N];
    what is none is missing.
    """
    import pandas as pd

    if not pd.api.types.is_datetime64_any_dtype(series):
        values = by_word(series, partial(dates_in, form=form), np.datetime64("NaT"))
        return pd.Series(values, index=series.index)
    if getattr(series.dtype, "tz", None) is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    return series


def words_of(series: Any, form: Form = WORDS) -> Any:
    """Values as words, a pandas Series [N] of str and None: 1, 1.0 and " 1" are the same."""
    import pandas as pd

    words = clean(series, form.not_missing)
    if form.meaning not in ("numbers", "truth") or pd.api.types.is_numeric_dtype(series):
        return words
    return pd.Series(by_word(words, partial(canonical, form=form), None), words.index, dtype=object)


def classes_of(series: Any, form: Form, kept: Collection[str]) -> Any:
    """A target's values as words, a pandas Series [N] of str and None;
    `kept` are marks that are classes.
    """
    words = words_of(series, form)
    if not kept:
        return words
    written = series.astype(object).map(word_of, na_action="ignore")
    return words.where(~written.isin(list(kept)), written)


def clean(series: Any, not_missing: Collection[str] = ()) -> Any:
    """Values as words without spaces around them, a pandas Series [N] of str and None,
    which a mark is too, but for those that are values.
    """
    import pandas as pd

    if pd.api.types.is_float_dtype(series):
        series = pd.Series(numbers_of(series), index=series.index)
    codes, values = pd.factorize(series.astype(object))
    words = [word_of(value) for value in values]
    marks = MARKS - {*not_missing}
    table = np.array([None if word in marks else word for word in words] + [None], dtype=object)
    return pd.Series(table[codes], index=series.index, dtype=object)


def by_word(series: Any, convert: Callable[[Any], Any], nothing: Any) -> NDArray[Any]:
    """Converts each different word once, [N]; `convert` takes a pandas Series [U] of str."""
    import pandas as pd

    codes, words = pd.factorize(clean(series))
    values = np.asarray(convert(pd.Series(words, dtype=object)))
    return np.append(values, np.array([nothing], dtype=values.dtype))[codes]


def word_of(value: Any) -> str:
    """A value as a word.

    >>> word_of(1.0), word_of(2.5), word_of(" a "), word_of("1.0")
    ('1', '2.5', 'a', '1.0')
    """
    if isinstance(value, float | np.floating) and np.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value).strip()


# --- different words ------------------------------------------------------------------------------


def numbers_in(words: Any, form: Form = NUMBERS) -> NDArray[np.float64]:
    """Words as numbers, [U]; NaN for what is none."""
    import pandas as pd

    if form.unit:
        words = words.map(partial(without_unit, unit=form.unit))
    if form.comma:
        words = words.map(with_point)
    values = pd.to_numeric(words, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    values = values.copy()
    for place in np.flatnonzero(np.isnan(values)):
        if THOUSANDS.fullmatch(words.iloc[place]):
            values[place] = float(words.iloc[place].replace(",", ""))
    return values


def without_unit(word: str, unit: str) -> str:
    """A word without its unit.

    >>> without_unit("-$1,200.50", "$"), without_unit("12 kg", "kg"), without_unit("12 g", "kg")
    ('-1,200.50', '12', '12 g')
    """
    bare = word.lstrip("+-")
    if bare.startswith(unit):
        return word[: len(word) - len(bare)] + bare.removeprefix(unit).strip()
    return word.removesuffix(unit).strip()


def unit_of(word: str) -> str | None:
    """What is written beside a number: "" for nothing, None for a word that is no number.

    >>> unit_of("$1,200.50"), unit_of("12 kg"), unit_of("61.6%"), unit_of("21 °C")
    ('$', 'kg', '%', '°C')
    >>> unit_of("1.5"), unit_of("A320")
    ('', None)
    """
    match = UNIT.fullmatch(word)
    if match is None or (match["before"] and match["after"]):
        return None
    before, after = match["before"] or "", match["after"] or ""
    if before.strip().isalpha() or not before or unicodedata.category(before) == "Sc":
        return (before or after).strip()
    return None


def with_point(word: str) -> str:
    """A number with a point in front of its decimals and nothing between thousands;
    another word as it is.

    >>> with_point("1,5"), with_point("1.200,50"), with_point("2.5"), with_point("a,b")
    ('1.5', '1200.50', '2.5', 'a,b')
    """
    word = str(word)
    match = COMMA.fullmatch(word.strip())
    if match is None or not (match[2] or match[3]):
        return word
    return word.strip().replace(".", "").replace(",", ".")


def hours_in(words: Any) -> NDArray[np.float64]:
    """Times of day and durations as hours, [U]."""
    return np.array([hours(word) for word in words], dtype=np.float64)


def hours(word: str) -> float:
    """A time of day or a duration in hours; NaN for other text.

    >>> hours("17:30"), hours("5:15 PM"), hours("3h 30m"), hours("noon")
    (17.5, 17.25, 3.5, nan)
    """
    match = CLOCK.fullmatch(word) or DURATION.fullmatch(word)
    if match is None:
        return float("nan")
    found = match.groupdict()
    whole = int(found["h"])
    if half := found.get("half"):
        whole = whole % 12 + 12 * (half in "pP")
    return whole + int(found["m"] or 0) / 60 + float(found.get("s") or 0) / 3600


def dates_in(words: Any, form: Form) -> NDArray[Any]:
    """Words as points in time, [U]."""
    import pandas as pd

    if form.stamp == "day":
        found = pd.to_datetime(words.str.removesuffix(".0"), format="%Y%m%d", errors="coerce")
    elif form.stamp:
        numbers = pd.to_numeric(words, errors="coerce")
        found = pd.to_datetime(numbers, unit=form.stamp, errors="coerce")
    else:
        found = pd.to_datetime(
            words.map(with_whole_year),
            errors="coerce",
            format="mixed",
            dayfirst=form.day_first,
            utc=True,
        ).dt.tz_localize(None)
    return found.to_numpy().astype("datetime64[us]")


def with_whole_year(word: str) -> str:
    """A month with a year of four digits; another word as it is.

    >>> with_whole_year("Jan-23"), with_whole_year("Feb 98"), with_whole_year("2024-01-05")
    ('Jan 2023', 'Feb 1998', '2024-01-05')
    """
    match = MONTH.fullmatch(word)
    if match is None or not match["month"] or len(match["year"]) == 4:
        return word
    return f"{match['month']} {'20' if match['year'] < '70' else '19'}{match['year']}"


def is_dated(word: str) -> bool:
    """Whether a word has the form of a date."""
    return any(form.fullmatch(word) for form in (DATE, NAMED_DATE, MONTH))


def canonical(words: Any, form: Form) -> NDArray[Any]:
    """Words, [U], with numbers and truth written in one way."""
    if form.meaning == "truth":
        return np.array([TRUTH.get(word, word) for word in words], dtype=object)
    numbers = numbers_in(words, form)
    return np.array(
        [
            word if np.isnan(number) else word_of(number)
            for word, number in zip(words, numbers, strict=True)
        ],
        dtype=object,
    )
