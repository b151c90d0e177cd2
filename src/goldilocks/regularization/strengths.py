"""Strengths of the regularizers, and penalties on the weights as pure functions of tensors."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from goldilocks.config.choices import is_on
from goldilocks.errors import Refused

Rate = Annotated[float, Field(ge=0, lt=1)]
Strength = Annotated[float, Field(ge=0)]


class Regularization:
    """The knobs of every regularizer; conf/regularization/none.yaml sets them all to zero.

    Args:
        dropout: Share of a hidden layer's units set to zero in a training step, or a list with one
            for each layer (Srivastava et al. 2014). Networks take it as
            `dropout: ${regularization.dropout}`.
        alpha_dropout: The same for SELU networks: units are set to the activation's lower limit,
            and mean and variance stay (Klambauer et al. 2017). Networks take it as
            `alpha_dropout: ${regularization.alpha_dropout}`.
        l1: Adds l1 * sum |w| to what is descended; weights only, no biases or norms.
        l2: Adds l2 / 2 * sum w^2, to the same: equal to a coupled weight decay of l2.
        max_norm: Largest norm of the weights into one unit; longer ones are shortened after each
            step (Srivastava et al. 2014). 0: no limit.
        label_smoothing: Share of a class target spread over all classes (Szegedy et al. 2016).
        noise: Standard deviation of normal noise on the scaled inputs.
        mixup: Rows are blended with others, targets too;
            the share is drawn from Beta(mixup, mixup).
        cutmix: A box of another image, or some features of another row, are put in;
            share from Beta(cutmix, cutmix).
        cutout: Share of an image's sides, or of a row's features, that is set to zero.
        shift: Pixels by which images are moved at most, each way.
        ema: Decay of an exponential moving average of the weights,
            which is evaluated and kept instead of them.
        swa: Share of the planned epochs, the last ones,
            over whose ends the weights are averaged, too.
    """

    def __init__(
        self,
        dropout: Rate | list[Rate] = 0.0,
        alpha_dropout: Rate | list[Rate] = 0.0,
        l1: Strength = 0.0,
        l2: Strength = 0.0,
        max_norm: Strength = 0.0,
        label_smoothing: Rate = 0.0,
        noise: Strength = 0.0,
        mixup: Strength = 0.0,
        cutmix: Strength = 0.0,
        cutout: Rate = 0.0,
        shift: Annotated[int, Field(ge=0)] = 0,
        ema: Rate = 0.0,
        swa: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        self.dropout, self.alpha_dropout, self.l1, self.l2, self.max_norm = (
            dropout,
            alpha_dropout,
            l1,
            l2,
            max_norm,
        )
        self.label_smoothing = label_smoothing
        self.noise, self.mixup, self.cutmix, self.cutout, self.shift = (
            noise,
            mixup,
            cutmix,
            cutout,
            shift,
        )
        self.ema, self.swa = ema, swa
        for one, other in (("dropout", "alpha_dropout"), ("ema", "swa")):
            if is_on(getattr(self, one)) and is_on(getattr(self, other)):
                raise Refused(
                    f"regularization: {one} and {other} are both on and do the same in two ways;"
                    " leave one of them out"
                )


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


@torch.no_grad()
def limit_norms(weights: Sequence[Tensor], max_norm: float) -> None:
    """Shortens in place the weights into each unit (rows of a matrix,
    kernels of filters) to at most `max_norm`.
    """
    for weight in weights:
        weight.renorm_(2, 0, max_norm)
