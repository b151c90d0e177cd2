"""Gradients, dead and saturated units of a probe."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from goldilocks.training.layer_health import measure_health


def probe(network, x, y):
    return measure_health(network.eval(), F.mse_loss, x, y)


def test_gradient_norms_are_those_of_backward_and_nothing_is_left_behind():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x, y = torch.randn(10, 4), torch.randn(10, 1)
    health = probe(network, x, y)
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    loss = F.mse_loss(network(x), y)
    loss.backward()
    assert health.loss == pytest.approx(loss.item())
    assert [layer.name for layer in health.layers] == ["0", "2"]
    for layer in health.layers:
        weight = network[int(layer.name)].weight
        assert layer.gradient_norm == pytest.approx(weight.grad.norm().item())
        assert layer.weight_norm == pytest.approx(weight.norm().item())


def test_a_layer_that_no_gradient_reaches_has_none():
    class Cut(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x).detach())

    health = probe(Cut(nn.Linear(2, 3), nn.Linear(3, 1)), torch.ones(5, 2), torch.ones(5, 1))
    assert health.layers[0].gradient_norm is None
    assert health.layers[1].gradient_norm > 0


def test_dead_units_are_those_that_are_zero_on_every_row():
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.copy_(torch.tensor([-1.0, -1.0, -1.0, 1.0]))
    health = probe(network, torch.randn(6, 2), torch.ones(6, 1))
    assert [(a.kind, a.dead, a.saturated) for a in health.activations] == [("ReLU", 0.75, None)]


@pytest.mark.parametrize("kind", [nn.Tanh, nn.Sigmoid])
def test_saturated_outputs_are_those_on_a_flat_side(kind):
    network = nn.Sequential(nn.Linear(1, 2, bias=False), kind(), nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[20.0], [0.1]]))
    health = probe(network, torch.ones(6, 1), torch.ones(6, 1))
    assert health.activations[0].dead is None
    assert health.activations[0].saturated == 0.5


@pytest.mark.parametrize(("outputs", "units"), [((5, 4, 3, 3), 4), ((5, 2, 4), 8), ((5, 4), 4)])
def test_channels_and_members_of_an_ensemble_are_units(outputs, units):
    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.activation = nn.Parameter(torch.ones(1, 1)), nn.ReLU()

        def forward(self, x):
            return (
                self.activation(self.weight * torch.ones(1).expand(outputs))
                .flatten(1)
                .mean(1, keepdim=True)
            )

    health = probe(Given(), torch.ones(5, 1), torch.zeros(5, 1))
    assert health.activations[0].outputs.shape[1] == units
    assert health.activations[0].dead == 0
