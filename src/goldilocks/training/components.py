"""What a run is made of, built from a configuration before any folder is.

configuration -> data -> spec -> network -> module -> trainer
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import nn

from goldilocks.config.build import build
from goldilocks.data import shared
from goldilocks.data.base import TableData
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused, one_line
from goldilocks.machine import devices
from goldilocks.machine.compilation import set_matmul
from goldilocks.models.embedding import CategoryVectors, WithVectors
from goldilocks.optimizers.optimizer import build_optimizer
from goldilocks.regularization.gradient_transforms import build_transforms, strengths_in
from goldilocks.regularization.strengths import Regularization
from goldilocks.schedulers.schedule import build_schedule
from goldilocks.tasks.losses import outputs_for
from goldilocks.tasks.objective import Objective, check_defined
from goldilocks.training.checks import check, check_network, check_with_data, followed, warnings_for
from goldilocks.training.module import TrainingModule
from goldilocks.training.settings import Settings
from goldilocks.training.trainer import quiet_libraries


def build_network(settings: Settings, spec: Spec) -> nn.Module:
    """Builds the network for the data."""
    vectors = CategoryVectors(spec.category_counts) if spec.category_counts else None
    input_shape = (vectors.width(*spec.input_shape),) if vectors else spec.input_shape
    outputs = outputs_for(settings.loss, spec.num_outputs)
    live: dict[str, Any] = {"input_shape": input_shape, "num_outputs": outputs}
    network = build(
        settings.model,
        nn.Module,
        "model",
        packages=settings.packages,
        offered={"numbers": spec.numbers, "task": spec.task},
        **live,
    )
    check_network(settings, network)
    return WithVectors(vectors, network) if vectors else network


@dataclass
class Parts:
    """What a run is made of."""

    settings: Settings
    data: TableData
    module: TrainingModule
    objective: Objective
    figures: dict[str, Any] = field(default_factory=dict)  # of matplotlib, to be shown

    @property
    def learning_rate(self) -> float | None:
        """Of the optimizer; None: it has no such option,
        or the range test has not found one yet.
        """
        if self.settings.finds_rate:
            return self.module.found_rate
        return self.settings.optimizer.get("lr")


def prepare(
    cfg: DictConfig | dict[str, Any], fitted: Mapping[str, Any] | None = None, *, warn: bool = True
) -> Parts:
    """Builds everything that needs no folder.
    What can be refused is refused here, before anything is written.

    Args:
        cfg: The composed configuration, or its values, resolved.
        fitted: A checkpoint whose scaler the data take, instead of fitting one.
        warn: Whether to print what is probably not meant.
    """
    quiet_libraries()
    settings = check(cfg)
    set_matmul(settings.trainer.get("matmul", "high"))
    data = build_data(settings, fitted)
    spec = data.spec
    task = check_with_data(settings, spec)
    check_defined(followed(settings), task, data.judged)
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    network = build_network(settings, spec)
    for warning in warnings_for(settings, network) if warn and devices.is_first() else []:
        print(f"warning: {warning}", file=sys.stderr)
    packages = settings.packages
    strengths = Regularization(**strengths_in(settings.regularization))
    transforms = build_transforms(settings.regularization, settings.seed, packages)
    module = TrainingModule(
        network,
        task,
        partial(make_optimizer, settings),
        partial(build_schedule, settings.scheduler, packages=packages),
        strengths,
        transforms,
        seed=settings.seed,
    )
    return Parts(settings, data, module, Objective(**settings.objective, metrics=settings.metrics))


def make_optimizer(
    settings: Settings, network: nn.Module, lr: float | None = None
) -> torch.optim.Optimizer:
    """Builds the optimizer of a configuration, at a rate that is given or, if it is None,
    at its own.
    """
    node = settings.optimizer if lr is None else {**settings.optimizer, "lr": lr}
    return build_optimizer(node, network, settings.packages)


def build_data(settings: Settings, fitted: Mapping[str, Any] | None = None) -> TableData:
    """Builds and loads the data; those of a sweep's trials are loaded once."""
    make = partial(build, settings.data, TableData, "data", packages=settings.packages)
    try:
        if fitted is None:
            return shared.set_up(settings.data, make)
        data = make()
        if type(data).__qualname__ in fitted:
            data.load_state_dict(fitted[type(data).__qualname__])
        data.setup()
    except Refused:
        raise
    except (ValueError, OSError, MemoryError) as error:  # what a source of data says about a file
        raise Refused(f"data: {one_line(error)}") from error
    return data
