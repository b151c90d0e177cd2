"""A report as one HTML file that needs no network, and as Markdown: the same sections, figures only in the former."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from goldilocks.sweeps.report.wording import shown

STYLE = """
:root { --ink: #1f2933; --soft: #5f6c7b; --line: #dde3ea; --back: #f5f7fa; --blue: #2f6db3; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 64px; min-width: 0; overflow-wrap: anywhere; }
h1 { font-size: 25px; margin: 0 0 2px; }
h2 { font-size: 18px; margin: 0 0 8px; }
section { background: white; border: 1px solid var(--line); border-radius: 8px; padding: 16px 20px; margin-top: 16px; }
p { margin: 0 0 8px; max-width: 100ch; }
.soft { color: var(--soft); }
ul { margin: 0 0 8px; padding-left: 20px; max-width: 110ch; }
li { margin-bottom: 5px; }
li:first-child { font-weight: 600; }
.plain li:first-child { font-weight: inherit; }
code { background: #eef2f7; border-radius: 4px; padding: 1px 4px; font: 13px ui-monospace, monospace;
  overflow-wrap: anywhere; }
pre { background: #1f2933; color: #f2f5f8; border-radius: 6px; padding: 10px 12px; margin: 0 0 8px; overflow-x: auto;
  font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.scroll { overflow: auto; max-height: 520px; border: 1px solid var(--line); border-radius: 6px; margin-bottom: 12px; }
table { border-collapse: collapse; font-size: 13.5px; }
.sortable { width: 100%; }
th, td { padding: 5px 10px; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.wide { white-space: normal; min-width: 260px; }
th { position: sticky; top: 0; background: #eef2f7; }
.sortable th { cursor: pointer; user-select: none; }
.sortable th::after { content: " \\2195"; color: #b3bdc9; }
.sortable th.up::after { content: " \\2191"; color: var(--ink); }
.sortable th.down::after { content: " \\2193"; color: var(--ink); }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr:hover td { background: #f5f9ff; }
td.failed, td.diverged { color: #c0392b; } td.pruned { color: var(--soft); } td.done { color: #1e7e45; }
a { color: var(--blue); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 8px; }
.figures > div { min-width: 0; }
@media (max-width: 600px) {
  main { padding: 12px 6px 32px; }
  section { padding: 12px 10px; }
  td.wide { min-width: 160px; }
}
"""

SCRIPT = """
if (window.Plotly) document.querySelectorAll(".plotly-graph-div").forEach(div => Plotly.Plots.resize(div));
document.querySelectorAll("table.sortable").forEach(table => {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = !head.classList.contains("up");
    heads.forEach(other => other.classList.remove("up", "down"));
    head.classList.add(up ? "up" : "down");
    const key = row => row.cells[column].dataset.value;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const by = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return up ? by : -by;
    };
    [...body.rows].sort(order).forEach(row => body.append(row));
  }));
});
"""


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
    """What stands in a table, as a cell. Words that are numbers are sorted as such."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, str) or value is None:
        text = value or ""
        number = re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", text)
        return Cell(text, float(text), kind="number") if number else Cell(text)
    return Cell(shown(value), float(value), kind="number")


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(title: str, facts: str, sections: Sequence[Section]) -> str:
    """The report as Markdown."""
    parts = [f"# {title}", facts]
    for section in sections:
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


# --- HTML -------------------------------------------------------------------------------------------------------------


def page(title: str, facts: str, sections: Sequence[Section], script: str = "") -> str:
    """The report as one HTML file.

    Args:
        title: Of the page.
        facts: A line below it.
        sections: In their order.
        script: plotly.js, where there are figures.
    """
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style>",
        f"<script>{script}</script>" if script else "",
        f'</head><body><main><h1>{html.escape(title)}</h1><p class="soft">{inline(facts)}</p>',
    ]
    for place, section in enumerate(sections):
        parts.append(f"<section><h2>{html.escape(section.title)}</h2>")
        if section.as_list:
            kind = "" if place == 0 else ' class="plain"'
            parts.append(
                f"<ul{kind}>"
                + "".join(f"<li>{inline(text)}</li>" for text in section.sentences)
                + "</ul>"
            )
        else:
            parts += [f"<p>{inline(text)}</p>" for text in section.sentences]
        if section.commands:
            parts.append("<pre>" + html.escape("\n".join(section.commands)) + "</pre>")
        parts += [
            html_table(table) for table in section.tables if not (table.drawn and section.figures)
        ]
        if section.figures:
            parts.append('<div class="figures">' if len(section.figures) > 1 else "<div>")
            parts += [f"<div>{figure_in_page(figure)}</div>" for figure in section.figures]
            parts.append("</div>")
        parts.append("</section>")
    parts.append(f"</main><script>{SCRIPT}</script></body></html>\n")
    return "\n".join(parts)


def inline(text: str) -> str:
    """A sentence as HTML: what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def figure_in_page(figure: Any) -> str:
    """A figure of plotly's without its library."""
    config = {"displaylogo": False, "displayModeBar": False, "responsive": True}
    return figure.to_html(full_html=False, include_plotlyjs=False, config=config)


def html_table(table: Table) -> str:
    """A table as HTML."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in table.head)
    rows = [
        "<tr>" + "".join(map(html_cell, map(cell_of, values))) + "</tr>" for values in table.rows
    ]
    title = f"<p><b>{inline(table.title)}</b></p>" if table.title else ""
    kind = ' class="sortable"' if table.sortable else ""
    body = "\n".join(rows)
    return f'{title}<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def html_cell(cell: Cell) -> str:
    text = inline(cell.text)
    text = f'<a href="{html.escape(cell.link)}">{text}</a>' if cell.link else text
    value = cell.text if cell.value is None else repr(cell.value)
    return f'<td class="{cell.kind}" data-value="{html.escape(value)}">{text}</td>'
