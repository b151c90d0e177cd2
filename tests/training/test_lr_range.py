"""The range test: its points on curves that are known, its sweeps,
and `optimizer.lr=auto` from end to end.
"""

import json
import math

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import SMALL, read_result
from fitting import make
from goldilocks.errors import Refused
from goldilocks.training.lr_range.rules import (
    RangeOptions,
    RangeTest,
    draw_range_test,
    read_curve,
    read_curves,
    valley,
)
from goldilocks.training.lr_range.sweep import range_test

RATES = RangeOptions().rates()


# --- from curves to rates -------------------------------------------------------------------------


def synthetic(random, noise):
    """The rate in the middle of a basin, and three sweeps:
    flat, a fall, a basin, a blow-up, with noise on each loss.

    The loss falls by 1 to 2 around a rate of 1e-4 to 1e-1, within half a decade to a decade, and is
    back at its start 1 to 2 decades later, where it rises by a factor of ten a quarter of a decade.
    """
    places = np.log10(RATES)
    fall, basin = random.uniform(-4, -1), random.uniform(1, 2)
    depth, width = random.uniform(1, 2), random.uniform(0.1, 0.2)
    clean = (
        2.3
        - depth / (1 + np.exp(-(places - fall) / width))
        + depth * 10 ** (4 * (places - fall - basin))
    )
    curves = []
    for _ in range(3):
        noisy = clean + noise * random.normal(size=len(clean))
        blown = np.flatnonzero(noisy > 20 * 2.3)
        curves.append([2.3, *noisy[: blown[0] + 1 if len(blown) else None]])
    return 10 ** (fall + basin / 2), curves


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05, 0.2])
def test_on_synthetic_curves_the_suggestion_is_within_a_factor_of_ten(noise):
    random = np.random.default_rng(0)
    right = 0
    for _ in range(1000):
        truth, curves = synthetic(random, noise)
        suggested = read_curves(RATES, curves)["fall"]
        right += suggested is not None and truth / 10 <= suggested <= truth * 10
    assert right >= 950


def test_the_points_of_a_curve():
    """Flat for 100 steps, down for 40, a basin of 20, up by a jump, blown up at step 180."""
    curve = (
        [2.0] * 101
        + list(np.linspace(2.0, 1.0, 40))
        + [1.0] * 19
        + [0.8]
        + [1.2] * 10
        + [3.0] * 9
        + [50.0]
    )
    found = read_curve(RATES, curve)
    assert found["lowest_loss"] == pytest.approx(RATES[159])
    assert found["minimum"] == pytest.approx(RATES[159] / 5)
    assert RATES[136] / 1.5 < found["fall"] < RATES[142] / 1.5
    assert RATES[100] < found["steepest"] < RATES[140]
    assert found["divergence"] == pytest.approx(
        RATES[170]
    )  # 3 and half of 1.2, the mean of which is 2.1
    assert found["half_divergence"] == pytest.approx(RATES[170] / 2)


def test_the_valley_is_in_the_middle_of_the_longest_fall():
    assert valley([5.0, 9.0, 4.0, 7.0, 3.0, 2.0, 8.0]) == 2  # 5 4 3 2, from step 0 to step 5


def test_a_curve_that_only_rises_has_no_rate_and_one_that_never_blows_up_no_divergence():
    rising = read_curve(RATES, [1.0, *np.linspace(1.01, 3, len(RATES))])
    assert rising["fall"] is rising["minimum"] is rising["steepest"] is rising["valley"] is None
    falling = read_curve(RATES, np.linspace(3, 1, len(RATES) + 1))
    assert falling["divergence"] is falling["half_divergence"] is None


def test_a_loss_that_stays_at_zero_does_not_raise_the_rate():
    """Memorized at step 100, and no gradient is left to blow up with."""
    early = read_curve(RATES, [1.0, *np.linspace(1, 0, 100), *[0.0] * 100])
    late = read_curve(RATES, [1.0, *np.linspace(1, 0, 100), *[1e-9] * 99, 0.0])
    assert early["fall"] == pytest.approx(late["fall"]) and early["fall"] < RATES[100]


def test_a_loss_that_is_not_finite_diverges():
    curve = [2.0, *np.linspace(2, 1, 50), math.nan]
    assert read_curve(RATES, curve)["divergence"] == RATES[50]


def test_points_are_medians_and_those_of_few_sweeps_are_left_out():
    down = [[2.0, *np.linspace(2, 1, stop), 100.0] for stop in (60, 80, 90)]
    assert read_curves(RATES, down)["lowest_loss"] == RATES[79]
    flat = [1.0, *np.linspace(1.01, 3, len(RATES))]
    assert read_curves(RATES, [flat, flat, down[0]])["minimum"] is None


def test_options_are_checked():
    assert RATES[0] == 1e-6 and RATES[-1] == pytest.approx(10) and len(RATES) == 200
    with pytest.raises(Refused, match="must be below"):
        RangeOptions(min_lr=1.0, max_lr=0.1)


# --- from a network to curves ---------------------------------------------------------------------


def test_the_network_and_the_random_generators_are_left_as_they_were():
    fit = make(
        network={"norm": "batch", "dropout": 0.2},
        regularization={"mixup": 0.2, "noise": 0.1, "l2": 0.01},
    )
    before = {key: value.clone() for key, value in fit.module.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    test = range_test(
        fit.module, fit.data, {"accelerator": "cpu"}, RangeOptions(steps=20, repeats=1)
    )
    assert len(test.curves[0]) > 2
    assert all(torch.equal(value, before[key]) for key, value in fit.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert all(parameter.grad is None for parameter in fit.module.network.parameters())


@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "bf16-true", "64"])
def test_it_runs_in_every_precision_of_the_cpu(precision):
    fit = make()
    options = RangeOptions(steps=20, repeats=1)
    test = range_test(fit.module, fit.data, {"accelerator": "cpu", "precision": precision}, options)
    assert test.curves[0][1] < test.curves[0][0] * 1.01


def test_what_changes_a_step_changes_the_curve():
    """Clipping, accumulation, penalties, limits of the norm and augmentation take part;
    what is the same is shared.
    """
    options = RangeOptions(steps=40, repeats=1, min_lr=1e-3, max_lr=0.1)

    def curve(regularization=None, **trainer):
        fit = make(regularization=regularization)
        return tuple(
            range_test(fit.module, fit.data, {"accelerator": "cpu", **trainer}, options).curves[0]
        )

    strengths = (
        {"l2": 0.1},
        {"l1": 0.1},
        {"max_norm": 0.5},
        {"noise": 0.5},
        {"mixup": 0.5},
        {"label_smoothing": 0.2},
    )
    curves = [
        curve(),
        curve(gradient_clip_val=0.01),
        curve(gradient_clip_val=0.01, gradient_clip_algorithm="value"),
        curve(accumulate_grad_batches=4),
        curve(limit_train_batches=1),
        *map(curve, strengths),
    ]
    assert len(set(curves)) == len(curves)
    assert curve() == curves[0]


def test_the_batches_of_the_run_are_trained_on_at_the_rates_of_the_test():
    """The same steps by hand: plain SGD on the first epoch's batches, without augmentation."""
    from fitting import sgd

    fit = make(optimizer=sgd)
    options = RangeOptions(steps=10, repeats=1, min_lr=1e-2, max_lr=1.0)
    curve = range_test(fit.module, fit.data, {"accelerator": "cpu"}, options).curves[0]
    network = fit.module.network
    x, y = fit.data.tensors["train"]
    loader = fit.data.loader("train", shuffle_seed=fit.module.seed)
    expected = [torch.nn.functional.cross_entropy(network(x), y).item()]
    batches = (batch for item in loader for batch in item.split())
    for rate, (inputs, target) in zip(options.rates(), batches, strict=False):
        loss = torch.nn.functional.cross_entropy(network(inputs), target)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= rate * gradient
        expected.append(torch.nn.functional.cross_entropy(network(x), y).item())
    assert curve == pytest.approx(expected, rel=1e-4)


def test_the_picture_marks_the_rate_that_is_used():
    curve = [2.0, *np.linspace(2, 1, 150), math.nan]
    test = RangeTest(RATES, [curve] * 3, "fall", read_curves(RATES, [curve] * 3))
    axis = draw_range_test(test).axes[0]
    used = [line for line in axis.get_lines() if "(used)" in str(line.get_label())]
    assert [line.get_xdata()[0] for line in used] == [test.rate]
    assert axis.get_xscale() == "log"


# --- optimizer.lr=auto ----------------------------------------------------------------------------


def test_auto_finds_a_rate_trains_with_it_and_says_so(command):
    ended = command(
        *SMALL, "optimizer.lr=auto", "scheduler=onecycle", "callbacks.early_stopping=null"
    )
    assert ended.code == 0
    result = read_result(ended.folder)
    rate = result["learning_rate"]
    assert result["lr_range"]["rule"] == "fall"
    assert rate == result["lr_range"]["rate"] == result["lr_range"]["fall"]
    assert f"optimizer.lr=auto: {rate:.3g}" in ended.err
    png = (ended.folder / "figures" / "lr_range.png").read_bytes()
    (shown,) = EventAccumulator(str(ended.folder)).Reload().Images("lr_range")
    assert shown.encoded_image_string == png
    assert png.startswith(b"\x89PNG")
    last = torch.load(ended.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["optimizer_states"][0]["param_groups"][0]["max_lr"] == pytest.approx(rate)


def test_the_found_rate_written_by_hand_gives_the_same_run(command):
    found = command(*SMALL, "optimizer.lr=auto")
    rate = read_result(found.folder)["learning_rate"]
    fixed = command(*SMALL, f"optimizer.lr={rate!r}")
    assert read_result(found.folder)["metrics"] == read_result(fixed.folder)["metrics"]


def test_a_resumed_run_keeps_its_rate(command):
    first = command(*SMALL, "optimizer.lr=auto")
    before = read_result(first.folder)
    (first.folder / "result.json").write_text(json.dumps(before))
    ended = command(f"resume={first.folder}", "trainer.max_epochs=3")
    after = read_result(first.folder)
    assert ended.code == 0 and after["epochs"] == 3
    assert (
        after["learning_rate"] == before["learning_rate"]
        and after["lr_range"] == before["lr_range"]
    )


def test_auto_is_a_value_of_a_sweep(command, tmp_path):
    ended = command("-m", *SMALL, "optimizer.lr=auto,0.01", "name=rates")
    assert ended.code == 0
    rates = [read_result(tmp_path / "logs/sweeps/rates" / trial)["learning_rate"] for trial in "01"]
    assert rates[1] == 0.01 and rates[0] != 0.01


def test_a_rule_that_finds_nothing_ends_the_run_with_a_line_that_says_what_to_write(command):
    ended = command(
        *SMALL, "optimizer.lr=auto", "lr_range.rule=half_divergence", "lr_range.max_lr=1e-5"
    )
    assert ended.code == 2
    assert "there is no half_divergence; write a rate, or another lr_range.rule" in ended.err
    assert ended.new == []


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("optimizer.lr=atuo", "optimizer.lr=atuo: a number or auto is expected"),
        (
            "lr_range.rule=min",
            "lr_range.rule=min: one of fall, minimum, steepest, valley, half_divergence is"
            " expected",
        ),
        (
            "lr_range.min_lr=20",
            "lr_range.min_lr=20.0: must be below lr_range.max_lr, which is 10.0",
        ),
        ("lr_range.steps=1", "lr_range.steps=1: must be greater than or equal to 10"),
    ],
)
def test_wrong_options_are_refused_in_a_line(command, word, line):
    ended = command(*SMALL, word)
    assert ended.code == 2 and ended.new == []
    assert line in ended.err


@pytest.mark.gpu
def test_it_runs_on_a_gpu_in_half_precision():
    fit = make()
    trainer = {"accelerator": "gpu", "precision": "16-mixed"}
    test = range_test(fit.module, fit.data, trainer, RangeOptions(steps=30, repeats=1))
    assert math.isfinite(test.curves[0][1])
