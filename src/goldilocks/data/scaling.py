"""Features on one scale: fitted on the training rows, kept as plain tensors,
applied again to the bit.

A table has statistics for each feature, images [N, channels, height, width] for each channel.

Legend: N rows, F features or channels, M rows of a table or pixels of all images.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goldilocks.errors import Refused

Scaling = Literal["auto", "standard", "robust", "quantile", "minmax", "none"]

SMOOTH_CLIP = 3.0  # of robust scaling: no value reaches it
SKEWED = (
    10.0  # inter-quartile ranges from the median, which a feature that is not skewed hardly reaches
)
QUANTILES = 1000
QUANTILE_ROWS = 100_000  # drawn from the training rows, if there are more, to find their quantiles
CHUNK = (
    2**17
)  # values that are scaled at once: few enough to stay in the processor's cache in double precision


def check_finite(features: NDArray[Any], names: tuple[str, ...]) -> None:
    """Refuses missing and infinite values, which would end as a diverged run."""
    if features.dtype.kind in "iub":
        return
    finite = np.isfinite(features)
    if not finite.all():
        bad = ~finite.reshape(len(features), -1)
        column = int(bad.any(0).argmax())
        name = names[column] if column < len(names) else column
        raise Refused(
            f"data: feature {name} holds {bad[:, column].sum()} missing or infinite values; fill"
            " or drop them"
        )


def fit_scaler(features: NDArray[Any], scaling: Scaling) -> dict[str, Tensor]:
    """What `apply_scaler` needs, from the training rows [N, F] or [N, F, height, width].

    standard: mean 0, variance 1. minmax: from 0 to 1. robust: RealMLP's (Holzmüller et al. 2024),
    median 0, divided by the inter-quartile range, or half the range where that is 0, then clipped
    smoothly. quantile: to a normal distribution by the quantiles. auto: robust for the features
    that `skewed` names, standard for the others. Statistics are in double precision. A constant
    feature becomes 0.
    """
    if scaling == "none":
        return {}
    rows = columns(features)
    if scaling == "quantile":
        return {"quantiles": fit_quantiles(rows.astype(np.float64))}
    least, most, mean, deviation = moments(rows)
    constant = least == most  # not by the scale, which rounding may leave above 0
    clip = {}
    shift, scale = least, most - least
    if scaling in ("standard", "auto"):
        shift, scale = torch.where(constant, least, mean), deviation
    if scaling in ("robust", "auto"):
        values = rows.astype(np.float64)
        far = skewed(values) if scaling == "auto" else np.ones(values.shape[1], dtype=bool)
        if far.any():
            chosen = torch.from_numpy(far)
            low, middle, high = torch.from_numpy(np.quantile(values, [0.25, 0.5, 0.75], axis=0))
            spread = torch.where(high > low, high - low, (most - least) / 2)
            shift, scale = torch.where(chosen, middle, shift), torch.where(chosen, spread, scale)
            clip = {"clip": torch.where(chosen, SMOOTH_CLIP, torch.inf).double()}
    return {"shift": shift, "scale": torch.where(constant, torch.ones_like(scale), scale), **clip}


def moments(values: NDArray[Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Least, greatest, mean and standard deviation of each column of [M, F], each [F] in double.

    In one pass over chunks that stay in the processor's cache, whose sums of squares are merged as
    Chan, Golub and LeVeque (1979) do: no copy of all values in double precision, and no
    difference of large numbers.
    """
    first = torch.from_numpy(values[:1].astype(np.float64))[0]
    least, most, mean, squares = first, first, torch.zeros_like(first), torch.zeros_like(first)
    step = max(1, CHUNK // max(1, values.shape[1]))
    for done in range(0, len(values), step):
        chunk = torch.from_numpy(values[done : done + step].astype(np.float64))
        own = chunk.mean(0)
        least, most = torch.minimum(least, chunk.amin(0)), torch.maximum(most, chunk.amax(0))
        share = len(chunk) / (done + len(chunk))
        squares = squares + (chunk - own).square().sum(0) + (own - mean) ** 2 * done * share
        mean = mean + (own - mean) * share
    return least, most, mean, (squares / max(len(values), 1)).sqrt()


def skewed(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Features, of [M, F], a few values of which are so far away that a
    standard deviation squeezes all others, [F].

    Far is ten inter-quartile ranges from the median,
    or ten standard deviations where half of the values are equal.
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high > low, high - low, values.std(0))
    far = np.maximum(values.max(0) - middle, middle - values.min(0))
    return far > SKEWED * spread


def apply_scaler(
    features: NDArray[Any], scaler: Mapping[str, Tensor], rows: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Scales features, [N, F] or [N, F, height, width], in double precision;
    of the chosen rows, in their order.
    """
    rows = np.arange(len(features)) if rows is None else rows
    scaled = np.empty((len(rows), *features.shape[1:]), np.float32)
    fitted = {name: tensor.numpy() for name, tensor in scaler.items()}
    step = max(1, CHUNK // max(1, features[:1].size))
    for first in range(0, len(rows), step):
        chunk = features[rows[first : first + step]]
        if fitted:
            values = scale(columns(chunk).astype(np.float64), fitted)
            chunk = np.moveaxis(values.reshape(len(chunk), *chunk.shape[2:], chunk.shape[1]), -1, 1)
        scaled[first : first + step] = chunk
    return scaled


def undo_scaling(scaled: NDArray[Any], scaler: Mapping[str, Tensor]) -> NDArray[Any]:
    """The inverse of `apply_scaler`, to be looked at; quantiles are left as they are.

    Args:
        scaled: [N, F] or [N, F, height, width].
        scaler: What was fitted.
    """
    if "shift" not in scaler:
        return scaled
    fitted = {name: tensor.numpy() for name, tensor in scaler.items()}
    values = np.moveaxis(scaled, 1, -1).astype(np.float64)
    if "clip" in fitted:
        values = values / np.sqrt(
            np.maximum(1 - (values / fitted["clip"]) ** 2, 1e-9)
        )  # single precision may reach it
    return np.moveaxis(values * fitted["scale"] + fitted["shift"], -1, 1)


def columns(features: NDArray[Any]) -> NDArray[Any]:
    """[M, F]: a table as it is, the pixels of images with a column for each channel."""
    return np.moveaxis(features, 1, -1).reshape(-1, features.shape[1])


def scale(values: NDArray[np.float64], fitted: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Scales values, [M, F]."""
    if "quantiles" in fitted:
        return to_normal(values, fitted["quantiles"])
    values = (values - fitted["shift"]) / fitted["scale"]
    return values / np.sqrt(1 + (values / fitted["clip"]) ** 2) if "clip" in fitted else values


def fit_quantiles(values: NDArray[np.float64]) -> Tensor:
    """Quantiles of each column, [at most 1,000, F], by scikit-learn."""
    from sklearn.preprocessing import QuantileTransformer

    transformer = QuantileTransformer(
        n_quantiles=min(QUANTILES, len(values)), subsample=QUANTILE_ROWS, random_state=0, copy=False
    )
    return torch.from_numpy(transformer.fit(values).quantiles_)


def to_normal(values: NDArray[np.float64], quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values of a normal distribution at the values' places among the quantiles,
    by scikit-learn.
    """
    from sklearn.preprocessing import QuantileTransformer

    transformer = QuantileTransformer(output_distribution="normal")
    transformer.quantiles_, transformer.n_features_in_ = quantiles, quantiles.shape[1]
    transformer.references_ = np.linspace(0, 1, len(quantiles))
    return np.where(quantiles[0] == quantiles[-1], 0.0, transformer.transform(values))
