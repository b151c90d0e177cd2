"""Which options a run chose, and the hash by which a configuration is known."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from goldilocks.config.places import home
from goldilocks.config.plain import plain
from goldilocks.config.search_ranges import SWEEP

# What does not change the numbers.
NOT_HASHED = ("name", "log_dir", "resume", "record_changes", "kept_predictions", "packages")


def plain_overrides(overrides: Any) -> list[str]:
    """Overrides as they were written: `${...}` in them is not for this list to resolve."""
    return [str(override) for override in OmegaConf.to_container(overrides, resolve=False) or []]


def config_hash(cfg: DictConfig) -> str:
    """Twelve hex digits of the resolved configuration, without what does not change the numbers."""
    return hash_of(plain(cfg))


def hash_of(values: Mapping[Any, Any]) -> str:
    """The same of a configuration that is resolved already."""
    relevant = {key: value for key, value in values.items() if key not in NOT_HASHED}
    if isinstance(data := relevant.get("data"), dict):
        relevant["data"] = {key: same_place(key, value) for key, value in data.items()}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()[
        :12
    ]


def same_place(key: str, value: Any) -> Any:
    """A path in one way, whether it was given as a relative or an absolute one:
    seen from the project, if it is in it.
    """
    if isinstance(value, list):
        return [same_place(key, option) for option in value]
    if not isinstance(value, str) or not (key in ("path", "root") or key.endswith("_path")):
        return value
    path = Path(value).expanduser().absolute().resolve()
    project = home().resolve()
    return str(path.relative_to(project) if path.is_relative_to(project) else path)


def chosen(choices: Mapping[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """Option by group. Hydra leaves out groups of which several may be chosen:
    they are read off what they set.
    """
    single = {
        group: option
        for group, option in choices.items()
        if option is not None and "/" not in group
    }
    for group in (SWEEP, "project"):
        single.pop(group, None)
    several = {
        "regularization": [
            key for key, strength in cfg.get("regularization", {}).items() if is_on(strength)
        ],
        "logger": [key for key, node in cfg.get("logger", {}).items() if node is not None],
        "metrics": [key for key, node in cfg.get("metrics", {}).items() if node is not None],
    }
    return {**single, **several}


def is_on(strength: Any) -> bool:
    """Whether a strength is not zero; of several, or of the keywords of a class, any."""
    if isinstance(strength, Mapping):
        return any(is_on(value) for key, value in strength.items() if key != "_target_")
    return any(strength) if isinstance(strength, list | ListConfig) else bool(strength)


def is_said(key: str, value: Any, chosen: Any) -> bool:
    """Whether a value is no class, no reference and no name that repeats the choice."""
    refers = isinstance(value, str) and "${" in value
    return key != "_target_" and not refers and (key != "name" or value != chosen)


def flat_options(cfg: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run by dotted key, for HPARAMS and tables:
    choices, then values that are not references.

    A name that only repeats the choice is left out: `data=iris` says `data.name: iris` too.
    """
    flat: dict[str, Any] = {
        group: "+".join(value) if isinstance(value, list) else value
        for group, value in choices.items()
    }

    def walk(node: Mapping[Any, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif is_said(key, value, flat.get(prefix[:-1])):
                flat[f"{prefix}{key}"] = value

    for group, value in plain(cfg, resolve=False).items():
        if group in (*NOT_HASHED, "logger", "metrics"):
            continue
        if isinstance(value, dict):
            walk(value, f"{group}.")
        else:
            flat[group] = cfg[group]
    return flat
