"""How long a run may be, and how far it has come:
what a run that is resumed may be given more of.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from goldilocks.errors import Refused
from goldilocks.schedulers.schedule import has_length

LENGTHS = {"trainer.max_epochs": "epochs", "trainer.max_steps": "steps"}  # by key, of result.json


def progress(state: Mapping[str, Any]) -> tuple[dict[str, int], bool]:
    """The epochs and steps of a checkpoint, and whether anything but
    its length has stopped the run.

    result.json begins again when a run is resumed, so a checkpoint knows better.
    """
    done = {"epochs": state["epoch"] + 1, "steps": state["global_step"]}
    return done, state["loops"]["fit_loop"]["state_dict"]["stopped"]


def reached(cfg: DictConfig, done: Mapping[str, int]) -> list[str]:
    """The limits of a configuration that a run has reached."""
    limits = {key: OmegaConf.select(cfg, key) for key in LENGTHS}
    return [
        f"{key}={limit}"
        for key, limit in limits.items()
        if limit is not None and done[LENGTHS[key]] >= limit
    ]


def set_length(
    cfg: DictConfig, key: str, override: str, length: int | None, done: Mapping[str, int]
) -> None:
    """Gives a run another length.

    Raises:
        Refused: if it has done more already, or something in it is spread
            over the length that it had.
    """
    unit, before = LENGTHS[key], OmegaConf.select(cfg, key)
    if length is not None and length < done[unit]:
        raise Refused(
            f"{override}: this run has done {done[unit]} {unit} already; write more than that"
        )
    spread = "schedule" if has_length(cfg.scheduler, cfg.packages) else None
    spread = "mean of the weights (swa)" if OmegaConf.select(cfg, "regularization.swa") else spread
    if length != before and spread:
        steps, epochs = cfg.trainer.max_steps, cfg.trainer.max_epochs
        whole = f"{epochs} epochs" if steps is None else f"{epochs} epochs or {steps} steps"
        raise Refused(f"{override}: this run's {spread} is drawn over {whole}; leave it out")
    OmegaConf.update(cfg, key, length)
