"""Tables from files: text in any layout, packed or not, Parquet and Feather.

pandas parses; it is imported where a file is read, because it takes a second.
"""

import bz2
import codecs
import csv
import glob
import gzip
import io
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from goldilocks.data.tables.dialect import (
    SAMPLE_BYTES,
    SPACES,
    WITH_COMMA,
    WITH_POINT,
    Layout,
    column_names,
    decode,
    find_encoding,
    has_header,
    has_second_header,
    joined_names,
    preamble,
    split_sample,
)
from goldilocks.data.tables.values import MARKS, with_point
from goldilocks.errors import Refused, missing, one_line

PIECE_ROWS = 2**16  # that are words in memory at once
CHUNK = 2**20


class Opener(NamedTuple):
    """How the bytes of a kind of file begin, and what opens it."""

    magic: bytes
    open: Callable[[Path], Any]


class Reading(NamedTuple):
    """Rows and how they were read."""

    frame: Any  # a pandas DataFrame, [N, columns]
    notes: tuple[str, ...]  # for the data card
    first: tuple[str, ...] = ()  # words of a text's first row, where it names the columns


def find_files(path: str | Sequence[str], key: str) -> list[Path]:
    """The files that a path, a pattern or a list of them names, sorted within each pattern.

    Raises:
        Refused: if there are none, or one is a folder.
    """
    found = []
    for word in [path] if isinstance(path, str) else path:
        if not word or "://" in word:
            what = "is a URL; download the file first, and" if word else "is empty;"
            raise Refused(f"{key}={word}: {what} write {key}=FILE.csv")
        name = str(Path(word).expanduser())
        matches = [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True))
        if not matches:
            folder = Path(name).parent
            near = (
                sorted(file.name for file in folder.glob("*") if file.is_file())[:5]
                if folder.is_dir()
                else []
            )
            listed = (
                f"; in {folder} there are: {', '.join(near)}"
                if near
                else f"; {folder} is no folder with files"
            )
            raise Refused(f"{key}={word}: there is no such file{listed}")
        found += [Path(match) for match in matches]
    if not found:
        raise Refused(f"{key}=[]: names no file; write {key}=FILE.csv")
    for file in found:
        if found.count(file) > 1:
            raise Refused(f"{key}: {file} is named twice; write each file once")
        if file.exists() and not file.is_file() and not file.is_dir():
            raise Refused(f"{key}={file}: is no ordinary file; write its rows into one first")
        if not file.is_file():
            raise Refused(
                f"{key}={file}: is a folder; write a file in it, or a pattern such as"
                f" {key}={file}/*.csv"
            )
    return found


def read_files(files: Sequence[Path], layout: Layout, key: str, target: str = "") -> Reading:
    """Reads files of the same columns, one below the other;
    the last few that were read are remembered.

    Args:
        files: CSV, TSV and their likes, compressed or not, Parquet or Feather.
        layout: What is known of files of text.
        key: Under which the files were given, for messages.
        target: A column that a header would name.

    Raises:
        Refused: for a file that cannot be read, or has other columns than the first.
    """
    import pandas as pd

    readings = []
    for file in files:
        state = file.stat()
        readings.append(
            read_file(
                file.absolute(), (state.st_mtime_ns, state.st_size), layout, f"{key}={file}", target
            )
        )
    first = readings[0]
    for file, reading in zip(files[1:], readings[1:], strict=True):
        check_same_columns(
            list(first.frame.columns), list(reading.frame.columns), f"{key}={file}", files[0]
        )
    if len(readings) == 1:
        return first
    frame = pd.concat(
        [reading.frame[list(first.frame.columns)] for reading in readings], ignore_index=True
    )
    notes = dict.fromkeys(note for reading in readings for note in reading.notes)
    return Reading(frame, tuple(notes), first.first)


def check_same_columns(expected: list[str], found: list[str], where: str, first: Any) -> None:
    """Refuses a table that lacks columns of another one, or has more."""
    for here, there, what in (
        (expected, found, "lacks"),
        (found, expected, "has, beside those of the others,"),
    ):
        if other := [name for name in here if name not in there]:
            raise Refused(
                f"{where}: {what} the column {other[0]}; all must have the columns of {first}"
            )


@lru_cache(maxsize=4)
def read_file(
    file: Path, state: tuple[int, int], layout: Layout, where: str, target: str
) -> Reading:
    """Reads one file once a process, as long as its time and size stay the same.

    Raises:
        Refused: if it cannot be read as a table.
    """
    try:
        with file.open("rb") as stream:
            magic = stream.read(6)
    except OSError as error:
        raise Refused(f"{where}: cannot be opened ({error.strerror})") from error
    if not magic:
        raise Refused(f"{where}: is empty")
    if magic[:4] == b"PAR1" or magic == b"ARROW1":
        return read_columnar(file, magic, where)
    with refused_if_damaged(where):
        return read_text(file, layout, where, target)


@contextmanager
def refused_if_damaged(where: str) -> Iterator[None]:
    """Refuses a file that cannot be unpacked or read to its end."""
    try:
        yield
    except (gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Refused(f"{where}: is damaged ({one_line(error)})") from error
    except OSError as error:
        raise Refused(f"{where}: cannot be read ({one_line(error)})") from error


def read_columnar(file: Path, magic: bytes, where: str) -> Reading:
    """Reads Parquet or Feather, which know their columns, through pyarrow."""
    import pandas as pd

    kind = "Parquet" if magic[:4] == b"PAR1" else "Feather"
    try:
        import pyarrow  # noqa: F401 - pandas says less clearly that it is missing

        frame = pd.read_parquet(file) if kind == "Parquet" else pd.read_feather(file)
    except ModuleNotFoundError as error:
        raise Refused(f"{where}: {kind} {missing(error)}") from error
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise Refused(f"{where}: cannot be read as {kind} ({one_line(error)})") from error
    frame.columns = column_names([str(name) for name in frame.columns])[0]
    if frame.shape[0] == 0:
        raise Refused(f"{where}: has columns and no rows")
    return Reading(frame.reset_index(drop=True), (f"{kind}",))


# --- text -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """How a file of text is read, all found out.

    Attributes:
        encoding: Of the text.
        separator: Between the columns.
        header: Whether the first row names the columns.
        names: Of the columns.
        decimal: The sign in front of decimals.
        notes: What else was found out, for the data card.
        rows: The first ones, for messages.
        before: Lines in front of the table.
        second: Whether the row below the header is no row of data.
    """

    encoding: str
    separator: str
    header: bool
    names: list[str]
    decimal: str
    notes: list[str]
    rows: list[list[str]]
    before: int = 0
    second: bool = False


def read_text(file: Path, layout: Layout, where: str, target: str) -> Reading:
    """Reads CSV and its likes."""
    found = find_text(file, layout, where, target)
    frame = read_columns(file, where, found)
    if not len(frame):
        raise Refused(f"{where}: has a header and no rows")
    name = {"\t": "tabs", SPACES: "spaces"}.get(found.separator, f"`{found.separator}`")
    header = "the first row" if found.header else "no row"
    notes = [f"{found.encoding} text, columns separated by {name}, {header} names them"]
    first = tuple(found.rows[0]) if found.header else ()
    return Reading(frame, (*notes, *found.notes), first)


def read_columns(file: Path, where: str, found: Text) -> Any:
    """All rows: a column of nothing but numbers and marks of missing values as numbers,
    another one as words.

    Rows are read piece by piece, for numbers take less memory than words. A column that has numbers
    in one piece and words in the next is read once more.
    """
    import pandas as pd

    parts: dict[str, list[Any]] = {name: [] for name in found.names}
    mixed = []
    with opened(file, where, found, chunksize=PIECE_ROWS) as pieces:
        for written in pieces:
            piece = with_points(written, found.decimal)
            for name, read in parts.items():
                as_words = bool(read) and not is_number(read[0])
                numbers = None if as_words else plain_numbers(piece[name])
                if read and numbers is None and not as_words and name not in mixed:
                    mixed.append(name)
                if name not in mixed:
                    read.append(piece[name].astype("str") if numbers is None else numbers)
    if mixed:
        with opened(file, where, found, chunksize=PIECE_ROWS) as pieces:
            again = [with_points(piece[mixed], found.decimal).astype("str") for piece in pieces]
        parts |= {name: [piece[name] for piece in again] for name in mixed}
    return pd.DataFrame(
        {name: pd.concat(read, ignore_index=True) for name, read in parts.items()},
        columns=found.names,
    )


def is_number(series: Any) -> bool:
    """Whether a column was read as numbers."""
    from pandas.api import types

    return types.is_numeric_dtype(series)


def plain_numbers(words: Any) -> Any:
    """Words, [N], as numbers; None where one is no number and no mark of a missing value,
    or digits follow a zero.
    """
    import pandas as pd

    numbers = pd.to_numeric(words, errors="coerce")
    gaps = numbers.isna()
    if not words[gaps].str.strip().isin(MARKS).all():
        return None
    whole = bool((numbers[~gaps] == numbers[~gaps].round()).all())
    if whole and words.str.match(r"\s*[-+]?0\d").any():  # a code, such as 01234
        return None
    return numbers


def find_text(file: Path, layout: Layout, where: str, target: str) -> Text:
    """How a file of text is read; `target` is a column that a header would name.

    Its first rows tell the layout, all of it tells the encoding and the sign in front of decimals.

    Raises:
        Refused: if it is not a table.
    """
    with open_bytes(file, where) as stream:
        sample = stream.read(SAMPLE_BYTES)
    encoding = layout.encoding or whole_encoding(file, find_encoding(sample, where), where)
    lines = decode(sample, encoding, where).splitlines()
    before = preamble(lines)
    rows, separator = split_sample("\n".join(lines[before:]), layout.separator, where)
    header = layout.header if layout.header is not None else has_header(rows, target)
    second = header and layout.header is None and has_second_header(rows)
    width = max(map(len, rows[header:]), default=0)
    if header and not rows[1:]:
        raise Refused(f"{where}: has a header and no rows")
    given = joined_names(*rows[:2]) if second else rows[0] if header else [""] * width
    names, notes = column_names(given)
    if width > len(names) and all(len(row) == width and not row[-1].strip() for row in rows[1:]):
        names += column_names([""] * width)[0][len(names) :]  # each row ends with a separator
    if before:
        notes.append(f"{before} lines in front of the table are passed over")
    if second:
        notes.append(f"the second row ({', '.join(rows[1])}) belongs to the header")
    decimal = whole_decimal(file, encoding, where) if separator != "," else "."
    return Text(encoding, separator, header, names, decimal, notes, rows, before, second)


def whole_encoding(file: Path, encoding: str, where: str) -> str:
    """The encoding that the first bytes show, or cp1252 where a later one is no UTF-8."""
    if encoding not in ("utf-8", "utf-8-sig"):
        return encoding
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes(file, where) as stream:
        try:
            while chunk := stream.read(CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return encoding


def whole_decimal(file: Path, encoding: str, where: str) -> str:
    """A comma where more numbers of a file have one than have a point."""
    commas = points = 0
    with (
        open_bytes(file, where) as stream,
        io.TextIOWrapper(stream, encoding, errors="replace") as text,
    ):
        while lines := text.readlines(CHUNK):
            chunk = "".join(lines)
            commas += sum(1 for _ in WITH_COMMA.finditer(chunk))
            points += sum(1 for _ in WITH_POINT.finditer(chunk))
    return "," if commas > points else "."


def open_bytes(file: Path, where: str) -> Any:
    """The bytes of a file, unpacked if they are packed, whatever its name ends with."""
    packed = (
        Opener(b"\x1f\x8b", gzip.open),
        Opener(b"BZh", bz2.open),
        Opener(b"\xfd7zXZ", lzma.open),
    )
    with file.open("rb") as stream:
        magic = stream.read(6)
    for opener in packed:
        if magic.startswith(opener.magic):
            return opener.open(file)
    if magic.startswith(b"PK\x03\x04"):
        inside = [name for name in zipfile.ZipFile(file).namelist() if not name.endswith("/")]
        if "[Content_Types].xml" in inside:
            raise Refused(f"{where}: is a workbook; save its sheet as CSV")
        if len(inside) != 1:
            raise Refused(f"{where}: holds {len(inside)} files; unpack it and write one of them")
        return zipfile.ZipFile(file).open(inside[0])
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise Refused(f"{where}: is packed by zstd; unpack it, or pack it by gzip")
    return file.open("rb")


@contextmanager
def opened(file: Path, where: str, found: Text, **options: Any) -> Iterator[Iterator[Any]]:
    """DataFrames of words, [N, columns], piece by piece, empty where none is written;
    `chunksize` is their rows.

    Raises:
        Refused: for rows of different lengths and the like.
    """
    import pandas as pd

    with open_bytes(file, where) as stream, warnings.catch_warnings():
        warnings.simplefilter(
            "error", pd.errors.ParserWarning
        )  # a row of more words than there are names
        try:
            pieces = pd.read_csv(
                io.BufferedReader(stream) if not isinstance(stream, io.BufferedIOBase) else stream,
                sep=found.separator,
                header=0 if found.header else None,
                names=found.names,
                index_col=False,
                encoding=found.encoding,
                skiprows=found.before,
                dtype=object,
                keep_default_na=False,
                na_filter=False,
                skipinitialspace=True,
                low_memory=False,
                **options,
            )
            yield (
                piece.iloc[1:] if found.second and not place else piece
                for place, piece in enumerate(pieces)
            )
        except (
            pd.errors.ParserError,
            pd.errors.ParserWarning,
            pd.errors.EmptyDataError,
            csv.Error,
        ) as error:
            raise Refused(f"{where}: {ragged(error, found.rows, found.names)}") from error
        except UnicodeDecodeError as error:
            why = f"byte {error.start}: {error.reason}"
            raise Refused(
                f"{where}: is no {found.encoding} text ({why}); write another data.encoding"
            ) from error


def with_points(words: Any, decimal: str) -> Any:
    """Words, [N, columns], with a point in front of decimals."""
    return words if decimal == "." else words.map(with_point)


def ragged(error: Exception, rows: list[list[str]], names: list[str]) -> str:
    """What pandas says about rows of different lengths, in the words of a user."""
    text = one_line(error)
    if match := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        return (
            f"line {match[2]} has {match[3]} columns where {match[1]} are expected; correct it, or"
            " write data.separator"
        )
    if "Length of header" in text:
        wide = max(map(len, rows))
        return (
            f"rows have up to {wide} columns and the header names {len(names)}; correct it, or"
            " write data.separator"
        )
    if "EOF inside string" in text:
        return "a quotation mark is never closed; correct it"
    return f"cannot be read as a table ({text.removeprefix('Error tokenizing data. C error: ')})"
