"""Batches changed at random in training: noise, shift, cutout, mixup, cutmix (guide:
augment the data).

Pure functions of tensors, and one thin class that holds the strengths. Their randomness is torch's
and numpy's, which every epoch seeds from (seed, epoch).

Legend: B batch, F features, C outputs;
images are [B, channels, height, width], rows of tables [B, F].
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from goldilocks.data.spec import Spec
from goldilocks.regularization.strengths import Regularization


class Augmentation:
    """Changes a training batch by the strengths that are not zero:
    shift, cutout, mixup or cutmix, noise.

    With mixup and cutmix both on, each batch takes one of them at random:
    mixing twice would leave little of any row.

    Args:
        strengths: Of all regularizers.
        spec: Of the data.
    """

    def __init__(self, strengths: Regularization, spec: Spec) -> None:
        self.strengths = strengths
        self.num_classes = spec.num_outputs if spec.task == "multiclass" else None
        self.num_categories = len(spec.category_counts)
        self.mixers = [
            (mix, alpha)
            for mix, alpha in ((mixup, strengths.mixup), (cutmix, strengths.cutmix))
            if alpha > 0
        ]

    @property
    def active(self) -> bool:
        """Whether any of them is on."""
        return bool(
            self.mixers or self.strengths.shift or self.strengths.cutout or self.strengths.noise
        )

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets to train on; mixed classes become probabilities [B, C]."""
        strengths = self.strengths
        if strengths.shift:
            x = shift(x, strengths.shift)
        if strengths.cutout:
            x = cutout(x, strengths.cutout)
        if self.mixers:
            target = y if self.num_classes is None else F.one_hot(y, self.num_classes).to(x.dtype)
            mix, alpha = self.mixers[
                np.random.randint(len(self.mixers)) if len(self.mixers) > 1 else 0
            ]
            mixed, y = mix(x, target, alpha)
            x = self.keep_categories(mixed, x) if mix is mixup else mixed
        if strengths.noise:
            x = self.keep_categories(add_noise(x, strengths.noise), x)
        return x, y

    def keep_categories(self, changed: Tensor, x: Tensor) -> Tensor:
        """Changed inputs, with the numbers of categories as they were:
        between two of them there is nothing.
        """
        first = x.shape[1] - self.num_categories
        return (
            torch.cat([changed[:, :first], x[:, first:]], dim=1) if self.num_categories else changed
        )


def add_noise(x: Tensor, std: float) -> Tensor:
    """Adds normal noise of a standard deviation, in the units of the
    scaled inputs (Bishop 1995).
    """
    return x + std * torch.randn_like(x)


def mixup(x: Tensor, y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Blends every row, and its target, with another:
    share * own + (1 - share) * other (Zhang et al. 2018).

    Args:
        x: [B, ...].
        y: [B, C], numbers.
        alpha: The share is drawn from Beta(alpha, alpha), one for the batch:
            0.2 mixes little, 1 any share alike.
    """
    share, other = larger_share(alpha), torch.randperm(len(x), device=x.device)
    return x.lerp(x[other], 1 - share), y.lerp(y[other], 1 - share)


def cutmix(x: Tensor, y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Puts a box of another image (Yun et al.
    2019), or some of another row's features, into every row.

    Which box or features is the same for the whole batch;
    targets are mixed by the share that was really kept.

    Args:
        x: [B, channels, height, width] or [B, F].
        y: [B, C], numbers.
        alpha: The share that is kept is drawn from Beta(alpha, alpha).
    """
    share, other = larger_share(alpha), torch.randperm(len(x), device=x.device)
    if x.ndim == 4:
        taken = torch.zeros(x.shape[-2:], dtype=torch.bool, device=x.device)
        taken[random_box(x.shape[2], x.shape[3], (1 - share) ** 0.5)] = True
    else:
        features = x.shape[1]
        taken = torch.zeros(features, dtype=torch.bool, device=x.device)
        taken[torch.randperm(features, device=x.device)[: round((1 - share) * features)]] = True
    mixed = torch.where(taken, x[other], x)
    return mixed, y.lerp(y[other], taken.double().mean().item())


def larger_share(alpha: float) -> float:
    """A share from Beta(alpha, alpha), or what is left of it if that is more.

    All rows have partners from the same batch, so a share and its rest give the same pairs; this
    way a row's own target is the one that weighs most, and training metrics compare with it.
    """
    share = np.random.beta(alpha, alpha)
    return float(max(share, 1 - share))


def random_box(height: int, width: int, side: float) -> tuple[slice, slice]:
    """A box with a share of each side, at a random place inside."""
    slices = []
    for length in (height, width):
        size = round(side * length)
        start = np.random.randint(length - size + 1)
        slices.append(slice(start, start + size))
    return slices[0], slices[1]


def cutout(x: Tensor, share: float) -> Tensor:
    """Sets a part of every row to zero:
    of an image a box (DeVries and Taylor 2017), of a table that share of features.

    Zero is the mean of standardised inputs. Every row has a part of its own.

    Args:
        x: [B, channels, height, width] or [B, F].
        share: Of each side of an image, or of the features on average.
    """
    if x.ndim != 4:
        return x * (torch.rand_like(x) >= share)
    inside = []
    for length in x.shape[-2:]:
        size = round(share * length)
        start = torch.randint(length - size + 1, (len(x), 1), device=x.device)
        place = torch.arange(length, device=x.device)
        inside.append((place >= start) & (place < start + size))  # [B, length]
    box = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x.masked_fill(box, 0.0)


def shift(x: Tensor, pixels: int) -> Tensor:
    """Moves every image by up to so many pixels each way;
    the edge is repeated into what becomes free.

    Args:
        x: [B, channels, height, width].
        pixels: At most, in each direction.
    """
    rows, columns = x.shape[-2:]
    padded = F.pad(x, (pixels,) * 4, mode="replicate")
    down, right = torch.randint(2 * pixels + 1, (2, len(x), 1), device=x.device)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    down, right = (
        down + torch.arange(rows, device=x.device),
        right + torch.arange(columns, device=x.device),
    )
    return padded.movedim(1, -1)[batch, down[:, :, None], right[:, None, :]].movedim(-1, 1)
