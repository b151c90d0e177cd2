"""The judgements of the health check on made-up numbers;
tests/diagnosis/test_doctor.py shows them on real runs.
"""

import math
import sys

import pytest
import torch
from torch import nn

from fitting import make
from goldilocks.data.spec import Spec
from goldilocks.data.verdict import Verdict, lines_of
from goldilocks.diagnosis.network_checks import (
    constant_loss,
    distinct_batch,
    judge_first_loss,
    judge_gradients,
    judge_layers,
    judge_progress,
    overfit_batch,
    probe_gradients,
    rate_verdict,
)
from goldilocks.diagnosis.resource_checks import (
    judge_memory_use,
    judge_time,
    optimizer_bytes,
    process_memory,
)
from goldilocks.tasks.losses import MAE, MSE, Huber
from goldilocks.tasks.task import Task
from goldilocks.training.layer_health import ActivationHealth, Health, LayerHealth


@pytest.mark.parametrize(
    ("configured", "status"),
    [
        (0.01, "ok"),
        (0.0011, "ok"),
        (0.0009, "warning"),
        (1e-6, "warning"),
        (0.11, "warning"),
        (1.1, "failed"),
    ],
)
def test_a_rate_beside_the_suggested_one(configured, status):
    verdict = rate_verdict(configured, 0.01)
    assert verdict.status == status
    assert ("optimizer.lr=0.01" in verdict.advice) == (status != "ok")


@pytest.mark.parametrize(
    ("losses", "status"),
    [
        ([1.0, 0.5], "ok"),
        ([1.0, 6.0, 0.5], "warning"),
        ([1.0, 40.0, 0.5], "failed"),
        ([1.0, 1.5], "warning"),
        ([1.0, 3.0], "failed"),
        ([1.0, math.nan], "failed"),
        ([1.0, 0.9999], "warning"),
    ],
)
def test_losses_of_the_own_steps(losses, status):
    assert judge_progress(losses, 0.1).status == status


@pytest.mark.parametrize(
    ("first", "status"), [(1.0, "ok"), (1.6, "warning"), (20.0, "failed"), (0.4, "warning")]
)
def test_the_first_loss_beside_a_guess(first, status):
    verdict = judge_first_loss(first, 1.0, "the target's mean", "write model.init=auto")
    assert verdict.status == status


@pytest.mark.parametrize(("loss", "expected"), [(MSE(), 2 / 3), (MAE(), 2 / 3), (Huber(), 1 / 3)])
def test_a_constant_guess_of_a_regression(loss, expected):
    y = torch.tensor([[1.0], [2.0], [3.0]])
    assert constant_loss(Task(Spec("regression", (1,), 1), loss), y)[0] == pytest.approx(expected)


def test_the_batch_holds_distinct_rows_of_all_classes():
    x = torch.arange(40.0).repeat_interleave(2)[:, None]  # each row twice
    y = (torch.arange(80) >= 70).long()
    rows, classes = distinct_batch(x, y, 10)
    assert len(rows.unique()) == 10
    assert classes.sum() == 5


def test_overfitting_one_batch_leaves_the_network_alone_and_ends_when_time_is_up():
    made = make()
    x, y = (tensor[:8] for tensor in made.data.tensors["train"])
    before = [parameter.clone() for parameter in made.network.parameters()]
    memory = overfit_batch(made.network, made.module.task.loss, 1.1, x, y, 0.0)
    assert memory.steps == 0
    assert all(map(torch.equal, before, made.network.parameters()))


def health(sizes, loss=1.0, activations=()):
    return Health(
        loss,
        [LayerHealth(str(place), size, 1.0) for place, size in enumerate(sizes)],
        list(activations),
    )


@pytest.mark.parametrize(
    ("sizes", "status", "words"),
    [
        ((1.0, 0.1, 500.0), "ok", ""),
        ((1e-4, 1.0, 1.0), "warning", "vanishing"),
        ((1e-8, 1.0, 1.0), "failed", "vanishing"),
        ((1.0, 1e-8, 1.0), "failed", "exploding"),
        ((1e5, 1e5, 1.0), "failed", "exploding"),
        ((None, 1.0, 1.0), "failed", "forward()"),
        ((0.0, 0.0, 1.0), "failed", ""),
        ((math.nan, 1.0, 1.0), "failed", "model.init"),
        ((1.0,), "ok", ""),
    ],
)
def test_gradients_by_layer(sizes, status, words):
    verdict = judge_gradients(health(sizes))
    assert verdict.status == status
    assert words in verdict.advice


def test_an_output_layer_that_starts_at_zero_is_no_cut():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    nn.init.zeros_(network[-1].weight)
    found = probe_gradients(network, nn.functional.mse_loss, torch.randn(20, 4), torch.ones(20, 1))
    assert judge_gradients(found).status == "ok"
    assert not network[-1].weight.any()


@pytest.mark.parametrize(
    ("dead", "saturated", "status"),
    [
        (0.1, 0.2, "ok"),
        (0.6, None, "warning"),
        (None, 0.6, "warning"),
        (1.0, 0.1, "failed"),
        (None, None, "ok"),
    ],
)
def test_dead_and_saturated_units(dead, saturated, status):
    part = ActivationHealth("1", "ReLU", torch.zeros(2, 2), dead, saturated)
    assert judge_layers(health((1.0,), activations=[part]), 60).status == status


def test_time_and_memory():
    assert "2 epochs of 50 steps take 1.0 s at most" in judge_time(100, 50, 2, True).measured
    assert judge_time(1, 1000, 1000, False).status == "warning"
    assert (
        "network 2.0 MB; 90 of 100 MB"
        in judge_memory_use({"network": 2_000_000}, 90_000_000, 100_000_000).measured
    )
    assert judge_memory_use({}, 90, 100).status == "warning"
    assert judge_memory_use({}, 99, 100).status == "failed"
    assert judge_memory_use({}, None, None).status == "ok"


def test_the_optimizers_memory_is_that_of_its_state():
    layer = nn.Linear(100, 10)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 100)).sum().backward()
    optimizer.step()
    assert optimizer_bytes(optimizer) == pytest.approx(
        2 * 4 * 1010, abs=16
    )  # two moments, and counts of steps


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say")
def test_the_system_says_what_the_process_takes():
    used, there = process_memory()
    assert 10**7 < used < there


def test_advice_stands_below_what_was_measured():
    assert lines_of(Verdict("a", "ok", "1")) == ["ok       a                        1"]
    first, second = lines_of(Verdict("first loss", "warning", "2", "write b=1"))
    assert second.index("->") == first.index("2")
