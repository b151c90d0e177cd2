"""Noise on the gradients that fades with the steps."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import nn

from goldilocks.regularization.gradient_transforms import GradientTransform
from goldilocks.regularization.strengths import Strength


class GradientNoise(GradientTransform):
    """Adds normal noise of variance eta / (1 + step)^gamma (Neelakantan et al. 2015,
    arXiv 1511.06807).

    Args:
        eta: Variance at the first step; the paper takes 0.01, 0.3 or 1.
        gamma: How fast it falls; 0: never.
        seed: The noise of a step depends on (seed, step) alone.
    """

    def __init__(
        self, eta: Strength = 0.01, gamma: Annotated[float, Field(ge=0)] = 0.55, seed: int = 0
    ) -> None:
        self.eta = eta
        self.gamma = gamma
        self.seed = seed

    @torch.no_grad()
    def __call__(self, parameters: Sequence[nn.Parameter], step: int) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        seed = int(np.random.SeedSequence((self.seed, step)).generate_state(1, np.uint64)[0])
        device = gradients[0].device
        generator = torch.Generator(device).manual_seed(seed)
        sizes = [gradient.numel() for gradient in gradients]
        noise = torch.randn(sum(sizes), generator=generator, device=device).split(sizes)
        shaped = [part.view(g.shape).to(g.dtype) for part, g in zip(noise, gradients, strict=True)]
        torch._foreach_add_(gradients, shaped, alpha=math.sqrt(self.eta / (1 + step) ** self.gamma))
