"""Networks for tables against the formulas of their papers: resnet, realmlp, tabm."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from goldilocks.errors import Refused
from goldilocks.models.mlp import MLP
from goldilocks.models.numeric_embedding import NumberVectors
from goldilocks.models.realmlp import NTKLinear, RealMLP, Scaling
from goldilocks.models.resnet import Block, ResNet
from goldilocks.models.tabm import BatchEnsembleLinear, Heads, TabM, random_signs
from goldilocks.optimizers.optimizer import build_optimizer, split_parameters
from goldilocks.training.components import prepare


def shaken(network, seed=0):
    """Every parameter away from its initial value, so that none is 0 or 1 by chance;
    in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in network.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand(buffer.shape, generator=generator))
    return network.eval()


# --- resnet ---------------------------------------------------------------------------------------


def normed(norm, x):
    """A norm by its formula, in evaluation mode."""
    if isinstance(norm, nn.BatchNorm1d):
        mean, variance = norm.running_mean, norm.running_var
    else:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_block_adds_two_linear_layers_behind_a_norm(norm):
    block = shaken(Block(6, 11, "relu", norm, 0.5, 0.5))
    x = torch.randn(9, 6)
    hidden = F.relu(normed(block.norm, x) @ block.linear1.weight.T + block.linear1.bias)
    expected = x + hidden @ block.linear2.weight.T + block.linear2.bias
    assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_the_network_is_stem_blocks_and_head(norm):
    network = shaken(
        ResNet((2, 3), 4, blocks=2, width=5, hidden_factor=1.5, activation="tanh", norm=norm)
    )
    _, stem, one, two, last, _, output = network
    assert [one.linear1.out_features, two.linear2.in_features] == [8, 8]  # 1.5 * 5, rounded
    x = torch.randn(7, 2, 3)
    inner = two(one(x.reshape(7, 6) @ stem.weight.T + stem.bias))
    expected = torch.tanh(normed(last, inner)) @ output.weight.T + output.bias
    assert torch.allclose(network(x), expected, atol=1e-5)


def test_without_blocks_stem_and_head_are_left():
    assert [type(layer) for layer in ResNet((4,), 2, blocks=0, width=3)] == [
        nn.Linear,
        nn.BatchNorm1d,
        nn.ReLU,
        nn.Linear,
    ]


def test_dropout_acts_within_a_block_and_residual_dropout_on_what_it_adds():
    torch.manual_seed(0)
    seen = []
    inside, outside = (
        Block(40, 80, "sigmoid", "layer", 0.3, 0.0),
        Block(40, 80, "sigmoid", "layer", 0.0, 0.6),
    )
    for block in (inside, outside):
        block.linear2.register_forward_pre_hook(
            lambda _, given: seen.append((given[0] == 0).float().mean().item())
        )
    x = torch.randn(500, 40)
    added = [block(x) - x for block in (inside, outside)]
    assert seen == pytest.approx([0.3, 0.0], abs=0.01)
    assert (added[1] == 0).float().mean().item() == pytest.approx(0.6, abs=0.02)
    assert (added[0] == 0).float().mean().item() < 0.001


def test_the_output_scale_of_a_residual_network():
    full, tenth = (seeded(ResNet, (20,), 30, output_scale=scale) for scale in (1.0, 0.1))
    assert torch.allclose(tenth[-1].weight, full[-1].weight / 10)
    assert torch.equal(tenth[0].weight, full[0].weight)


def seeded(kind, *arguments, **options):
    torch.manual_seed(5)
    return kind(*arguments, **options)


# --- realmlp --------------------------------------------------------------------------------------


def test_an_ntk_layer_is_its_formula():
    layer = shaken(NTKLinear(7, 4))
    x = torch.randn(5, 7)
    assert torch.allclose(layer(x), x @ layer.weight.T / math.sqrt(7) + layer.bias, atol=1e-6)


@pytest.mark.parametrize("fan_in", [1, 30, 400])
def test_an_ntk_layer_starts_with_variance_one_and_one_of_its_bias(fan_in):
    """For inputs of mean square 1: N(0, 1) weights over sqrt(fan_in) give 1, N(0,
    1) biases another 1.
    """
    torch.manual_seed(0)
    layer = NTKLinear(fan_in, 20_000)
    x = torch.ones(1, fan_in)
    spread = math.sqrt(2 / 20_000)  # relative standard error of a sample's variance
    assert layer(x).var().item() == pytest.approx(2, rel=5 * spread)
    assert (layer(x) - layer.bias).var().item() == pytest.approx(1, rel=5 * spread)
    assert layer.weight.var().item() == pytest.approx(1, rel=5 * spread)


def test_adam_moves_an_ntk_layer_as_an_ordinary_one_at_a_rate_times_the_root():
    ntk, plain = NTKLinear(16, 3), nn.Linear(16, 3)
    with torch.no_grad():
        plain.weight.copy_(ntk.weight / 4)
        plain.bias.copy_(ntk.bias)
    x, y = torch.randn(8, 16), torch.randn(8, 3)
    for layer, rate in ((ntk, 0.04), (plain, 0.01)):
        optimizer = torch.optim.Adam(
            [{"params": [layer.weight], "lr": rate}, {"params": [layer.bias], "lr": 0.01}]
        )
        for _ in range(5):
            optimizer.zero_grad()
            F.mse_loss(layer(x), y).backward()
            optimizer.step()
    assert torch.allclose(ntk.weight / 4, plain.weight, atol=1e-4)
    assert torch.allclose(ntk(x), plain(x), atol=1e-4)


@pytest.mark.parametrize(("activation", "function"), [("selu", F.selu), ("mish", F.mish)])
def test_realmlp_is_the_formula_of_the_paper(activation, function):
    network = shaken(RealMLP((2, 3), 4, depth=2, width=5, activation=activation, dropout=0.5))
    scale, *rest = network.parameters()
    x = torch.randn(7, 2, 3)
    z = x.reshape(7, 6) * scale
    for weight, bias in zip(rest[0:-2:2], rest[1:-2:2], strict=True):
        z = function(z @ weight.T / math.sqrt(weight.shape[1]) + bias)
    assert torch.allclose(network(x), z @ rest[-2].T / math.sqrt(5) + rest[-1], atol=1e-5)


def test_realmlp_starts_at_zero_with_a_scaling_of_one():
    network = RealMLP((5,), 3)
    assert torch.equal(network[0].scale, torch.ones(5))
    assert torch.equal(network(torch.randn(4, 5)), torch.zeros(4, 3))
    assert [layer.weight.shape[0] for layer in network if isinstance(layer, NTKLinear)] == [
        256,
        256,
        256,
        3,
    ]


def test_the_factors_name_every_parameter_and_keep_the_ratios_of_the_paper():
    network = RealMLP((2, 3), 4, depth=2, width=5, dropout=0.1, activation="prelu")
    factors, names = network.lr_factors(), dict(network.named_parameters())
    slopes = {name for name, value in names.items() if value.numel() == 1}
    assert len(slopes) == 2
    assert factors.keys() == names.keys() - slopes
    weights = {factor for name, factor in factors.items() if name.endswith("weight")}
    assert len(weights) == 1
    weight = weights.pop()
    for kind, ratio in (("scale", 6), ("bias", 0.1)):
        of_kind = [factor / weight for name, factor in factors.items() if name.endswith(kind)]
        assert of_kind and of_kind == pytest.approx([ratio] * len(of_kind))


def test_the_optimizer_moves_each_kind_at_its_own_rate():
    """Adam's first step moves every element by its rate, whatever the gradient."""
    network = RealMLP((6,), 4, width=5, lr_factor_weight=40, lr_factor_scale=240, lr_factor_bias=4)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = build_optimizer({"_target_": "torch.optim.Adam", "lr": 1e-3}, network)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter).sign()
    optimizer.step()
    for name, parameter in network.named_parameters():
        rate = {"weight": 0.04, "scale": 0.24, "bias": 0.004}[name.split(".")[1]]
        moved = (parameter - before[name]).abs()
        assert torch.allclose(moved, torch.full_like(moved, rate), rtol=1e-3), name


def test_the_scaling_layer_does_not_decay():
    weights, rest = split_parameters(RealMLP((6,), 4))
    assert all(weight.ndim == 2 for weight in weights)
    assert any(parameter.shape == (6,) for parameter in rest)
    assert [type(layer) for layer in RealMLP((6,), 4, depth=0)] == [Scaling, NTKLinear]


# --- tabm -----------------------------------------------------------------------------------------


def separate(layer, member):
    """The ordinary linear layer that a member of an ensemble layer stands for."""
    r, s, bias = (vector.view(layer.k, -1)[member] for vector in (layer.r, layer.s, layer.bias))
    plain = nn.Linear(len(r), len(s))
    with torch.no_grad():
        plain.weight.copy_(s[:, None] * layer.weight * r[None, :])
        plain.bias.copy_(bias)
    return plain


def test_an_ensemble_layer_is_k_linear_layers():
    layer = shaken(BatchEnsembleLinear(3, 5, 4, "relu", signs=True))
    x = torch.randn(6, 3, 5)
    for member in range(3):
        assert torch.allclose(layer(x)[:, member], separate(layer, member)(x[:, member]), atol=1e-5)
    shared = x[:, :1]
    assert torch.allclose(layer(shared), layer(shared.expand(6, 3, 5)), atol=1e-6)


def test_its_gradients_are_those_of_k_linear_layers():
    layer = shaken(BatchEnsembleLinear(3, 5, 4, "relu"))
    x = torch.randn(6, 3, 5)
    layer(x).square().sum().backward()
    members = [separate(layer, member) for member in range(3)]
    for member, plain in enumerate(members):
        plain(x[:, member]).square().sum().backward()
    r, s = layer.r.view(3, 5), layer.s.view(3, 4)
    expected = sum(
        s[m][:, None] * plain.weight.grad * r[m][None, :] for m, plain in enumerate(members)
    )
    assert torch.allclose(layer.weight.grad, expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(
        layer.bias.grad, torch.cat([plain.bias.grad for plain in members]), rtol=1e-4, atol=1e-4
    )


def test_heads_are_k_linear_layers():
    heads = shaken(Heads(3, 5, 2, scale=1.0))
    x = torch.randn(6, 3, 5)
    for member in range(3):
        bias = heads.bias.view(3, 2)[member]
        assert torch.allclose(
            heads(x)[:, member], x[:, member] @ heads.weight[member] + bias, atol=1e-5
        )


def test_each_member_is_a_multilayer_perceptron():
    network = shaken(TabM((2, 3), 4, k=3, depth=2, width=5, activation="tanh", dropout=0.4))
    one, _, _, two, _, _, heads = network.layers
    x = torch.randn(7, 2, 3)
    for member in range(3):
        plain = MLP((2, 3), 4, depth=2, width=5, activation="tanh").eval()
        with torch.no_grad():
            for linear, layer in zip((plain[1], plain[3]), (one, two), strict=True):
                linear.load_state_dict(separate(layer, member).state_dict())
            plain[5].weight.copy_(heads.weight[member].T)
            plain[5].bias.copy_(heads.bias.view(3, 4)[member])
        assert torch.allclose(network(x)[:, member], plain(x), atol=1e-5)


def test_members_differ_from_the_start_and_by_the_signs_alone():
    torch.manual_seed(0)
    network = TabM((20,), 3, k=8, depth=3, width=16)
    first, *others = [layer for layer in network.layers if isinstance(layer, BatchEnsembleLinear)]
    assert set(first.r.tolist()) == {-1.0, 1.0}
    assert len({tuple(row) for row in first.r.view(8, 20).tolist()}) == 8
    assert all(set(layer.r.tolist()) == {1.0} for layer in others)
    assert all(set(layer.s.tolist()) == {1.0} for layer in (first, *others))
    x = torch.randn(5, 20)
    for member, other in ((0, 1), (3, 7)):
        said = network(x)
        assert (said[:, member] - said[:, other]).abs().max() > 0.1 * said.abs().max()
    alike = copy.deepcopy(network)  # the same without the signs: the hidden layers are one
    nn.init.ones_(alike.layers[0].r)
    hidden = alike.layers[:-1](x.unsqueeze(1))
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))


def test_signs_are_even():
    torch.manual_seed(0)
    signs = random_signs(10_000)
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(signs.mean().item()) < 5 / 100


def test_weights_and_heads_have_the_variance_of_their_scheme():
    torch.manual_seed(0)
    network = TabM((300,), 200, k=4, depth=1, width=400, output_scale=0.5)
    assert network.layers[0].weight.var().item() == pytest.approx(2 / 300, rel=0.05)
    assert network.layers[-1].weight.var().item() == pytest.approx(0.25 * 2 / (400 + 200), rel=0.05)
    assert torch.equal(network.layers[-1].bias, torch.zeros(4 * 200))


def test_only_the_matrices_of_an_ensemble_decay():
    network = TabM((6,), 3, k=4, depth=2, width=5)
    weights, rest = split_parameters(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(weight)].rpartition(".")[2] for weight in weights} == {"weight"}
    assert {names[id(parameter)].rpartition(".")[2] for parameter in rest} == {"r", "s", "bias"}


# --- numbers as vectors ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["periodic", "pbld"])
def test_numbers_become_vectors_of_waves_and_other_features_stay(kind):
    vectors = shaken(NumberVectors(2, kind))
    x = torch.randn(7, 5)
    expected = []
    for n in range(2):
        angles = 2 * math.pi * x[:, n, None] * vectors.frequency[n]
        if kind == "pbld":
            linear = torch.cos(angles + vectors.phase[n]) @ vectors.weight[n] + vectors.bias[n]
            expected += [x[:, n, None], linear]
        else:
            linear = (
                torch.cat([angles.cos(), angles.sin()], 1) @ vectors.weight[n] + vectors.bias[n]
            )
            expected.append(linear.clamp(min=0))
    out = vectors(x)
    assert torch.allclose(out, torch.cat([*expected, x[:, 2:]], 1), atol=1e-5)
    assert out.shape[1] == vectors.width(5) == {"periodic": 51, "pbld": 11}[kind]


@pytest.mark.parametrize("kind", ["periodic", "pbld"])
def test_frequencies_phases_and_weights_start_as_in_the_papers(kind):
    torch.manual_seed(0)
    vectors, inputs = NumberVectors(300, kind), {"periodic": 96, "pbld": 16}[kind]
    spread = {"periodic": 0.01, "pbld": 0.1}[kind]
    assert vectors.frequency.std().item() == pytest.approx(spread, rel=0.05)
    assert vectors.weight.abs().max().item() == pytest.approx(inputs**-0.5, rel=0.01)
    assert vectors.phase is None or vectors.phase.abs().max().item() == pytest.approx(
        math.pi, rel=0.01
    )


@pytest.mark.parametrize("network", [MLP, ResNet, RealMLP, TabM])
def test_every_network_for_tables_embeds_its_numbers(network):
    options = {"k": 2} if network is TabM else {}
    embedded = network((5,), 3, embedding="pbld", numbers=2, **options)
    plain = network((5,), 3, **options)
    vectors = [module for module in embedded.modules() if isinstance(module, NumberVectors)]
    assert len(vectors) == 1
    assert not any(isinstance(module, NumberVectors) for module in plain.modules())
    assert embedded(torch.randn(7, 5)).shape == plain(torch.randn(7, 5)).shape
    with pytest.raises(
        Refused, match=r"^model\.embedding=pbld: these data have no columns of numbers"
    ):
        network((5,), 3, embedding="pbld")


def test_auto_embeds_the_numbers_that_there_are():
    def first(**options):
        return next(iter(RealMLP((5,), 3, depth=1, embedding="auto", **options)))

    assert isinstance(first(numbers=2), NumberVectors) and first(numbers=2).kind == "pbld"
    assert isinstance(first(), Scaling)


@pytest.mark.parametrize(
    ("task", "kind"), [("regression", "Mish"), ("binary", "SELU"), ("multiclass", "SELU")]
)
def test_realmlp_has_the_activation_of_the_task(task, kind):
    assert type(RealMLP((5,), 1, depth=1, task=task)[2]).__name__ == kind
    assert type(RealMLP((5,), 1, depth=1, task=task, activation="silu")[2]).__name__ == "SiLU"


@pytest.mark.parametrize("experiment", ["realmlp", "tabm"])
@pytest.mark.parametrize("data", ["diabetes", "iris", "breast_cancer"])
def test_the_experiments_for_tables_are_for_any_task(experiment, data, compose):
    words = ["model.width=8", "trainer.max_steps=2", "callbacks=none", "logger=none"]
    parts = prepare(compose(f"experiment={experiment}", f"data={data}", *words))
    assert parts.module.task.label_smoothing == 0
    assert parts.objective.metric == "val/loss"


def test_realmlp_moves_the_embedding_as_slowly_as_biases():
    network = RealMLP((5,), 3, depth=1, embedding="pbld", numbers=2, lr_factor_bias=0.7)
    factors = network.lr_factors()
    assert factors.keys() == dict(network.named_parameters()).keys()
    assert {factors[f"0.{name}"] for name in ("frequency", "phase", "weight", "bias")} == {0.7}
