"""Composes conf/train.yaml as the command line does."""

import warnings
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from goldilocks.config.choices import chosen
from goldilocks.config.grammar import read_as_typed
from goldilocks.config.places import CONF
from goldilocks.config.search_ranges import of_run


def register_resolvers() -> None:
    """Registers `${direction:METRIC}`: min or max, whichever is better for the metric. Called before Hydra composes.

    From then on files of others are judged. Also welcomes, in silence, the schemas that launchers' packages bring for files of the same names in conf/.
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


def composed_differently(cfg: DictConfig, words: list[str]) -> str | None:
    """The first key in which a stored configuration differs from what its overrides compose today."""
    stored, today = flat(cfg), flat(compose(words)[0])
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


def compose(words: list[str]) -> tuple[DictConfig, dict[str, Any]]:
    """Composes conf/train.yaml as the command line does; returns the configuration and the choices."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra_compose("train", overrides=words, return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    return of_run(cfg), chosen(choices, cfg)
