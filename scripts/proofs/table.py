"""What a row is, which options need one, and the page that is made of them."""

import importlib
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from goldilocks.errors import Refused

GROUPS = (
    *(
        "data",
        "sources",
        "tables",
        "model",
        "networks",
        "images",
        "activations",
        "init",
        "norm",
        "regularization",
        "augmentation",
        "task",
    ),
    *(
        "optimizer",
        "lr_range",
        "scheduler",
        "trainer",
        "devices",
        "callbacks",
        "board",
        "logger",
        "experiment",
        "runs",
        "sweep",
    ),
)  # the modules of this folder that hold rows, in the order of the page
Measured = tuple[str, bool]  # what was measured, in words, and whether it is as claimed


@dataclass(frozen=True)
class Row:
    """One row of the page.

    Attributes:
        group: The module that holds it, a section of the page.
        option: As it is written on the command line: `optimizer=adam`, `model.width`. What combines several has a
            space in it.
        guide: Rows of the tuning guide, `G1` to `G30`, that it carries.
        claim: What the guide says or the option promises.
        observable: What is looked at.
        covers: Other options whose effect the same measurement shows.
        measure: Measures.
    """

    group: str
    option: str
    guide: tuple[str, ...]
    claim: str
    observable: str
    covers: tuple[str, ...]
    measure: Callable[[], Measured]

    def result(self) -> Measured:
        """What was measured; an exception is a row that does not hold."""
        try:
            with warnings.catch_warnings():  # what the libraries say is not what is measured
                warnings.simplefilter("ignore")
                return self.measure()
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())}", False


ROWS: dict[str, Row] = {}


def proof(
    option: str, guide: str, claim: str, observable: str, covers: str = ""
) -> Callable[[Callable[..., Measured]], Callable[..., Measured]]:
    """Makes a function a row. `guide` and `covers` are words with spaces between them."""

    def enter(measure: Callable[..., Measured]) -> Callable[..., Measured]:
        assert option not in ROWS, f"{option} has two rows"
        group = measure.__module__.rpartition(".")[2]
        ROWS[option] = Row(
            group, option, tuple(guide.split()), claim, observable, tuple(covers.split()), measure
        )
        return measure

    return enter


def rows() -> list[Row]:
    """All rows in the order of the page."""
    for group in GROUPS:
        importlib.import_module(f"proofs.{group}")
    return sorted(ROWS.values(), key=lambda row: GROUPS.index(row.group))


def within(value: float, limit: float) -> str:
    """An error in words that do not change with its last digits."""
    return f"under {limit:g}" if value < limit else f"{value:.2g}"


# --- which options need a row -----------------------------------------------------------------------------------------


@cache
def needed() -> dict[str, set[str]]:
    """Every option there is, and for an option file the keys that it sets; not those of your own classes.

    They are: the files of conf/, the keys in them and at the top of conf/train.yaml, and for a key whose annotation is
    a list of words each word.
    """
    from omegaconf import OmegaConf

    from goldilocks.config.places import CONF
    from goldilocks.regularization.strengths import Regularization
    from goldilocks.schedulers.schedule import check_schedule
    from goldilocks.sweeps.search.settings import SweepSettings
    from goldilocks.tasks.objective import Objective
    from goldilocks.tasks.task import Task
    from goldilocks.training.lr_range.rules import RangeOptions

    found: dict[str, set[str]] = {}
    yours = OmegaConf.load(CONF / "train.yaml").packages
    for path in sorted(CONF.rglob("*.yaml")):
        if set(re.findall(r"_target_: *(\w+)", path.read_text(encoding="utf-8"))) & set(yours):
            continue
        group = path.parent.relative_to(CONF).as_posix()
        node: Any = OmegaConf.to_container(OmegaConf.load(path))
        if path.parent == CONF:
            settings = {
                key: value for key, value in node.items() if key not in ("defaults", "hydra")
            }
            keys = keys_of("task", settings.pop("task"), [Task])
            keys |= keys_of("objective", settings.pop("objective"), [Objective])
            keys |= keys_of("lr_range", settings.pop("lr_range"), [RangeOptions])
            found |= {key: set() for key in {*keys, *settings}}
            continue
        keys = set()
        if group == "callbacks":
            for name, inner in node.items():
                if isinstance(inner, dict):
                    keys |= {f"callbacks.{name}", *keys_of(f"callbacks.{name}", inner, [])}
        elif path.stem == "default" or group not in (
            "sweep",
            "experiment",
            "hydra/sweeper",
            "hydra/launcher",
            "logger",
            "metrics",
        ):
            ours: dict[str, list[Any]] = {
                "scheduler": [check_schedule],
                "regularization": [Regularization],
            }
            ours |= {"sweep": [SweepSettings]}
            keys = keys_of(group, node, ours.get(group, []) + targets(group, path.stem))
        found[f"{group}={path.stem}"] = keys
        found |= {key: set() for key in keys}
    return found


def targets(group: str, option: str) -> list[Any]:
    """The class that an option file names, itself or through the file that it stands on."""
    from omegaconf import OmegaConf

    from goldilocks.config.build import import_path
    from goldilocks.config.places import CONF

    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
    if "_target_" in node:
        try:
            return [import_path(node["_target_"], group)]
        except Refused:  # of a library that is not installed
            return []
    below = [name for name in node.get("defaults", ()) if name != "_self_"]
    return targets(group, below[0]) if below else []


def keys_of(where: str, node: dict[str, Any], kinds: Iterable[Any]) -> set[str]:
    """The dotted keys of a node; with each word where words are what may be written."""
    from goldilocks.config.signatures import hints_of

    hints = {key: hint for kind in kinds for key, hint in hints_of(kind).items()}
    found = set()
    for key in node:
        ranges = key == "search" and where != "sweep"
        if (
            key in ("defaults", "_target_", "_recursive_")
            or ranges
            or (where[:9] == "callbacks" and key in FOLLOWED)
        ):
            continue
        words = literal_words(hints.get(key))
        found |= {f"{where}.{key}={word}" for word in words} or {f"{where}.{key}"}
    return found


NO_KEYS = (
    "experiment",
    "hydra/sweeper",
    "hydra/launcher",
    "logger",
    "metrics",
)  # groups whose files set no own keys
FOLLOWED = ("monitor", "mode")  # of a callback: they are objective.metric's


def literal_words(hint: Any) -> set[str]:
    """The words that an annotation allows, where it allows nothing but words (and numbers as one of them)."""
    if get_origin(hint) is Literal:
        return {str(word) for word in get_args(hint)}
    inner = [kind for kind in get_args(hint) if kind is not type(None)]
    words = [literal_words(kind) for kind in inner]
    return set().union(*words) if inner and all(words) else set()


TOGETHER = tuple(
    f"model={name}" for name in ("linear", "shallow", "deep", "wide", "pyramid", "selfnorm")
)  # one class


def without_row(needed: dict[str, set[str]], rows: Iterable[Row]) -> list[str]:
    """Options that no row proves, and rows of options that are gone."""
    rows = list(rows)
    proved = {option for row in rows for option in (row.option, *row.covers) if " " not in option}
    own = {row.option: {row.option, *row.covers} for row in rows}
    single = {row.option for row in rows}
    missing = [f"{option}: has no row" for option in needed if option not in proved]
    gone = [f"{option}: has a row but is no option" for option in sorted(proved - needed.keys())]
    # A file of these must prove its keys itself: the same word means another thing in the next one.
    alone = [
        o
        for o in needed
        if o.startswith(("optimizer=", "scheduler=", "model=")) and o not in TOGETHER
    ]
    half = [
        f"{option}: its row does not change {key}"
        for option in alone
        for key in sorted(needed[option] - own.get(option, needed[option]))
        if key not in single
        or ("=" not in key and sum(key in keys for keys in needed.values()) > 1)
    ]
    return [*missing, *gone, *half]


# --- the page ---------------------------------------------------------------------------------------------------------

HEAD = """# Every option, and what it was seen to do

Made by `python scripts/options.py --write`: do not edit. Each row composes the option as the command line does, lets it
act, and compares what comes out with a formula or a count that is written down in [scripts/proofs/](../scripts/proofs)
by hand. `make test` measures all rows again and fails where one does not hold, where an option has no row, or where
this page lists other rows.

## The guide's rows

What the thirty rows of the tuning guide ask for, and where it is shown.

| guide | advice | options and their rows |
| --- | --- | --- |
"""


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


def line_of(row: Row, measured: str, holds: bool) -> str:
    """A row of the page."""
    also = f" (with {', '.join(f'`{option}`' for option in row.covers)})" if row.covers else ""
    name = f'<a id="{anchor(row.option)}"></a>`{row.option}`{also}'
    cells = (
        name,
        " ".join(row.guide),
        row.claim,
        row.observable,
        measured,
        "yes" if holds else "NO",
    )
    return "| " + " | ".join(map(cell, cells)) + " |"


def page(
    measured: dict[str, Measured],
    rows: Iterable[Row],
    advice: dict[str, str],
    later: dict[str, str],
) -> str:
    """The whole page."""
    rows = list(rows)
    parts = [HEAD + "\n".join(summary(rows, advice, later))]
    for group in GROUPS:
        mine = [row for row in rows if row.group == group]
        title = f"## {(importlib.import_module(f'proofs.{group}').__doc__ or group).splitlines()[0].rstrip('.')}"
        head = "| option | guide | claim | observable | measured | pass |\n| --- | --- | --- | --- | --- | --- |"
        parts.append(
            "\n".join([title, "", head, *(line_of(row, *measured[row.option]) for row in mine)])
        )
    return "\n\n".join(parts) + "\n"


def listed(page: Path) -> set[tuple[str, str, str]]:
    """(option, guide, observable) of each row that a page lists."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'^\| <a id="[^"]*"></a>`([^`]+)`.*$', text, flags=re.MULTILINE)
    lines = [line for line in text.splitlines() if line.startswith("| <a id=")]
    cells = [re.split(r"(?<!\\) \| ", line) for line in lines]
    return {(option, parts[1], parts[3]) for option, parts in zip(found, cells, strict=True)}
