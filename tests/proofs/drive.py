"""Lets a composed option act as in a run, and records what it does step by step."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor, nn

from goldilocks.config.compose import compose, prepare_hydra
from goldilocks.errors import Refused
from goldilocks.runs.assembly import build_trainer
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.components import Parts, prepare
from goldilocks.training.trainer import Trainer

QUIET = (
    "data=iris",
    "trainer=cpu",
    "callbacks=none",
    "logger=none",
    "trainer.max_epochs=1",
    "kept_predictions=0",
)


def composed(*words: str) -> DictConfig:
    """The configuration of a command line. Options are composed once, values are set in a copy."""
    latest = {word.partition("=")[0]: word for word in words}
    values = [word for key, word in latest.items() if "." in key]
    cfg = chosen(*(word for key, word in latest.items() if "." not in key))
    return OmegaConf.merge(cfg, OmegaConf.from_dotlist(values))  # type: ignore[return-value]


@cache
def chosen(*words: str) -> DictConfig:
    """A composition, whose values may not be changed."""
    prepare_hydra()
    cfg, _ = compose(list(words))
    return cfg


def prepared(*words: str) -> Parts:
    """Data, network, task and module of a small quiet run."""
    return prepare(composed(*QUIET, *words), warn=False)


def refusal(*words: str) -> str:
    """The line with which a command is refused; empty where it is not."""
    try:
        prepared(*words)
    except Refused as error:
        return str(error)
    return ""


@dataclass
class Step:
    """One step of the optimizer: what it was given and what it made of it,
    by the parameter's name.
    """

    group: dict[str, Any]  # the first group's numbers: lr, momentum, ...
    gradient: dict[str, Tensor]  # as the optimizer gets it
    before: dict[str, Tensor]
    after: dict[str, Tensor] = field(default_factory=dict)


class Recorded(Checkpoint):
    """Reads every step by the optimizer's own hooks, which keep the fast path;
    epochs as Lightning tells them.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.metrics: list[dict[str, float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        network, optimizer = pl_module.network, trainer.optimizers[0]

        def before(*_: Any) -> None:
            numbers = {
                key: value for key, value in optimizer.param_groups[0].items() if key != "params"
            }
            gradient = {
                name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None
            }
            self.steps.append(Step(numbers, gradient, weights(network)))

        def after(*_: Any) -> None:
            self.steps[-1].after = weights(network)

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.metrics.append(dict(pl_module.epoch_metrics))


@dataclass
class Fit:
    """A training that has ended."""

    parts: Parts
    trainer: Trainer
    steps: list[Step]
    metrics: list[dict[str, float]]  # of each epoch

    @property
    def network(self) -> Any:
        return self.parts.module.network


def train(*words: str, parts: Parts | None = None, extra: tuple[pl.Callback, ...] = ()) -> Fit:
    """Trains a small quiet run with other words:
    the defaults are iris, one epoch, no callbacks, no files.
    """
    parts = parts or prepared(*words)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(parts, Path(folder))
        recorded = Recorded()
        trainer.callbacks += [recorded, *extra]  # type: ignore[attr-defined]
        trainer.fit(parts.module, parts.data)
    return Fit(parts, trainer, recorded.steps, recorded.metrics)


@dataclass
class Batch:
    """A training batch: the rows as the data have them,
    and what the network and the loss make of them.
    """

    x: np.ndarray
    y: np.ndarray
    seen: np.ndarray  # what the network got
    output: np.ndarray  # raw
    gradient: np.ndarray  # of the loss, by the raw output

    @property
    def targets(self) -> np.ndarray:
        """What cross-entropy pulls the probabilities to: softmax (or logistic) - B * gradient."""
        return probabilities(self.output) - len(self.output) * self.gradient


def train_batches(*words: str) -> tuple[Fit, list[Batch]]:
    """A training and all of its batches, in their order."""
    parts, kept = prepared(*words), []

    def look(network: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if network.training:
            seen, raw = inputs[0].detach().clone(), output.detach().clone()
            output.register_hook(lambda gradient: kept.append((seen, raw, gradient.clone())))

    parts.module.network.register_forward_hook(look)
    fit = train(parts=parts)
    loader: Any = fit.trainer.train_dataloader
    orders = []
    for epoch in range(len(fit.metrics)):
        loader.set_epoch(epoch)
        orders += [loader.order()[start:stop] for start, stop in pairwise(loader.edges)]
    x, y = parts.data.tensors["train"]
    batches = [
        Batch(*(tensor.double().numpy() for tensor in (x[rows], y[rows], *found)))
        for rows, found in zip(orders, kept, strict=True)
    ]
    return fit, batches


def probabilities(output: np.ndarray) -> np.ndarray:
    """Softmax of raw outputs, [B, C]; of one output the logistic function."""
    if output.shape[1] == 1:
        return 1 / (1 + np.exp(-output))
    raised = np.exp(output - output.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


@contextlib.contextmanager
def finished(*words: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A whole run: the folder that it leaves, and its result."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder), run(RunRequest(composed(*QUIET, *words), Path(folder)))


def weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def vector(tensors: dict[str, Tensor]) -> Tensor:
    """All tensors in one vector of double precision."""
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()])


def hidden_layers(network: nn.Module) -> list[nn.Linear]:
    """The linear layers but for the last."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)][:-1]
