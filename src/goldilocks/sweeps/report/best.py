"""The best trial of a sweep as an option:
`python train.py --config-dir SWEEP experiment=best` trains it once more.
"""

import copy
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from goldilocks.config.choices import NOT_HASHED
from goldilocks.config.compose import composed_from
from goldilocks.config.places import own_conf
from goldilocks.config.search_ranges import of_run
from goldilocks.errors import Refused
from goldilocks.sweeps.execution.trials import Trial
from goldilocks.training.checks import check

APART = ("experiment", "sweep")  # groups that say nothing more, once the rest has been composed


def write_best(folder: Path, trial: Trial, about: str) -> Path:
    """Writes `experiment/best.yaml` into a sweep folder.

    The options of the trial are chosen, and what its configuration has otherwise is set. An option
    that is not in conf/ (it came from a --config-dir) is copied into the sweep folder, which is the
    --config-dir from then on.

    Args:
        folder: Of the sweep.
        trial: Frozen.
        about: A line for the file's head.
    """
    wanted = OmegaConf.to_container(trial.config, resolve=False)
    assert isinstance(wanted, dict)
    chosen: dict[str, str] = {}
    for group, option in trial.choices.items():
        if "/" in group or group in APART or not isinstance(option, str):
            continue
        if not any((own / group / f"{option}.yaml").exists() for own in own_conf()):
            if not isinstance(wanted.get(group), dict):
                continue
            write(
                folder / group / f"{option}.yaml",
                OmegaConf.to_yaml(OmegaConf.create(wanted[group])),
            )
        chosen[group] = option
    given = OmegaConf.to_container(
        composed(folder, [f"{group}={option}" for group, option in chosen.items()])
    )
    assert isinstance(given, dict)
    values = difference(without(dict(wanted)), without(dict(given)))
    lines = ["# @package _global_", f"# {about}", "defaults:"]
    lines += [f"  - override /{group}: {option}" for group, option in chosen.items()]
    text = OmegaConf.to_yaml(OmegaConf.create(values)) if values else ""
    return write(
        folder / "experiment" / "best.yaml",
        "\n".join(lines) + "\n\n" * bool(values) + text.rstrip() + "\n",
    )


def write(path: Path, text: str) -> Path:
    """Writes a file under another name first: a reader never sees half of it."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(path)


def composed(folder: Path, overrides: Iterable[str]) -> DictConfig:
    """What overrides compose with conf/ and the options in a folder."""
    cfg = composed_from([folder], list(overrides))
    return of_run(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))


def without(config: Mapping[Any, Any]) -> dict[str, Any]:
    """A configuration without what does not change the numbers."""
    return {key: value for key, value in config.items() if key not in NOT_HASHED}


def difference(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be set in one configuration to get another; null takes away what is not wanted.

    >>> difference({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 1, "d": 3, "e": 4}})
    {'b': {'c': 2, 'e': None}}
    """
    found: dict[str, Any] = {}
    for key, value in wanted.items():
        before = given.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := difference(value, before):
                found[key] = inner
        elif key not in given or value != before:
            found[key] = value
    return found | {key: None for key in given if key not in wanted and given[key] is not None}


def is_allowed(config: DictConfig, key: str, value: float) -> bool:
    """Whether a trial's configuration would be right with another number."""
    changed = copy.deepcopy(config)
    OmegaConf.update(changed, key, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(changed)
    except Refused:
        return False
    return True
