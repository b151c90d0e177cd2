"""A report as one HTML file that needs no network, and as Markdown:
the same sections, figures only in the former.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from goldilocks.sweeps.report.wording import shown


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What is shown.
        value: By which it is sorted; None: the text.
        link: Where it leads.
        kind: A word for its looks.
    """

    text: str
    value: float | None = None
    link: str = ""
    kind: str = ""


@dataclass
class Table:
    """Rows of texts, numbers and cells."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | float | Cell | None]]
    sortable: bool = False
    title: str = ""
    drawn: bool = False  # a figure says the same: only Markdown needs it


@dataclass
class Section:
    """A part of a report: sentences, commands, tables, then figures."""

    title: str
    sentences: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Any] = field(default_factory=list)
    as_list: bool = False


def cell_of(value: str | float | Cell | None) -> Cell:
    """A value of a table as a cell. Text that is a number is sorted as one."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, str) or value is None:
        text = value or ""
        number = re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", text)
        return Cell(text, float(text), kind="number") if number else Cell(text)
    return Cell(shown(value), float(value), kind="number")


# --- Markdown -------------------------------------------------------------------------------------


def markdown(title: str, facts: str, sections: Sequence[Section]) -> str:
    """The report as Markdown, without the sections that only explain figures."""
    parts = [f"# {title}", facts]
    for section in sections:
        if section.figures and not section.tables:
            continue
        parts.append(f"## {section.title}")
        if section.sentences:
            parts.append(
                ("\n" if section.as_list else "\n\n").join(
                    "- " * section.as_list + s for s in section.sentences
                )
            )
        parts += ["```bash\n" + "\n".join(section.commands) + "\n```"] * bool(section.commands)
        for table in section.tables:
            parts += [f"**{table.title}**"] * bool(table.title)
            parts.append(markdown_table(table))
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A table as Markdown."""

    def row(texts: Sequence[str]) -> str:
        return (
            "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"
        )

    rows = [[cell_of(value) for value in values] for values in table.rows]
    texts = [
        [f"[{cell.text}]({cell.link})" if cell.link else cell.text for cell in cells]
        for cells in rows
    ]
    return "\n".join([row(table.head), row(["---"] * len(table.head)), *map(row, texts)])


# --- HTML -----------------------------------------------------------------------------------------


def page(title: str, facts: str, sections: Sequence[Section], script: str = "") -> str:
    """The report as one HTML file, by `page.html.jinja` beside this file; all text is escaped.

    Args:
        title: Of the page.
        facts: A line below it.
        sections: In their order.
        script: plotly.js, where there are figures.
    """
    from jinja2 import Environment, FileSystemLoader

    room = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room.filters |= {"inline": inline, "cell": cell_of, "drawing": figure_in_page}
    template = room.get_template("page.html.jinja")
    return template.render(title=title, facts=facts, sections=sections, plotly=script)


def inline(text: str) -> Markup:
    """A sentence as HTML: what is between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def figure_in_page(figure: Any) -> str:
    """A figure of plotly's without its library."""
    config = {"displaylogo": False, "displayModeBar": False, "responsive": True}
    return figure.to_html(full_html=False, include_plotlyjs=False, config=config)
