"""Clipping, and how large the gradients were before and after it."""

import torch
from torch import Tensor, nn

from goldilocks.training.sharding import whole

EMPTY = torch.zeros(0)
EVERY = 16  # steps between two measurements, which take a tenth of a small network's step


class Gradients:
    """Clips gradients and keeps an epoch's norms, so that clipping can be seen.

    Clipping by norm computes the norm of every step anyway.
    Otherwise every 16th step of an epoch is measured.

    Args:
        value: The largest norm of all gradients together, or the largest value of one.
            None: no clipping.
        algorithm: `norm` or `value`.
    """

    def __init__(self, value: float | None, algorithm: str) -> None:
        self.value = value
        self.algorithm = algorithm
        self.begin()

    def begin(self) -> None:
        """Forgets the epoch before."""
        self.step = 0
        self.before: list[Tensor] = []  # of one step, or of several, [steps]
        self.after: list[Tensor] = []

    def clip(self, parameters: list[nn.Parameter]) -> None:
        """Clips in place."""
        due = self.step % EVERY == 0
        self.step += 1
        if self.value is not None and self.algorithm == "norm":
            self.before.append(
                whole(nn.utils.clip_grad_norm_(parameters, self.value, foreach=True))
            )
            return
        if due:
            self.before.append(norm(parameters))
        if self.value is None:
            return
        nn.utils.clip_grad_value_(parameters, self.value, foreach=True)
        if due:
            self.after.append(norm(parameters))

    def metrics(self) -> dict[str, float]:
        """The epoch's means over its steps, without those that a gradient scaler skips.

        `gradient_norm` is that of all gradients together, penalties included; with clipping there
        are also `gradient_norm_clipped`, after it, and `clipped_share`, the share of the steps in
        which it changed anything.
        """
        before = joined(self.before)
        finite = before.isfinite()
        if not finite.any():
            return {}
        if self.value is None:
            return {"gradient_norm": float(before[finite].mean())}
        after = joined(self.after) if self.after else before.clamp(max=self.value)
        before = before[finite]
        after = after[finite]
        changed = (after < before * (1 - 1e-6)).double()
        means = (float(values.mean()) for values in (before, after, changed))
        return dict(
            zip(("gradient_norm", "gradient_norm_clipped", "clipped_share"), means, strict=True)
        )


def joined(norms: list[Tensor]) -> Tensor:
    """Norms of single steps, and of several at once, as one vector."""
    return torch.cat([norm.reshape(-1) for norm in norms]).double().cpu() if norms else EMPTY


def norm(parameters: list[nn.Parameter]) -> Tensor:
    """The L2 norm of all gradients together."""
    return whole(
        nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    )
