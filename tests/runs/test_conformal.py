"""Intervals and sets: their formulas by hand, and that they cover what they say."""

import numpy as np
import pytest

from goldilocks.data.spec import Spec
from goldilocks.errors import Refused
from goldilocks.runs.conformal import (
    bound,
    coverage,
    fewest_rows,
    in_words,
    interval,
    margins,
    set_limit,
    sets,
)
from goldilocks.training.outcome import Outcome


def outcome(true, predicted):
    return Outcome(
        np.arange(len(true)), np.asarray(true), np.asarray(predicted), np.zeros(len(true))
    )


def test_the_bound_is_the_error_that_a_new_row_rarely_exceeds():
    errors = np.arange(1.0, 20.0)[::-1, None]  # 1 to 19
    assert bound(errors, 0.9) == 18  # ceil(20 * 0.9) is the 18th
    assert bound(errors, 0.5) == 10
    assert bound(errors, 0.95) == 19  # ceil(20 * 0.95) is the last
    assert bound(errors[:9], 0.9) == 19  # ceil(10 * 0.9) of 9 rows


@pytest.mark.parametrize(("level", "rows"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_the_fewest_rows_are_named(level, rows):
    assert fewest_rows(level) == rows
    bound(np.ones((rows, 1)), level)
    with pytest.raises(Refused, match=rf"level {level:g}: needs {rows} kept validation rows"):
        bound(np.ones((rows - 1, 1)), level)


@pytest.mark.parametrize("level", [0, 1, -0.1, 90])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(Refused, match="is above 0 and below 1"):
        bound(np.ones((200, 1)), level)


def test_each_target_has_its_own_interval():
    spec = Spec("regression", (1,), 2, target_names=("a", "b"))
    true = np.stack([np.arange(9.0), 10 * np.arange(9.0)], 1)
    kept = outcome(true, np.zeros((9, 2)))
    margin = margins(spec, kept, 0.9)
    assert margin.tolist() == [8, 80]
    lower, upper = interval(spec, np.array([[1.0, 2.0]]), margin)
    assert lower.tolist() == [[-7, -78]] and upper.tolist() == [[9, 82]]


def test_of_a_logarithm_the_interval_is_a_factor():
    spec = Spec("regression", (1,), 2, target_log=(True, False))
    kept = outcome(np.full((9, 2), 20.0), np.full((9, 2), 10.0))
    lower, upper = interval(spec, np.array([[100.0, 100.0]]), margins(spec, kept, 0.9))
    assert np.allclose(lower, [[50, 90]]) and np.allclose(upper, [[200, 110]])


def test_a_set_has_the_classes_that_are_as_probable_as_true_ones_are():
    predicted = np.array([[0.5, 0.3, 0.2], [0.1, 0.9, 0.0], [0.34, 0.33, 0.33]], np.float32)
    true = np.array([0, 1, 2])
    # 1 - p of the true class: 0.5, 0.1, 0.67; of 3 rows the level 0.5 takes ceil(4 * 0.5), the 2nd.
    assert set_limit(predicted, true, 0.5) == pytest.approx(0.5)
    found = sets(predicted, 0.7)
    assert found.tolist() == [[True, True, False], [False, True, False], [True, True, True]]
    assert sets(predicted, 0.05).sum() == 0  # a set may be empty


def test_probabilities_that_are_nearly_one_are_told_apart():
    sure = np.array([[1e-9, 1.0], [1e-12, 1.0]], np.float32)
    limit = set_limit(sure, np.array([1, 1]), 0.4)
    assert limit == pytest.approx(1e-9, rel=1e-4) or limit == pytest.approx(1e-12, rel=1e-4)
    assert sets(sure, 1e-10)[:, 1].tolist() == [False, True]


def test_what_is_covered_is_counted():
    spec = Spec("regression", (1,), 1, target_names=("price",))
    kept = outcome(np.arange(-9.0, 10.0)[:, None], np.zeros((19, 1)))  # the 18th least |e| is 9
    tested = outcome([[8.9], [-9.1], [0.0], [30.0]], np.zeros((4, 1)))
    known = coverage(spec, kept, tested)
    assert known["reached"] == 0.5 and known["targets"] == {"price": {"reached": 0.5, "width": 18}}
    assert known["rows"] == 4 and known["kept"] == 19 and known["level"] == 0.9
    assert in_words(known) == (
        "intervals of 90 % cover 0.500 ± 0.150 of the 4 test rows, 18 wide in the mean"
    )
    assert coverage(spec, kept.take(np.arange(8)), tested) is None


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_nine_of_ten_rows_are_covered(classes):
    random = np.random.default_rng(0)
    reached = []
    for _ in range(100):
        if classes:
            spec = Spec("multiclass", (1,), classes, class_names=tuple("abcd"[:classes]))
            both = random.dirichlet(np.ones(classes), size=300)
            true = (both.cumsum(1) < random.random((300, 1))).sum(1)
            parts = [outcome(true[:100], both[:100]), outcome(true[100:], both[100:])]
        else:
            spec = Spec("regression", (1,), 1)
            true = random.normal(size=(300, 1))
            parts = [outcome(part, 0 * part) for part in (true[:100], true[100:])]
        reached.append(coverage(spec, *parts)["reached"])
    assert np.mean(reached) == pytest.approx(0.9, abs=0.012)
