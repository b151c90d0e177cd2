"""The parameters of an option: value, what is allowed, what it means, what is searched."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from goldilocks.config.build import import_path
from goldilocks.config.options import text_of
from goldilocks.config.signatures import expected, hints_of, shown
from goldilocks.errors import Refused
from goldilocks.regularization.strengths import Regularization
from goldilocks.sweeps.search.settings import SweepSettings

SCHEMAS = {"regularization": Regularization, "sweep": SweepSettings}  # of groups without _target_
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Parameter:
    """A key of an option."""

    key: str  # as an override names it
    value: str
    allowed: str  # in words; empty where no annotation says so
    meaning: str
    search: str  # the range that the option states; empty: none


def parameters_of_option(group: str, option: str, node: Mapping[str, Any]) -> list[Parameter]:
    """The parameters of an option, in the order of its file.

    Args:
        group: Of the option.
        option: Its name.
        node: What the group is composed to, references not followed.
    """
    comments = comments_of(group, option)
    ranges = node["search"] if isinstance(node.get("search"), Mapping) else {}
    return [
        Parameter(
            f"{group}.{path}",
            shown(value),
            limits(hints_of(schema).get(key)) if schema else "",
            comments.get(path) or documented(schema).get(key, ""),
            str(ranges.get(path) or ""),
        )
        for path, key, value, schema in keys_of(group, option, node)
    ]


def keys_of(
    group: str, option: str, node: Mapping[str, Any]
) -> Iterator[tuple[str, str, Any, Any]]:
    """(path within the group, key, value, class that takes it) of each value of a node."""
    said = comments_of(group, option) if group == "regularization" else node
    yield from walk({key: node[key] for key in node if key in said}, SCHEMAS.get(group))


def walk(
    node: Mapping[str, Any], schema: Any, prefix: str = ""
) -> Iterator[tuple[str, str, Any, Any]]:
    """The values of a node; one with a `_target_` of its own is what that class takes."""
    if isinstance(node.get("_target_"), str):
        schema = class_of(node["_target_"])
    for key, value in node.items():
        is_ranges = key == "search" and not prefix and isinstance(value, Mapping)
        if key == "_target_" or is_ranges:
            continue
        if isinstance(value, Mapping) and value:
            yield from walk(value, None, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", key, value, schema


def class_of(target: str) -> Any:
    """The class that a `_target_` names; None where its package is not installed."""
    try:
        return import_path(target, "")
    except Refused:
        return None


def comments_of(group: str, option: str) -> dict[str, str]:
    """What an option's file says behind its keys, by dotted key; a strength is described where all
    are at zero.

    An option that is made of another has the other's comments too.
    """
    text = text_of(group, option)
    below = re.findall(r"^  - (\w+)$", text, re.MULTILINE) if "defaults:" in text else []
    found: dict[str, str] = {}
    for other in below:
        if other != "_self_":
            found |= comments_of(group, other)
    own = comments_in(text)
    if group == "regularization" and option != "none":
        general = comments_of(group, "none")
        return found | {key: general.get(key) or said for key, said in own.items()}
    return found | own


def comments_in(text: str) -> dict[str, str]:
    r"""The comment behind each key of a YAML file, by dotted key; empty where there is none.

    >>> comments_in("a: 1   # one\nb:\n  c: 2  # two\n")
    {'a': 'one', 'b': '', 'b.c': 'two'}
    """
    found: dict[str, str] = {}
    above: list[str] = []
    for spaces, key, said in re.findall(r"^( *)([\w/]+):[^#\n]*(?:#+ *(.*))?$", text, re.MULTILINE):
        above = [*above[: len(spaces) // 2], key]
        found[".".join(above)] = said
    return found


def limits(annotation: Any) -> str:
    """What an annotation allows, in words with its bounds.

    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> limits(Annotated[int, Field(ge=1)])
    'a whole number, at least 1'
    >>> limits(None)
    ''
    """
    if annotation is None:
        return ""
    return ", ".join([expected(annotation), *dict.fromkeys(bounds(annotation))])


def bounds(annotation: Any) -> Iterator[str]:
    """The bounds that an annotation, or a part of it, states."""
    for part in get_args(annotation):
        for constraint in getattr(part, "metadata", ()):
            for name, words in BOUNDS.items():
                if (value := getattr(constraint, name, None)) is not None:
                    yield f"{words} {value:,}"
        yield from bounds(part)


def documented(schema: Any) -> dict[str, str]:
    """What a class's docstring says of its arguments: ours, and torch's `name (type): text`."""
    found: dict[str, str] = {}
    for kind in reversed(schema.__mro__ if inspect.isclass(schema) else ()):
        if kind.__module__ == "builtins":
            continue
        for text in (kind.__doc__, getattr(vars(kind).get("__init__"), "__doc__", None)):
            plain = inspect.cleandoc(text or "")
            section = re.search(r"^Args:\n(.*?)(?:\n\S|\Z)", plain, re.M | re.S)
            if section:
                found |= dict(arguments_in(section[1]))
    return found


def arguments_in(section: str) -> Iterator[tuple[str, str]]:
    r"""Name and text of the arguments of a docstring's section.

    >>> dict(arguments_in("    lr (float): the rate\n        (default: 1)\n    a: b."))
    {'lr': 'the rate', 'a': 'b'}
    """
    entry = re.compile(r"^ {4}\*{0,2}(\w+)(?: *\([^\n]*?\))?: *(.*?)(?=^ {4}\S|\Z)", re.M | re.S)
    for name, text in entry.findall(section):
        plain = " ".join(text.split())
        said = re.sub(r" *\(default: (?:[^()]|\([^()]*\))*\)", "", plain).rstrip(".")
        yield name, said if said[1:2].isupper() else said[:1].lower() + said[1:]
