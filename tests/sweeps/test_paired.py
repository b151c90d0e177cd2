"""Trials compared row by row."""

import numpy as np
import pytest

from goldilocks.sweeps.report.paired import Paired
from goldilocks.training.outcome import Outcome, save_outcome

ROWS = 200
DRAWS = np.random.default_rng(0)
HARD = DRAWS.exponential(size=ROWS)  # what all networks find hard


def keep(folder, number, losses, rows=None, **arrays):
    """A trial that has kept its predictions."""
    rows = np.arange(len(losses)) if rows is None else rows
    known = {"true": np.zeros(len(losses), int), "predicted": np.full((len(losses), 2), 0.5)}
    own = folder / str(number)
    own.mkdir()
    outcome = Outcome(rows, losses=losses, **(known | arrays))
    save_outcome(outcome, own / "predictions" / "val.npz", 1000)


def test_the_difference_is_known_better_than_either_value(tmp_path):
    noise = 0.01 * DRAWS.normal(size=ROWS)
    keep(tmp_path, 0, HARD)
    keep(tmp_path, 1, HARD + 0.02 + noise)
    error = Paired(tmp_path, "val/loss").error([(0, 1)])
    assert error == pytest.approx(noise.std(ddof=1) / np.sqrt(ROWS), rel=1e-4)
    assert error < 0.02 / 10 < HARD.std() / np.sqrt(ROWS)


def test_seeds_are_averaged_row_by_row(tmp_path):
    noise = 0.1 * DRAWS.normal(size=(4, ROWS))
    for number, own in enumerate(noise):
        keep(tmp_path, number, HARD + own)
    error = Paired(tmp_path, "val/loss").error([(0, 2), (1, 3)])
    expected = ((noise[2] - noise[0] + noise[3] - noise[1]) / 2).std(ddof=1) / np.sqrt(ROWS)
    assert error == pytest.approx(expected, rel=1e-4)


def test_of_accuracy_the_rows_that_are_right_are_compared(tmp_path):
    said = np.eye(2)[DRAWS.integers(2, size=ROWS)]
    keep(tmp_path, 0, HARD, predicted=said)
    keep(tmp_path, 1, HARD, predicted=said)
    assert Paired(tmp_path, "val/accuracy").error([(0, 1)]) == 0


@pytest.mark.parametrize("metric", ["val/auroc", "train/loss"])
def test_what_is_no_mean_of_validation_rows_is_not_known(metric, tmp_path):
    for number in range(2):
        keep(tmp_path, number, HARD)
    assert Paired(tmp_path, metric).error([(0, 1)]) is None


def test_other_rows_and_trials_that_have_kept_nothing_are_not_known(tmp_path):
    keep(tmp_path, 0, HARD)
    keep(tmp_path, 1, HARD, rows=np.arange(ROWS) + 1)
    paired = Paired(tmp_path, "val/loss")
    assert paired.error([(0, 1)]) is None
    assert paired.error([(0, 7)]) is None
    assert paired.error([]) is None
