"""How a file of text is laid out:
its encoding, what separates the columns, which row names them.
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from goldilocks.errors import Refused

SAMPLE_BYTES, SAMPLE_ROWS = 2**20, 100  # of a file, to find out its layout
SEPARATORS = (",", "\t", ";", "|")
SPACES = r"\s+"
# Beside pandas' own marks of a missing value: empty, NA, N/A, NaN, null, None and their likes.
MISSING = (
    "?",
    "na",
    "Na",
    "-",
    "--",
    ".",
    "missing",
    "Missing",
    "MISSING",
    "none",
    "NONE",
    "#NULL!",
    "\\N",
)
# These are pandas' own, for files whose words are kept as they are written.
PANDAS_MISSING = (
    *(
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
    ),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?%?")
WITH_COMMA = re.compile(r"(?<![\w.,])[-+]?[\d.]*\d,\d+(?![\w.,])")
WITH_POINT = re.compile(r"(?<![\w.,])[-+]?\d+\.\d+(?![\w.,])")
COMMENT = re.compile(r'\s*#|"?sep=.?"?\s*$', re.I)


@dataclass(frozen=True)
class Layout:
    """How a file of text is read; None: found out.

    Attributes:
        separator: Between the columns.
        header: Whether the first row names the columns.
        encoding: Of the text.
    """

    separator: str | None = None
    header: bool | None = None
    encoding: str | None = None


def find_encoding(sample: bytes, where: str) -> str:
    """The encoding that the first bytes show.

    Raises:
        Refused: for bytes that are no text.
    """
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if sample.startswith(mark):
            return encoding
    control = sum(sample[:4096].count(byte) for byte in (*range(9), *range(14, 27)))
    if b"\0" in sample or control > 0.02 * len(sample[:4096]):
        raise Refused(
            f"{where}: is not a table: its bytes are no text; CSV, TSV, Parquet or Feather is"
            " expected"
        )
    return "utf-8"


def decode(sample: bytes, encoding: str, where: str) -> str:
    """The sample as text, to its last whole line."""
    try:
        text = sample.decode(
            encoding, errors="ignore"
        )  # its last character may be cut; parsing is strict
    except LookupError as error:
        raise Refused(
            f"data.encoding={encoding}: there is no such encoding; write utf-8, cp1252 or utf-16"
        ) from error
    if len(sample) < SAMPLE_BYTES:
        return text
    whole = text.rpartition("\n")[0]
    return whole or text


def preamble(lines: Sequence[str]) -> int:
    """How many lines are in front of the table:
    comments, and what spreadsheets write of the separator.

    A first line that begins with # and is as wide as the numbers below it names the columns.

    >>> preamble(["# exported 2024", "# by X, Y", "a,b,y", "1,2,3"]), preamble(["#a,b", "1,2"])
    (2, 0)
    """
    count = next((at for at, line in enumerate(lines) if not COMMENT.match(line)), 0)
    if not count or not lines[count - 1].lstrip().startswith("#"):
        return count
    for separator in SEPARATORS:
        above, below = split_lines(list(lines[count - 1 : count + 1]), separator)
        if len(above) == len(below) > 1 and not has_header([below], ""):
            return count - 1
    return count


def split_sample(text: str, separator: str | None, where: str) -> tuple[list[list[str]], str]:
    """The first rows, and what separates their columns: what most rows have equally often."""
    lines = text.splitlines()[: SAMPLE_ROWS + 1]
    if not any(line.strip() for line in lines):
        raise Refused(f"{where}: is empty")
    candidates = [separator] if separator else list(SEPARATORS)
    best: tuple[tuple[float, int], list[list[str]], str] | None = None
    for candidate in candidates if separator else [*candidates, SPACES]:
        rows = split_lines(lines, candidate)
        count, times = Counter(map(len, rows)).most_common(1)[0] if rows else (0, 0)
        score = (times / max(len(rows), 1), min(count, len(rows[0]) if rows else 0))
        if count > 1 and (best is None or (score > best[0] and candidate != SPACES)):
            best = score, rows, candidate
    if best is None:
        given = f"data.separator={separator}" if separator else where
        raise Refused(
            f"{given}: separates no columns; a table of a target and features is expected"
        )
    return best[1], best[2]


def split_lines(lines: list[str], separator: str) -> list[list[str]]:
    """Lines as rows of words, blank ones left out."""
    if separator == SPACES:
        return [line.split() for line in lines if line.strip()]
    if len(separator) > 1:
        return [line.split(separator) for line in lines if line.strip()]
    try:
        return [row for row in csv.reader(lines, delimiter=separator, skipinitialspace=True) if row]
    except csv.Error:
        return [line.split(separator) for line in lines if line.strip()]


def has_header(rows: list[list[str]], target: str) -> bool:
    """Whether the first row names the columns:
    it holds the target's name, or neither numbers nor empty words.
    """
    first = [word.strip() for word in rows[0]]
    if target in first:
        return True
    numbers = [word for word in first if NUMBER.fullmatch(word) or word in MISSING]
    return not numbers and any(first)


def has_second_header(rows: list[list[str]]) -> bool:
    """Whether the row below the header holds words where all others have numbers,
    in two columns or more.
    """
    width, below = len(rows[0]), rows[2:]
    if len(below) < 3 or len(rows[1]) != width or any(map(NUMBER.fullmatch, rows[1])):
        return False
    places = [
        place
        for place in range(width)
        if rows[1][place].strip() not in (*MISSING, *PANDAS_MISSING)
        and is_column_of_numbers([row[place].strip() for row in below if len(row) > place])
    ]
    return len(places) >= 2


def is_column_of_numbers(words: list[str]) -> bool:
    """Whether all words but marks of missing values are numbers, and some are."""
    present = [word for word in words if word not in (*MISSING, *PANDAS_MISSING)]
    return bool(present) and all(map(NUMBER.fullmatch, present))


def joined_names(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Names from two rows: the first row's where they tell the columns apart, else both.

    >>> joined_names(["size", "weight"], ["cm", "kg"])
    ['size', 'weight']
    >>> joined_names(["size", "", "w"], ["min", "max", ""])
    ['size min', 'size max', 'w']
    """
    if all(first) and len(set(first)) == len(first):
        return list(first)
    names, above = [], ""
    for upper, lower in zip(first, second, strict=True):
        above = upper.strip() or above
        names.append(f"{above} {lower.strip()}".strip())
    return names


def column_names(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names without spaces around them, each once, and what was renamed.

    >>> column_names(["a", " b", "", "a"])[0]
    ['a', 'b', 'column3', 'a.2']
    """
    given = [word.strip() for word in words]
    names: list[str] = []
    notes: list[str] = []
    taken = set(given)
    seen: Counter[str] = Counter()
    for place, word in enumerate(given, start=1):
        name = word or f"column{place}"
        seen[name] += 1
        if seen[name] > 1 or (not word and name in taken):
            plain, number = name, seen[name] + (not word)
            while (name := f"{plain}.{number}") in taken:
                number += 1
            taken.add(name)
            notes.append(f"a second column named {plain} is {name} here")
        names.append(name)
    return names, notes
