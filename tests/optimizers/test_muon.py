"""Muon and AdamW as one optimizer, against torch's two."""

import copy
import io

import pytest
import torch
from torch import nn

from goldilocks.models.mlp import MLP
from goldilocks.optimizers.muon import MuonWithAdamW
from goldilocks.optimizers.optimizer import build_optimizer, learning_rate
from goldilocks.schedulers.schedule import build_schedule

NODE = {
    "_target_": "goldilocks.optimizers.muon.MuonWithAdamW",
    "lr": 0.02,
    "weight_decay": 0.1,
    "betas": [0.8, 0.99],
}


def make_network():
    torch.manual_seed(0)
    return MLP((6,), 3, depth=2, width=5, norm="layer")


def give_gradients(network, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def separate(network, muon=None, adamw=None):
    """torch's two, on parameters that are told apart by their names."""
    named = dict(network.named_parameters())
    hidden, output = [named["0.weight"], named["3.weight"]], named["6.weight"]
    spared = [parameter for name, parameter in named.items() if parameter.ndim == 1]
    groups = [{"params": [output], "weight_decay": 0.1}, {"params": spared, "weight_decay": 0.0}]
    muon = {
        "weight_decay": 0.1,
        "momentum": 0.95,
        "adjust_lr_fn": "match_rms_adamw",
        **(muon or {}),
    }
    return (
        torch.optim.Muon(hidden, lr=0.02, **muon),
        torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.99), fused=True, **(adamw or {})),
    )


def assert_same_weights(ours, theirs):
    assert all(
        torch.equal(mine, other)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    "muon", [{}, {"momentum": 0.5, "nesterov": False, "ns_steps": 3}, {"adjust_lr_fn": "original"}]
)
def test_it_moves_as_torchs_two_do(muon):
    ours, theirs = make_network(), make_network()
    optimizer, pair = build_optimizer({**NODE, **muon}, ours), separate(theirs, muon)
    for step in range(10):
        give_gradients(ours, step)
        optimizer.step()
        give_gradients(theirs, step)
        for one in pair:
            one.step()
    assert_same_weights(ours, theirs)
    assert not torch.allclose(ours[0].weight, make_network()[0].weight, atol=1e-3)


def test_a_schedule_moves_the_rate_and_the_momentum_of_both():
    ours, theirs = make_network(), make_network()
    optimizer, pair = build_optimizer(NODE, ours), separate(theirs)
    node = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "interval": "step"}
    schedule = build_schedule(node, optimizer, steps_per_epoch=5, max_epochs=2)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(one, max_lr=0.02, total_steps=10) for one in pair
    ]
    momenta = set()
    for step in range(10):
        give_gradients(ours, step)
        optimizer.step()
        schedule.on_step()
        give_gradients(theirs, step)
        for one, own in zip(pair, schedules, strict=True):
            one.step()
            own.step()
        momenta.add(pair[0].param_groups[0]["momentum"])
        assert learning_rate(optimizer) == pair[0].param_groups[0]["lr"]
    assert len(momenta) > 5
    assert_same_weights(ours, theirs)


def test_it_goes_on_from_its_state():
    whole, before, after = make_network(), make_network(), make_network()
    one, two, three = (build_optimizer(NODE, network) for network in (whole, before, after))
    for step in range(8):
        give_gradients(whole, step)
        one.step()
    for step in range(4):
        give_gradients(before, step)
        two.step()
    file = io.BytesIO()
    torch.save((before.state_dict(), two.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    after.load_state_dict(weights)
    three.load_state_dict(state)
    copied, four = copy.deepcopy((after, three))
    for network, optimizer in ((after, three), (copied, four)):
        for step in range(4, 8):
            give_gradients(network, step)
            optimizer.step()
        assert_same_weights(whole, network)


class Kinds(nn.Module):
    """With every kind of parameter."""

    def __init__(self):
        super().__init__()
        self.words, self.kernel = nn.Embedding(5, 4), nn.Conv2d(1, 2, 3)
        self.hidden, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.members = nn.Parameter(torch.ones(2, 4, 4))
        self.second, self.output = nn.Linear(4, 4, bias=False), nn.Linear(4, 3)


def test_muon_takes_the_hidden_matrices_only():
    network = Kinds()
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(p)] for p in MuonWithAdamW.group_keys(network)} == {
        "hidden.weight",
        "second.weight",
    }
    assert MuonWithAdamW.group_keys(nn.Linear(3, 2)) == {}


def test_every_parameter_is_in_one_group_with_its_factor_and_its_decay():
    network = Kinds()
    network.lr_factors = lambda: {"hidden.weight": 0.5, "output.weight": 0.5, "norm.bias": 0.5}
    optimizer = build_optimizer(NODE, network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        names[id(p)]: (bool(group.get("muon")), group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found) == len(names)
    assert found["hidden.weight"] == (True, 0.01, 0.1)
    assert found["second.weight"] == (True, 0.02, 0.1)
    assert found["output.weight"] == (False, 0.01, 0.1)
    assert found["norm.bias"] == (False, 0.01, 0.0)
    assert {found[name] for name in ("words.weight", "kernel.weight", "members")} == {
        (False, 0.02, 0.1)
    }
    assert {found[name] for name in ("output.bias", "norm.weight", "hidden.bias")} == {
        (False, 0.02, 0.0)
    }


def test_a_linear_model_is_adamws():
    ours, theirs = nn.Linear(4, 2), nn.Linear(4, 2)
    theirs.load_state_dict(ours.state_dict())
    node = {"_target_": "torch.optim.AdamW", "lr": 0.02, "weight_decay": 0.1, "betas": [0.8, 0.99]}
    for network, optimizer in (
        (ours, build_optimizer(NODE, ours)),
        (theirs, build_optimizer(node, theirs)),
    ):
        for step in range(3):
            give_gradients(network, step)
            optimizer.step()
    assert_same_weights(ours, theirs)


def test_the_closure_is_called_once():
    network = make_network()
    optimizer = build_optimizer(NODE, network)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = network(torch.ones(2, 6)).square().sum()
        loss.backward()
        calls.append(loss.item())
        return loss

    assert [optimizer.step(closure).item()] == calls
