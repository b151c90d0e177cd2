"""A fingerprint of the rows of a source, so that what goes on later notices that they are others.

Legend: N rows.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from goldilocks.errors import Refused


def fingerprint(*parts: Any) -> str:
    """Twelve hex digits of the values and of the names of columns,
    whatever types the columns were read as.

    A million rows of twenty numbers take a tenth of a second, a twentieth of reading them.

    Args:
        parts: DataFrames, arrays [N, ...] or None. What is neither counts by its type only.
    """
    found = hashlib.sha256()
    for part in parts:
        for piece in pieces(part):
            found.update(piece)
    return found.hexdigest()[:12]


def pieces(part: Any) -> Iterator[bytes | memoryview]:
    """What of a part is hashed, piece by piece."""
    if hasattr(part, "columns") and hasattr(part, "dtypes"):
        for name, column in part.items():
            yield str(name).encode()
            yield values_of(column)
    elif isinstance(part, np.ndarray):
        yield str(part.shape).encode()
        yield words_of(part.ravel()) if part.dtype.kind in "OUS" else bytes_of(part)
    else:
        yield type(part).__name__.encode()


def values_of(column: Any) -> memoryview:
    """A column as numbers in double precision, or the hashes of its words."""
    kind = getattr(column.dtype, "kind", "O")
    if kind in "iufb":
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return bytes_of(np.where(numbers == 0, 0.0, numbers))  # zero has two signs
    return words_of(column.to_numpy(dtype=object, na_value=None))


def words_of(values: Any) -> memoryview:
    """The hash of each word."""
    from pandas.util import hash_array

    return bytes_of(hash_array(np.asarray(values, dtype=object)))


def bytes_of(values: Any) -> memoryview:
    contiguous: Any = np.ascontiguousarray(values)
    return memoryview(contiguous).cast("B") if values.size else memoryview(b"")


def check_same(expected: str | None, found: str | None, where: object) -> None:
    """Refuses rows other than those that a run was trained on.

    Args:
        expected: Their fingerprint; None where it is not known.
        found: Of the rows that were read.
        where: The folder of the run.
    """
    if expected is not None and found is not None and expected != found:
        raise Refused(
            f"{where}: its data have changed since it was trained ({expected} then, {found} now);"
            " bring the same rows back, or train on them with python train.py"
        )
