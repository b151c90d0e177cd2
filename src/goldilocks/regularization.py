"""Strengths of the regularizers, and penalties on the weights as pure functions of tensors."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

Rate = Annotated[float, Field(ge=0, lt=1)]
Strength = Annotated[float, Field(ge=0)]


class Regularization:
    """The knobs of every regularizer; conf/regularization/none.yaml sets them all to zero.

    Args:
        dropout: Share of a hidden layer's units set to zero in a training step, or a list with one for each layer
            (Srivastava et al. 2014). Networks take it as `dropout: ${regularization.dropout}`.
        l1: Adds l1 * sum |w| to what is descended; weights only, no biases or norms.
        l2: Adds l2 / 2 * sum w^2, likewise: the same as a coupled weight decay of l2.
        label_smoothing: Share of a class target spread over all classes (Szegedy et al. 2016).
    """

    def __init__(
        self,
        dropout: Rate | list[Rate] = 0.0,
        l1: Strength = 0.0,
        l2: Strength = 0.0,
        label_smoothing: Rate = 0.0,
    ) -> None:
        self.dropout, self.l1, self.l2, self.label_smoothing = dropout, l1, l2, label_smoothing


@torch.no_grad()
def add_penalty_gradients(parameters: Sequence[Tensor], l1: float, l2: float) -> None:
    """Adds the gradient of `l1 * sum |w| + l2 / 2 * sum w^2` to each weight's gradient, in place.

    The penalty is not part of the reported loss, so that train/loss and val/loss can be compared.
    """
    weights = [weight for weight in parameters if weight.grad is not None]
    if not weights:  # torch takes no empty list
        return
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if l2:
        torch._foreach_add_(gradients, weights, alpha=l2)
    if l1:
        torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=l1)
