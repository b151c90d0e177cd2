"""Which networks predict together."""

import numpy as np
import pytest

from goldilocks.runs import selection
from goldilocks.runs.selection import DRAWS, Library, select

TRUE = np.random.default_rng(1).normal(size=400)


def squares(values, places):
    """The mean squared error of predictions, [K, N, 1]."""
    return ((values[:, :, 0] - TRUE[places]) ** 2).mean(1)


def noisy(*spreads, rows=400, seed=0):
    """Candidates, each with an error of its own: [M, N, 1]."""
    random = np.random.default_rng(seed)
    errors = [spread * random.normal(size=rows) for spread in spreads]
    return np.stack([TRUE[:rows] + error for error in errors])[:, :, None].astype(np.float32)


def test_equal_candidates_are_averaged_plainly():
    chosen = select(noisy(*[1.0] * 8), squares, "min", members=4)
    assert chosen.how == "mean"
    assert list(chosen.weights.values()) == [0.25] * 4
    assert chosen.gain > 3 * chosen.error  # four independent errors: a quarter of the square
    assert chosen.value == pytest.approx(0.25, rel=0.2)


def test_where_most_are_bad_greedy_selection_leaves_them_out(monkeypatch):
    candidates = noisy(0.3, 0.3, *[5.0] * 6)
    assert select(candidates, squares, "min", members=6).how == "shrunk"  # there are few rows
    monkeypatch.setattr(selection, "MANY_ROWS", 400)
    chosen = select(candidates, squares, "min", members=6)
    assert chosen.how == "greedy"
    assert set(chosen.weights) == {0, 1}
    assert chosen.gain > 0


def test_a_copy_adds_nothing_and_ties_prefer_fewer():
    candidates = np.repeat(noisy(1.0), 5, axis=0)
    library = Library(candidates, squares, np.arange(5), members=5)
    assert library.greedy(range(5), np.arange(400)) == {0: 1}
    chosen = select(candidates, squares, "min", members=5)
    assert chosen.gain == pytest.approx(0, abs=1e-6)


def test_greedy_selection_is_with_replacement():
    """Of one good and one bad candidate with opposite errors: the good one counts twice."""
    error = np.random.default_rng(2).normal(size=400)
    candidates = np.stack([TRUE + error, TRUE - 2 * error])[:, :, None].astype(np.float32)
    library = Library(candidates, squares, np.arange(2), members=3)
    assert library.weights("greedy", np.arange(400)) == pytest.approx({0: 2 / 3, 1: 1 / 3})


def test_more_may_be_better():
    lower = select(noisy(*[1.0] * 4), squares, "min", members=4)
    negated = lambda values, places: -squares(values, places)  # noqa: E731
    upper = select(noisy(*[1.0] * 4), negated, "max", members=4)
    assert upper.weights == lower.weights
    assert upper.value == pytest.approx(-lower.value)
    assert upper.gain == pytest.approx(lower.gain)


def test_the_optimism_of_choosing_the_best_of_many_is_taken_off():
    """Sixty equal candidates of twenty rows: the best of them is luck."""
    found = []
    for seed in range(20):
        candidates = noisy(*[1.0] * 60, rows=20, seed=seed)
        chosen = select(candidates, squares, "min", members=1)
        best = squares(candidates, np.arange(20)).min()
        found.append((best, chosen.best_value))
    apparent, corrected = np.mean(found, axis=0)
    assert apparent < 0.6  # of an error of 1
    assert abs(corrected - 1) < abs(apparent - 1)


def test_a_candidate_without_a_value_is_not_chosen():
    def undefined(values, places):
        found = squares(values, places)
        return np.where(found > 4, np.nan, found)

    chosen = select(noisy(0.5, 0.5, 9.0), undefined, "min", members=2)
    assert set(chosen.weights) == {0, 1}


def test_many_rows_are_chosen_by_some_of_them(monkeypatch):
    monkeypatch.setattr(selection, "MOST_ROWS", 50)
    assert select(noisy(1.0, 1.0), squares, "min", members=2).rows == 50


def test_a_draw_of_the_bootstrap_is_the_same_each_time():
    assert DRAWS == 20
    first, second = (select(noisy(1.0, 1.1), squares, "min", members=2) for _ in range(2))
    assert first == second
