"""The losses of each task."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["auto", "mse", "mae", "huber", "bce", "cross_entropy"]

# The first loss of a task is its default.
LOSSES: dict[str, dict[str, Callable[..., Tensor]]] = {
    "regression": {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss},
    "binary": {"bce": F.binary_cross_entropy_with_logits},
    "multiclass": {"cross_entropy": F.cross_entropy},
}


def smooth_binary(target: Tensor, amount: float) -> Tensor:
    """Moves targets of 0 and 1 towards a half: target * (1 - amount) + amount / 2.

    >>> smooth_binary(torch.tensor([0.0, 1.0]), 0.1)
    tensor([0.0500, 0.9500])
    """
    return target * (1 - amount) + amount / 2


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """A weight for each class, n / (C * count), so that every class has the same share in the loss.

    >>> balanced_weights((6, 2))
    tensor([0.6667, 2.0000])
    """
    rows = torch.tensor(counts, dtype=torch.float32)
    return rows.sum() / (
        len(counts) * rows.clamp(min=1)
    )  # a class may have no rows in a split of somebody else's
