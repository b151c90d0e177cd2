"""docs/options.md: the rows, what they measured, and the options that have none yet."""

import importlib
import re
from collections.abc import Iterable
from pathlib import Path

from proofs.table import GROUPS, Row

HEAD = """# Every option, and what it was seen to do

Made by `python -m pytest tests/proofs --write-page`: do not edit. Each row composes the option as
the command line does, lets it act, and compares what comes out with a formula or a count that is
written down in [tests/proofs/](../tests/proofs) by hand. `make test` measures all rows again and
fails where one does not hold, where an option of ours has no row, or where this page lists other
rows.

## The guide's rows

What the thirty rows of the tuning guide ask for, and where it is shown.

| guide | advice | options and their rows |
| --- | --- | --- |
"""

COLUMNS = (
    "| option | guide | claim | observable | measured |",
    "| --- | --- | --- | --- | --- |",
)
NOT_YET_SHOWN = (
    "## Not yet shown",
    "",
    "Options that a library carries out and that nobody has measured here.",
    "",
)


def anchor(option: str) -> str:
    """The name of a row in the page's links."""
    return re.sub(r"[^a-z0-9_]+", "-", option.lower().replace("=", "_is_")).strip("-")


def cell(text: str) -> str:
    """Text as a cell of a table."""
    return text.replace("|", "\\|")


def summary(rows: Iterable[Row], advice: dict[str, str], later: dict[str, str]) -> list[str]:
    """The lines of the table of the guide's rows."""
    lines = []
    rows = list(rows)
    for guide, words in advice.items():
        links = [f"[`{row.option}`](#{anchor(row.option)})" for row in rows if guide in row.guide]
        shown = " ".join(links) + (f" {later[guide]}" if guide in later else "")
        lines.append(f"| {guide} | {cell(words)} | {shown.strip()} |")
    return lines


def line_of(row: Row, measured: str) -> str:
    """A row of the page."""
    also = f" (with {', '.join(f'`{option}`' for option in row.covers)})" if row.covers else ""
    name = f'<a id="{anchor(row.option)}"></a>`{row.option}`{also}'
    cells = (name, " ".join(row.guide), row.claim, row.observable, measured)
    return "| " + " | ".join(map(cell, cells)) + " |"


def whole_page(
    measured: dict[str, str],
    rows: Iterable[Row],
    not_yet_shown: Iterable[str],
    advice: dict[str, str],
    later: dict[str, str],
) -> str:
    """The page of rows that hold, and of options that have none yet."""
    rows = list(rows)
    parts = [HEAD + "\n".join(summary(rows, advice, later))]
    for group in GROUPS:
        mine = [line_of(row, measured[row.option]) for row in rows if row.group == group]
        parts.append("\n".join([f"## {title_of(group)}", "", *COLUMNS, *mine]))
    if waiting := [f"- `{option}`" for option in not_yet_shown]:
        parts.append("\n".join([*NOT_YET_SHOWN, *waiting]))
    return "\n\n".join(parts) + "\n"


def title_of(group: str) -> str:
    """The first line of the module that holds a group's rows."""
    words = importlib.import_module(f"proofs.{group}").__doc__ or group
    return words.splitlines()[0].rstrip(".")


def listed(page: Path) -> set[tuple[str, str, str]]:
    """(option, guide, observable) of each row that a page lists."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'^\| <a id="[^"]*"></a>`([^`]+)`.*$', text, flags=re.MULTILINE)
    lines = [line for line in text.splitlines() if line.startswith("| <a id=")]
    cells = [re.split(r"(?<!\\) \| ", line) for line in lines]
    return {(option, parts[1], parts[3]) for option, parts in zip(found, cells, strict=True)}
