"""How long the steps of a guided search may take."""

import pytest

from goldilocks.sweeps.guide.allowance import ENDS, STEPS, Allowance, Speed


class Clock:
    """Seconds that pass when that is said."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize("budget", [60.0, 600.0, 3600.0])
def test_steps_share_the_time_for_training(budget):
    clock = Clock()
    allowance = Allowance(budget, None, now=clock)
    ends = [allowance.left(step) for step in STEPS]
    assert ends == sorted(ends)
    assert ends[-1] == allowance.training < budget
    assert budget - allowance.training <= 10
    clock.seconds += ends[0]
    assert allowance.left("look") == pytest.approx(0)
    assert not allowance.has_room("look") and allowance.has_room("portfolio")
    assert allowance.until("portfolio") == pytest.approx(1000 + ends[1])


def test_what_earlier_commands_took_counts():
    clock = Clock()
    allowance = Allowance(100.0, None, spent=90.0, now=clock)
    assert allowance.left("finalists") < 10
    assert Allowance(100.0, None, now=clock, before=7.0).elapsed == 7
    assert Allowance(1000.0, None, spent=90.0, now=clock).left("finalists") > 700


def test_what_would_take_far_too_long_is_not_begun():
    allowance = Allowance(100.0, None, now=Clock())
    left = allowance.left("refine")
    assert allowance.has_room("refine", 2 * left)
    assert not allowance.has_room("refine", 5 * left)


def test_the_end_is_measured_and_has_a_limit():
    allowance = Allowance(100.0, None, now=Clock())
    free = allowance.training
    allowance.ending = 20.0
    assert free - allowance.training == 20
    allowance.ending = 1000.0
    assert free - allowance.training == 35
    assert allowance.members(most=12, seconds=2.0) == 6
    assert allowance.members(most=12, seconds=100.0) == 3
    assert Allowance(None, 9).members(most=12, seconds=100.0) == 12


def test_trials_are_counted_in_place_of_seconds():
    allowance = Allowance(None, 100)
    assert allowance.left("look") == 1
    assert allowance.left("portfolio") == round(100 * ENDS["portfolio"])
    assert allowance.until("portfolio") is None
    allowance.trials = 100
    assert not allowance.has_room("finalists")


def test_speed_is_measured_by_what_trials_took():
    speed = Speed()
    assert speed.seconds(10) == 0
    speed.note(units=10, planned=20, seconds=5)
    assert speed.seconds(20) == 10 and speed.share == 0.5
    speed.note(units=10, planned=10, seconds=15)
    assert speed.seconds(10) == 10 and speed.share == 0.75
