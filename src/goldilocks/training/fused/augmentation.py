"""Augmentation of the batches of several runs, each by its own strengths.

Noise, mixup and cutout are drawn for all at once; what moves boxes and pixels about, run by run.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from goldilocks.regularization.augmentation import Augmentation, larger_share


class StackedAugmentation:
    """Changes the training batches of several runs.

    Args:
        each: The runs' own, in the order of the rows.
        like: A tensor of the device and type of the inputs.
    """

    def __init__(self, each: Sequence[Augmentation], like: Tensor) -> None:
        self.each = each
        self.active = any(one.active for one in each)
        self.row_by_row = any(
            one.strengths.shift or one.strengths.cutmix or one.strengths.cutout for one in each
        )
        self.num_classes = each[0].num_classes
        self.noise = like.new_tensor([one.strengths.noise for one in each])
        self.mixup = [one.strengths.mixup for one in each]
        self.mixes = any(one.mixers for one in each)

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs, [R, B, ...], and targets, [R, B, ...]; mixed classes become probabilities."""
        if not self.active:
            return x, y
        if self.row_by_row:
            return self._one_by_one(x, y)
        changed = x
        if self.mixes:
            changed, y = self._mixed(x, y)
        if self.noise.any():
            changed = changed + self._by_row(self.noise, x) * torch.randn_like(x)
        return self._keep_categories(changed, x), y

    def _one_by_one(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As the runs do it alone."""
        pairs = [one(rows, target) for one, rows, target in zip(self.each, x, y, strict=True)]
        targets = [target for _, target in pairs]
        if self.mixes and self.num_classes is not None:
            targets = [
                F.one_hot(target, self.num_classes).to(x.dtype) if target.ndim == 1 else target
                for target in targets
            ]
        return torch.stack([rows for rows, _ in pairs]), torch.stack(targets)

    def _mixed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mixup, with a share of each run's own and partners of its own batch."""
        target = y if self.num_classes is None else F.one_hot(y, self.num_classes).to(x.dtype)
        shares = [1 - larger_share(alpha) if alpha > 0 else 0.0 for alpha in self.mixup]
        other = torch.rand(x.shape[:2], device=x.device).argsort(1)
        rows = torch.arange(len(x), device=x.device)[:, None]
        given = x.new_tensor(shares)
        mixed = x.lerp(x[rows, other], self._by_row(given, x))
        return mixed, target.lerp(target[rows, other], self._by_row(given, target))

    def _keep_categories(self, changed: Tensor, x: Tensor) -> Tensor:
        categories = self.each[0].num_categories
        if not categories:
            return changed
        first = x.shape[2] - categories
        return torch.cat([changed[:, :, :first], x[:, :, first:]], dim=2)

    @staticmethod
    def _by_row(values: Tensor, like: Tensor) -> Tensor:
        """[R] against [R, B, ...]."""
        return values.view(-1, *[1] * (like.ndim - 1))
