"""Tables of OpenML by name, through scikit-learn's downloader and its cache.

Legend: N rows.
"""

import sys
import warnings
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from goldilocks.data.base import Table, TableData
from goldilocks.errors import Refused, near_miss, one_line


class OpenML(TableData):
    """A table of openml.org. A column of categories becomes one of 0 and 1 for each;
    a missing category is all zeros.

    Args:
        name: Of the table on OpenML.
        version: Of the table; null takes the oldest that is active.
        target: The column to predict, or several of numbers; null takes the one that OpenML names.
        options: See TableData.
    """

    def __init__(
        self,
        name: str,
        version: Annotated[int, Field(ge=1)] | None = None,
        target: str | list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.name, self.version = name, version
        self.target = tuple([target] if isinstance(target, str) else target or ())

    def load(self) -> Table:
        return load_openml(self.name, self.version, self.target)

    def owners(self) -> tuple[str, ...]:
        """The column that each of the network's inputs is of: `column=category` is of `column`."""
        return tuple(name.partition("=")[0] for name in super().owners())


@lru_cache(maxsize=2)
def load_openml(name: str, version: int | None = None, target: tuple[str, ...] = ()) -> Table:
    """Reads a table once a process: the trials of a sweep share it.

    Args:
        name: Of the table.
        version: Of the table; None takes the oldest that is active.
        target: The columns to predict; () takes those that OpenML names.

    Raises:
        Refused: if the table cannot be fetched, or has no such target.
    """
    found = fetch(name, version)
    columns: list[str] = found.feature_names
    named = found.details.get("default_target_attribute") or ""
    wanted = target or tuple(word for word in named.split(",") if word)
    if not wanted:
        raise Refused(
            f"data.name={name}: OpenML names no target; write data.target=COLUMN:"
            f" {', '.join(columns)}"
        )
    for word in wanted:
        if word not in columns:
            raise Refused(
                f"data.target={word}: {name} has no such column; {near_miss(word, columns)}"
            )
    values = found.data.toarray() if hasattr(found.data, "toarray") else found.data
    features, names = one_hot(values, columns, found.categories, without=wanted)
    outcome = values[:, [columns.index(word) for word in wanted]]
    if wanted[0] in found.categories or len(wanted) > 1:
        outcome = words_of(outcome, wanted, found.categories)
    return Table(features, outcome, names, wanted)


def fetch(name: str, version: int | None, instead: str = "") -> Any:
    """What scikit-learn's `fetch_openml` returns:
    all columns in `data`, [N, columns], categories as their numbers.

    `instead` is what else the user can do where there is no network.
    """
    from sklearn.datasets import fetch_openml, get_data_home

    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        try:
            # liac-arff needs no pandas, and tells categories from numbers as OpenML does
            options: dict[str, Any] = {
                "target_column": None,
                "as_frame": False,
                "parser": "liac-arff",
            }
            found = fetch_openml(name, version=version or "active", **options)
        except OSError as error:  # urllib's errors are of this kind
            raise Refused(
                f"data.name={name}: is not in scikit-learn's cache, {get_data_home()}, and"
                " openml.org could not be"
                f" reached ({one_line(error)}); try again with a network{instead}"
            ) from error
        except ValueError as error:
            raise Refused(
                f"data.name={name}: {one_line(error)} openml.org lists the names and versions"
            ) from error
    if any("Multiple active versions" in str(warning.message) for warning in raised):
        chosen = found.details["version"]
        print(
            f"warning: data.name={name}: OpenML has several versions, and this is version {chosen};"
            f" write data.version={chosen} to keep it",
            file=sys.stderr,
        )
    return found


def one_hot(
    values: NDArray[Any],
    columns: list[str],
    categories: dict[str, list[str]],
    without: tuple[str, ...],
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Features and their names, `column=category` for each category.

    Args:
        values: [N, columns]; a category is its number, or NaN where it is missing.
        columns: Their names.
        categories: Of the columns that hold any.
        without: Columns that are no features.
    """
    pieces, names = [], []
    for column, numbers in zip(columns, values.T, strict=True):
        if column in without:
            continue
        words = categories.get(column)
        pieces.append(
            numbers[:, None] if words is None else numbers[:, None] == np.arange(len(words))
        )
        names += [column] if words is None else [f"{column}={word}" for word in words]
    return np.concatenate(pieces, axis=1, dtype=np.float64), tuple(names)


def words_of(
    target: NDArray[Any], names: tuple[str, ...], categories: dict[str, list[str]]
) -> NDArray[Any]:
    """A target's categories, [N]; several targets must be numbers, [N, targets]."""
    if len(names) > 1:
        if words := [name for name in names if name in categories]:
            raise Refused(
                f"data.target={words[0]}: holds words, and several targets must be numbers; write"
                " one column"
            )
        return target
    if missing := np.count_nonzero(np.isnan(target)):
        raise Refused(f"data.target={names[0]}: {missing} rows have none; choose another column")
    return np.array(categories[names[0]])[target[:, 0].astype(int)]
