"""What a run is made of, built from a configuration before any folder is.

configuration -> data -> spec -> network -> module -> trainer
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from goldilocks import devices, results
from goldilocks.acceleration import set_matmul
from goldilocks.callbacks import Recorder
from goldilocks.callbacks.pruning import Pruning, Report
from goldilocks.checks import Settings, check, check_with_data, followed, warnings_for
from goldilocks.config import build
from goldilocks.data.base import TableData
from goldilocks.errors import Refused, one_line
from goldilocks.module import TrainingModule
from goldilocks.network import build_network
from goldilocks.optimizers import build_optimizer
from goldilocks.regularization import Regularization
from goldilocks.schedulers import build_schedule
from goldilocks.tasks import Objective, Task, check_defined
from goldilocks.trainer import Trainer, quiet_libraries


@dataclass
class Parts:
    """What a run is made of."""

    settings: Settings
    data: TableData
    module: TrainingModule
    objective: Objective
    figures: dict[str, Any] = field(default_factory=dict)  # of matplotlib, to be shown


def prepare(
    cfg: DictConfig, fitted: Mapping[str, Any] | None = None, *, warn: bool = True
) -> Parts:
    """Builds everything that needs no folder. What can be refused is refused here, before anything is written.

    Args:
        cfg: The composed configuration.
        fitted: A checkpoint whose scaler the data take, instead of fitting one.
        warn: Whether to print what is probably not meant.
    """
    quiet_libraries()
    settings = check(cfg)
    set_matmul(settings.trainer.get("matmul", "high"))
    data = build_data(settings, fitted)
    spec = data.spec
    check_with_data(settings, spec)
    check_defined(followed(settings), spec, data.judged)
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    network = build_network(settings, spec)
    for warning in warnings_for(settings, network) if warn and devices.is_first() else []:
        print(f"warning: {warning}", file=sys.stderr)
    regularization = Regularization(**settings.regularization)
    packages = settings.packages
    module = TrainingModule(
        network,
        Task(spec, **settings.task, label_smoothing=regularization.label_smoothing),
        lambda network: build_optimizer(settings.optimizer, network, packages),
        lambda optimizer, **steps: build_schedule(
            settings.scheduler, optimizer, packages=packages, **steps
        ),
        regularization,
        seed=settings.seed,
    )
    return Parts(settings, data, module, Objective(**settings.objective))


def build_data(settings: Settings, fitted: Mapping[str, Any] | None = None) -> TableData:
    """Builds and loads the data."""
    data = build(settings.data, TableData, "data", packages=settings.packages)
    if fitted is not None and type(data).__qualname__ in fitted:
        data.load_state_dict(fitted[type(data).__qualname__])
    try:
        data.setup()
    except Refused:
        raise
    except (ValueError, OSError, MemoryError) as error:  # what a source of data says about a file
        raise Refused(f"data: {one_line(error)}") from error
    return data


def build_trainer(
    parts: Parts, folder: Path, resume_step: int | None = None, report: Report | None = None
) -> Trainer:
    """Builds loggers, callbacks and the trainer around a run folder."""
    settings, packages = parts.settings, parts.settings.packages
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    offered = {
        "save_dir": str(folder),
        "resume_step": resume_step,
        "dirpath": str(folder / "checkpoints"),
        "is_trial": results.is_trial(folder),
    }
    loggers = [
        build(node, cast("Any", Logger), f"logger.{key}", packages=packages, offered=offered)
        for key, node in settings.logger.items()
        if node is not None and devices.is_first()
    ]
    callbacks: list[pl.Callback] = [Recorder(parts.objective)]
    callbacks += [Pruning(report, parts.objective.metric)] if report else []
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
