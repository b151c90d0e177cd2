"""What of a composed configuration is a run's: not what it says of sweeps."""

import copy
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

SWEEP, SEARCH = "sweep", "search"


def of_run(cfg: DictConfig) -> DictConfig:
    """A configuration without the group `sweep` and without the ranges that options state;
    itself where it has none.
    """
    if is_of_run(cfg):
        return cfg
    cfg = copy.deepcopy(cfg)
    with open_dict(cfg):
        cfg.pop(SWEEP, None)
    for group in searched_groups(cfg):
        with open_dict(cfg[group]):
            del cfg[group][SEARCH]
    return cfg


def is_of_run(cfg: DictConfig) -> bool:
    """Whether a configuration says nothing of sweeps."""
    return SWEEP not in cfg.keys() and not searched_groups(cfg)  # noqa: SIM118 - see there


def stated_ranges(cfg: DictConfig) -> dict[str, dict[str, str | None]]:
    """What the chosen options find worth searching:
    by group, for its own keys, as an override says it.
    """
    found: dict[str, Any] = {}
    for group in searched_groups(cfg):
        node = OmegaConf.to_container(cfg[group][SEARCH], resolve=True)
        assert isinstance(node, dict)
        found[group] = {str(key): text for key, text in node.items()}
    return found


def searched_groups(cfg: DictConfig) -> list[str]:
    """The groups whose option states ranges."""
    # `in` of OmegaConf makes and catches an exception for what is not there:
    # keys() takes a hundredth of it.
    nodes = {str(group): cfg._get_node(group) for group in cfg}
    return [
        group
        for group, node in nodes.items()
        if group != SWEEP and isinstance(node, DictConfig) and SEARCH in node.keys()  # noqa: SIM118
    ]
