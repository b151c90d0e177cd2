"""The norms of gradients before and after clipping, beside what the formula says."""

import math

import pytest
import torch
from torch import nn

from fitting import fit
from goldilocks.training.clipping import EVERY, Gradients


def clip(value, algorithm, steps):
    """The metrics of steps that have these gradients, and the gradients after the last."""
    gradients, weight = Gradients(value, algorithm), nn.Parameter(torch.zeros(2))
    unused = nn.Parameter(torch.zeros(3))
    for step in steps:
        weight.grad = torch.tensor(step)
        gradients.clip([weight, unused])
    return gradients.metrics(), weight.grad.tolist()


def test_by_norm_every_step_counts():
    found, last = clip(2.5, "norm", [[3.0, 4.0], [0.3, 0.4], [6.0, 8.0]])
    assert found == pytest.approx(
        {"gradient_norm": 15.5 / 3, "gradient_norm_clipped": 5.5 / 3, "clipped_share": 2 / 3}
    )
    assert last == pytest.approx([1.5, 2.0], rel=1e-5)


def test_by_value():
    found, last = clip(1.0, "value", [[3.0, 0.5]])
    before, after = math.hypot(3, 0.5), math.hypot(1, 0.5)
    assert found == pytest.approx(
        {"gradient_norm": before, "gradient_norm_clipped": after, "clipped_share": 1.0}
    )
    assert last == [1.0, 0.5]
    assert clip(5.0, "value", [[3.0, 0.5]])[0]["clipped_share"] == 0


def test_without_clipping_some_steps_are_measured_and_none_is_changed():
    found, last = clip(None, "norm", [[3.0, 4.0], *[[30.0, 40.0]] * (EVERY - 1), [6.0, 8.0]])
    assert found == pytest.approx({"gradient_norm": 7.5})
    assert last == [6.0, 8.0]


def test_steps_that_a_scaler_skips_do_not_count():
    assert clip(1.0, "norm", [[math.inf, 0.0], [0.6, 0.0]])[0] == pytest.approx(
        {"gradient_norm": 0.6, "gradient_norm_clipped": 0.6, "clipped_share": 0.0}
    )
    assert clip(1.0, "norm", [[math.nan, 0.0]])[0] == {}
    assert Gradients(1.0, "norm").metrics() == {}


@pytest.mark.parametrize("clip_value", [None, 0.05])
def test_a_run_reports_them_whatever_the_steps_in_a_call(clip_value):
    epochs = [
        [
            {key: value for key, value in metrics.items() if "gradient" in key or "clipped" in key}
            for metrics in fit(
                gradient_clip_val=clip_value, steps_per_execution=steps
            ).history.metrics
        ]
        for steps in (1, 7)
    ]
    assert epochs[0] == epochs[1]
    names = {"gradient_norm"} | (
        {"gradient_norm_clipped", "clipped_share"} if clip_value else set()
    )
    assert all(epoch.keys() == names for epoch in epochs[0])
    if clip_value:
        assert all(epoch["gradient_norm_clipped"] <= clip_value + 1e-6 for epoch in epochs[0])
        assert all(
            epoch["gradient_norm"] > clip_value and epoch["clipped_share"] > 0
            for epoch in epochs[0]
        )
