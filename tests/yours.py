"""Which options are those of whoever has cloned the project:
they name classes of the packages in conf/train.yaml.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from goldilocks.config.places import CONF

PACKAGES = tuple(yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["packages"])
FILES = sorted(path for path in CONF.rglob("*.yaml") if path.parent != CONF)
OPTIONS = [(path.parent.relative_to(CONF).as_posix(), path.stem) for path in FILES]


def is_yours(group: str, option: str) -> bool:
    """Whether an option, or one that it is made of, names a class of your packages."""
    if any(target.partition(".")[0] in PACKAGES for target in targets_of(group, option)):
        return True
    entries = content_of(group, option).get("defaults", ())
    below = [pair for entry in entries for pair in made_of(entry, group)]
    return any(pair in OPTIONS and is_yours(*pair) for pair in below)


def targets_of(group: str, option: str) -> list[str]:
    """The classes that an option's own file names."""
    return list(targets_in(content_of(group, option)))


def content_of(group: str, option: str) -> dict[str, Any]:
    """What an option's file says."""
    return yaml.safe_load((CONF / group / f"{option}.yaml").read_text(encoding="utf-8")) or {}


def targets_in(node: Any) -> Iterator[str]:
    """Every `_target_` of nested mappings and lists."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from targets_in(value)


def made_of(entry: Any, group: str) -> Iterator[tuple[str, str]]:
    """The options that an entry of a defaults list chooses: `digits`, `{override /model: deep}`."""
    chosen = entry if isinstance(entry, dict) else {group: entry}
    for place, names in chosen.items():
        for name in names if isinstance(names, list) else [names]:
            yield place.removeprefix("override ").strip().lstrip("/"), name


YOURS = [pair for pair in OPTIONS if is_yours(*pair)]
