"""From a command line with several values to the configuration of each trial."""

import copy
import pickle
import re
import shutil
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict

from goldilocks.config.options import option_files
from goldilocks.config.search_ranges import of_run, stated_ranges
from goldilocks.errors import Refused, near_miss

FILES = "file://"
MAIN, OWN = "main", "command-line"  # what Hydra calls conf/ and a --config-dir


class Base(NamedTuple):
    """What trials share that choose the same options."""

    config: DictConfig
    pickled: bytes  # the same; a copy takes a third of deepcopy's time
    choices: dict[str, Any]  # option by group
    ranges: dict[str, dict[str, str | None]]  # to search, by group and its key


class Composer:
    """Composes the trials of a sweep.

    Hydra takes about 50 ms for a composition, most of it for the defaults list. Trials that choose
    the same options and differ in values only share one: the values are applied to a copy, by the
    same function of Hydra's.

    Args:
        sweeper: What Hydra made: the command's configuration and its context.
    """

    def __init__(self, sweeper: Any) -> None:
        self.loader = sweeper.hydra_context.config_loader
        self.config = copy.deepcopy(sweeper.config)  # a trial's needs no launcher
        own = self.config.hydra.overrides
        own.hydra = without_launcher(own.hydra)
        parser = OverridesParser.create(config_loader=self.loader)
        self.parse = cache(parser.parse_override)
        self.sets_value = cache(lambda override: self.is_value(self.parse(override)))
        self.composed: dict[tuple[str, ...], Base] = {}

    def compose(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
        """A trial's configuration, frozen before the first trial starts,
        and the options that Hydra chose by group.

        Raises:
            Refused: for `resume`. Hydra's own exceptions for overrides that it cannot compose.
        """
        parsed = [self.parse(override) for override in overrides]
        if any(override.key_or_group == "resume" for override in parsed):
            raise Refused(
                "resume: is for a single run; a sweep goes on by the same command with the same"
                " name"
            )
        values = [self.parse(override) for override in overrides if self.sets_value(override)]
        base = self.base(overrides)
        cfg = pickle.loads(base.pickled)
        OmegaConf.set_struct(cfg, True)
        self.loader._apply_overrides_to_config(values, cfg)
        return cfg, base.choices

    def ranges(self, overrides: Sequence[str], group: str) -> dict[str, str | None]:
        """The ranges that the chosen option of a group states, by its own keys.

        Raises:
            Refused: if there is no such group.
        """
        base = self.base(overrides)
        if group not in base.choices and group not in base.config:
            raise Refused(
                f"sweep.search=[{group}]: no such group;"
                f" {near_miss(group, list(map(str, base.config)))}"
            )
        return base.ranges.get(group, {})

    def base(self, overrides: Sequence[str]) -> "Base":
        """What overrides compose without those of them that only set values."""
        rest = tuple(override for override in overrides if not self.sets_value(override))
        if rest not in self.composed:
            cfg = self.loader.load_sweep_config(self.config, list(rest))
            choices, ranges = dict(cfg.hydra.runtime.choices), stated_ranges(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            for group in ("sweep", "project"):
                choices.pop(group, None)
            own = of_run(cfg)
            self.composed[rest] = Base(own, pickle.dumps(own), choices, ranges)
        return self.composed[rest]

    def is_value(self, override: Override) -> bool:
        """Whether an override sets a value of ours, instead of choosing,
        adding or removing something.
        """
        plain = override.type == OverrideType.CHANGE and override.package is None
        of_hydra = override.key_or_group.startswith("hydra.")
        return (
            plain
            and not of_hydra
            and not self.loader.repository.group_exists(override.key_or_group)
        )

    def freeze(self, folder: Path) -> None:
        """Copies the options' files, unless that is done, and composes from the copies:
        edits change nothing later.
        """
        for provider, source in self.directories().items():
            if (folder / provider).exists():
                continue
            temporary = folder / f"{provider}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for path in option_files(source):
                copied = temporary / path.relative_to(source)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copied)
            temporary.replace(folder / provider)
        self.read_from(folder)

    def read_from(self, folder: Path) -> None:
        """Composes from the copies that a folder holds:
        of the options of a `--config-dir` too, named again or not.
        """
        if not (folder / MAIN).is_dir():
            return
        places = ConfigSearchPathImpl()
        directories = self.directories()
        if (folder / OWN).is_dir():
            directories.setdefault(OWN, folder / OWN)
        for element in self.loader.get_search_path().get_path():
            if not is_directory(element.path):
                places.append(element.provider, element.path)
            elif element.provider == MAIN:
                for provider, live in directories.items():
                    copied = folder / provider
                    path = copied if copied.is_dir() else live
                    places.append(provider, f"{FILES}{path.resolve()}")
        self.loader = ConfigLoaderImpl(places)
        self.composed.clear()
        self.sets_value.cache_clear()

    def directories(self) -> dict[str, Path]:
        """The directories of the options' files in the order in which Hydra looks,
        by who named them.
        """
        elements = self.loader.get_search_path().get_path()
        return {
            element.provider: Path(element.path.removeprefix(FILES))
            for element in elements
            if is_directory(element.path)
        }


def without_launcher(overrides: Iterable[str]) -> list[str]:
    """Overrides of Hydra's own without those that choose a launcher or its options."""
    return [own for own in overrides if not re.match(r"\+*hydra[./]launcher", own)]


def is_directory(path: str) -> bool:
    """Whether an entry of Hydra's search path is a directory, rather than a package."""
    return path.startswith(FILES) or "://" not in path
