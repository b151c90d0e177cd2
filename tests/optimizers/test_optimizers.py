import copy
import inspect

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer

from goldilocks.config.options import options
from goldilocks.errors import Refused
from goldilocks.models.mlp import MLP
from goldilocks.optimizers.flat_parameters import FlatParameters, can_be_flat
from goldilocks.optimizers.optimizer import (
    FUSED_ON_CPU,
    build_optimizer,
    learning_rate,
    split_parameters,
    try_optimizer,
)

NAMES = options("optimizer")
COMPOSED = {}


@pytest.fixture
def option(compose):
    """An option of conf/optimizer as plain values."""

    def plain(name):
        if name not in COMPOSED:
            COMPOSED[name] = OmegaConf.to_container(compose(f"optimizer={name}").optimizer)
        pytest.importorskip(COMPOSED[name]["_target_"].partition(".")[0])
        return dict(COMPOSED[name])

    return plain


def takes(node, argument):
    """Whether the class of an option has an argument of this name."""
    return argument in inspect.signature(get_class(node["_target_"])).parameters


def decayed(node, decay):
    """An option with a decay of the weights; skips a test of one that has none."""
    if not takes(node, "weight_decay"):
        pytest.skip("this optimizer has no decay")
    return {**node, "weight_decay": decay}


def make_network(seed=0):
    """With every kind of parameter: weights, biases, of two norms and of an activation."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(6, 5),
        nn.LayerNorm(5),
        nn.PReLU(),
        nn.Linear(5, 4, bias=False),
        nn.BatchNorm1d(4),
        nn.Linear(4, 2),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def give_gradients(network, step, scale=1.0):
    generator = torch.Generator().manual_seed(step)
    for parameter in network.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def snapshot(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def decaying(name):
    return name in ("0.weight", "3.weight", "5.weight")


# --- what decays ----------------------------------------------------------------------------------


def test_matrices_decay_and_biases_norms_and_slopes_do_not():
    network = make_network()
    weights, rest = split_parameters(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(parameter)] for parameter in weights} == {"0.weight", "3.weight", "5.weight"}
    assert len(weights) + len(rest) == len(names)


def test_frozen_parameters_are_in_neither():
    network = make_network()
    network[0].requires_grad_(False)
    weights, rest = split_parameters(network)
    assert not {id(parameter) for parameter in network[0].parameters()} & {
        id(p) for p in weights + rest
    }
    assert len(weights) == 2


@pytest.mark.parametrize("name", NAMES)
def test_with_zero_gradients_only_the_weights_shrink(name, option):
    """asgd has a decay under a second name, `lambd`."""
    network = make_network()
    node = decayed(option(name), 0.1)
    optimizer = build_optimizer(node, network)
    before = snapshot(network)
    give_gradients(network, 0, scale=0.0)
    optimizer.step()
    for key, parameter in network.named_parameters():
        if not decaying(key):
            assert torch.equal(parameter, before[key]), key
        else:
            assert parameter.norm() < before[key].norm(), key
    if name in ("adamw", "nadam", "radam", "lion", "muon"):  # decoupled: w <- w - lr * decay * w
        for key, parameter in network.named_parameters():
            if decaying(key):
                assert torch.allclose(parameter, before[key] * (1 - node["lr"] * 0.1), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_where_it_is_asked_for_everything_shrinks(name, option):
    network = make_network()
    optimizer = build_optimizer({**decayed(option(name), 0.1), "decay_all": True}, network)
    assert all(group["weight_decay"] == 0.1 for group in optimizer.param_groups)
    before = snapshot(network)
    give_gradients(network, 0, scale=0.0)
    optimizer.step()
    assert all(
        parameter.norm() < before[key].norm() for key, parameter in network.named_parameters()
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_decay_zero_gradients_move_nothing(name, option):
    network = make_network()
    none = {key: 0.0 for key in ("weight_decay", "lambd") if key in option(name)}
    optimizer = build_optimizer({**option(name), **none}, network)
    before = snapshot(network)
    give_gradients(network, 0, scale=0.0)
    optimizer.step()
    for key, parameter in network.named_parameters():
        assert torch.equal(parameter, before[key])


def test_a_decay_that_is_the_librarys_default_spares_the_biases_too():
    """torch's AdamW decays by 0.01 where the option does not say."""
    network = make_network()
    optimizer = build_optimizer({"_target_": "torch.optim.AdamW", "lr": 0.1}, network)
    before = snapshot(network)
    give_gradients(network, 0, scale=0.0)
    optimizer.step()
    for key, parameter in network.named_parameters():
        assert torch.equal(parameter, before[key]) != decaying(key), key


def test_a_network_without_matrices_or_with_nothing_else_has_its_optimizer():
    for network in (nn.LayerNorm(3), nn.Linear(3, 2, bias=False)):
        optimizer = build_optimizer({"_target_": "torch.optim.AdamW", "weight_decay": 0.1}, network)
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        assert {id(parameter) for parameter in held} == {
            id(parameter) for parameter in network.parameters()
        }


# --- factors of the rate --------------------------------------------------------------------------


class Factored(nn.Module):
    """Four kinds of parameters at four rates."""

    FACTORS = {"scale": 6.0, "first.bias": 0.1, "last.bias": 0.1}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.scale, self.last = (
            nn.Linear(4, 3),
            nn.Parameter(torch.ones(3)),
            nn.Linear(3, 2),
        )

    def lr_factors(self):
        return self.FACTORS


def rate_of(optimizer, parameter):
    (group,) = [
        group for group in optimizer.param_groups if any(parameter is p for p in group["params"])
    ]
    return group["lr"]


def test_a_network_asks_for_factors_of_the_rate(option):
    """Without a decay there is a group for each factor;
    with one, for each pair of factor and decay.
    """
    network = Factored()
    for node, groups in (
        (option("adam"), 3),
        ({**option("adam"), "weight_decay": 0.1}, 3),
        (option("sgd"), 3),
    ):
        optimizer = build_optimizer(node, network)
        assert len(optimizer.param_groups) == groups
        assert learning_rate(optimizer) == node["lr"]
        for name, parameter in network.named_parameters():
            assert rate_of(optimizer, parameter) == node["lr"] * network.FACTORS.get(name, 1.0)


def test_factors_and_decay_together():
    network = Factored()
    network.FACTORS = {"first.weight": 2.0, "first.bias": 2.0}
    optimizer = build_optimizer(
        {"_target_": "torch.optim.SGD", "lr": 0.5, "weight_decay": 0.1}, network
    )
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        (group["lr"], group["weight_decay"], *(names[id(p)] for p in group["params"]))
        for group in optimizer.param_groups
    }
    assert found == {
        (1.0, 0.1, "first.weight"),
        (1.0, 0.0, "first.bias"),
        (0.5, 0.1, "last.weight"),
        (0.5, 0.0, "scale", "last.bias"),
    }


def test_each_parameter_moves_at_its_own_rate():
    """One step of SGD is the rate times the gradient; so it is through one vector a group."""
    for flat in (False, True):
        network = Factored()
        optimizer = build_optimizer({"_target_": "torch.optim.SGD", "lr": 0.5}, network)
        vectors = FlatParameters(optimizer) if flat and can_be_flat(optimizer) else None
        assert (vectors is not None) == flat
        before = snapshot(network)
        give_gradients(network, 0)
        if vectors:
            vectors.gather()
        optimizer.step()
        for name, parameter in network.named_parameters():
            expected = before[name] - 0.5 * network.FACTORS.get(name, 1.0) * parameter.grad
            torch.testing.assert_close(parameter.detach(), expected)


def test_the_nominal_rate_is_told_where_every_parameter_has_a_factor():
    network = nn.Linear(2, 1)
    network.lr_factors = lambda: {"weight": 0.3, "bias": 0.7}
    assert learning_rate(
        build_optimizer({"_target_": "torch.optim.SGD", "lr": 0.1}, network)
    ) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "factors", [{"first": 2.0}, {"first.bias": 0.0}, {"first.bias": float("nan")}]
)
def test_a_factor_without_sense_is_the_networks_mistake(factors):
    network = Factored()
    network.FACTORS = factors
    with pytest.raises(AssertionError, match=r"lr_factors: "):
        build_optimizer({"_target_": "torch.optim.SGD", "lr": 0.1}, network)


# --- the step -------------------------------------------------------------------------------------


def plain_optimizer(node, network):
    """The library's class on weights and rest, without anything of ours."""
    arguments = {
        key: tuple(v) if isinstance(v, list) else v for key, v in node.items() if key != "_target_"
    }
    assert arguments.pop("decay_all", False) is False
    weights, rest = split_parameters(network)
    spare = {key: 0.0 for key in ("weight_decay", "lambd") if key in arguments}
    one_by_one = {"foreach": False} if takes(node, "foreach") else {}
    groups = [{"params": weights}, {"params": rest, **spare}]
    return get_class(node["_target_"])(groups, **arguments, **one_by_one)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name != "muon"]
)  # tests/optimizers/test_muon.py
@pytest.mark.parametrize("decay", [None, 0.05])
def test_the_fast_step_is_the_plain_one(name, decay, option):
    """Twelve steps against the library's implementation that takes one tensor after the other."""
    node = option(name) if decay is None else decayed(option(name), decay)
    ours, plain = make_network(), make_network()
    optimizer = build_optimizer(node, ours)
    if hasattr(torch.optim, node["_target_"].rpartition(".")[2]):
        fused = node["_target_"].rpartition(".")[2] in FUSED_ON_CPU
        assert (
            (optimizer.defaults["fused"] is True)
            if fused
            else (optimizer.defaults["foreach"] is False)
        )
    reference = plain_optimizer(node, plain)
    for step in range(12):
        for network, stepper in ((ours, optimizer), (plain, reference)):
            give_gradients(network, step)
            stepper.step()
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def first_steps(node, gradients, start=1.0):
    """A single weight's way under a row of gradients."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, start)
    optimizer, way = build_optimizer(node, layer), []
    for gradient in gradients:
        layer.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        way.append(layer.weight.item())
    return way


def test_each_option_moves_as_its_paper_says(option):
    """Two steps by hand, with gradients 1 and 2, from weight 1."""
    lr = option("sgd")["lr"]
    assert first_steps(option("sgd"), [1.0, 2.0]) == pytest.approx([1 - lr, 1 - 3 * lr])
    lr = option("momentum")["lr"]
    assert first_steps(option("momentum"), [1.0, 2.0]) == pytest.approx(
        [1 - lr, 1 - lr - (0.9 + 2) * lr]
    )
    lr = option("nesterov")["lr"]
    one = 1 - (1 + 0.9) * lr
    assert first_steps(option("nesterov"), [1.0, 2.0]) == pytest.approx(
        [one, one - (2 + 0.9 * (0.9 + 2)) * lr]
    )
    lr = option("rmsprop")["lr"]
    one = 1 - lr / 0.01**0.5
    assert first_steps(option("rmsprop"), [1.0, 2.0]) == pytest.approx(
        [one, one - lr * 2 / (0.99 * 0.01 + 0.01 * 4) ** 0.5], rel=1e-5
    )
    lr = option("adam")["lr"]
    first, second = (
        (0.9 * 0.1 + 0.1 * 2) / (1 - 0.9**2),
        (0.999 * 0.001 + 0.001 * 4) / (1 - 0.999**2),
    )
    two = 1 - lr - lr * first / second**0.5
    assert first_steps(option("adam"), [1.0, 2.0]) == pytest.approx([1 - lr, two], rel=1e-5)
    lr = option("adamax")["lr"]
    assert first_steps(option("adamax"), [1.0, 2.0]) == pytest.approx(
        [1 - lr, 1 - lr - lr * first / 2], rel=1e-5
    )
    lr = option("adagrad")["lr"]
    assert first_steps(option("adagrad"), [1.0, 2.0]) == pytest.approx(
        [1 - lr, 1 - lr - lr * 2 / 5**0.5], rel=1e-5
    )
    lr, eps = option("adadelta")["lr"], 1e-6
    update = (eps / (0.1 + eps)) ** 0.5
    size = ((0.1 * update**2 + eps) / (0.9 * 0.1 + 0.1 * 4 + eps)) ** 0.5
    assert first_steps(option("adadelta"), [1.0, 2.0]) == pytest.approx(
        [1 - lr * update, 1 - lr * update - lr * 2 * size], rel=1e-5
    )
    lr = option("radam")["lr"]  # rectified from the sixth step on: before, a plain momentum
    assert first_steps(option("radam"), [1.0, 2.0]) == pytest.approx(
        [1 - lr, 1 - lr - lr * first], rel=1e-5
    )
    lr, decay = option("asgd")["lr"], 1e-4
    one = 1 - decay * lr - lr
    rate = lr / (1 + decay * lr) ** 0.75
    assert first_steps(option("asgd"), [1.0, 2.0]) == pytest.approx(
        [one, one * (1 - decay * rate) - 2 * rate], rel=1e-5
    )
    node = {**option("adamw"), "weight_decay": 0.5}
    assert first_steps(node, [1.0]) == pytest.approx([1 - node["lr"] * 0.5 - node["lr"]], rel=1e-5)


def test_lion_moves_by_the_sign_of_its_momentum(option):
    """From gradients 1 and -0.05: the momentum, 0.01, outweighs a tenth of the second gradient."""
    lr = option("lion")["lr"]
    assert first_steps(option("lion"), [1.0, -0.05]) == pytest.approx(
        [1 - lr, 1 - 2 * lr], rel=1e-6
    )
    assert first_steps(option("lion"), [1.0, -0.5]) == pytest.approx([1 - lr, 1.0], rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_descends(name, option):
    """A least-squares problem: each option, at its own rate, comes down."""
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
    torch.manual_seed(1)
    network = MLP((4,), 1, depth=1, width=8)
    optimizer = build_optimizer(option(name), network)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.99 * losses[0]


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("nadam", "lr", -1.0),
        ("nadam", "lr", float("nan")),
        ("nadam", "lr", "fast"),
        ("nadam", "lr", True),
        ("nadam", "betas", [0.9, 1.5]),
        ("nadam", "betas", [0.9]),
        ("nadam", "betas", 0.9),
        ("nadam", "momentum_decay", -1.0),
        ("nadam", "weight_decay", -0.1),
        ("adam", "eps", -1e-8),
        ("adamw", "weight_decay", -0.1),
        ("sgd", "momentum", -0.9),
        ("sgd", "nesterov", True),  # without momentum
        ("momentum", "lr", None),
        ("rmsprop", "alpha", -0.5),
        ("adamax", "betas", [-0.1, 0.9]),
        ("radam", "lr", -1.0),
        ("adagrad", "lr_decay", -1.0),
        ("adadelta", "rho", 1.5),
        ("asgd", "weight_decay", -1.0),
        ("lion", "betas", [0.9, 1.5]),
        ("lion", "lr", -1.0),
        ("lion", "wait_decay", 0.1),
        ("muon", "momentum", 1.5),
        ("muon", "adjust_lr_fn", "best"),
        ("muon", "ns_steps", 0),
        ("adam", "decay_all", "weights"),
        ("adam", "decay_all", 0.1),
    ],
)
def test_values_that_the_optimizer_rejects_are_refused_in_one_line(name, key, value, option):
    with pytest.raises(Refused, match=r"^optimizer") as caught:
        try_optimizer({**option(name), key: value})
    assert "\n" not in str(caught.value)


def test_an_unknown_key_names_the_near_miss(option):
    with pytest.raises(
        Refused, match=r"^optimizer\.momentun: SGD has no such key; did you mean momentum\?$"
    ):
        try_optimizer({**option("sgd"), "momentun": 0.9})


def test_the_parameters_are_live():
    with pytest.raises(Refused, match=r"^optimizer\.params: "):
        build_optimizer({"_target_": "torch.optim.SGD", "params": [1]}, make_network())


@pytest.mark.parametrize("given", [{"foreach": False}, {"fused": False}])
def test_the_option_may_choose_the_implementation(given):
    network = make_network()
    optimizer = build_optimizer({"_target_": "torch.optim.Adam", "lr": 0.1, **given}, network)
    assert all(optimizer.defaults[key] is value for key, value in given.items())
    before = snapshot(network)
    give_gradients(network, 0)
    optimizer.step()
    assert not torch.equal(network[0].weight, before["0.weight"])


def test_the_learning_rate_is_a_plain_number():
    network = make_network()
    assert (
        learning_rate(build_optimizer({"_target_": "torch.optim.SGD", "lr": 0.25}, network)) == 0.25
    )
    weights, _ = split_parameters(copy.deepcopy(network))
    rate = learning_rate(torch.optim.Adam(weights, lr=torch.tensor(0.5)))
    assert rate == 0.5
    assert isinstance(rate, float)


def test_an_optimizer_of_ones_own_without_fast_steps_is_built():
    node = {"_target_": f"{__name__}.SignDescent", "lr": 0.5}
    network = nn.Linear(2, 1)
    before = network.weight.detach().clone()
    optimizer = build_optimizer(node, network, packages=[__name__.partition(".")[0]])
    give_gradients(network, 0)
    optimizer.step()
    assert torch.allclose(network.weight, before - 0.5 * network.weight.grad.sign())


class SignDescent(Optimizer):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad.sign()
