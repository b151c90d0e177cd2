"""What docs/guide.md and docs/options.md say of an option. Import-light."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from goldilocks.config.places import DOCS


@dataclass(frozen=True)
class Proof:
    """A row of docs/options.md: what an option is seen to do."""

    setting: str  # the overrides that it is of
    guide: tuple[str, ...]  # the guide's rows that it belongs to: G25
    claim: str
    observable: str
    measured: str


@dataclass(frozen=True)
class Advice:
    """A row of the guide, and what came out when it was tried."""

    row: str
    title: str
    advice: str
    verdict: str
    related: tuple[str, ...]  # the settings that it names
    measured: tuple[str, ...]  # scores of an option, and claims with what was measured


def proofs_of(setting: str) -> list[Proof]:
    """The rows of a setting, `optimizer=nadam` or `optimizer.lr`; those of it alone come first."""
    words = re.compile(rf"(?:^| ){re.escape(setting)}(?: |$)")
    found = [proof for proof in proofs() if words.search(proof.setting)]
    return sorted(found, key=lambda proof: proof.setting != setting)


@cache
def proofs() -> tuple[Proof, ...]:
    """All rows of docs/options.md."""
    found = []
    for line in page("options.md").splitlines():
        cells = cells_of(line)
        if len(cells) == 5 and (named := re.match(r'<a id="[^"]*"></a>`([^`]+)`', cells[0])):
            found.append(Proof(named[1], tuple(cells[1].split()), *cells[2:]))
    return tuple(found)


def advice_of(row: str, option: str) -> Advice:
    """A row of the guide.

    Args:
        row: Its number: G25.
        option: Whose scores are to be listed, and the claims that name it; all where none does.
    """
    listed = re.search(rf"^\| {row} \| (.*?) \| (.*) \|$", page("options.md"), re.MULTILINE)
    title, section = section_of(row)
    verdict = re.search(r"^\*\*Verdict: (.*?)\.?\*\*$", section, re.MULTILINE)
    return Advice(
        row,
        title,
        listed[1] if listed else title,
        verdict[1] if verdict else "a mechanism: nothing to compare",
        tuple(re.findall(r"\[`([^`]+)`\]", listed[2])) if listed else (),
        (*scores_of(option, section), *claims_about(option, section)),
    )


def section_of(row: str) -> tuple[str, str]:
    """The title and the text of a section of the guide's page."""
    found = re.search(rf"^## {row}: (.*?)\n(.*?)(?=^## |\Z)", page("guide.md"), re.M | re.S)
    return (found[1], found[2]) if found else ("", "")


def claims_about(option: str, section: str) -> list[str]:
    """The claims of a section that name an option, all where none does: a line each."""
    word = re.compile(rf"\b{re.escape(option).replace('_', '[ _]?')}\b", re.IGNORECASE)
    rows = (cells_of(line) for line in section.splitlines())
    claims = {
        f"{claim} ({data}): {difference}, {verdict}": claim
        for claim, data, difference, verdict in (cells for cells in rows if len(cells) == 4)
        if re.match(r"[+-]\d", difference)
    }
    return [line for line, claim in claims.items() if word.search(claim)] or list(claims)


def scores_of(option: str, section: str) -> Iterator[str]:
    """The rows of a section's tables that are of an option, a line each."""
    header: list[str] = []
    for line, below in pairwise([*section.splitlines(), ""]):
        cells = cells_of(line)
        if below.startswith("| ---"):
            header = cells
        elif cells and cells[0].partition(",")[0] == option:
            named = zip(header[1:], cells[1:], strict=False)
            yield f"{cells[0]}: " + "; ".join(f"{name} {score}" for name, score in named if score)


def cells_of(line: str) -> list[str]:
    r"""The cells of a table's row; `\|` is a bar in one.

    >>> cells_of(r"| a | b \| c |")
    ['a', 'b | c']
    """
    if not line.startswith("| "):
        return []
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [cell.strip().replace("\\|", "|") for cell in cells]


@cache
def page(name: str) -> str:
    """A page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")
