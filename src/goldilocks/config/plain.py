"""A configuration as plain values, in a fraction of OmegaConf's time.

Private names of OmegaConf; tests/config/test_plain.py compares what they come to.
"""

import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import Container, Node

MISSING = "???"
KEY = re.compile(r"\$\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\}")  # a reference to another key


class UnusualError(Exception):
    """Something that OmegaConf is to look at."""


def plain(cfg: DictConfig, *, resolve: bool = True, throw_on_missing: bool = False) -> Any:
    """What `OmegaConf.to_container` gives.

    Raises:
        OmegaConfBaseException: as that does.
    """
    try:
        return values_of(cfg, resolve)
    except (UnusualError, RecursionError):
        return OmegaConf.to_container(cfg, resolve=resolve, throw_on_missing=throw_on_missing)


def values_of(node: Any, resolve: bool) -> Any:
    """The values below a node: those without references are read as they are stored."""
    if not isinstance(node, Container):
        return value_of(node, resolve)
    content = node._content
    if isinstance(content, dict) and type(node) is DictConfig:
        return {key: values_of(inner, resolve) for key, inner in content.items()}
    if isinstance(content, list) and type(node) is ListConfig:
        return [values_of(inner, resolve) for inner in content]
    if content is None:
        return None
    if isinstance(content, str) and content != MISSING:
        return followed(node) if resolve else content
    raise UnusualError


def value_of(node: Any, resolve: bool) -> Any:
    """The value of a leaf."""
    value = node._value() if isinstance(node, Node) else node
    if not isinstance(value, str):
        return value
    if value == MISSING:
        raise UnusualError
    return followed(node) if resolve and "${" in value else value


def followed(node: Node) -> Any:
    """The value of a reference."""
    if (match := KEY.fullmatch(str(node._value()))) is not None:
        return values_of(named(node._get_root(), match[1].split(".")), resolve=True)
    try:
        found = node._maybe_dereference_node(throw_on_resolution_failure=True)
    except Exception as error:  # which is told as OmegaConf tells it
        raise UnusualError from error
    if found is None:
        raise UnusualError
    return values_of(found, resolve=True)


def named(node: Any, parts: list[str]) -> Any:
    """The node with a name below another one."""
    for part in parts:
        content = node._content if type(node) is DictConfig else None
        if not isinstance(content, dict) or part not in content:
            raise UnusualError
        node = content[part]
    return node
