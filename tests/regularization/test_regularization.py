import inspect

import pytest
import torch
from torch import nn

from goldilocks.config.build import check_arguments
from goldilocks.config.choices import is_on
from goldilocks.config.options import options
from goldilocks.errors import Refused
from goldilocks.regularization.strengths import Regularization, add_penalty_gradients, limit_norms


def tensors():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (2, 4), (1, 2))]


def penalty(weights, l1, l2):
    return sum(l1 * weight.abs().sum() + l2 / 2 * (weight**2).sum() for weight in weights)


@pytest.mark.parametrize(
    ("l1", "l2"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.7), (0.3, 0.7), (1e-5, 1e-4)]
)
def test_gradients_are_those_of_the_penalty_added_to_the_loss(l1, l2):
    x, weights = torch.randn(5, 3), tensors()

    def loss():
        return (x @ weights[0].T @ weights[1].T @ weights[2].T).square().mean()

    expected = torch.autograd.grad(loss() + penalty(weights, l1, l2), weights)
    loss().backward()
    add_penalty_gradients(weights, l1, l2)
    for weight, gradient in zip(weights, expected, strict=True):
        assert torch.allclose(weight.grad, gradient, rtol=1e-5)


def test_the_l1_gradient_at_zero_is_zero_as_autograds_is():
    weight = nn.Parameter(torch.tensor([[0.0, -2.0, 3.0]]))
    (expected,) = torch.autograd.grad(weight.abs().sum(), weight)
    weight.grad = torch.zeros_like(weight)
    add_penalty_gradients([weight], 1.0, 0.0)
    assert weight.grad.tolist() == expected.tolist() == [[0.0, -1.0, 1.0]]


def test_weights_are_not_moved_and_those_without_a_gradient_are_left_alone():
    weights = tensors()
    before = [weight.detach().clone() for weight in weights]
    weights[0].grad = torch.zeros_like(weights[0])
    add_penalty_gradients(weights, 0.1, 0.1)
    assert weights[1].grad is None
    assert weights[2].grad is None
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


@pytest.mark.parametrize(("l1", "l2"), [(0.1, 0.0), (0.0, 0.1), (0.1, 0.1)])
@pytest.mark.parametrize("weights", [[], tensors()])
def test_a_network_of_which_nothing_has_a_gradient_is_no_error(weights, l1, l2):
    add_penalty_gradients(weights, l1, l2)
    assert all(weight.grad is None for weight in weights)


def test_l2_shrinks_each_weight_by_the_same_share():
    weights = tensors()
    before = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    add_penalty_gradients(weights, 0.0, 0.5)
    torch.optim.SGD(weights, lr=0.1).step()
    for weight, old in zip(weights, before, strict=True):
        assert torch.allclose(weight, old * (1 - 0.1 * 0.5))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("l1", -0.1),
        ("l2", -1),
        ("l2", "strong"),
        ("l2", True),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", [0.1, 1.2]),
        ("alpha_dropout", [0.1, -0.2]),
        ("label_smoothing", 1),
        ("max_norm", -1),
        ("noise", -0.1),
        ("mixup", -0.1),
        ("cutmix", "often"),
        ("cutout", 1.0),
        ("shift", 0.5),
        ("shift", -1),
        ("ema", 1.0),
        ("swa", 1.1),
        ("label_smoothing", None),
    ],
)
def test_strengths_out_of_range_are_refused(key, value):
    with pytest.raises(Refused, match=rf"^regularization\.{key}="):
        check_arguments(Regularization, {key: value}, "regularization")


NOISE = {"_target_": "goldilocks.regularization.gradient_noise.GradientNoise", "eta": 0.0}
STRENGTHS = {
    "none": {},
    "dropout": {"dropout": 0.1},
    "alpha_dropout": {"alpha_dropout": 0.05},
    "l1": {"l1": 1e-5},
    "l2": {"l2": 1e-4},
    "max_norm": {"max_norm": 3.0},
    "label_smoothing": {"label_smoothing": 0.1},
    "noise": {"noise": 0.1},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "cutout": {"cutout": 0.2},
    "shift": {"shift": 1},
    "ema": {"ema": 0.99},
    "swa": {"swa": 0.25},
    "gradient_noise": {"gradient_noise": {**NOISE, "eta": 0.01}},
    "cocktail": {"dropout": 0.1, "mixup": 0.2, "ema": 0.99},
}
ZEROS = {
    **dict.fromkeys(inspect.signature(Regularization).parameters, 0),
    "gradient_noise": NOISE,
}


@pytest.mark.parametrize("name", options("regularization"))
def test_each_option_switches_on_its_own_strengths_only(name, compose):
    cfg = compose(f"regularization={name}")
    assert dict(cfg.regularization) == {**ZEROS, **STRENGTHS[name]}
    assert cfg.model.dropout == cfg.regularization.dropout
    assert cfg.model.alpha_dropout == cfg.regularization.alpha_dropout


def test_several_options_add_up(compose):
    cfg = compose("regularization=[dropout,l2]")
    assert dict(cfg.regularization) == {**ZEROS, "dropout": 0.1, "l2": 1e-4}
    assert not any(map(is_on, compose().regularization.values()))


@pytest.mark.parametrize(
    "pair", [{"dropout": 0.1, "alpha_dropout": [0.0, 0.1]}, {"ema": 0.9, "swa": 0.5}]
)
def test_what_does_the_same_in_two_ways_is_refused(pair):
    with pytest.raises(
        Refused,
        match=rf"^regularization: {' and '.join(pair)} are both on .* leave one of them out$",
    ):
        Regularization(**pair)
    for name, strength in pair.items():
        Regularization(**{name: strength})


def test_a_limit_shortens_long_weights_and_no_others():
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    kernel = torch.ones(1, 2, 2, 2)
    limit_norms([weight, kernel], 1.0)
    assert torch.allclose(weight, torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    assert kernel.norm().item() == pytest.approx(1.0, abs=1e-5)
