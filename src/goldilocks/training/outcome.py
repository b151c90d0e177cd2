"""What the best network of a run predicts for rows that it was not trained on.

Legend: N rows, C classes or targets.
"""

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from goldilocks.errors import Refused, one_line
from goldilocks.tasks.task import Task
from goldilocks.training.checkpoints import evaluated_weights, load_checkpoint
from goldilocks.training.module import TrainingModule, batches_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """Rows of a stage and what a network predicts for them.

    Attributes:
        rows: [N] numbers of the rows in the whole data, from 0.
        true: [N] class indices, or [N, C] values in the target's own units.
        predicted: [N, C] probabilities of all classes, or [N, C] values in the target's own units.
        losses: [N], of each row; a regression's is the mean over its targets.
        quantiles: [N, C * Q] of each target in turn, in its own units, where several are learnt.
    """

    rows: Array
    true: Array
    predicted: Array
    losses: Array
    quantiles: Array | None = None

    @property
    def whole(self) -> Array:
        """All that the loss takes."""
        return self.predicted if self.quantiles is None else self.quantiles

    def take(self, places: Array) -> "Outcome":
        """Some of the rows, by their places in these arrays."""
        return Outcome(**{name: values[places] for name, values in self.arrays().items()})

    def arrays(self) -> dict[str, Array]:
        """Those that there are, by name."""
        known = {name: getattr(self, name) for name in (*FIELDS, MORE)}
        return {name: values for name, values in known.items() if values is not None}


MORE = "quantiles"
FIELDS = ("rows", "true", "predicted", "losses")


def best_network(module: TrainingModule, checkpoint: Path) -> nn.Module:
    """A copy, in evaluation mode, of the network that is tested: of the checkpoint, where there is
    one. Whoever gets it shares it with those who have asked for the same one: nothing may change
    its weights.
    """
    if not checkpoint.exists():
        return copy.deepcopy(module.evaluated).requires_grad_(False).eval()
    state = checkpoint.absolute(), checkpoint.stat().st_mtime_ns
    known = best_networks.get(module)
    if known is None or known[0] != state:
        network = copy.deepcopy(module.evaluated).requires_grad_(False).eval()
        network.load_state_dict(evaluated_weights(load_checkpoint(checkpoint)["state_dict"]))
        known = best_networks[module] = state, network
    return known[1]


# By the module, as long as there is one: the file of each, and when it was written.
best_networks: WeakKeyDictionary[TrainingModule, tuple[tuple[Path, int], nn.Module]]
best_networks = WeakKeyDictionary()


@torch.no_grad()
def outcome_of(
    trainer: Any, module: TrainingModule, network: nn.Module, stage: str = "val"
) -> Outcome | None:
    """What a network predicts for the rows of a stage; None without any, or if it is not finite."""
    task = module.task
    plugin = trainer.precision_plugin
    data = trainer.datamodule
    loader = data.evaluation_loader(stage, f"limit_{stage}_batches", rank=0, world=1)
    parts: list[tuple[Tensor, ...]] = []
    with plugin.val_step_context():
        for x, y in (batch for item in loader for batch in batches_of(item)):
            output = network(plugin.convert_input(x)).float()
            true = task.unscale(y) if task.spec.task == "regression" else y.reshape(-1)
            values = task.combine(output)
            more = [task.unscale(values)] if task.quantiles else []
            parts.append((true, predicted_from(task, output), task.row_losses(values, y), *more))
    if not parts:
        return None
    true, predicted, losses, *more = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    if not predicted.isfinite().all():
        return None
    if task.spec.task != "regression":
        true = true.long()
    rows = np.asarray(data.row_numbers[stage])[: len(true)]
    quantiles = more[0].numpy() if more else None
    return Outcome(rows, true.numpy(), predicted.numpy(), losses.numpy(), quantiles)


def predicted_from(task: Task, output: Tensor) -> Tensor:
    """From raw outputs, [B, C] or [B, K, C], to probabilities of all classes, of two as well, or
    values in the target's units.

    Each probability is right to single precision, however small: 1 - p would not be.
    """
    if task.spec.task != "binary":
        return task.predict(output)
    logits = task.combine(output)
    return torch.cat([-logits, logits], dim=1).sigmoid()


# --- together -------------------------------------------------------------------------------------


def values_of(task: Task, predicted: Array) -> Tensor:
    """The logits, or scaled values, [N, C], that a task makes these predictions from.

    Args:
        task: Which has `predict`, whose inverse this is.
        predicted: [N, C] as an Outcome has them.
    """
    predictions = torch.from_numpy(np.asarray(predicted)).float()
    if task.spec.task == "regression":
        return task.scale(predictions)
    smallest = torch.finfo(torch.float32).tiny
    logs = predictions.clamp(min=smallest).log()
    return logs[:, 1:] - logs[:, :1] if task.spec.task == "binary" else logs


def targets_of(task: Task, true: Array) -> Tensor:
    """Targets of an Outcome as the loss takes them."""
    target = torch.from_numpy(np.asarray(true))
    if task.spec.task == "regression":
        return task.scale(target.float())
    return target.float()[:, None] if task.spec.task == "binary" else target.long()


@torch.no_grad()
def with_losses(
    task: Task, rows: Array, true: Array, predicted: Array, quantiles: Array | None = None
) -> Outcome:
    """An Outcome of predictions that several networks have made together."""
    whole = predicted if quantiles is None else quantiles
    losses = task.row_losses(values_of(task, whole), targets_of(task, true))
    quantiles = None if quantiles is None else quantiles.astype(np.float32)
    return Outcome(rows, true, predicted.astype(np.float32), losses.numpy(), quantiles)


@torch.no_grad()
def scores(task: Task, name: str, predicted: Array, true: Array) -> NDArray[np.float64]:
    """A metric, or the loss, of several predictions of the same rows, [K].

    Args:
        task: Whose metric it is.
        name: Without its stage, such as `loss` or `accuracy`.
        predicted: [K, N, C], each as an Outcome has them; for the loss the `whole` of it.
        true: As an Outcome has it.
    """
    target = targets_of(task, true)
    values = values_of(task, predicted.reshape(-1, predicted.shape[-1]))
    if name == "loss":
        losses = task.row_losses(values, target.repeat(len(predicted), *[1] * (target.ndim - 1)))
        return losses.reshape(len(predicted), -1).double().mean(1).numpy()
    each = values.reshape(len(predicted), len(true), -1)
    return np.array([task.score(name, one, target, combined=True) for one in each])


def metrics_of(task: Task, outcome: Outcome, stage: str) -> dict[str, float]:
    """All metrics of a stage, by `stage/name`, from its predictions."""
    found = {}
    for name in ("loss", *task.names(stage)):
        predicted = outcome.whole if name == "loss" else outcome.predicted
        found[f"{stage}/{name}"] = float(scores(task, name, predicted[None], outcome.true)[0])
    return found


# --- files ----------------------------------------------------------------------------------------


def save_outcome(outcome: Outcome, path: Path, max_rows: int) -> None:
    """Writes rows and predictions, in single precision; of too many rows some that are evenly
    spread.

    Raises:
        OSError: if the file cannot be written.
    """
    if len(outcome.rows) > max_rows:
        outcome = outcome.take(np.linspace(0, len(outcome.rows) - 1, max_rows).round().astype(int))
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    arrays: dict[str, Any] = {name: smaller(of) for name, of in outcome.arrays().items()}
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def smaller(values: Array) -> Array:
    """Whole numbers as they are, others in single precision."""
    return values if values.dtype.kind in "iu" else values.astype(np.float32)


def read_outcome(path: Path) -> Outcome:
    """What `save_outcome` has written.

    Raises:
        Refused: if it is missing or damaged.
    """
    if not path.is_file():
        raise Refused(
            f"{path}: there are no predictions; kept_predictions=0 or a run before they were kept"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [*FIELDS, *([MORE] if MORE in arrays else [])]
            outcome = Outcome(**{name: arrays[name] for name in names})
        lengths = {len(of) for of in outcome.arrays().values()}
        assert len(lengths) == 1 and outcome.predicted.ndim == 2
    except Exception as error:  # zipfile's, numpy's and ours have no common base
        raise Refused(f"{path}: cannot be read ({one_line(error)})") from error
    return outcome
