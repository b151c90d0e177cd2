"""Curves of ours against torch's schedules, one after the other."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as library

from goldilocks.errors import Refused
from goldilocks.schedulers import curves

RATE = 0.4


def make_optimizer():
    layer = nn.Linear(2, 2)
    return torch.optim.SGD(
        [{"params": [layer.weight]}, {"params": [layer.bias], "lr": RATE / 8}], lr=RATE
    )


def rates(make, steps):
    """The rate of each step, and the one after the last; the second group's must be an eighth."""
    optimizer = make_optimizer()
    schedule, found = make(optimizer), []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[1]["lr"] == pytest.approx(found[-1] / 8)
        optimizer.step()
        with warnings.catch_warnings(
            action="ignore"
        ):  # SequentialLR calls what torch itself warns of
            schedule.step()
    return found


def sequence(*parts):
    """Schedules of torch's and the steps that each takes, one after the other."""

    def make(optimizer):
        with warnings.catch_warnings(action="ignore"):
            schedules = [make(optimizer) for make, _ in parts]
            ends = [sum(steps for _, steps in parts[: i + 1]) for i in range(len(parts) - 1)]
            return library.SequentialLR(optimizer, schedules, milestones=ends)

    return make


def rising(steps):
    return (lambda o: library.LinearLR(o, start_factor=1 / (steps + 1), total_iters=steps), steps)


def falling(steps):
    return (lambda o: library.CosineAnnealingLR(o, T_max=steps), steps)


def level(steps):
    return (lambda o: library.ConstantLR(o, factor=1.0, total_iters=0), steps)


def straight(steps):
    return (
        lambda o: library.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=steps),
        steps,
    )


def test_warmup_and_cosine_are_torchs_two_one_behind_the_other():
    expected = rates(sequence(rising(10), falling(90)), 100)
    found = rates(lambda o: curves.WarmupCosine(o, 100, warmup_fraction=0.1), 100)
    assert found == pytest.approx(expected, abs=1e-12)
    assert (found[0], found[10]) == (pytest.approx(RATE / 11), RATE)


@pytest.mark.parametrize(("decay", "last"), [("cosine", falling(25)), ("linear", straight(25))])
def test_warmup_stable_and_decay_are_torchs_three_one_behind_the_other(decay, last):
    expected = rates(sequence(rising(10), level(65), last), 100)

    def make(o):
        return curves.WarmupStableDecay(
            o, 100, warmup_fraction=0.1, decay_fraction=0.25, decay=decay
        )

    assert rates(make, 100) == pytest.approx(expected, abs=1e-12)


def test_the_root_decays_as_its_paper_says():
    """Haegele et al. 2024: 1 - sqrt of the part of the decay that is over."""
    found = rates(
        lambda o: curves.WarmupStableDecay(o, 100, warmup_fraction=0, decay_fraction=0.36), 100
    )
    assert found[:65] == [RATE] * 65
    assert [found[64 + i] for i in (0, 9, 36)] == pytest.approx([RATE, RATE / 2, 0])


@pytest.mark.parametrize(("growth", "first", "cycles"), [(1, 25, 4), (2, 10, 4), (3, 25, 3)])
def test_restarts_are_torchs(growth, first, cycles):
    total = sum(first * growth**cycle for cycle in range(cycles))
    expected = rates(
        lambda o: library.CosineAnnealingWarmRestarts(o, T_0=first, T_mult=growth), total - 1
    )
    found = rates(
        lambda o: curves.CosineRestarts(o, total, cycles=cycles, cycle_growth=growth), total
    )
    assert found[:-1] == pytest.approx(expected, abs=1e-12)
    assert found[-1] == pytest.approx(0, abs=1e-12)


CURVES = [curves.WarmupCosine, curves.WarmupStableDecay, curves.CosineRestarts]


@pytest.mark.parametrize("kind", CURVES)
@pytest.mark.parametrize("total", [1, 2, 3, 7, 1000])
def test_a_curve_is_between_its_floor_and_the_rate_and_stays_at_its_end(kind, total):
    found = rates(lambda o: kind(o, total, min_factor=0.25), total + 3)
    assert all(0.25 * RATE - 1e-12 <= rate <= RATE for rate in found[total // 10 :])
    if total > 2:  # of two steps none is in the last fifth
        assert found[total] == pytest.approx(0.25 * RATE)
    assert found[total:] == [found[total]] * 4
    assert found[0] > 0


def test_a_formula_knows_where_the_run_is():
    """Five steps an epoch, seventeen in all."""

    def value(text, step):
        return curves.FormulaLR(make_optimizer(), 17, 5, formula=text).multiplier(step)

    names = ("t", "step", "steps", "epoch", "epochs")
    assert [value(name, 12) for name in names] == [12 / 17, 12, 17, 2, 4]
    assert value("1 if epoch < 2 else 0.1 ** (epoch - 1)", 16) == pytest.approx(0.01)


def test_a_formula_may_be_a_number():
    assert rates(lambda o: curves.FormulaLR(o, 3, 1, formula=0.5), 3) == [RATE / 2] * 4


def test_the_schedule_of_realmlp_begins_and_ends_at_zero_with_four_tops():
    """Holzmueller et al. 2024: tops where log2(1 + 15 t) is a half past a whole number."""
    text = "0.5 * (1 - cos(2 * pi * log2(1 + 15 * t)))"
    schedule = curves.FormulaLR(make_optimizer(), 15_000, 100, formula=text)
    values = [schedule.multiplier(step) for step in range(15_001)]
    tops = [
        step for step in range(1, 15_000) if values[step - 1] < values[step] >= values[step + 1]
    ]
    assert tops == pytest.approx([1000 * (2 ** (k + 0.5) - 1) for k in range(4)], abs=1)
    bottoms = [values[1000 * (2**k - 1)] for k in range(5)]
    assert bottoms == pytest.approx([0] * 5, abs=1e-12)


@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        ("1 - 2 * t", "is -"),
        ("1 / (t - 0.5)", "is -2 at step 0 of 20000"),
        ("1 / t", "fails with"),
        ("0 * t", "is 0 throughout the run"),
        ("-1 if step == 20000 else 1", "is -1 at step 20000"),
        ("t +", "is not a formula"),
    ],
)
def test_a_formula_that_is_no_rate_somewhere_in_the_run_is_refused(formula, reason):
    with pytest.raises(Refused) as caught:
        curves.FormulaLR(make_optimizer(), 20_000, 100, formula=formula)
    message = str(caught.value)
    assert message.startswith(f"scheduler.formula={formula}: {reason}")
    assert "\n" not in message
    assert "; write numbers, " in message


def test_a_long_formulas_state_is_plain():
    schedule = curves.FormulaLR(make_optimizer(), 10, 5, formula="1 - t")
    kinds = {type(value) for value in schedule.state_dict().values()}
    assert kinds <= {int, float, str, bool, list}
    assert math.isclose(schedule.get_last_lr()[0], RATE)
