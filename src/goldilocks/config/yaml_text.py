"""Plain values as the text of a YAML file, as OmegaConf writes it, in a tenth of its time."""

from collections.abc import Mapping
from typing import Any

import yaml
from omegaconf._utils import OmegaConfDumper


class Dumper(yaml.CSafeDumper):
    """The library in C, with OmegaConf's quotes: it takes 1e-3 for a number where YAML does not."""


Dumper.add_representer(str, OmegaConfDumper.str_representer)


MOST = 1000  # groups whose text is remembered

texts: dict[str, str] = {}  # of a group, by what `repr` says of it


def as_yaml(values: Mapping[str, Any] | list[Any]) -> str:
    """The text of a file that `OmegaConf.load` reads. Groups that a sweep's trials share are
    written once a process.
    """
    if not isinstance(values, Mapping) or not values:
        return dumped(values)
    return "".join(text_of({key: value}) for key, value in values.items())


def text_of(group: dict[str, Any]) -> str:
    """The text of one key and what is below it."""
    known = repr(group)
    if known not in texts:
        while len(texts) >= MOST:
            del texts[next(iter(texts))]
        texts[known] = dumped(group)
    return texts[known]


def dumped(values: Any) -> str:
    return yaml.dump(
        values, Dumper=Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False
    )
