"""Losses of your own: the options in conf/loss/ whose `_target_` begins with `project.loss`."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn


class AsymmetricError(nn.Module):
    """The squared error of a regression, in which values that are too low cost more.

    Args:
        too_low: How many times as much. 1: the squared error.
    """

    tasks = ("regression",)

    def __init__(self, too_low: Annotated[float, Field(gt=0)] = 2.0) -> None:
        super().__init__()
        self.too_low = too_low

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each row, [B], of outputs and targets [B, targets]."""
        error = output - target
        cost = torch.where(error < 0, self.too_low, 1.0)
        return (cost * error.square()).mean(1)
