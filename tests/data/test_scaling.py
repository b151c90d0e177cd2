from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

from fitting import Rows, ready
from goldilocks.data import scaling as module
from goldilocks.data.base import split_rows
from goldilocks.data.scaling import (
    SMOOTH_CLIP,
    Scaling,
    apply_scaler,
    check_finite,
    fit_scaler,
    undo_scaling,
)
from goldilocks.data.sources.sklearn_sets import EmbeddedData
from goldilocks.data.spec import Spec
from goldilocks.data.targets import encode_target
from goldilocks.errors import Refused

FRACTIONS = {"val": 0.2, "test": 0.2}
FITTED = [scaling for scaling in get_args(Scaling) if scaling != "none"]


def numbers(num_rows=60, num_features=3, seed=0):
    return np.random.default_rng(seed).normal(5, 3, size=(num_rows, num_features))


def parts_of(data):
    """The features of each part, unscaled, and the split that made them."""
    table = data.load()
    target, _ = encode_target(table.target, data.spec.task)
    rows = split_rows(target, data.fractions, data.seed, stratify=data.spec.task != "regression")
    return {stage: table.features[index] for stage, index in rows.items()}


@pytest.mark.parametrize("name", ["wine", "diabetes"])
@pytest.mark.parametrize("seed", [0, 3])
def test_standard_scaling_takes_mean_and_deviation_of_the_training_rows(name, seed):
    data = ready(EmbeddedData(name, seed=seed))
    raw = parts_of(data)
    mean, deviation = raw["train"].mean(0), raw["train"].std(0)
    for stage, (x, _) in data.tensors.items():
        assert np.allclose(x.numpy(), (raw[stage] - mean) / deviation, rtol=1e-4, atol=1e-4)
    assert not np.allclose(data.tensors["val"][0].mean(0), 0, atol=0.01)


def test_minmax_scaling_takes_the_range_of_the_training_rows():
    data = ready(EmbeddedData("wine", scaling="minmax"))
    raw = parts_of(data)
    low, high = raw["train"].min(0), raw["train"].max(0)
    for stage, (x, _) in data.tensors.items():
        assert np.allclose(x.numpy(), (raw[stage] - low) / (high - low), atol=1e-5)
    assert data.tensors["train"][0].min() == 0
    assert data.tensors["train"][0].max() == 1


def test_no_scaling_leaves_the_numbers():
    data = ready(EmbeddedData("wine", scaling="none"))
    for stage, raw in parts_of(data).items():
        assert np.array_equal(data.tensors[stage][0].numpy(), raw.astype(np.float32))


@pytest.mark.parametrize("scaling", FITTED)
def test_rows_outside_of_training_do_not_touch_the_scaling(scaling):
    features, target = numbers(), np.linspace(0, 1, 60) ** 2
    rows = split_rows(target, FRACTIONS, 0, stratify=False)
    wild = features.copy()
    wild[np.concatenate([rows["val"], rows["test"]])] *= 1000
    wild_target = target.copy()
    wild_target[np.concatenate([rows["val"], rows["test"]])] += 1000
    calm, upset = (
        ready(Rows(features, target, scaling=scaling)),
        ready(Rows(wild, wild_target, scaling=scaling)),
    )
    for ours, theirs in zip(calm.tensors["train"], upset.tensors["train"], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scaling", FITTED)
@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3e5])
def test_a_constant_feature_becomes_zero(scaling, constant):
    features = numbers(num_rows=70)
    features[:, 1] = constant
    data = ready(Rows(features, np.linspace(0, 1, 70) ** 2, scaling=scaling))
    for x, _ in data.tensors.values():
        assert torch.equal(x[:, 1], torch.zeros(len(x)))
        assert x.isfinite().all()


@pytest.mark.parametrize("scaling", FITTED)
def test_a_feature_far_from_zero_keeps_its_differences(scaling):
    """A time in seconds since 1970:
    single precision would round it to steps of 128 before it is scaled.
    """
    seconds = 1.7e9 + np.arange(60.0)[:, None]
    data = ready(Rows(seconds, np.linspace(0, 1, 60) ** 2, scaling=scaling))
    near = ready(Rows(seconds - 1.7e9, np.linspace(0, 1, 60) ** 2, scaling=scaling))
    for stage, (x, _) in data.tensors.items():
        assert torch.allclose(x, near.tensors[stage][0], atol=1e-4)


@pytest.mark.parametrize(
    ("scaling", "reference"),
    [
        ("standard", StandardScaler()),
        ("minmax", MinMaxScaler()),
        ("quantile", QuantileTransformer(output_distribution="normal", n_quantiles=1000)),
    ],
)
@pytest.mark.parametrize("rows", [1000, 3000])
def test_scaling_agrees_with_scikit_learn(scaling, reference, rows):
    train, other = numbers(rows, seed=1).astype(np.float32), numbers(500, seed=2).astype(np.float32)
    ours = apply_scaler(other, fit_scaler(train, scaling))
    assert np.allclose(ours, reference.fit(train.astype(np.float64)).transform(other), atol=1e-5)


@pytest.mark.parametrize("shape", [(50, 4), (50, 3, 5, 6)])
@pytest.mark.parametrize("scaling", [*FITTED, "none"])
def test_scaling_is_undone_to_be_looked_at(scaling, shape):
    values = np.random.default_rng(3).normal(5, 20, size=shape).astype(np.float32)
    scaler = fit_scaler(values, scaling)
    undone = undo_scaling(apply_scaler(values, scaler), scaler)
    if scaling == "quantile":
        assert np.array_equal(undone, apply_scaler(values, scaler))
    else:
        assert np.allclose(undone, values, atol=1e-3)


def test_values_at_the_clip_stay_finite_when_undone():
    scaler = fit_scaler(np.arange(9.0)[:, None], "robust")
    far = apply_scaler(np.array([[1e9]]), scaler)
    assert far == SMOOTH_CLIP
    assert 1e4 < undo_scaling(far, scaler) < np.inf


def test_quantiles_of_fewer_rows_are_those_of_scikit_learn():
    train, other = numbers(40, seed=1), numbers(seed=2)
    train[:, 0] = np.round(train[:, 0])  # ties
    reference = QuantileTransformer(output_distribution="normal", n_quantiles=40).fit(train)
    assert np.allclose(
        apply_scaler(other, fit_scaler(train, "quantile")), reference.transform(other), atol=1e-5
    )


def test_robust_scaling_is_its_formula():
    """RealMLP's: x / sqrt(1 + (x / 3)^2) of x = (value - median) / (inter-quartile range)."""
    train, other = numbers(101, 4, seed=1), numbers(50, 4, seed=2)
    train[:90, 1] = 2.0  # no inter-quartile range: half the range
    train[:, 2] = -7.0  # constant
    other[3, 0] = 1e9
    median = np.median(train, 0)
    spread = np.percentile(train, 75, axis=0) - np.percentile(train, 25, axis=0)
    assert spread[1] == 0
    spread[1:3] = (train[:, 1].max() - train[:, 1].min()) / 2, 1.0
    x = (other - median) / spread
    expected = x / np.sqrt(1 + (x / 3) ** 2)
    scaled = apply_scaler(other, fit_scaler(train, "robust"))
    assert np.allclose(scaled, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(scaled).max() <= 3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_images_are_scaled_by_channel(scaling, kind, channels):
    random = np.random.default_rng(0)
    train, other = (
        random.integers(0, 256, size=(rows, channels, 5, 4)).astype(kind) for rows in (30, 7)
    )
    scaler = fit_scaler(train, scaling)
    scaled = apply_scaler(other, scaler)
    assert (scaled.shape, scaled.dtype) == (other.shape, np.float32)
    for channel in range(channels):
        table = fit_scaler(train[:, channel].reshape(-1, 1), scaling)
        expected = apply_scaler(other[:, channel].reshape(-1, 1), table)
        assert np.array_equal(scaled[:, channel].reshape(-1, 1), expected)
    assert all(tensor.shape[-1:] in ((channels,), ()) for tensor in scaler.values())


@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_rows_are_scaled_alike_whatever_is_scaled_with_them(scaling, monkeypatch):
    features = numbers(500)
    scaler = fit_scaler(features[:300], scaling)
    whole = apply_scaler(features, scaler)
    rows = np.array([499, 3, 250, 7])
    assert np.array_equal(apply_scaler(features, scaler, rows), whole[rows])
    monkeypatch.setattr(module, "CHUNK", 10)
    assert np.array_equal(apply_scaler(features, scaler), whole)


@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_a_scaler_from_a_checkpoint_scales_to_the_same_bits(scaling, tmp_path):
    trained = ready(EmbeddedData("wine", seed=1, scaling=scaling))
    torch.save(trained.state_dict(), tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    assert Spec.from_plain(state["spec"]) == trained.spec
    again = EmbeddedData("wine", seed=1, scaling=scaling)
    again.load_state_dict(state)
    again.setup()
    for stage, (x, _) in trained.tensors.items():
        assert torch.equal(again.tensors[stage][0], x)


@pytest.mark.parametrize("scaling", FITTED)
def test_a_scaler_from_a_checkpoint_is_used_and_not_fitted_again(scaling):
    trained, again = (
        EmbeddedData("wine", seed=1, scaling=scaling),
        EmbeddedData("wine", seed=2, scaling=scaling),
    )
    again.load_state_dict(ready(trained).state_dict())
    again.setup()
    for stage, raw in parts_of(again).items():
        assert np.array_equal(again.tensors[stage][0].numpy(), apply_scaler(raw, trained.scaler))


def test_missing_values_are_refused_by_name():
    features = np.ones((5, 2))
    check_finite(features, ("a", "b"))
    features[3, 1] = np.nan
    features[4, 1] = np.inf
    with pytest.raises(Refused, match="data: feature b holds 2 missing or infinite values"):
        check_finite(features, ("a", "b"))
    check_finite(np.ones((5, 1, 2, 2), np.uint8), ())


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.uint8, np.int64, bool])
@pytest.mark.parametrize("shape", [(3001, 1), (3001, 3), (2, 4), (1, 2)])
def test_moments_of_chunks_are_those_of_all_values(monkeypatch, kind, shape):
    monkeypatch.setattr(module, "CHUNK", 64)
    drawn = np.random.default_rng(0).normal(120, 40, shape)
    values = (drawn > 120) if kind is bool else drawn.astype(kind)
    least, most, mean, deviation = module.moments(values)
    exact = values.astype(np.float64)
    assert np.array_equal(least, exact.min(0))
    assert np.array_equal(most, exact.max(0))
    assert np.allclose(mean, exact.mean(0), rtol=1e-12, atol=0)
    assert np.allclose(deviation, exact.std(0), rtol=1e-10, atol=1e-12)


def test_moments_far_from_zero_keep_their_digits(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    values = 1.7e9 + np.arange(1000.0)[:, None]
    *_, deviation = module.moments(values)
    assert np.isclose(deviation, np.arange(1000.0).std(), rtol=1e-9)
