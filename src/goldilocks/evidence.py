"""What is known of a run that has ended: its curves, its best weights on rows, its layers.

Legend: N rows, C outputs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from goldilocks.health import Health
from goldilocks.tasks import Task

MOST_ROWS = 4096  # of a stage that are looked at
GROUPS = 20  # of rows that a jackknife leaves out in turn


@dataclass(frozen=True)
class Rows:
    """A network's loss on some rows of a stage, in evaluation mode.

    Attributes:
        count: Of the rows.
        loss: Their mean.
        error: Its standard error: with other rows of the same kind it would differ by about so much.
        chance: The loss of a constant prediction on the same rows: the training rows' class shares, mean or median.
    """

    count: int
    loss: float
    error: float
    chance: float


@dataclass(frozen=True)
class Evidence:
    """A run that has ended.

    Attributes:
        task: `regression`, `binary`, `multiclass`.
        status: `done`, or `diverged`.
        history: The metrics of each epoch.
        best_epoch: By the objective; None where none was finite.
        planned_epochs: Where nothing stops the run before.
        rate: `optimizer.lr`; None where the optimizer has none.
        clip: `trainer.gradient_clip_val`.
        train: The best weights on training rows; None where there are none.
        val: Likewise on validation rows.
        health: The last weights on training rows; None where they are not finite.
        error: The standard error of the objective: with other rows of the same kind it would differ by about so much.
            None where it is not known.
    """

    task: str
    status: str
    history: Sequence[Mapping[str, float]]
    best_epoch: int | None
    planned_epochs: int
    rate: float | None
    clip: float | None
    train: Rows | None = None
    val: Rows | None = None
    health: Health | None = None
    error: float | None = None

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """The epochs that have a metric, and its values."""
        found = [
            (epoch, metrics[name]) for epoch, metrics in enumerate(self.history) if name in metrics
        ]
        return [epoch for epoch, _ in found], [value for _, value in found]

    @property
    def ran_out(self) -> bool:
        """Whether the run ended because its epochs did."""
        return len(self.history) >= self.planned_epochs


@torch.no_grad()
def look_at_rows(
    task: Task, network: nn.Module, rows: tuple[Tensor, Tensor], train_targets: Tensor
) -> Rows | None:
    """The loss of up to 4,096 rows, spread evenly; None where it is not finite.

    Args:
        task: Whose loss it is.
        network: In evaluation mode.
        rows: Inputs [N, ...] and targets as the loss takes them.
        train_targets: Those of the training rows, from which the constant prediction is made.
    """
    device = next(network.parameters()).device
    output, y = outputs_of(network, rows)
    losses = task.row_losses(task.combine(output), y).cpu().double()
    if not losses.isfinite().all():
        return None
    error = float(losses.std()) / math.sqrt(len(losses)) if len(losses) > 1 else math.inf
    chance = task.row_losses(
        constant_prediction(task, train_targets.to(device)).expand(len(y), -1), y
    )
    return Rows(len(losses), float(losses.mean()), error, float(chance.cpu().double().mean()))


def outputs_of(network: nn.Module, rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A network's raw outputs, [N, C] or [N, K, C], for up to 4,096 rows, spread evenly, and their targets."""
    device = next(network.parameters()).device
    x, y = (tensor[:: -(-len(tensor) // MOST_ROWS)].to(device) for tensor in rows)
    return torch.cat([network(part).float() for part in x.split(512)]), y


@torch.no_grad()
def error_of_metric(
    task: Task, network: nn.Module, rows: tuple[Tensor, Tensor], name: str
) -> float | None:
    """The standard error of any metric of all rows, by the jackknife that leaves out a group of them at a time.

    See Efron and Tibshirani (1993), chapter 11. It takes up to 4,096 rows, and reckons from these to all. None where
    there are fewer than two rows, or the metric of some of them is not a number.

    Args:
        task: Whose metric it is.
        network: In evaluation mode.
        rows: Inputs [N, ...] and targets as the loss takes them.
        name: Of the metric, such as `accuracy`.
    """
    output, y = outputs_of(network, rows)
    groups = min(GROUPS, len(y))
    if groups < 2:
        return None
    own = torch.Generator().manual_seed(
        0
    )  # rows may be sorted, and no other random numbers are touched
    group = (torch.randperm(len(y), generator=own) % groups).to(y.device)
    kept = [group != left_out for left_out in range(groups)]
    scores = torch.tensor([task.score(name, output[some], y[some]) for some in kept]).double()
    error = float(scores.std(correction=0)) * math.sqrt(groups - 1)
    return error * math.sqrt(len(y) / len(rows[1])) if math.isfinite(error) else None


def constant_prediction(task: Task, targets: Tensor) -> Tensor:
    """The best constant prediction for targets as the loss takes them: logits, or scaled values, [1, C].

    Every class counts as if it had a row more, so that one without any has a finite loss.
    """
    if task.spec.task == "multiclass":
        counts = torch.bincount(targets.long().reshape(-1), minlength=task.spec.num_outputs) + 1
        return counts.float().log()[None]
    if task.spec.task == "binary":
        share = (targets.float().sum(0, keepdim=True) + 1) / (len(targets) + 2)
        return share.reshape(1, 1).logit()
    absolute = task.loss_function is nn.functional.l1_loss
    return (targets.float().quantile(0.5, 0) if absolute else targets.float().mean(0)).reshape(
        1, -1
    )
