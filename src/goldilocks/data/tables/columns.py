"""What the columns of a table are:
numbers, categories, two values, dates, text or identifiers; each with its reason.

Legend: N rows.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from goldilocks.data.tables.values import (
    LARGEST,
    NUMBERS,
    PARTS,
    TRUTH,
    WORDS,
    Form,
    clean,
    dates_in,
    dates_of,
    hours_in,
    is_dated,
    numbers_in,
    numbers_of,
    unit_of,
)
from goldilocks.errors import Refused, near_miss

Kind = Literal["numeric", "categorical", "binary", "date", "text", "identifier", "drop"]

USED = ("numeric", "categorical", "binary", "date")
MANY_ROWS = 20  # below, a column of words that are all different may be chance
MOSTLY = 0.95  # share of the values that must be numbers, or dates
AT_LEAST = 0.5  # share of the rows that must be, where nearly all different values are
OWN_VALUES = 0.9  # share of distinct values, from which words are text or identifiers
SEVERAL_WORDS = 2.0  # in a value, on average, from which it is text
CODE_DIGITS = 3  # fewer may be a month, or an hour
CODE = re.compile(
    r"(^|_|\b)(zip|zipcode|zip_code|postcode|postal_code|plz|area_code|country_code)($|_|\b)", re.I
)
NUMBERED = re.compile(
    r"(^|_|\b)(id|ids|uuid|guid|index|key|row|rowid|row_id|nr|no|unnamed)($|_|\b|:)|[a-z]I[Dd]$",
    re.I,
)
NO_NAME = re.compile(r"column\d+")  # of a column that the file does not name
STAMPED = re.compile(r"time|date|stamp|unix|epoch|(_at|_ts)$|^ts$", re.I)
STAMPS: dict[Any, tuple[float, float]] = {
    "day": (19000101, 21001231),
    "s": (0.94e9, 2.2e9),  # from 1999 to 2039
    "ms": (0.94e12, 2.2e12),
}


@dataclass(frozen=True)
class Column:
    """A column and how it is used.

    Attributes:
        name: In the file.
        kind: What it is; `drop` and the kinds outside of `USED` are no features.
        reason: Why.
        missing: Share of the rows without a value.
        distinct: How many different values it has.
        form: How its words are read.
        odd: What of it cannot be read so, and counts as missing; for the screen.
    """

    name: str
    kind: Kind
    reason: str
    missing: float = 0.0
    distinct: int = 0
    form: Form = WORDS
    odd: str = ""

    @property
    def used(self) -> bool:
        """Whether it becomes features."""
        return self.kind in USED

    def as_plain(self) -> dict[str, Any]:
        return asdict(self)


def describe_columns(
    frame: Any,
    given: Mapping[str, Kind],
    roles: Mapping[str, str],
    called: str = "data.columns",
    not_missing: Collection[str] = (),
) -> list[Column]:
    """What every column of a table is, the columns with a role of their own left out.

    Args:
        frame: A pandas DataFrame, [N, columns].
        given: Kinds that the user has decided.
        roles: What a column is used for beside the features, by name.
        called: The option of `given`, for messages.
        not_missing: Words that are values, though they are marks of a missing one elsewhere.

    Raises:
        Refused: for a decision about a column that does not exist,
            has another role or cannot be of that kind.
    """
    names = list(frame.columns)
    for name in given:
        if name not in names:
            raise Refused(
                f"{called}.{name}={given[name]}: there is no such column; {near_miss(name, names)}"
            )
        if name in roles and roles[name] != "data.time_column":
            raise Refused(
                f"{called}.{name}={given[name]}: this column is {roles[name]}; leave one of them"
                " out"
            )
    found = []
    for name in names:
        if name in roles and name not in given:
            continue
        column = describe(frame[name])
        if name in given:
            column = decide(frame[name], column, given[name], called)
        found.append(with_words(frame[name], column, not_missing))
    return found


def with_words(series: Any, column: Column, not_missing: Collection[str]) -> Column:
    """A column of words, in which some that are marks elsewhere are values."""
    if not not_missing or column.form != WORDS or column.kind not in (*USED, "drop"):
        return column
    present = {*clean(series, not_missing).dropna()} & {*not_missing}
    if not present or column.kind in ("numeric", "date"):
        return column
    counts = clean(series, present).dropna().value_counts()
    kept = replace(
        column,
        missing=float(1 - counts.sum() / len(series)),
        distinct=len(counts),
        form=replace(WORDS, not_missing=tuple(sorted(present))),
    )
    if column.kind != "binary" or len(counts) == 2:
        return kept
    return replace(kept, kind="categorical", reason=f"{len(counts):,} different words")


def decide(series: Any, column: Column, kind: Kind, called: str) -> Column:
    """A column of the kind that the user says it has.

    Raises:
        Refused: if no value can be read as such.
    """
    where = f"{called}.{column.name}={kind}"
    if kind == "binary" and column.distinct != 2:
        raise Refused(f"{where}: it has {column.distinct} values; write categorical")
    form, odd = WORDS, ""
    if kind in USED:
        counts = tally(series)
        if kind == "numeric":
            form = max(number_forms(counts), key=lambda form: known_rows(counts, form))
        elif kind == "date":
            form, odd = date_form(counts, column.name)
        elif column.kind in ("categorical", "binary"):
            form = column.form
        elif known_rows(counts, NUMBERS) == counts.sum() and not are_codes(counts):
            form = NUMBERS
        if kind == "numeric" and np.isnan(numbers_of(series, form)).all():
            raise Refused(f"{where}: none of its values is a number")
        if kind == "date" and dates_of(series, form).isna().all():
            raise Refused(f"{where}: none of its values is a date")
    facts: dict[str, Any] = {"missing": column.missing, "distinct": column.distinct}
    return Column(column.name, kind, "as data.columns says", **facts, form=form, odd=odd)


def describe(series: Any) -> Column:
    """What a column, [N], is: all of its values decide."""
    from pandas.api import types

    name, rows = str(series.name), len(series)
    if types.is_numeric_dtype(series) and not types.is_bool_dtype(series):
        return describe_numbers(series, NUMBERS)
    try:
        counts = tally(series)
    except TypeError:  # lists and the like, from Parquet
        return Column(name, "drop", "holds lists or tables", float(series.isna().mean()), 0)
    facts: dict[str, Any] = {"missing": float(1 - counts.sum() / rows), "distinct": len(counts)}
    if not len(counts):
        return Column(name, "drop", "no row has a value", **facts)
    if len(counts) == 1 and counts.sum() == rows:
        return Column(name, "drop", "a single value in all rows", **facts)
    if types.is_datetime64_any_dtype(series):
        return Column(name, "date", "dates in the file", **facts, form=Form("dates"))
    return (
        described_as_truth(name, counts, facts)
        or described_as_codes(name, counts, facts)
        or described_as_numbers(series, counts)
        or described_as_pair(name, counts, facts)
        or described_as_dates(name, counts, facts)
        or describe_words(name, counts, facts)
    )


def target_form(series: Any) -> Form:
    """How the words of a target are read:
    as numbers, where they are mostly that, else as classes.
    """
    from pandas.api import types

    if types.is_numeric_dtype(series) and not types.is_bool_dtype(series):
        return NUMBERS
    counts = tally(series)
    if not len(counts) or are_codes(counts):
        return WORDS
    if set(counts.index) <= TRUTH.keys():
        return Form("truth")
    for form in (*number_forms(counts), Form("hours")):
        if (len(counts) > 2 or form == NUMBERS) and mostly(known_in(counts, form), counts):
            return form
    return WORDS


def tally(series: Any) -> Any:
    """How many rows have each word, a pandas Series [U] by word."""
    return clean(series).dropna().value_counts()


def described_as_truth(name: str, counts: Any, facts: dict[str, Any]) -> Column | None:
    """Words of truth, however they are written."""
    if not set(counts.index) <= TRUTH.keys() or len(counts) < 2:
        return None
    facts = facts | {"distinct": len({TRUTH[word] for word in counts.index})}
    return Column(name, "binary", "two values", **facts, form=Form("truth"))


def described_as_codes(name: str, counts: Any, facts: dict[str, Any]) -> Column | None:
    """Digits of one length, some with a zero in front, are codes."""
    if len(counts) == 2 or not are_codes(counts):
        return None
    found = describe_words(name, counts, facts)
    reason = f"digits with zeros in front are codes; {found.reason}"
    return Column(name, found.kind, reason, **facts)


def are_codes(counts: Any) -> bool:
    """Whether all words are digits of one length, some with a zero in front."""
    words = list(counts.index)
    if len({len(word) for word in words}) > 1 or len(words[0]) < CODE_DIGITS:
        return False
    return all(map(str.isdigit, words)) and any(word[0] == "0" for word in words)


def described_as_numbers(series: Any, counts: Any) -> Column | None:
    """Numbers, perhaps with a unit, and few other words."""
    import pandas as pd

    words = words_in(counts)
    for form in number_forms(counts):
        known = known_in(counts, form)
        if not mostly(known, counts):
            continue
        odd = odd_words(words[~known], counts)
        if len(counts) == 2 and (odd or form != NUMBERS):
            return None
        found = describe_numbers(pd.Series(numbers_of(series, form), name=series.name), form)
        how = f" without {form.unit}" if form.unit else ", with a decimal comma" * form.comma
        share = counts.to_numpy()[known].sum() / counts.sum()
        reason = f"{share:.0%} of its words are numbers{how}{f'; {odd}' if odd else ''}"
        if found.kind != "numeric":
            reason = found.reason
        odd = "; ".join(filter(None, (odd, found.odd)))
        return Column(
            found.name, found.kind, reason, found.missing, found.distinct, found.form, odd
        )
    known = known_in(counts, Form("hours"))
    if len(counts) == 2 or not mostly(known, counts):
        return None
    facts: dict[str, Any] = {
        "missing": float(1 - counts.sum() / len(series)),
        "distinct": len(counts),
    }
    odd = odd_words(words[~known], counts)
    reason = "times of day or durations, read as hours"
    return Column(str(series.name), "numeric", reason, **facts, form=Form("hours"), odd=odd)


def number_forms(counts: Any) -> Iterator[Form]:
    """How words may be read as numbers, the plainest way first."""
    yield NUMBERS
    words = counts.index
    commas = any("," in word for word in words)
    if commas:
        yield Form("numbers", comma=True)
    units: dict[str, int] = {}
    for word, count in counts.items():
        if unit := unit_of(word):
            units[unit] = units.get(unit, 0) + count
    if units:
        unit = max(units, key=lambda unit: units[unit])
        yield Form("numbers", unit=unit)
        if commas:
            yield Form("numbers", comma=True, unit=unit)


def known_rows(counts: Any, form: Form) -> int:
    """Rows whose word is a number in a form."""
    return int(counts.to_numpy()[known_in(counts, form)].sum())


def known_in(counts: Any, form: Form) -> NDArray[np.bool_]:
    """Which words are numbers in a form, [U]."""
    words = words_in(counts)
    return ~np.isnan(hours_in(words) if form.meaning == "hours" else numbers_in(words, form))


def mostly(known: NDArray[np.bool_], counts: Any) -> bool:
    """Whether words, [U], or the rows that have them, are known but for a few."""
    rows = float(counts.to_numpy()[known].sum() / counts.sum())
    return rows >= MOSTLY or (rows >= AT_LEAST and float(known.mean()) >= MOSTLY)


def odd_words(words: Any, counts: Any) -> str:
    """What is said of words that cannot be read as the others."""
    if not len(words):
        return ""
    rows = int(counts[words].sum())
    return f"others, such as {words.iloc[0]}, count as missing ({rows:,} row{'s' * (rows > 1)})"


def described_as_pair(name: str, counts: Any, facts: dict[str, Any]) -> Column | None:
    """Two different words."""
    return Column(name, "binary", "two values", **facts) if len(counts) == 2 else None


def described_as_dates(name: str, counts: Any, facts: dict[str, Any]) -> Column | None:
    """Words that have the form of dates and can be read as such."""
    known = np.array([is_dated(word) for word in counts.index])
    if not mostly(known, counts):
        return None
    form, odd = date_form(counts, name)
    known = ~np.isnat(dates_in(words_in(counts), form))
    if not mostly(known, counts):
        return None
    odd = "; ".join(filter(None, (odd, odd_words(words_in(counts)[~known], counts))))
    return Column(name, "date", "its words are dates", **facts, form=form, odd=odd)


def words_in(counts: Any) -> Any:
    """The different words, a pandas Series [U]."""
    import pandas as pd

    return pd.Series(counts.index, dtype=object)


def date_form(counts: Any, name: str) -> tuple[Form, str]:
    """How words are read as dates, and what is said where some begin with
    the day and others with the month.

    One begins with the day if it begins with a number above 12, or points separate its parts.
    """
    if stamp := stamp_of(numbers_in(words_in(counts)), name, given=True):
        return Form("dates", stamp=stamp), ""
    days = months = points = 0
    for word, count in counts.items():
        if match := PARTS.match(word):
            days += count * (int(match[1]) > 12)
            months += count * (int(match[3]) > 12)
            points += match[2] == "."
    first = days > months or (days == months and bool(points))
    odd = ""
    if days and months:
        odd = (
            f"{days:,} dates begin with the day and {months:,} with the month; those that can be"
            " read as either"
            f" are read with the {'day' if first else 'month'} first"
        )
    return Form("dates", day_first=first), odd


def stamp_of(values: NDArray[np.float64], name: str, given: bool = False) -> Any:
    """How whole numbers, none missing, may be dates; "" for no way.

    Args:
        values: [N].
        name: Of their column: seconds and milliseconds need one that says so.
        given: Whether the user says that they are dates.
    """
    if not len(values) or not np.isfinite(values).all() or not np.all(values == np.round(values)):
        return ""
    for stamp, (low, high) in STAMPS.items():
        if values.min() < low or values.max() > high:
            continue
        if stamp != "day" and not given and not STAMPED.search(name):
            continue
        if stamp == "day" and not np.all(real_days(values)):
            continue
        return stamp
    return ""


def real_days(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which numbers are days of the calendar, such as 20240115, [N]."""
    import pandas as pd

    words = pd.Series(np.unique(values).astype(np.int64).astype(str), dtype=object)
    return ~np.isnat(dates_in(words, Form("dates", stamp="day")))


def describe_words(name: str, counts: Any, facts: dict[str, Any]) -> Column:
    """Categories, or text and identifiers, where most rows have a word of their own."""
    present = int(counts.sum())
    share = len(counts) / present
    lengths = [len(word.split()) for word in counts.index]
    length = float(np.average(lengths, weights=counts.to_numpy()))
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


def describe_numbers(series: Any, form: Form) -> Column:
    """Numbers are numbers, unless they number the rows, are days,
    or their column's name says that they are codes.
    """
    name, values = str(series.name), numbers_of(series)
    values = values[np.isfinite(values)]
    distinct = int(series.nunique())  # without making a set of a million numbers in Python
    missing = 1 - len(values) / len(series)
    facts: dict[str, Any] = {"missing": missing, "distinct": distinct, "odd": too_large(series)}
    if not len(values):
        return Column(name, "drop", "no row has a value", **facts)
    if distinct == 1 and not missing:
        return Column(name, "drop", "a single value in all rows", **facts)
    whole = bool(np.all(values == np.round(values)))
    if (
        whole
        and distinct == len(values) == len(series) >= MANY_ROWS
        and (reason := why_numbered(values, name))
    ):
        return Column(name, "identifier", reason, **facts)
    if distinct == 2:
        return Column(name, "binary", "two values", **facts, form=form)
    if whole and CODE.search(name):
        reason = "its name says that its numbers are codes"
        return Column(name, "categorical", reason, **facts, form=form)
    if stamp := stamp_of(values, name):
        reason = {"day": "years, months and days in one number"}.get(
            stamp, f"{stamp} since 1970, as its name says"
        )
        return Column(name, "date", reason, **facts, form=Form("dates", stamp=stamp))
    return Column(name, "numeric", "numbers", **facts, form=form)


def why_numbered(values: NDArray[np.float64], name: str) -> str:
    """Why whole numbers that all differ, [N], number the rows; "" where they do not.

    Rows that were left out or shuffled leave gaps and disorder in an index of another program's.
    """
    steps = np.diff(values)
    if np.all(steps == 1) or np.all(steps == -1):
        return "numbers the rows"
    if np.all(steps > 0) and np.mean(steps == 1) >= 0.5:
        return "numbers the rows, of which some were left out"
    if NO_NAME.fullmatch(name) and np.ptp(values) == len(values) - 1:
        return "numbers the rows, in another order"
    return "another whole number in each row, and its name says so" if NUMBERED.search(name) else ""


def too_large(series: Any) -> str:
    """What is said of numbers that are infinite in single precision."""
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    large = np.abs(values) > LARGEST
    if not large.any():
        return ""
    count = int(large.sum())
    return (
        f"{count:,} value{'s are' if count > 1 else ' is'} infinite or too large for single"
        " precision, such as"
        f" {values[large][0]:g}, and count{'s' * (count == 1)} as missing"
    )
