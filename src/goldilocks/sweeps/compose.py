"""From a command line with several values to the configuration of each trial."""

import copy
import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict

from goldilocks.errors import Refused


class Composer:
    """Composes the trials of a sweep.

    Hydra takes about 50 ms for a composition, most of it for the defaults list. Trials that choose the same options and
    differ in values only share one: the values are applied to a copy, by the same function of Hydra's.

    Args:
        sweeper: What Hydra made: the command's configuration and its context.
    """

    def __init__(self, sweeper: Any) -> None:
        self.config, self.loader = sweeper.config, sweeper.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=self.loader)
        self.parse = cache(parser.parse_override)
        self.composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any]]] = {}

    def expand(self, arguments: Sequence[str]) -> list[tuple[list[str], dict[str, str]]]:
        """Every combination of a command line's values; see the function."""
        return expand([self.parse(argument) for argument in arguments])

    def compose(self, words: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
        """A trial's configuration, frozen before the first trial starts, and the options that Hydra chose by group.

        Raises:
            Refused: for `resume`. Hydra's own exceptions for words that it cannot compose.
        """
        parsed = [self.parse(word) for word in words]
        if any(override.key_or_group == "resume" for override in parsed):
            raise Refused("resume: is for a single run; a sweep goes on by the same command with the same name")
        values = [override for override in parsed if self.is_value(override)]
        rest = tuple(word for word, override in zip(words, parsed, strict=True) if not self.is_value(override))
        if rest not in self.composed:
            cfg = self.loader.load_sweep_config(self.config, list(rest))
            choices = dict(cfg.hydra.runtime.choices)
            with open_dict(cfg):
                del cfg["hydra"]
            self.composed[rest] = cfg, choices
        base, choices = self.composed[rest]
        cfg = copy.deepcopy(base)
        OmegaConf.set_struct(cfg, True)
        self.loader._apply_overrides_to_config(values, cfg)
        return cfg, choices

    def is_value(self, override: Override) -> bool:
        """Whether an override sets a value of ours, instead of choosing, adding or removing something."""
        plain = override.type == OverrideType.CHANGE and override.package is None
        of_hydra = override.key_or_group.startswith("hydra.")
        return plain and not of_hydra and not self.loader.repository.group_exists(override.key_or_group)


def expand(overrides: Sequence[Override]) -> list[tuple[list[str], dict[str, str]]]:
    """Every combination of the values: the words of each trial, and those of them that vary by key."""
    values: list[list[tuple[str, str | None, str]]] = []
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values.append([(str(override.input_line), None, "")])
            continue
        if not override.is_discrete_sweep():
            raise Refused(f"{override.input_line}: a range without steps; write values or range(start,stop,step)")
        if key in ("name", "log_dir"):
            raise Refused(f"{override.input_line}: a sweep has one {key}; write a single value")
        words = [str(value) for value in override.sweep_string_iterator()]
        values.append([(f"{key}={word}", key, word) for word in words])
    return [
        ([word for word, _, _ in combination], {key: value for _, key, value in combination if key is not None})
        for combination in itertools.product(*values)
    ]
