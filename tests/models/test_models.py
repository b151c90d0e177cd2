import itertools
import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn

from goldilocks.config.build import build
from goldilocks.config.options import options
from goldilocks.errors import Refused
from goldilocks.models.activations import CLASSES, Activation, make_activation
from goldilocks.models.init import Init, init_for, init_linear, init_weight
from goldilocks.models.mlp import MLP, one_for_each
from yours import PACKAGES

FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "selu": lambda x: (
        1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1))
    ),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * torch.sigmoid(x),
    "mish": lambda x: x * torch.tanh(torch.log1p(x.exp())),
    "rrelu": lambda x: torch.where(
        x > 0, x, (1 / 8 + 1 / 3) / 2 * x
    ),  # outside of training: the mean slope
    "prelu": lambda x: torch.where(x > 0, x, 0.25 * x),  # before training
}

SHARES = {  # variance of a weight by fan_in, fan_out
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
}


def kinds(network):
    return [type(layer) for layer in network]


def linears(network):
    return [layer for layer in network if isinstance(layer, nn.Linear)]


# --- activations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", get_args(Activation))
def test_an_activation_is_the_function_of_its_name(name):
    x = torch.linspace(-4, 4, 81)
    assert torch.allclose(make_activation(name).eval()(x), FUNCTIONS[name](x), atol=1e-6)


def test_every_activation_can_be_written_and_each_layer_has_its_own():
    assert set(CLASSES) == set(get_args(Activation)) == set(FUNCTIONS)
    network = MLP((3,), 1, depth=2, width=4, activation="prelu")
    slopes = [layer.weight for layer in network if isinstance(layer, nn.PReLU)]
    assert len(slopes) == 2
    assert slopes[0] is not slopes[1]


# --- initial weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", SHARES)
@pytest.mark.parametrize("shape", ["normal", "uniform"])
@pytest.mark.parametrize(("fan_out", "fan_in"), [(400, 500), (500, 100)])
def test_weights_have_the_variance_of_their_scheme(family, shape, fan_out, fan_in):
    torch.manual_seed(0)
    weight = torch.empty(fan_out, fan_in)
    init_weight(weight, f"{family}_{shape}")
    variance = SHARES[family](fan_in, fan_out)
    count = weight.numel()
    spread = math.sqrt(
        (2 if shape == "normal" else 0.8) / count
    )  # relative standard error of a sample's variance
    assert weight.var().item() == pytest.approx(variance, rel=5 * spread)
    assert abs(weight.mean().item()) < 5 * math.sqrt(variance / count)
    bound = math.sqrt(3 * variance)
    if shape == "uniform":
        assert 0.999 * bound < weight.abs().max() <= bound
    else:
        assert weight.abs().max() > 2 * bound
        assert (weight.abs() < math.sqrt(variance)).float().mean().item() == pytest.approx(
            0.6827, abs=0.01
        )


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40)])
def test_orthogonal_weights_have_orthonormal_rows_or_columns(shape):
    weight = torch.empty(shape)
    init_weight(weight, "orthogonal")
    small = weight @ weight.T if shape[0] <= shape[1] else weight.T @ weight
    assert torch.allclose(small, torch.eye(min(shape)), atol=1e-5)


@pytest.mark.parametrize("shape", [(400, 500), (500, 100)])
def test_normal_has_variance_1_at_any_size(shape):
    torch.manual_seed(0)
    weight = torch.empty(shape)
    init_weight(weight, "normal")
    assert weight.var().item() == pytest.approx(1, rel=5 * math.sqrt(2 / weight.numel()))
    assert (weight.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize(
    ("activation", "family"),
    [
        ("relu", "he"),
        ("leaky_relu", "he"),
        ("rrelu", "he"),
        ("prelu", "he"),
        ("gelu", "he"),
        ("silu", "he"),
        ("mish", "he"),
        ("selu", "lecun"),
        ("elu", "lecun"),
        ("sigmoid", "glorot"),
        ("tanh", "glorot"),
        (None, "glorot"),
    ],
)
def test_auto_takes_the_scheme_of_the_activation(activation, family):
    assert init_for(activation) == f"{family}_normal"
    auto, named = nn.Linear(20, 10), nn.Linear(20, 10)
    torch.manual_seed(1)
    init_linear(auto, "auto", activation)
    torch.manual_seed(1)
    init_linear(named, f"{family}_normal", None)
    assert torch.equal(auto.weight, named.weight)


@pytest.mark.parametrize("init", get_args(Init))
def test_every_scheme_zeroes_the_bias_and_scales_the_weights(init):
    one, half = nn.Linear(6, 4), nn.Linear(6, 4)
    for layer, scale in ((one, 1.0), (half, 0.5)):
        torch.manual_seed(2)
        init_linear(layer, init, "relu", scale=scale)
        assert torch.equal(layer.bias, torch.zeros(4))
        assert layer.weight.std() > 0
    assert torch.equal(half.weight, one.weight / 2)
    init_linear(nn.Linear(6, 4, bias=False), init, "relu")


def pre_activations(init, activation, width=1000, depth=10):
    """The outputs of each hidden linear layer for inputs of mean 0 and variance 1."""
    torch.manual_seed(0)
    network = MLP((width,), 1, depth=depth, width=width, activation=activation, init=init).eval()
    x, found = torch.randn(100, width), []
    with torch.no_grad():
        for layer in list(network)[:-1]:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                found.append(x)
    return found


@pytest.mark.parametrize("init", ["auto", "he_uniform"])
def test_ten_relu_layers_keep_the_variance(init):
    """He et al. 2015: with variance 2 / fan_in each layer's pre-activations
    keep the variance of the first, here 2.
    """
    for found in pre_activations(init, "relu"):
        assert 1 < found.var().item() < 4


def test_ten_relu_layers_of_half_the_variance_lose_it():
    """What the test above would see if he were lecun: a half for each layer, 2^-9 after ten."""
    found = pre_activations("lecun_normal", "relu")
    assert (found[-1].var() / found[0].var()).item() == pytest.approx(2**-9, rel=1)


def test_selu_layers_normalise_themselves():
    """Klambauer et al. 2017: with variance 1 / fan_in,
    mean 0 and variance 1 are a fixed point of the layers.
    """
    for found in pre_activations("auto", "selu"):
        assert abs(found.mean().item()) < 0.1
        assert 0.7 < found.var().item() < 1.4


# --- the multilayer perceptron --------------------------------------------------------------------


def test_layers_stand_in_the_order_linear_norm_activation_dropout():
    block = [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Dropout]
    network = MLP((5,), 3, depth=2, width=4, norm="layer", activation="tanh", dropout=0.2)
    assert kinds(network) == [*block, *block, nn.Linear]
    assert kinds(MLP((5,), 3, depth=1, width=4)) == [nn.Linear, nn.ReLU, nn.Linear]
    assert kinds(MLP((5,), 3, depth=0)) == [nn.Linear]
    assert kinds(MLP((8, 8), 3, depth=0)) == [nn.Flatten, nn.Linear]


def test_the_output_is_what_the_weights_say():
    network = MLP((2, 3), 2, depth=2, width=[5, 4], dropout=0.5).eval()
    first, second, output = linears(network)
    x = torch.randn(7, 2, 3)
    hidden = (x.reshape(7, 6) @ first.weight.T + first.bias).clamp(min=0)
    hidden = (hidden @ second.weight.T + second.bias).clamp(min=0)
    assert torch.allclose(network(x), hidden @ output.weight.T + output.bias, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "width", "widths"),
    [
        (3, 10, [10, 10, 10]),
        (None, [8, 4], [8, 4]),
        (2, [8, 4], [8, 4]),
        (0, 10, []),
        (None, [], []),
        (0, [], []),
    ],
)
def test_widths_of_the_layers(depth, width, widths):
    network = MLP((6,), 2, depth=depth, width=width)
    assert [layer.out_features for layer in linears(network)] == [*widths, 2]
    assert [layer.in_features for layer in linears(network)] == [6, *widths]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"depth": 3, "width": [8, 4]},
            "model.width=[8,4]: 2 values for 3 hidden layers; write one for each",
        ),
        (
            {"depth": None, "width": 100},
            "model.depth=null needs a list of widths; write model.width=[256,128] or",
        ),
        (
            {"depth": 3, "dropout": [0.1, 0.2]},
            "regularization.dropout=[0.1,0.2]: 2 values for 3 hidden layers;",
        ),
        (
            {"depth": None, "width": [8, 4], "dropout": [0.1]},
            "regularization.dropout=[0.1]: 1 values for 2 hidden",
        ),
    ],
)
def test_lists_that_do_not_fit_the_depth_are_refused(options, message):
    with pytest.raises(Refused) as caught:
        MLP((6,), 2, **options)
    assert str(caught.value).startswith(message)


def test_each_layer_has_its_own_dropout_and_the_output_none():
    network = MLP((6,), 2, depth=3, width=4, dropout=[0.1, 0.0, 0.3])
    assert kinds(network)[:-1] == [
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
        nn.ReLU,
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
    ]
    assert [layer.p for layer in network if isinstance(layer, nn.Dropout)] == [0.1, 0.3]
    assert one_for_each("dropout", 0.2, 3) == [0.2, 0.2, 0.2]


def test_batch_norm_takes_the_place_of_the_bias():
    network = MLP((6,), 2, depth=2, width=4, norm="batch")
    hidden, output = linears(network)[:-1], linears(network)[-1]
    assert all(layer.bias is None for layer in hidden)
    assert output.bias is not None
    x = torch.randn(50, 6) * 7 + 3
    normed = network[1](network[0](x))
    assert torch.allclose(normed.mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(normed.var(0, correction=0), torch.ones(4), atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.0])
def test_the_output_scale_multiplies_the_output_weights_only(scale):
    torch.manual_seed(3)
    network = MLP((20,), 300, depth=1, width=500, output_scale=scale)
    hidden, output = linears(network)
    assert hidden.weight.var().item() == pytest.approx(2 / 20, rel=0.1)
    assert output.weight.var().item() == pytest.approx(scale**2 * 2 / (500 + 300), rel=0.05)
    if scale == 0:
        assert torch.equal(network(torch.randn(4, 20)), torch.zeros(4, 300))


# --- the options ----------------------------------------------------------------------------------


WIDTHS = {
    "deep": [100] * 3,
    "shallow": [100],
    "linear": [],
    "wide": [512] * 2,
    "pyramid": [256, 128, 64],
    "selfnorm": [100] * 3,
}
IMAGES = ("cnn", "pretrained")


def plain(compose, name):
    """An option of conf/model as plain values."""
    return OmegaConf.to_container(compose(f"model={name}"), resolve=True)["model"]


@pytest.mark.parametrize("name", WIDTHS)
def test_a_perceptrons_option_is_the_network_that_its_file_describes(name, compose):
    network = build(plain(compose, name), nn.Module, "model", input_shape=(13,), num_outputs=3)
    sizes = [13, *WIDTHS[name], 3]
    assert [layer.out_features for layer in linears(network)] == sizes[1:]
    expected = sum(one * two + two for one, two in itertools.pairwise(sizes))
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert network(torch.randn(5, 13)).shape == (5, 3)


def test_selfnorm_keeps_mean_and_variance(compose):
    """Klambauer et al. 2017: the fixed point of SELU layers with LeCun's weights."""
    torch.manual_seed(0)
    node = {**plain(compose, "selfnorm"), "depth": 8, "width": 500}
    network = build(node, nn.Module, "model", input_shape=(500,), num_outputs=1)
    assert sum(isinstance(layer, nn.SELU) for layer in network) == 8
    hidden = nn.Sequential(*list(network)[:-1])(torch.randn(200, 500))
    assert abs(hidden.mean().item()) < 0.1
    assert hidden.var().item() == pytest.approx(1, rel=0.3)


@pytest.mark.parametrize("name", sorted({*options("model")} - {"pretrained"}))
def test_every_option_is_built_with_and_without_memory(name, compose):
    """A sweep's check builds networks without memory;
    tests/models/test_models_images.py does so for `pretrained`.
    """
    shape = (1, 8, 8) if name in IMAGES else (13,)
    node = {**plain(compose, name), "dropout": 0.1} if name != "linear" else plain(compose, name)
    built = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            built.append(
                build(node, nn.Module, "model", packages=PACKAGES, input_shape=shape, num_outputs=3)
            )
    network, empty = built
    assert network(torch.randn(5, *shape)).shape in ((5, 3), (5, 32, 3))
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in built]
    assert shapes[0] == shapes[1]
    drops = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    assert 0.1 in drops or name == "linear"
