"""A table's rows piece by piece, as they are written in the file:
for files that are larger than the memory.

Legend: N rows of a piece.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldilocks.data.tables.dialect import SAMPLE_BYTES, SPACES, Layout, decode, find_encoding
from goldilocks.data.tables.reading import (
    Text,
    column_names,
    find_text,
    open_bytes,
    opened,
    refused_if_damaged,
    whole_encoding,
    with_points,
)
from goldilocks.errors import Refused, missing, one_line


@dataclass(frozen=True)
class Stream:
    """A file that is read in pieces.

    Attributes:
        file: To be read.
        text: How it is laid out; None for Parquet.
        names: Of the columns, as training has them.
        header: Of the columns, as the file has them.
        layout: What the user has said of it.
    """

    file: Path
    text: Text | None
    names: list[str]
    header: list[str]
    layout: Layout

    @property
    def separator(self) -> str:
        """For a file that is written like this one."""
        separator = self.text.separator if self.text else ","
        return " " if separator == SPACES else separator if len(separator) == 1 else ","

    @property
    def decimal(self) -> str:
        """The mark between whole numbers and fractions, of what is written."""
        return self.text.decimal if self.text else "."

    def pieces(self, rows: int) -> Iterator[Any]:
        """DataFrames [N, columns] of up to so many rows;
        of a text all values are words, empty where none is written.

        Raises:
            Refused: for what cannot be read.
        """
        if self.text is None:
            yield from columnar_pieces(self.file, self.names, rows)
            return
        where = str(self.file)
        with (
            refused_if_damaged(where),
            opened(self.file, where, self.text, chunksize=rows) as reader,
        ):
            yield from reader

    def values(self, piece: Any, columns: Collection[str]) -> Any:
        """Some columns of a piece as they are read for training,
        with a point in front of decimals.
        """
        frame = piece[list(columns)]
        return frame if self.text is None else with_points(frame, self.decimal)


def open_stream(file: Path, layout: Layout, known: str) -> Stream:
    """Finds out how a file is laid out.

    Args:
        file: CSV, TSV and their likes, packed or not, or Parquet.
        layout: What is known of files of text.
        known: A column that a header would name.

    Raises:
        Refused: if it is not a table.
    """
    where = str(file)
    with refused_if_damaged(where):
        with file.open("rb") as stream:
            magic = stream.read(6)
        if magic == b"ARROW1":
            raise Refused(
                f"{where}: is Feather, which is not read in pieces; write it as Parquet or CSV"
            )
        if magic[:4] == b"PAR1":
            return Stream(file, None, *columnar_names(file), layout)
        if not magic:
            raise Refused(f"{where}: is empty")
        text = single_column(file, layout, known) or find_text(file, layout, where, known)
    return Stream(file, text, text.names, header_of(text), layout)


def header_of(text: Text) -> list[str]:
    """The columns' names as the file has them;
    those that it does not name, as training has them.
    """
    given = text.rows[0] if text.header else []
    return [
        word or name
        for word, name in zip([*given, *[""] * len(text.names)], text.names, strict=False)
    ]


def single_column(file: Path, layout: Layout, known: str) -> Text | None:
    """A file of nothing but the known column, in which nothing separates any;
    None for another file.
    """
    with open_bytes(file, str(file)) as stream:
        sample = stream.read(SAMPLE_BYTES)
    where = str(file)
    encoding = layout.encoding or whole_encoding(file, find_encoding(sample, where), where)
    lines = decode(sample, encoding, str(file)).splitlines()
    if not lines or lines[0].strip().strip('"') != known:
        return None
    return Text(encoding, layout.separator or ",", True, [known], ".", [], [[known]])


# --- Parquet --------------------------------------------------------------------------------------


def columnar_names(file: Path) -> tuple[list[str], list[str]]:
    """The columns' names as training has them, and as the file has them."""
    try:
        from pyarrow.parquet import read_schema

        words = read_schema(file).names
    except ModuleNotFoundError as error:
        raise Refused(f"{file}: Parquet {missing(error)}") from error
    except ValueError as error:  # pyarrow's own errors are of this kind
        raise Refused(f"{file}: cannot be read as Parquet ({one_line(error)})") from error
    return column_names(words)[0], words


def columnar_pieces(file: Path, names: list[str], rows: int) -> Iterator[Any]:
    """DataFrames of up to so many rows."""
    from pyarrow.parquet import ParquetFile

    try:
        for batch in ParquetFile(file).iter_batches(batch_size=rows):
            frame = batch.to_pandas()
            frame.columns = names
            yield frame
    except (OSError, ValueError) as error:
        raise Refused(f"{file}: cannot be read as Parquet ({one_line(error)})") from error
