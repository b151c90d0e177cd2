"""Loggers, callbacks and the trainer, built around a run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from goldilocks.callbacks import KeptPredictions, Recorder
from goldilocks.callbacks.deadline import Deadline
from goldilocks.callbacks.pruning import Pruning, Report
from goldilocks.config.build import build
from goldilocks.machine import devices
from goldilocks.runs.folder import is_trial
from goldilocks.training.components import Parts
from goldilocks.training.settings import Settings
from goldilocks.training.trainer import Trainer


def build_loggers(settings: Settings, offered: Mapping[str, Any]) -> list[Logger]:
    """Builds the loggers of a configuration, in the first process."""
    return [
        build(
            node,
            cast("Any", Logger),
            f"logger.{key}",
            packages=settings.packages,
            offered=dict(offered),
        )
        for key, node in settings.logger.items()
        if node is not None and devices.is_first()
    ]


def build_trainer(
    parts: Parts,
    folder: Path,
    resume_step: int | None = None,
    report: Report | None = None,
    until: float | None = None,
) -> Trainer:
    """Builds loggers, callbacks and the trainer around a run folder."""
    settings, packages = parts.settings, parts.settings.packages
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    offered = {
        "save_dir": str(folder),
        "resume_step": resume_step,
        "dirpath": str(folder / "checkpoints"),
        "is_trial": is_trial(folder),
    }
    loggers = build_loggers(settings, offered)
    kept = KeptPredictions(folder, settings.kept_predictions)
    callbacks: list[pl.Callback] = [Recorder(parts.objective), kept]
    callbacks += [Pruning(report, parts.objective.metric)] if report else []
    callbacks += [Deadline(until)] if until is not None else []
    callbacks += [
        build(node, pl.Callback, f"callbacks.{key}", packages=packages, offered=offered)
        for key, node in settings.callbacks.items()
        if node is not None
    ]
    live: dict[str, Any] = {"default_root_dir": str(folder), "shuffle_seed": settings.seed}
    return build(
        settings.trainer,
        Trainer,
        "trainer",
        packages=packages,
        callbacks=callbacks,
        logger=loggers or False,
        **live,
    )
