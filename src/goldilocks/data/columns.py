"""What the columns of a table are: numbers, categories, two values, dates, text or identifiers; each with its reason.

Legend: N rows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from goldilocks.errors import Refused, near_miss

Kind = Literal["numeric", "categorical", "binary", "date", "text", "identifier", "drop"]

USED = ("numeric", "categorical", "binary", "date")
MANY_ROWS = 20  # below, a column of words that are all different may be chance
SAMPLE = 2000  # values that tell whether words are numbers or dates
MOSTLY = 0.95  # share of the values that must be numbers, or dates
OWN_VALUES = 0.9  # share of distinct values, from which words are text or identifiers
SEVERAL_WORDS = 2.0  # in a value, on average, from which it is text
CODE = re.compile(
    r"(^|_|\b)(zip|zipcode|zip_code|postcode|postal_code|plz|area_code|country_code)($|_|\b)", re.I
)
NUMBERED = re.compile(
    r"(^|_|\b)(id|ids|uuid|guid|index|key|row|rowid|row_id|nr|no|unnamed)($|_|\b|:)|[a-z]I[Dd]$",
    re.I,
)
DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?\s*(Z|UTC|[-+]\d{2}:?\d{2})?"
)
NAMED_DATE = re.compile(r"(\d{1,2}[- ][A-Za-z]{3,9}[- ,]+\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4}).*")


@dataclass(frozen=True)
class Column:
    """A column and how it is used.

    Attributes:
        name: In the file.
        kind: What it is; `drop` and the kinds outside of `USED` are no features.
        reason: Why.
        missing: Share of the rows without a value.
        distinct: How many different values it has.
        day_first: Of dates: whether 01.02. is the first of February.
    """

    name: str
    kind: Kind
    reason: str
    missing: float = 0.0
    distinct: int = 0
    day_first: bool = False

    @property
    def used(self) -> bool:
        """Whether it becomes features."""
        return self.kind in USED

    def as_plain(self) -> dict[str, Any]:
        return asdict(self)


def describe_columns(
    frame: Any, given: Mapping[str, Kind], roles: Mapping[str, str], called: str = "data.columns"
) -> list[Column]:
    """What every column of a table is, the columns with a role of their own left out.

    Args:
        frame: A pandas DataFrame, [N, columns].
        given: Kinds that the user has decided.
        roles: What a column is used for beside the features, by name.
        called: The option of `given`, for messages.

    Raises:
        Refused: for a decision about a column that does not exist, has another role or cannot be of that kind.
    """
    names = list(frame.columns)
    for name in given:
        if name not in names:
            raise Refused(
                f"{called}.{name}={given[name]}: there is no such column; {near_miss(name, names)}"
            )
        if name in roles and roles[name] != "data.time_column":
            raise Refused(
                f"{called}.{name}={given[name]}: this column is {roles[name]}; leave one of them out"
            )
    found = []
    for name in names:
        if name in roles and name not in given:
            continue
        column = describe(frame[name])
        if name in given:
            column = decide(frame[name], column, given[name], called)
        found.append(column)
    return found


def decide(series: Any, column: Column, kind: Kind, called: str) -> Column:
    """A column of the kind that the user says it has.

    Raises:
        Refused: if no value can be read as such.
    """
    facts: dict[str, Any] = {"missing": column.missing, "distinct": column.distinct}
    if (
        kind in ("numeric", "date")
        and not (np.isfinite(numbers_of(series)) if kind == "numeric" else dated(series)).any()
    ):
        raise Refused(
            f"{called}.{column.name}={kind}: none of its values is a {'number' if kind == 'numeric' else kind}"
        )
    if kind == "binary" and column.distinct != 2:
        raise Refused(
            f"{called}.{column.name}=binary: it has {column.distinct} values; write categorical"
        )
    return Column(column.name, kind, "as data.columns says", **facts, day_first=day_first(series))


def describe(series: Any) -> Column:
    """What a column, [N], is."""
    from pandas.api import types

    name, rows = str(series.name), len(series)
    if types.is_numeric_dtype(series) and not types.is_bool_dtype(series):
        return describe_numbers(series)
    present = series.dropna()
    try:
        distinct = present.nunique()
    except TypeError:  # lists and the like, from Parquet
        return Column(name, "drop", "holds lists or tables", 1 - len(present) / rows, 0)
    facts: dict[str, Any] = {"missing": 1 - len(present) / rows, "distinct": int(distinct)}
    if distinct == 0:
        return Column(name, "drop", "no row has a value", **facts)
    if distinct == 1 and len(present) == rows:
        return Column(name, "drop", "a single value in all rows", **facts)
    if types.is_datetime64_any_dtype(series):
        return Column(name, "date", "dates in the file", **facts)
    words = present.iloc[:: max(1, len(present) // SAMPLE)].map(str).str.strip()
    if types.is_bool_dtype(present) or distinct == 2:
        return Column(name, "binary", "two values", **facts)
    if (share := float(np.mean(np.isfinite(numbers_of(words))))) >= MOSTLY:
        others = [
            word
            for word, number in zip(words, numbers_of(words), strict=True)
            if not np.isfinite(number)
        ]
        odd = f"; others, such as {others[0]}, count as missing" if others else ""
        return Column(name, "numeric", f"{share:.0%} of its words are numbers{odd}", **facts)
    if (
        np.mean([bool(DATE.fullmatch(word) or NAMED_DATE.fullmatch(word)) for word in words])
        >= MOSTLY
        and dated(words).mean() >= MOSTLY
    ):
        return Column(name, "date", "its words are dates", **facts, day_first=day_first(words))
    return describe_words(name, words, len(present), facts)


def describe_words(name: str, words: Any, present: int, facts: dict[str, Any]) -> Column:
    """Categories, or text and identifiers, where most rows have a word of their own."""
    share, length = (
        facts["distinct"] / present,
        float(np.mean([len(word.split()) for word in words])),
    )
    if present >= MANY_ROWS and share >= OWN_VALUES:
        if length >= SEVERAL_WORDS:
            return Column(
                name,
                "text",
                f"{share:.0%} of the values occur once, {length:.0f} words on average",
                **facts,
            )
        return Column(name, "identifier", f"{share:.0%} of the values are different", **facts)
    if length >= 4 * SEVERAL_WORDS and share > 0.2:
        return Column(name, "text", f"{length:.0f} words in a value on average", **facts)
    return Column(name, "categorical", f"{facts['distinct']:,} different words", **facts)


def describe_numbers(series: Any) -> Column:
    """Numbers are numbers, unless they only number the rows or their column's name says that they are codes."""
    name, values = str(series.name), numbers_of(series)
    values = values[np.isfinite(values)]
    distinct = int(series.nunique())  # without making a set of a million numbers in Python
    missing = 1 - len(values) / len(series)
    facts: dict[str, Any] = {"missing": missing, "distinct": distinct}
    if not len(values):
        return Column(name, "drop", "no row has a value", **facts)
    if distinct == 1 and not missing:
        return Column(name, "drop", "a single value in all rows", **facts)
    whole = bool(np.all(values == np.round(values)))
    if whole and distinct == len(values) == len(series) and len(values) >= MANY_ROWS:
        steps = np.diff(values)
        if np.all(steps == 1) or np.all(steps == -1):
            return Column(name, "identifier", "numbers the rows", **facts)
        if NUMBERED.search(name):
            return Column(
                name,
                "identifier",
                "another whole number in each row, and its name says so",
                **facts,
            )
    if distinct == 2:
        return Column(name, "binary", "two values", **facts)
    if whole and CODE.search(name):
        return Column(name, "categorical", "its name says that its numbers are codes", **facts)
    return Column(name, "numeric", "numbers", **facts)


# --- values -----------------------------------------------------------------------------------------------------------


def numbers_of(series: Any) -> NDArray[np.float64]:
    """Values as numbers, [N]; what is none is not a number, and so is infinity."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(series):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    elif pd.api.types.is_datetime64_any_dtype(series):
        return np.full(len(series), np.nan)
    else:
        values = pd.to_numeric(series.astype(object), errors="coerce").to_numpy(
            dtype=np.float64, na_value=np.nan
        )
    return np.where(np.isinf(values), np.nan, values) if np.isinf(values).any() else values


def words_of(series: Any) -> Any:
    """Values as words, a pandas Series [N] of str and None: 1, 1.0 and " 1" are the same."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        series = pd.Series(numbers_of(series), index=series.index)
    values = pd.unique(series.dropna())
    return series.map({value: word_of(value) for value in values}).astype(object)


def word_of(value: Any) -> str:
    """A value as a word.

    >>> word_of(1.0), word_of(2.5), word_of(" a "), word_of("1.0")
    ('1', '2.5', 'a', '1.0')
    """
    if isinstance(value, float | np.floating) and value == int(value):
        return str(int(value))
    return str(value).strip()


def dates_of(series: Any, day_first: bool) -> Any:
    """Values as points in time without a time zone, a pandas Series [N]; what is none is missing."""
    import pandas as pd

    if not pd.api.types.is_datetime64_any_dtype(series):
        series = pd.to_datetime(
            series.astype(object).map(lambda value: str(value).strip(), na_action="ignore"),
            errors="coerce",
            format="mixed",
            dayfirst=day_first,
            utc=True,
        )
    if getattr(series.dtype, "tz", None) is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    return series


def dated(series: Any) -> NDArray[np.bool_]:
    """Which values can be read as dates, [N]."""
    return dates_of(series, day_first(series)).notna().to_numpy()


def day_first(series: Any) -> bool:
    """Whether dates begin with the day: one begins with a number above 12, or points separate the parts."""
    sample: Sequence[Any] = list(series.dropna().iloc[:SAMPLE])
    begun = [
        match
        for value in sample
        if (match := re.match(r"\s*(\d{1,2})([-/.])(\d{1,2})[-/.]\d{2,4}", str(value)))
    ]
    if any(int(match[3]) > 12 for match in begun):
        return False
    return any(int(match[1]) > 12 or match[2] == "." for match in begun)
