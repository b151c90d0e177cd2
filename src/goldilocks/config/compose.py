"""Composes conf/train.yaml as the command line does."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from goldilocks.config.choices import chosen
from goldilocks.config.grammar import read_as_typed
from goldilocks.config.options import roots
from goldilocks.config.places import CONF, own_conf
from goldilocks.config.search_ranges import of_run


def prepare_hydra() -> None:
    """Prepares Hydra for this project; called before it composes.

    Registers `${direction:METRIC}`, which is min or max, whichever is better for the metric; checks
    options files of others; reads overrides as users type them; and silences Hydra's warnings about
    the schemas that launchers' packages bring for files of the same names in conf/.
    """
    from omegaconf import OmegaConf

    from goldilocks.config.metric_directions import direction
    from goldilocks.config.strangers import guard_hydra

    def of_root(metric: str, *, _root_: Any) -> str:
        return direction(metric, _root_.get("metrics"))

    OmegaConf.register_new_resolver("direction", of_root, replace=True)
    guard_hydra()
    read_as_typed()
    warnings.filterwarnings("ignore", message="(?s).*is validated against ConfigStore schema")


def composed_differently(cfg: DictConfig, overrides: list[str]) -> str | None:
    """The first key in which a stored configuration differs from what
    its overrides compose today.
    """
    stored, today = flat(cfg), flat(compose(overrides)[0])
    return next(
        (
            key
            for key in {**stored, **today}
            if stored.get(key) != today.get(key) and key != "packages"
        ),
        None,
    )


def flat(cfg: DictConfig) -> dict[str, Any]:
    """The leaves of a resolved configuration by dotted key."""
    leaves: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{prefix}.{key}".lstrip("."))
        else:
            leaves[prefix] = node

    walk(OmegaConf.to_container(cfg, resolve=True), "")
    return leaves


def compose(overrides: list[str]) -> tuple[DictConfig, dict[str, Any]]:
    """Composes conf/train.yaml as the command line does;
    returns the configuration and the choices.
    """
    prepare_hydra()
    cfg = composed_from(roots(), overrides)
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    return of_run(cfg), chosen(choices, cfg)


def composed_from(folders: Sequence[Path], overrides: Sequence[str]) -> DictConfig:
    """What overrides compose with the options of several folders, Hydra's settings among it.

    Hydra's own state, as that of a sweep that runs, is not touched.

    Args:
        folders: Of options, in the order in which they are looked for. Those that are trusted are
            looked for in any case: Hydra's plugin of ours adds a project's.
        overrides: As on the command line.
    """
    return loader_of(folders).load_configuration("train", list(overrides), run_mode=RunMode.RUN)


def loader_of(folders: Sequence[Path]) -> ConfigLoaderImpl:
    """What composes with the options of several folders; see `composed_from`."""
    Plugins.instance()  # registers what reads the folders
    places = create_config_search_path(str(CONF))
    for folder in (folder for folder in folders if folder not in own_conf()):
        places.prepend("command-line", f"file://{folder.resolve()}", anchor="schema")
    return ConfigLoaderImpl(places)
