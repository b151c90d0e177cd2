"""Noise on the gradients, and the options that name a transform of them."""

import pytest
import torch
from torch import nn

from conftest import SMALL
from goldilocks.config.choices import chosen
from goldilocks.errors import Refused
from goldilocks.regularization.gradient_noise import GradientNoise
from goldilocks.training.components import prepare


def noise_of(step=0, shapes=((300, 40), (40,)), **options):
    """What is added to gradients of zero, in one vector."""
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    GradientNoise(**options)(parameters, step)
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


@pytest.mark.parametrize(("eta", "gamma", "step"), [(0.01, 0.55, 0), (0.3, 0.55, 99), (1, 0, 7)])
def test_its_variance_is_that_of_the_paper(eta, gamma, step):
    noise = noise_of(step, eta=eta, gamma=gamma)
    expected = eta / (1 + step) ** gamma
    assert noise.var().item() == pytest.approx(expected, rel=0.05)
    assert abs(noise.mean().item()) < 4 * (expected / len(noise)) ** 0.5


def test_it_depends_on_the_seed_and_the_step_alone():
    noise = noise_of(3, eta=1.0, seed=5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(noise_of(3, eta=1.0, seed=5), noise)
    assert torch.equal(torch.get_rng_state(), before)
    for other in (noise_of(4, eta=1.0, seed=5), noise_of(3, eta=1.0, seed=4)):
        correlation = torch.corrcoef(torch.stack([noise, other]))[0, 1]
        assert abs(correlation) < 0.05


def test_it_is_added_and_a_parameter_that_was_not_used_is_left_alone():
    used, unused = nn.Parameter(torch.zeros(50)), nn.Parameter(torch.zeros(2))
    used.grad = torch.full((50,), 100.0)
    GradientNoise(0.01)([unused, used], 0)
    assert unused.grad is None
    assert (used.grad - 100).abs().max() < 1
    assert (used.grad != 100).all()
    GradientNoise(0.01)([unused], 0)


# --- options --------------------------------------------------------------------------------------


def test_an_option_names_the_transform_and_has_the_seed_of_the_run(compose):
    cfg = compose(*SMALL, "regularization=[l2,gradient_noise]", "seed=7")
    (noise,) = prepare(cfg, warn=False).module.gradient_transforms
    assert (noise.eta, noise.gamma, noise.seed) == (0.01, 0.55, 7)
    assert chosen({}, cfg)["regularization"] == ["l2", "gradient_noise"]


def test_at_zero_there_is_none(compose):
    cfg = compose(*SMALL)
    assert cfg.regularization.gradient_noise.eta == 0
    assert list(prepare(cfg, warn=False).module.gradient_transforms) == []
    assert chosen({}, cfg)["regularization"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("regularization.gradient_noise.eta=-1", r"^regularization\.gradient_noise\.eta=-1: "),
        ("+regularization.gradient_noise.gama=1", "did you mean gamma"),
        ("regularization.gradient_noise._target_=torch.nn.ReLU", "must be a subclass of"),
        ("+regularization.mine.eta=1", r"^regularization\.mine: "),
    ],
)
def test_what_is_no_transform_is_refused(words, message, compose):
    with pytest.raises(Refused, match=message):
        prepare(compose(*SMALL, words), warn=False)


def test_one_of_ones_own_is_a_class_and_an_option(compose, tmp_path, monkeypatch):
    """Nothing of ours is edited, in the base neither."""
    (tmp_path / "centred.py").write_text(
        "from goldilocks.regularization.gradient_transforms import GradientTransform\n\n\n"
        "class Centred(GradientTransform):\n"
        "    def __init__(self, share: float = 0.0):\n"
        "        self.share = share\n\n"
        "    def __call__(self, parameters, step):\n"
        "        for p in parameters:\n"
        "            p.grad -= self.share * p.grad.mean()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    node = "{_target_: centred.Centred, share: 1.0}"
    cfg = compose(*SMALL, f"+regularization.centred={node}", "packages=[project,centred]")
    (centred,) = prepare(cfg, warn=False).module.gradient_transforms
    assert centred.share == 1
