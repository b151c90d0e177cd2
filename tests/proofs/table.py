"""What a row is, and which options need one."""

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Set
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
        option: As it is written on the command line: `optimizer=adam`, `model.width`.
            What combines several has a space in it.
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


# --- which options need a row ---------------------------------------------------------------------


@cache
def needed() -> dict[str, set[str]]:
    """Every option there is, and for an option file the keys that it sets;
    not those of your own classes.

    They are: the files of conf/, the keys in them and at the top of conf/train.yaml, and for a key
    whose annotation is a list of words each word.
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
    for path in sorted(CONF.rglob("*.yaml")):
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
    """The words that an annotation allows, where it allows nothing but
    words (and numbers as one of them).
    """
    if get_origin(hint) is Literal:
        return {str(word) for word in get_args(hint)}
    inner = [kind for kind in get_args(hint) if kind is not type(None)]
    words = [literal_words(kind) for kind in inner]
    return set().union(*words) if inner and all(words) else set()


TOGETHER = tuple(
    f"model={name}" for name in ("linear", "shallow", "deep", "wide", "pyramid", "selfnorm")
)  # one class


def without_row(needed: dict[str, set[str]], rows: Iterable[Row], may_wait: Set[str]) -> list[str]:
    """Options that no row proves, but for those that may wait,
    and rows of options that are gone.
    """
    rows = list(rows)
    proved = proved_by(rows)
    own = {row.option: {row.option, *row.covers} for row in rows}
    single = {row.option for row in rows}
    missing = [
        f"{option}: has no row"
        for option in needed
        if option not in proved and option not in may_wait
    ]
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


def proved_by(rows: Iterable[Row]) -> set[str]:
    """The options that rows prove, each by itself."""
    return {option for row in rows for option in (row.option, *row.covers) if " " not in option}


# --- which may wait for their row -----------------------------------------------------------------

OURS = ("goldilocks.", "hydra_plugins.goldilocks.")


def may_wait(needed: dict[str, set[str]]) -> set[str]:
    """The options of a library, and the keys that no option of ours has:
    they may be without a row.
    """
    files = {option for option in needed if path_of(option).exists()}
    theirs = {option for option in files if not is_ours(path_of(option))}
    keys = {key for option in theirs for key in needed[option]}
    shared = {key for option in files - theirs for key in needed[option]}
    return theirs | (keys - shared)


def not_yet_shown(needed: dict[str, set[str]], rows: Iterable[Row]) -> list[str]:
    """The options that wait for their row; their keys wait with them."""
    waiting = may_wait(needed) - proved_by(rows)
    return sorted(option for option in waiting if path_of(option).exists())


def path_of(option: str) -> Path:
    """The file of an option, `optimizer=adam`; of anything else a path that does not exist."""
    from goldilocks.config.places import CONF

    group, _, name = option.partition("=")
    return CONF / group / f"{name}.yaml"


def is_ours(path: Path) -> bool:
    """Whether our own code does what an option file says.

    So it is where a `_target_` in it is ours; a file without one is judged by the file that it
    extends, and without that too it sets keys of ours. Experiments and sweeps only combine options,
    but for the sweep that has all keys.
    """
    from omegaconf import OmegaConf

    if path.parent.name in ("experiment", "sweep"):
        return path.stem == "default"
    node: Any = OmegaConf.to_container(OmegaConf.load(path))
    if found := list(targets_in(node)):
        return any(target.startswith(OURS) for target in found)
    extended = [name for name in node.get("defaults", ()) if name != "_self_"]
    return all(is_ours(path.with_name(f"{name}.yaml")) for name in extended)


def targets_in(node: Any) -> Iterator[str]:
    """Each `_target_` in a node and in the nodes inside it."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for inner in node.values():
            yield from targets_in(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from targets_in(inner)
