"""Overrides as users type them: what Hydra's grammar cannot read is taken as text.

Hydra reads `data.target='Price (EUR)'`; a shell takes the quotes away, and `größe.csv` needs them
too. Import-light: every command passes here before its configuration is known.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from goldilocks.config.options import groups, options
from goldilocks.errors import Refused, near_miss

COLUMNS = "data.columns"  # keys below are names of the user's own columns
ONE_OPTION = (
    "data",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "trainer",
    "hydra/sweeper",
    "hydra/launcher",
)
SEVERAL = ("regularization", "metrics", "logger", "callbacks", "sweep", "hydra")
OURS = (
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.output_subdir",
    "hydra.job.chdir",
)
OPEN_DICTS = (COLUMNS, "sweep.params")  # may hold any key
# Their values are text whatever they look like: a column may be called 2024.
TEXTS = (
    *(f"data.{key}" for key in ("path", "target", "val_path", "test_path")),
    *(f"data.{key}_column" for key in ("split", "group", "time")),
    "name",
    "log_dir",
)
UNQUOTED = re.compile(r"[\w.-]+", flags=re.ASCII)


def read_as_typed() -> None:
    """Makes Hydra's parser read overrides as users type them, in this process.
    A second call changes nothing.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not hasattr(OverridesParser.parse_rule, "__wrapped__"):
        patched = reading_text(OverridesParser.parse_rule)
        OverridesParser.parse_rule = patched  # type: ignore[method-assign]


def reading_text(parse_rule: Callable[..., Any]) -> Callable[..., Any]:
    """The parser's method, which tries the repaired forms of an override that it cannot read."""

    @wraps(parse_rule)
    def parse(self: Any, text: str, rule: str) -> Any:
        def read(override: str) -> Any:
            return parse_rule(self, override, rule)

        if rule != "override":
            return read(text)
        found = read_override(read, text)
        found.config_loader = self.config_loader  # glob() asks it for the options
        return found

    return parse


def read_override(read: Callable[[str], Any], override: str) -> Any:
    """What Hydra makes of an override.

    Args:
        read: Hydra's own reading; raises HydraException for what its grammar does not have.
        override: As it was typed: `key=value`, perhaps with + or ~ before it.
    """
    from hydra.core.override_parser.types import Glob, QuotedString, Sweep
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    plain = key.lstrip("+")
    check_key(override)
    if plain in OURS:
        raise Refused(
            f"{override}: run folders are made by goldilocks; write log_dir=FOLDER or name=NAME"
        )
    if plain in ONE_OPTION and (".." in value or value.startswith("/")):
        raise Refused(f"{override}: options have names, no paths; write {plain}=NAME, see --help")
    if plain in ONE_OPTION and value.startswith("["):
        raise Refused(f"{override}: takes one option; {one_of_those(plain, value.strip('[]'))}")
    if equals and plain.startswith(f"{COLUMNS}."):
        return read_column(read, override)
    if equals and plain in OPEN_DICTS and value.startswith("{"):
        return read_dict(read, plain, value, override)
    try:
        found = read(override)
    except HydraException as error:
        return read_repaired(read, override, error)
    check_range(found, override)
    if plain in (*ONE_OPTION, *SEVERAL) and not isinstance(
        found._value, str | list | QuotedString | Sweep | Glob
    ):
        raise Refused(f"{override}: takes the name of an option; write {plain}=NAME, see --help")
    if plain in TEXTS and isinstance(found.value(), int | float):  # bool is one too
        found = read(f"{key}={quote(value)}")
        found.input_line = override
    return found


def check_key(override: str) -> None:
    """Refuses an override that has no key, or Hydra's packages, which nothing here uses."""
    key = override.partition("=")[0].lstrip("+~")
    if not key or key[0] in "@./:-":
        raise Refused(f"{override}: has no key; write key=value or group=option")
    if "@" in key and not key.startswith(f"{COLUMNS}."):
        name = key.partition("@")[0]
        instead = f"write {override.replace(key, name)}"
        if "." not in name and name not in groups():
            instead = near_miss(name, groups())
        raise Refused(f"{override}: no such key; {instead}")


def one_of_those(group: str, listed: str) -> str:
    """What to write in place of a list of options, those among them that there are."""
    known = options(group)
    right = [name for name in map(str.strip, items_of(listed)) if name in known or not known]
    if not right:
        return f"write one of: {', '.join(known)}"
    several = f", or several with -m for a sweep: {group}={','.join(right)}"
    return f"write {group}={right[0]}{several if len(right) > 1 else ''}"


def check_range(found: Any, override: str) -> None:
    """Refuses a range that has no end, which Hydra would enumerate, or no values.

    Args:
        found: Hydra's Override.
        override: As it was typed.
    """
    from hydra.core.override_parser.types import RangeSweep

    value = found._value
    if not isinstance(value, RangeSweep):
        return
    start, stop, step = (float(number or 0) for number in (value.start, value.stop, value.step))
    if not step or not all(map(math.isfinite, (start, stop, step))):
        raise Refused(
            f"{override}: has no end; write range(START,STOP,STEP), numbers of which STEP is not 0"
        )
    if (stop - start) / step <= 0:
        raise Refused(
            f"{override}: holds no values: steps of {step:g} do not lead from {start:g} to"
            f" {stop:g};"
            " write range(START,STOP,STEP), where STEP below 0 goes down"
        )


def read_repaired(read: Callable[[str], Any], override: str, error: Exception) -> Any:
    """The first of the repaired forms that Hydra can read;
    the error of the override itself where none is.
    """
    from hydra.errors import HydraException

    for repaired in repairs(override):
        try:
            found = read(repaired)
        except HydraException:
            continue
        found.input_line = override
        return found
    raise error


def repairs(override: str) -> Iterator[str]:
    """Forms of an override with text in quotes, the likeliest first.

    >>> list(repairs("data.target=Price (EUR)"))
    ["data.target='Price (EUR)'"]
    >>> list(repairs("data.path=[größe.csv,b.csv]"))
    ["data.path=['größe.csv','b.csv']"]
    >>> list(repairs("data.target=Price (EUR),b"))
    ["data.target='Price (EUR)','b'"]
    >>> list(repairs("größe=1"))
    []
    """
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"\+{0,2}[\w./@:-]+", key, flags=re.ASCII):
        return
    if value != value.strip() and UNQUOTED.fullmatch(value.strip()):
        return  # a space after the equals sign, no text
    if value.startswith("[") and value.endswith("]"):
        yield f"{key}=[{','.join(map(quote, items_of(value[1:-1])))}]"
    elif not value.startswith(("{", "[", "'", '"')) and "${" not in value:
        items = items_of(value)
        whole = all(item.count("(") == item.count(")") for item in items)
        yield f"{key}={','.join(map(quote, items if whole else [value]))}"


def items_of(text: str) -> list[str]:
    """What commas separate.

    >>> items_of("größe.csv, b.csv")
    ['größe.csv', 'b.csv']
    """
    return [item.strip() for item in text.split(",")]


def quote(text: str) -> str:
    """Text as Hydra reads it back; a leading ~ is the user's home.

    >>> print(quote("it's"), quote("'quoted already'"))
    'it\\'s' 'quoted already'
    """
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text
    if text.startswith("~"):
        text = os.path.expanduser(text)
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def read_column(read: Callable[[str], Any], override: str) -> Any:
    """`data.columns.NAME=KIND`: a key that is in no file, whatever signs the name has."""
    key, _, kind = override.rpartition("=")
    name = key.lstrip("+").removeprefix(f"{COLUMNS}.")
    if UNQUOTED.fullmatch(name) and "." not in name:
        return read(f"++{COLUMNS}.{name}={kind}")
    found = read(f"++{COLUMNS}.name={kind}")
    if found.is_sweep_override():
        found.key_or_group = f"{COLUMNS}.{name}"  # each trial's override is read here again
    else:
        found.key_or_group, found._value = COLUMNS, {name: found._value}
    found.input_line = override
    return found


def read_dict(read: Callable[[str], Any], key: str, text: str, override: str) -> Any:
    """`data.columns={colour: drop, größe: drop}`: keys that are in no file."""
    from hydra.errors import HydraException

    try:
        found = read(f"++{key}={text}")
    except HydraException:
        found = read(f"++{key}={{}}")
        found._value = mapping_of(text, override)
    found.input_line = override
    return found


def mapping_of(text: str, override: str) -> dict[str, Any]:
    """A mapping in YAML's short form, whose keys may have any signs.

    Raises:
        Refused: if it is none.
    """
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict) or any(value is None for value in found.values()):
        raise Refused(
            f"{override}: cannot be read; write {override.partition('=')[0]}={{NAME: VALUE}}"
        )
    return {str(key): value for key, value in found.items()}
