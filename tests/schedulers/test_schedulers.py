import itertools
import math
import re

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim import lr_scheduler as library

from goldilocks.config.options import options
from goldilocks.errors import Refused
from goldilocks.optimizers.optimizer import build_optimizer, learning_rate
from goldilocks.schedulers.schedule import build_schedule, has_length, steps_in_epoch, try_schedule

EPOCHS, STEPS = 6, 5  # of a run, and in an epoch
TOTAL = EPOCHS * STEPS
RATE = 0.4
COMPOSED = {}


@pytest.fixture
def option(compose):
    """An option of conf/scheduler as plain values."""

    def plain(name, *words):
        if (name, *words) not in COMPOSED:
            cfg = OmegaConf.to_container(compose(f"scheduler={name}", *words), resolve=True)
            COMPOSED[name, *words] = cfg["scheduler"]
        return dict(COMPOSED[name, *words])

    return plain


def make_optimizer(lr=RATE, momentum=0.9):
    layer = nn.Linear(2, 2)
    groups = [{"params": [layer.weight]}, {"params": [layer.bias], "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum)


def make(node, optimizer=None, **options):
    optimizer = optimizer or make_optimizer()
    return build_schedule(
        node, optimizer, **{"steps_per_epoch": STEPS, "max_epochs": EPOCHS, **options}
    ), optimizer


def rates(node, metrics=None, epochs=EPOCHS):
    """The rate that each optimizer step of a run uses."""
    schedule, optimizer = make(node, max_epochs=epochs)
    used = []
    for epoch in range(epochs):
        for _ in range(STEPS):
            used.append(optimizer.param_groups[0]["lr"])
            assert optimizer.param_groups[1]["lr"] == used[-1]
            optimizer.step()
            schedule.on_step()
        schedule.on_epoch_end({} if metrics is None else metrics[epoch])
    return used


def one_cycle(step, total=TOTAL, start=0.3, div=25.0, final=1e4):
    """Two halves of cosines: from lr / 25 up to lr,
    then down to lr / 25 / 10,000 at the last step.
    """
    top = start * total - 1
    low, end = RATE / div, RATE / div / final
    if step <= top:
        return RATE + (low - RATE) * (1 + math.cos(math.pi * step / top)) / 2
    return end + (RATE - end) * (1 + math.cos(math.pi * (step - top) / (total - 1 - top))) / 2


FORMULAS = {  # the rate at step k in epoch e
    "constant": lambda k, e: RATE,
    "exponential": lambda k, e: RATE * 0.98**e,
    "step": lambda k, e: RATE * 0.5 ** (e // 20),
    "cosine": lambda k, e: RATE * (1 + math.cos(math.pi * k / TOTAL)) / 2,
    "onecycle": lambda k, e: one_cycle(k),
    "plateau": lambda k, e: RATE,  # nothing to follow; see below
    "multistep": lambda k, e: RATE * 0.1 ** sum(e >= milestone for milestone in (60, 120, 160)),
    "polynomial": lambda k, e: RATE * (1 - k / TOTAL),
    "formula": lambda k, e: RATE * (1 - k / TOTAL),
    "coslog4": lambda k, e: RATE * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * k / TOTAL))) / 2,
    "warmup_cosine": lambda k, e: warmup(k, 2) or RATE * half_cosine((k - 2) / 28),
    "wsd": lambda k, e: warmup(k, 2) or RATE * (1 - math.sqrt(max(k - 24, 0) / 6)),
    # 30 steps in cycles of 1, 2 and 4 sevenths
    "cosine_restarts": lambda k, e: RATE * half_cosine(restarted(k * 7 / TOTAL)),
}


def half_cosine(x):
    return (1 + math.cos(math.pi * x)) / 2


def warmup(step, length):
    return RATE * (step + 1) / (length + 1) if step < length else None


def restarted(sevenths):
    """How far into its cycle a step is."""
    return sevenths if sevenths < 1 else (sevenths - 1) / 2 if sevenths < 3 else (sevenths - 3) / 4


@pytest.mark.parametrize("name", FORMULAS)
def test_each_option_follows_its_formula(name, option):
    expected = [FORMULAS[name](k, k // STEPS) for k in range(TOTAL)]
    assert rates(option(name)) == pytest.approx(expected, rel=1e-6, abs=1e-12)


REFERENCES = {  # torch's own class, driven by hand: when it is stepped, and how it is made
    "constant": (
        "epoch",
        lambda optimizer: library.ConstantLR(optimizer, factor=1.0, total_iters=0),
    ),
    "exponential": ("epoch", lambda optimizer: library.ExponentialLR(optimizer, gamma=0.98)),
    "step": ("epoch", lambda optimizer: library.StepLR(optimizer, step_size=20, gamma=0.5)),
    "cosine": ("step", lambda optimizer: library.CosineAnnealingLR(optimizer, T_max=45 * STEPS)),
    "onecycle": (
        "step",
        lambda optimizer: library.OneCycleLR(optimizer, max_lr=RATE, total_steps=45 * STEPS),
    ),
    "multistep": (
        "epoch",
        lambda optimizer: library.MultiStepLR(optimizer, milestones=[60, 120, 160], gamma=0.1),
    ),
    "polynomial": (
        "step",
        lambda optimizer: library.PolynomialLR(optimizer, total_iters=45 * STEPS, power=1.0),
    ),
    "formula": (
        "step",
        lambda optimizer: library.LinearLR(optimizer, 1.0, 0.0, total_iters=45 * STEPS),
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_each_option_is_torchs_class_stepped_at_its_interval(name, option):
    interval, kind = REFERENCES[name]
    optimizer = make_optimizer()
    reference, expected = kind(optimizer), []
    for _ in range(45):
        for _ in range(STEPS):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if interval == "step":
                reference.step()
        if interval == "epoch":
            reference.step()
    assert rates(option(name), epochs=45) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_one_cycle_moves_the_momentum_the_other_way(option):
    schedule, optimizer = make(option("onecycle"))
    found = []
    for _ in range(TOTAL):
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        schedule.on_step()
    ups = [(later[0] > one[0], later[1] > one[1]) for one, later in itertools.pairwise(found)]
    assert all(rate != momentum for rate, momentum in ups)
    assert min(momentum for _, momentum in found) == pytest.approx(0.85)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adagrad, torch.optim.RMSprop])
def test_one_cycle_leaves_an_optimizer_without_momentum_without(kind, option):
    optimizer = kind(nn.Linear(2, 2).parameters(), lr=RATE)
    schedule, _ = make(option("onecycle"), optimizer)
    for step in range(TOTAL):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(one_cycle(step))
        assert not optimizer.param_groups[0].get("momentum")
        optimizer.step()
        schedule.on_step()


# --- what comes from the run ----------------------------------------------------------------------


@pytest.mark.parametrize(("interval", "length"), [("step", TOTAL), ("epoch", EPOCHS)])
@pytest.mark.parametrize(("name", "attribute"), [("onecycle", "total_steps"), ("cosine", "T_max")])
def test_the_length_is_that_of_the_run_in_the_units_of_the_interval(
    interval, length, name, attribute, option
):
    schedule, _ = make({**option(name), "interval": interval})
    assert getattr(schedule.scheduler, attribute) == length


def test_the_top_of_one_cycle_is_the_optimizers_rate(option):
    _, optimizer = make(option("onecycle"), make_optimizer(lr=0.07))
    assert [group["max_lr"] for group in optimizer.param_groups] == [0.07, 0.07]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.07 / 25)


def test_what_the_option_says_wins_over_the_run(option):
    schedule, _ = make({**option("cosine"), "T_max": 7})
    assert schedule.scheduler.T_max == 7
    assert has_length(option("cosine"))
    assert has_length(option("onecycle"))
    assert not has_length({**option("cosine"), "T_max": 7})
    assert not any(
        has_length(option(name)) for name in ("constant", "exponential", "step", "plateau")
    )


@pytest.mark.parametrize("name", ["onecycle", "cosine"])
def test_a_whole_run_of_steps_is_within_the_schedule(name, option):
    """torch's 1cycle raises beyond its last step; the last step of a run must not."""
    found = rates(option(name))
    assert len(found) == TOTAL
    assert found[-1] == min(found)


def test_an_interval_of_epochs_ignores_steps_and_the_other_way_round(option):
    schedule, optimizer = make({**option("exponential"), "gamma": 0.5})
    schedule.on_step()
    assert optimizer.param_groups[0]["lr"] == RATE
    optimizer.step()
    schedule.on_epoch_end({})
    assert optimizer.param_groups[0]["lr"] == RATE / 2
    schedule, optimizer = make({**option("exponential"), "gamma": 0.5, "interval": "step"})
    schedule.on_epoch_end({})
    assert optimizer.param_groups[0]["lr"] == RATE
    optimizer.step()
    schedule.on_step()
    assert optimizer.param_groups[0]["lr"] == RATE / 2


@pytest.mark.parametrize(
    ("batches", "accumulate", "steps"), [(10, 1, 10), (10, 3, 4), (9, 3, 3), (1, 8, 1)]
)
def test_the_last_step_of_an_epoch_may_take_fewer_batches(batches, accumulate, steps):
    assert steps_in_epoch(batches, accumulate) == steps


# --- factors of the rate --------------------------------------------------------------------------


class Factored(nn.Linear):
    def lr_factors(self):
        return {"bias": 0.125}


ABSOLUTE = [("cosine", {"eta_min": 0.2}), ("plateau", {"min_lr": 0.3, "patience": 0})]


@pytest.mark.parametrize(
    ("name", "given"), [*((name, {}) for name in options("scheduler")), *ABSOLUTE]
)
def test_every_schedule_keeps_the_ratios_that_a_network_asks_for(name, given, option):
    """Absolute values of a schedule are nominal ones: at `eta_min` a factor still holds."""
    node = {**option(name), **given}
    sgd = {"_target_": "torch.optim.SGD", "lr": RATE, "momentum": 0.9}
    plain, factored = build_optimizer(sgd, nn.Linear(2, 2)), build_optimizer(sgd, Factored(2, 2))
    schedules = [make(node, optimizer)[0] for optimizer in (plain, factored)]
    for _ in range(EPOCHS):
        for _ in range(STEPS):
            rate = learning_rate(plain)
            assert [group["lr"] for group in factored.param_groups] == pytest.approx(
                [rate, 0.125 * rate], rel=1e-12
            )
            assert learning_rate(factored) == pytest.approx(rate, rel=1e-12)
            for optimizer, schedule in zip((plain, factored), schedules, strict=True):
                optimizer.step()
                schedule.on_step()
        for schedule in schedules:
            schedule.on_epoch_end({"val/loss": 1.0})


# --- plateau --------------------------------------------------------------------------------------


def epoch_rates(node, values, key="val/loss"):
    """The rate of each epoch after the metric's values before it; None: not computed."""
    schedule, optimizer = make(node, max_epochs=len(values))
    found = []
    for value in values:
        optimizer.step()
        schedule.on_epoch_end({} if value is None else {key: value})
        found.append(optimizer.param_groups[0]["lr"] / RATE)
    return found


def test_plateau_halves_the_rate_after_its_patience(option):
    node = option("plateau")
    assert (node["monitor"], node["mode"], node["patience"]) == ("val/loss", "min", 8)
    assert epoch_rates(node, [1.0] * 19) == [1.0] * 9 + [0.5] * 9 + [0.25]
    assert epoch_rates(node, [1 / n for n in range(1, 20)]) == [1.0] * 19


def test_plateau_ignores_epochs_without_its_metric(option):
    node = {**option("plateau"), "patience": 2}
    assert epoch_rates(node, [1.0, None, 1.0, None, None, 1.0, None, 1.0]) == [1.0] * 7 + [0.5]
    assert epoch_rates(node, [1.0] * 9, key="train/loss") == [1.0] * 9


def test_plateau_follows_the_objective_and_its_direction(option):
    node = option("plateau", "objective.metric=val/accuracy", "scheduler.patience=1")
    assert (node["monitor"], node["mode"]) == ("val/accuracy", "max")
    assert epoch_rates(node, [0.5, 0.6, 0.7, 0.8], key="val/accuracy") == [1.0] * 4
    assert epoch_rates(node, [0.8, 0.7, 0.6], key="val/accuracy") == [1.0, 1.0, 0.5]


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "value", "place"),
    [
        ("constant", "interval", "batch", "scheduler.interval=batch: "),
        ("constant", "factor", -1.0, "scheduler"),
        ("step", "step_size", "x", "scheduler.step_size=x: "),
        ("step", "step_size", True, "scheduler.step_size=true: "),
        ("step", "stepsize", 3, "scheduler.stepsize: "),
        ("exponential", "gamma", "fast", "scheduler.gamma=fast: "),
        ("onecycle", "pct_start", 1.5, "scheduler"),
        ("onecycle", "anneal_strategy", "log", "scheduler.anneal_strategy=log: "),
        ("plateau", "factor", 1.5, "scheduler"),
        ("plateau", "mode", "best", "scheduler.mode=best: "),
        ("plateau", "monitor", 3, "scheduler.monitor=3: "),
        ("cosine", "optimizer", "adam", "scheduler.optimizer: "),
        ("exponential", "gamma", -1.0, "scheduler: sets a rate of -0.4 at 10 % of a run; "),
        ("exponential", "gamma", 1e60, "scheduler: sets a rate of inf at "),
        ("multistep", "milestones", 30, "scheduler.milestones=30: "),
        ("warmup_cosine", "total_steps", "all", "scheduler.total_steps=all: "),
        ("cosine_restarts", "cycle_growth", 0.5, "scheduler.cycle_growth=0.5: "),
        ("formula", "formula", None, "scheduler.formula=null: "),
        ("multistep", "milestones", [10, 0], "scheduler.milestones"),
        ("multistep", "gamma", 0, "scheduler.gamma=0: "),
        ("warmup_cosine", "warmup_fraction", 1.0, "scheduler.warmup_fraction=1.0: "),
        (
            "wsd",
            "decay_fraction",
            0.96,
            "scheduler.decay_fraction=0.96: is more than warmup_fraction=0.05 leaves",
        ),
        ("wsd", "decay", "log", "scheduler.decay=log: "),
        ("cosine_restarts", "cycles", 0, "scheduler.cycles=0: "),
    ],
)
def test_values_that_the_schedule_rejects_are_refused_in_one_line(name, key, value, place, option):
    with pytest.raises(Refused) as caught:
        try_schedule({**option(name), key: value}, make_optimizer())
    assert str(caught.value).startswith(place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (
            "plateau",
            {"monitor": None},
        ),  # has nothing to follow: step() would lack its metric after the first epoch
        ("plateau", {"interval": "step"}),  # a metric is there once an epoch
        ("step", {"monitor": "val/loss"}),  # would take the metric for the number of the epoch
        ("cosine", {"monitor": "val/loss"}),
    ],
)
def test_a_monitor_without_use_or_a_plateau_without_a_monitor_is_refused(name, given, option):
    with pytest.raises(Refused, match=r"^scheduler\."):
        try_schedule({**option(name), **given}, make_optimizer())


# --- curves of our own ----------------------------------------------------------------------------


def test_one_cycle_of_cosine_restarts_is_torchs_cosine(option):
    assert rates({**option("cosine_restarts"), "cycles": 1}) == pytest.approx(
        rates(option("cosine")), rel=1e-6
    )


@pytest.mark.parametrize("cycles", [2, 3])
def test_cosine_restarts_of_equal_length_are_torchs_warm_restarts(cycles, option):
    theirs = {
        "_target_": "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts",
        "T_0": TOTAL // cycles,
    }
    ours = {**option("cosine_restarts"), "cycles": cycles, "cycle_growth": 1}
    assert rates(ours) == pytest.approx(rates({**theirs, "interval": "step"}), rel=1e-6)


def test_warmup_and_cosine_are_torchs_one_after_the_other(option):
    """6 of 30 steps: LinearLR from a seventh of the rate, then CosineAnnealingLR,
    by SequentialLR.
    """
    optimizer = make_optimizer()
    parts = [
        library.LinearLR(optimizer, start_factor=1 / 7, total_iters=6),
        library.CosineAnnealingLR(optimizer, T_max=24),
    ]
    reference, expected = library.SequentialLR(optimizer, parts, milestones=[6]), []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    found = rates({**option("warmup_cosine"), "warmup_fraction": 0.2})
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("decay", "curve"),
    [("linear", lambda x: 1 - x), ("sqrt", lambda x: 1 - math.sqrt(x)), ("cosine", half_cosine)],
)
def test_wsd_is_constant_until_its_decay(decay, curve, option):
    node = {
        **option("wsd"),
        "warmup_fraction": 0.0,
        "decay_fraction": 0.5,
        "decay": decay,
        "min_factor": 0.1,
    }
    expected = [RATE] * 15 + [RATE * (0.1 + 0.9 * curve(k / 15)) for k in range(15)]
    assert rates(node) == pytest.approx(expected)


@pytest.mark.parametrize(
    "name", ["multistep", "warmup_cosine", "wsd", "cosine_restarts", "formula", "coslog4"]
)
def test_a_schedule_goes_on_from_its_saved_state(name, option, tmp_path):
    """Saved after 17 steps as plain values, and loaded into a new one."""
    node, used = option(name), rates(option(name))
    schedule, optimizer = make(node)
    for step in range(17):
        optimizer.step()
        schedule.on_step()
        if (step + 1) % STEPS == 0:
            schedule.on_epoch_end({})
    torch.save([schedule.scheduler.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    again, other = make(node)
    again.scheduler.load_state_dict(states[0])
    other.load_state_dict(states[1])
    for step in range(17, TOTAL):
        assert other.param_groups[0]["lr"] == pytest.approx(used[step], rel=1e-9, abs=1e-12)
        other.step()
        again.on_step()
        if (step + 1) % STEPS == 0:
            again.on_epoch_end({})


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("1 / (1 + step)", lambda k, e: 1 / (1 + k)),
        ("0.5 ** epoch", lambda k, e: 0.5**e),
        ("max(1 - step / steps, 0.1)", lambda k, e: max(1 - k / TOTAL, 0.1)),
        (
            "1 if epoch < epochs / 2 else sqrt(1 - t)",
            lambda k, e: 1 if e < 3 else math.sqrt(1 - k / TOTAL),
        ),
        (
            "-(-1) * cos(pi * t) ** 2 // 0.25 % 3",
            lambda k, e: math.cos(math.pi * k / TOTAL) ** 2 // 0.25 % 3,
        ),
        (0.5, lambda k, e: 0.5),
    ],
)
def test_a_formula_is_followed(formula, expected, option):
    found = rates({**option("formula"), "formula": formula})
    assert found == pytest.approx([RATE * expected(k, k // STEPS) for k in range(TOTAL)], abs=1e-12)


def test_a_formula_of_epochs_is_stepped_once_an_epoch(option):
    node = {**option("formula"), "formula": "1 - step / 10 + epochs * 0", "interval": "epoch"}
    assert rates(node) == pytest.approx([RATE * (1 - k // STEPS / 10) for k in range(TOTAL)])


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        ("", "is not a formula"),
        ("1 -", "is not a formula"),
        ("1 - x", "x is not known"),
        ("tt", "did you mean t?"),
        ("cosine(t)", r"cosine\(\.\.\.\) is not known; did you mean"),
        ("__import__('os').system('true')", "is not known"),
        ("t.real", "t.real is not allowed"),
        ("[t][0]", "is not allowed"),
        ("(lambda: 1)()", "is not known"),
        ("'a' * 3", "is not a number"),
        ("True", "is not a number"),
        ("9 ** 9 ** 9 ** 9", "fails with"),
        ("1 / t", "fails with"),
        ("sqrt(-t - 1)", "fails with"),
        ("(-1) ** 0.5", "is nan at step 0"),
        ("1 - 2 * t", r"is -\S+ at step \d+ of \d+; it must be finite and not below 0"),
        ("0 * t", "is 0 throughout the run"),
        ("cos", "fails with|is not allowed"),
        ("t" * 600, "is longer than 500 characters"),
    ],
)
def test_a_wrong_formula_is_refused_in_one_line(formula, why, option):
    with pytest.raises(
        Refused, match=rf"^scheduler\.formula={re.escape(formula)}: .*(?:{why}).*; write numbers"
    ) as caught:
        try_schedule({**option("formula"), "formula": formula}, make_optimizer())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("formula", "spans"),
    [
        ("1 - t", True),
        ("1 / sqrt(1 + step)", False),
        ("0.9 ** epoch", False),
        ("step < steps / 2", True),
        ("0.5", False),
    ],
)
def test_only_a_formula_of_the_runs_length_must_not_be_cut(formula, spans, option):
    assert has_length({**option("formula"), "formula": formula}) is spans
