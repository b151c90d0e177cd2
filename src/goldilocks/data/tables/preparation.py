"""From a table's columns to numbers:
fitted on the training rows, kept as tensors and plain data, applied again.

Legend: N rows, F features, K columns of many categories.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goldilocks.data.scaling import Scaling, apply_scaler, fit_scaler, skewed
from goldilocks.data.tables.columns import Column
from goldilocks.data.tables.values import TRUTH, WORDS, Form, clean, dates_of, numbers_of, words_of
from goldilocks.errors import Refused

MISSING, OTHER = "(missing)", "(other)"  # categories of their own
SECONDS_OF_DAY = 86_400
FEWEST_PIECES, MOST_PIECES = 4, 8
ROWS_OF_PIECE = 500  # of all rows; tables of 200 and 1,000 were learnt better without any
PIECE_CENTRE = 0.5  # taken off, so that features are about zero in the mean
PIECE_INPUTS, PIECE_VALUES = 1024, 2**26  # at most, in all


@dataclass
class Fitted:
    """What is known of one column.

    Attributes:
        name: In the table.
        kind: numeric, binary, categorical or date.
        edges: Of a number's pieces, ascending; none where it is not cut.
        categories: Of a binary or categorical column, by their number among its features.
        gaps: Whether training rows lack a value: then a feature, or a category, tells which.
        embedded: Whether the network learns a vector for each category.
        times: Whether dates have a time of day.
        form: How its words are read. Categories that are numbers or truth are read as such, so that
            a category is the same in every file.
        least: Of the training rows' numbers, or days since 1970.
        most: The greatest of the same.
        rare: Categories that the training rows have and that are merged.
    """

    name: str
    kind: str
    edges: list[float] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    gaps: bool = False
    embedded: bool = False
    times: bool = False
    form: Form = WORDS
    least: float = -np.inf
    most: float = np.inf
    rare: list[str] = field(default_factory=list)


class StrangeValues(UserWarning):
    """Rows have values that the training rows did not have."""


@dataclass
class Strange:
    """Values of a column that the training rows did not have.

    Attributes:
        column: Its name.
        what: Is wrong with them.
        rows: How many.
        example: One of them.
    """

    column: str
    what: str
    rows: int
    example: str

    def __str__(self) -> str:
        return f"{self.column}: {self.rows:,} of the rows {self.what}, such as {self.example}"


class Preparation:
    """Turns rows of a table into features, [N, F] in single precision.

    First come numbers on one scale (missing ones are the training rows' median), then features up
    to 1 (which numbers are missing, their pieces, one a category), at last the numbers of
    categories of which there are many: 0 for any that the training rows do not have often enough,
    from 1 on for the others. A network learns a vector for each (`models.embedding`). A category
    that was never seen is `(other)` where rare ones were merged, else all zeros.

    Args:
        columns: Of the table; those that are no features are passed over.
        scaling: Of the numbers, see `fit_scaler`.
        pieces: Into how many a number is cut, see `pieces_of`; 0 leaves it whole.
        max_one_hot: Categories of a column, above which it is embedded.
        min_category_rows: Training rows, below which categories are merged;
            a single rare one is merged too.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        scaling: Scaling,
        pieces: int,
        max_one_hot: int,
        min_category_rows: int,
    ) -> None:
        self.columns = [
            Fitted(column.name, column.kind, form=column.form) for column in columns if column.used
        ]
        self.pieces = pieces
        self.scaling, self.max_one_hot, self.min_rows = scaling, max_one_hot, min_category_rows
        self.medians: Tensor = torch.zeros(0, dtype=torch.double)
        self.scaler: dict[str, Tensor] = {}
        self.skewed: list[str] = []  # columns, for the data card

    # --- what comes out ---------------------------------------------------------------------------

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each feature, [F]."""
        return tuple(name for _, name in self.named_features())

    @property
    def owners(self) -> tuple[str, ...]:
        """The column that each feature is of, [F]."""
        return tuple(column.name for column, _ in self.named_features())

    @property
    def whole_features(self) -> list[int]:
        """The places of all features but pieces of numbers."""
        pieces = {name for column in self.columns for name in piece_names(column)}
        return [place for place, name in enumerate(self.feature_names) if name not in pieces]

    def named_features(self) -> Iterator[tuple[Fitted, str]]:
        """The columns and names of the features, in their order."""
        for names in (number_names, gap_names, piece_names, flag_names, place_names):
            yield from ((column, name) for column in self.columns for name in names(column))

    @property
    def category_counts(self) -> tuple[int, ...]:
        """Of each of the last K features: how many numbers of categories there are, 0 included."""
        return tuple(len(column.categories) + 1 for column in self.columns if column.embedded)

    # --- fitting ----------------------------------------------------------------------------------

    def fit(self, frame: Any) -> "Preparation":
        """Learns categories, medians and scales from training rows,
        a pandas DataFrame [N, columns].

        Raises:
            Refused: if no column is left that tells anything.
        """
        self.columns = [
            fitted
            for column in self.columns
            if (fitted := self.fit_column(column, frame[column.name]))
        ]
        if not self.columns:
            raise Refused(
                "data: no column is left as a feature; data.columns.NAME=KIND decides about each"
            )
        numbers = self.raw_numbers(frame)
        self.medians = medians_of(numbers)
        if numbers.shape[1]:
            numbers = fill(numbers, self.medians)
            self.scaler = fit_scaler(numbers, self.scaling)
            owners = [column.name for column in self.columns for _ in number_names(column)]
            self.skewed = [owners[place] for place in np.flatnonzero(skewed(numbers))]
        return self

    def fit_column(self, column: Fitted, series: Any) -> Fitted | None:
        """One column; None where the training rows have no value, or only one."""
        if column.kind == "numeric":
            values = numbers_of(series, column.form)
            present = values[np.isfinite(values)]
            if not len(present):
                return None
            column = replace(
                column,
                gaps=len(present) < len(values),
                edges=edges_of(present, self.pieces),
                least=float(present.min()),
                most=float(present.max()),
            )
            return column if column.gaps or column.least < column.most else None
        if column.kind == "date":
            dates = dates_of(series, column.form)
            present = dates.dropna()
            if not len(present):
                return None
            days = seconds_of(present) / SECONDS_OF_DAY
            return replace(
                column,
                gaps=len(present) < len(dates),
                times=bool((present != present.dt.normalize()).any()),
                least=float(days.min()),
                most=float(days.max()),
            )
        return self.fit_categories(column, words_of(series, column.form))

    def fit_categories(self, column: Fitted, words: Any) -> Fitted | None:
        """Categories from the commonest to the rarest;
        then those for missing values and for rare ones.
        """
        counts, gaps = words.value_counts(), bool(words.isna().any())
        counts = counts.sort_index().sort_values(ascending=False, kind="stable")
        kept = [word for word, count in counts.items() if count >= self.min_rows]
        if len(counts) <= 2:
            kept = list(counts.index)
        rare = len(kept) < len(counts)
        if len(kept) + gaps + rare < 2:
            return None
        if len(kept) == 2 and not gaps and not rare:
            return replace(column, kind="binary", categories=sorted(kept))
        categories, embedded = [*kept, *[MISSING] * gaps], len(kept) > self.max_one_hot
        if rare and not embedded:  # an embedded category of those is 0
            categories.append(OTHER)
        return replace(
            column,
            kind="categorical",
            categories=categories,
            gaps=gaps,
            embedded=embedded,
            rare=sorted(set(counts.index) - set(kept)),
        )

    # --- applying ---------------------------------------------------------------------------------

    def transform(self, frame: Any) -> NDArray[np.float32]:
        """Features of rows, [N, F]; a DataFrame must have the columns that were fitted,
        in any order.

        Raises:
            Refused: if a column is not there.
        """
        for column in self.columns:
            if column.name not in frame.columns:
                raise Refused(f"data: the column {column.name} is not there; the network needs it")
        numbers = self.raw_numbers(frame)
        missing, numbers = np.isnan(numbers), fill(numbers, self.medians)
        blocks: list[NDArray[Any]] = [apply_scaler(numbers, self.scaler)]
        firsts = np.cumsum(
            [0, *(len(number_names(column)) for column in self.columns)]
        )  # of their numbers
        features, place = np.empty((len(frame), len(self.feature_names)), np.float32), 0
        for block in itertools.chain(
            blocks,
            (
                missing[:, [first]]
                for column, first in zip(self.columns, firsts, strict=False)
                if gap_names(column)
            ),
            (
                pieces_of(c, numbers[:, first])
                for c, first in zip(self.columns, firsts, strict=False)
                if c.edges
            ),
            (flags_of(column, frame[column.name]) for column in self.columns if flag_names(column)),
            (places_of(c, frame[c.name])[:, None] + 1 for c in self.columns if c.embedded),
        ):
            features[:, place : place + block.shape[1]] = block
            place += block.shape[1]
        return features

    def raw_numbers(self, frame: Any) -> NDArray[np.float64]:
        """What is on no scale yet, [N, numbers]; NaN where it is missing."""
        pieces = [
            piece
            for column in self.columns
            for piece in (
                [numbers_of(frame[column.name], column.form)]
                if column.kind == "numeric"
                else date_parts(dates_of(frame[column.name], column.form), column.times)
                if column.kind == "date"
                else []
            )
        ]
        return np.stack(pieces, axis=1) if pieces else np.empty((len(frame), 0))

    def strange(self, frame: Any) -> list[Strange]:
        """What rows have that the training rows did not:
        unreadable, unseen and out of range, by column.
        """
        return [
            found
            for column in self.columns
            for what, rows in strange_rows(column, frame[column.name])
            if (found := strange_of(column.name, what, rows, frame[column.name]))
        ]

    # --- for a checkpoint -------------------------------------------------------------------------

    def as_plain(self) -> dict[str, Any]:
        """Tensors and plain containers, for a checkpoint that loads with `weights_only=True`."""
        return {
            "columns": [asdict(column) for column in self.columns],
            "medians": self.medians,
            "scaler": self.scaler,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Preparation":
        """The inverse of `as_plain`: ready to transform."""
        made = cls((), scaling="none", pieces=0, max_one_hot=0, min_category_rows=1)
        made.columns = [
            Fitted(**{**column, "form": Form(**column["form"])}) for column in plain["columns"]
        ]
        made.medians, made.scaler = plain["medians"], dict(plain["scaler"])
        return made


# --- numbers --------------------------------------------------------------------------------------


def number_names(column: Fitted) -> list[str]:
    """The features of a column that are numbers on a scale."""
    if column.kind == "numeric":
        return [column.name]
    if column.kind != "date":
        return []
    cycles = ["month", "weekday", *["hour"] * column.times]
    return [
        f"{column.name} days",
        *(f"{column.name} {cycle} {wave}" for cycle in cycles for wave in ("sin", "cos")),
    ]


def date_parts(dates: Any, times: bool) -> list[NDArray[np.float64]]:
    """Days since 1970, and sine and cosine of the month, the weekday and perhaps the hour,
    each [N].
    """
    seconds = seconds_of(dates)
    cycles = [
        (dates.dt.month - 1) / 12,
        dates.dt.day_of_week / 7,
        *[seconds % SECONDS_OF_DAY / SECONDS_OF_DAY] * times,
    ]
    angles = [2 * np.pi * np.asarray(cycle, np.float64) for cycle in cycles]
    return [
        seconds / SECONDS_OF_DAY,
        *(wave(angle) for angle in angles for wave in (np.sin, np.cos)),
    ]


def seconds_of(dates: Any) -> NDArray[np.float64]:
    """Seconds since 1970, [N]; NaN for a missing date."""
    seconds = (dates - np.datetime64("1970-01-01")) / np.timedelta64(1, "s")
    return seconds.to_numpy(np.float64)


def medians_of(numbers: NDArray[np.float64]) -> Tensor:
    """The median of each column, [numbers], missing values left out, by scikit-learn."""
    if not numbers.shape[1]:
        return torch.zeros(0, dtype=torch.double)
    from sklearn.impute import SimpleImputer

    return torch.from_numpy(SimpleImputer(strategy="median", copy=False).fit(numbers).statistics_)


def fill(numbers: NDArray[np.float64], medians: Tensor) -> NDArray[np.float64]:
    """Numbers, [N, numbers], with medians where they are missing."""
    return np.where(np.isnan(numbers), medians.numpy(), numbers)


def gap_names(column: Fitted) -> list[str]:
    """The feature of 0 and 1 that tells which of a column's numbers are missing,
    where training rows lack some.
    """
    return [f"{column.name} missing"] if column.gaps and column.kind in ("numeric", "date") else []


def affordable_pieces(rows: int, numbers: int) -> int:
    """Pieces of a number that a table of so many rows and columns of numbers bears:
    8, fewer, or none.

    Each needs rows to be learnt from, and all are inputs of the network that are kept in memory.

    >>> affordable_pieces(5000, 5), affordable_pieces(3000, 5), affordable_pieces(1_000_000, 30)
    (8, 6, 0)
    """
    numbers = max(numbers, 1)
    pieces = min(
        MOST_PIECES,
        rows // ROWS_OF_PIECE,
        PIECE_INPUTS // numbers,
        PIECE_VALUES // (rows * numbers),
    )
    return pieces if pieces >= FEWEST_PIECES else 0


def edges_of(values: NDArray[np.float64], pieces: int) -> list[float]:
    """Where a number is cut into pieces of equally many values, none missing;
    fewer where values are equal.
    """
    edges = (
        np.unique(np.quantile(values, np.linspace(0, 1, pieces + 1), method="lower"))
        if pieces
        else np.empty(0)
    )
    return edges.tolist() if len(edges) > 2 else []


def piece_names(column: Fitted) -> list[str]:
    """The features of a number's pieces."""
    return [f"{column.name} from {edge:.4g}" for edge in column.edges[:-1]]


def pieces_of(column: Fitted, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of each piece lies below a number, less PIECE_CENTRE, [N, pieces]:
    its piecewise linear encoding.

    Gorishniy et al. 2022, arXiv 2203.05556:
    a linear layer after it can learn any line that bends at the edges.
    """
    edges = np.array(column.edges)
    return np.clip((values[:, None] - edges[:-1]) / np.diff(edges), 0, 1) - PIECE_CENTRE


# --- categories -----------------------------------------------------------------------------------


def flag_names(column: Fitted) -> list[str]:
    """The features of a column that are 0 or 1:
    one a category, and a single one for two of them.
    """
    if column.embedded:
        return []
    return [f"{column.name}={word}" for word in column.categories[column.kind == "binary" :]]


def place_names(column: Fitted) -> list[str]:
    """The feature of a column that is the number of a category."""
    return [column.name] if column.embedded else []


def flags_of(column: Fitted, series: Any) -> NDArray[np.float32]:
    """Which category rows have, [N, categories];
    of two, whether it is the second, and a half where it is neither.
    """
    places = places_of(column, series)
    if column.kind == "binary":
        return np.where(places < 0, 0.5, places)[:, None].astype(np.float32)
    return (places[:, None] == np.arange(len(column.categories))).astype(np.float32)


def places_of(column: Fitted, series: Any) -> NDArray[np.int64]:
    """The place of each row's category among a column's, [N]; -1 for one that is not among them.

    A word that is no category is the one that is the same number, if any:
    a program may have made 1234 of 01234.
    """
    import pandas as pd

    words = words_of(series, column.form)
    places = pd.Index(column.categories, dtype=object).get_indexer(words.to_numpy(dtype=object))
    missing = words.isna().to_numpy() & (places < 0)
    if column.form.meaning == "words":
        known = {same(word): place for place, word in reversed([*enumerate(column.categories)])}
        for row in np.flatnonzero((places < 0) & ~missing):
            places[row] = known.get(same(words.iloc[row]), -1)
    for word, rows in ((OTHER, (places < 0) & ~missing), (MISSING, missing)):
        if word in column.categories:
            places[rows] = column.categories.index(word)
    return places


def same(word: str) -> float | str:
    """What two words that are the same number or truth have in common."""
    try:
        return float(word)
    except ValueError:
        return TRUTH.get(word, word)


# --- what the training rows did not have ----------------------------------------------------------


def strange_rows(column: Fitted, series: Any) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """What is wrong with a column's values, and the rows of which that is so, [N]."""
    from pandas.api import types

    written = (
        (series if types.is_numeric_dtype(series) else clean(series, column.form.not_missing))
        .notna()
        .to_numpy()
    )
    if column.categories:
        known = [word for word in (*column.categories, *column.rare) if word != OTHER]
        unseen = places_of(replace(column, categories=known), series) < 0
        yield "have a category that the training rows lack", unseen & written
        return
    ends = column.least, column.most
    if column.kind == "date":
        values, what = seconds_of(dates_of(series, column.form)) / SECONDS_OF_DAY, "date"
        low, high = (str(np.datetime64(int(np.floor(end)), "D")) for end in ends)
    else:
        values, what = numbers_of(series, column.form), "number"
        low, high = (f"{end:g}" for end in ends)
    yield f"have no {what} that can be read, and count as missing", np.isnan(values) & written
    outside = (values < column.least) | (values > column.most)
    yield f"are out of the training rows' range, {low} to {high}", outside


def strange_of(name: str, what: str, rows: NDArray[np.bool_], series: Any) -> Strange | None:
    """A note on rows, [N]; None where there are none."""
    if not rows.any():
        return None
    return Strange(name, what, int(rows.sum()), str(series.iloc[int(rows.argmax())]))
