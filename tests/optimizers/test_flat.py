"""Parameters as one vector: the same numbers as one tensor after the other,
and checkpoints like torch's.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fitting import assert_same, fit, make, sgd, vector
from goldilocks.optimizers.flat_parameters import (
    ELEMENTWISE,
    MAX_ELEMENTS,
    FlatParameters,
    can_be_flat,
)
from goldilocks.optimizers.optimizer import split_parameters

OPTIONS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"amsgrad": True, "weight_decay": 0.01},
    "NAdam": {"weight_decay": 0.01, "decoupled_weight_decay": True},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adagrad": {"lr": 0.05, "initial_accumulator_value": 0.1},
    "Adadelta": {"lr": 1.0},
}
KINDS = [kind.__name__ for kind in ELEMENTWISE]
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(32, 7, generator=GENERATOR), torch.randint(3, (32,), generator=GENERATOR)


class Network(nn.Module):
    """Odd sizes, a norm, and a layer that is not always used."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(7, 11), nn.LayerNorm(11), nn.Linear(11, 3)
        self.spare = nn.Linear(11, 11)
        self.used = True

    def forward(self, x):
        x = torch.tanh(self.norm(self.first(x)))
        return self.last(x + self.spare(x) if self.used else x)


def build(name, network, **implementation):
    weights, rest = split_parameters(network)
    groups = [{"params": weights}, {"params": rest, "lr": 0.02}]
    return getattr(torch.optim, name)(
        groups, **OPTIONS.get(name, {}), **(implementation or {"foreach": False})
    )


def train(network, optimizer, flat=None, steps=20):
    for _ in range(steps):
        F.cross_entropy(network(X), Y).backward()
        if flat is not None:
            flat.gather()
        optimizer.step()
        for parameter in network.parameters():
            parameter.grad = None


def assert_equal_states(ours, theirs):
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        assert state.keys() == ours["state"][number].keys()
        for key, value in state.items():
            assert torch.equal(torch.as_tensor(ours["state"][number][key]), torch.as_tensor(value))


@pytest.mark.parametrize("name", ["ScheduleFreeAdamW", "ScheduleFreeSGD"])
def test_an_optimizer_that_switches_weights_moves_a_vector_too(name):
    """And goes to the weights that are evaluated, and back."""
    library = pytest.importorskip("pytorch_optimizer")
    ours, plain, copied = Network(), Network(), Network()
    optimizer, reference, loaded = (
        getattr(library, name)([{"params": part} for part in split_parameters(network)], lr=0.05)
        for network in (ours, plain, copied)
    )
    assert can_be_flat(optimizer)
    flat = FlatParameters(optimizer)
    for _ in range(3):
        train(ours, optimizer, flat, steps=5)
        train(plain, reference, steps=5)
        trained = vector(ours)
        torch.testing.assert_close(trained, vector(plain), rtol=0, atol=1e-5)
        optimizer.eval()
        reference.eval()
        torch.testing.assert_close(vector(ours), vector(plain), rtol=0, atol=1e-5)
        assert not torch.allclose(vector(ours), trained)
        optimizer.train()
        reference.train()
    loaded.load_state_dict(optimizer.state_dict())  # torch's layout: a state a parameter
    assert loaded.state[copied.first.weight]["z"].shape == copied.first.weight.shape


@pytest.mark.parametrize("name", KINDS)
def test_a_vector_moves_as_its_parts_would_to_the_bit(name):
    ours, plain = Network(), Network()
    optimizer, reference = build(name, ours), build(name, plain)
    assert can_be_flat(optimizer)
    flat = FlatParameters(optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]
    start = vector(ours)
    train(ours, optimizer, flat)
    train(plain, reference)
    assert torch.equal(vector(ours), vector(plain))
    assert not torch.allclose(vector(ours), start)
    assert_equal_states(optimizer.state_dict(), reference.state_dict())


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_a_fused_step_differs_by_rounding_at_most(name):
    ours, plain = Network(), Network()
    optimizer = build(name, ours, fused=True)
    train(ours, optimizer, FlatParameters(optimizer))
    train(plain, build(name, plain, fused=True))
    torch.testing.assert_close(vector(ours), vector(plain), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("saved_flat", "loaded_flat"), [(True, False), (False, True), (True, True)]
)
def test_checkpoints_are_torchs_own_and_go_both_ways(name, saved_flat, loaded_flat):
    before, after, reference = Network(), Network(), Network()
    optimizer = build(name, before)
    train(before, optimizer, FlatParameters(optimizer) if saved_flat else None)
    loaded = build(name, after)
    flat = FlatParameters(loaded) if loaded_flat else None
    after.load_state_dict(before.state_dict())
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(after, loaded, flat)
    train(reference, build(name, reference), steps=40)
    assert torch.equal(vector(after), vector(reference))


@pytest.mark.parametrize("name", KINDS)
def test_a_parameter_without_a_gradient_stays_where_it_is(name):
    """As in torch, which passes over it:
    also one that had gradients before, with its momentum and its decay.
    """
    ours, plain = Network(), Network()
    optimizer, reference = build(name, ours), build(name, plain)
    flat = FlatParameters(optimizer)
    for used in (True, False, True):
        ours.used = plain.used = used
        kept = ours.spare.weight.clone()
        train(ours, optimizer, flat, steps=5)
        train(plain, reference, steps=5)
        assert torch.equal(ours.spare.weight, kept) is not used
        assert torch.equal(vector(ours), vector(plain))
    assert_equal_states(optimizer.state_dict(), reference.state_dict())


def test_a_callers_zero_grad_does_not_cut_the_vector_off():
    ours, plain = Network(), Network()
    optimizer, reference = build("NAdam", ours), build("NAdam", plain)
    flat = FlatParameters(optimizer)
    for _ in range(3):
        train(ours, optimizer, flat, steps=1)
        optimizer.zero_grad()
        train(plain, reference, steps=1)
    assert torch.equal(vector(ours), vector(plain))


class Own(torch.optim.SGD):
    """An optimizer of one's own, which may look at each tensor by itself."""


def wide():
    return nn.Linear(MAX_ELEMENTS, 1)


def mixed():
    network = Network()
    network.last.double()
    return network


def scalar():
    network = Network()
    network.scale = nn.Parameter(torch.tensor(1.0))
    return network


@pytest.mark.parametrize(
    ("network", "kind"),
    [(Network, Own), (wide, torch.optim.SGD), (mixed, torch.optim.SGD), (scalar, torch.optim.SGD)],
)
def test_what_is_left_as_it_is(network, kind):
    assert not can_be_flat(kind(network().parameters(), lr=0.1))
    assert can_be_flat(torch.optim.SGD(Network().parameters(), lr=0.1))


def test_a_run_uses_it_and_a_callback_that_watches_steps_changes_nothing():
    found = fit()
    assert found.module.flat is not None
    assert [len(group["params"]) for group in found.trainer.optimizers[0].param_groups] == [1, 1]
    apart = make()
    apart.module.make_optimizer = lambda network, lr: OwnNAdam(
        [{"params": group} for group in split_parameters(network)], lr=5e-3, foreach=True
    )
    apart.trainer.fit(apart.module, apart.data)
    assert apart.module.flat is None
    assert_same(found, apart)


class OwnNAdam(torch.optim.NAdam):
    """The same, which is not known to treat every element alike."""


def test_a_checkpoint_is_no_larger_and_stands_alone(tmp_path):
    """Views into one vector would each bring all of it, if they were saved as they are."""
    found = fit(optimizer=lambda groups: sgd(groups, momentum=0.9))
    path = tmp_path / "last.ckpt"
    found.trainer.save_checkpoint(path)
    state = torch.load(path, weights_only=True)
    bytes_of_weights = 4 * sum(p.numel() for p in found.network.parameters())
    assert path.stat().st_size < 2 * bytes_of_weights + 30_000
    assert len(state["optimizer_states"][0]["state"]) == len(list(found.network.parameters()))
