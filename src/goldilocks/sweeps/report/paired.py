"""Whether one trial is better than another on the same validation rows, row by row.

Two networks find the same rows hard, so the difference between them is known far better than
either value. Legend: N rows.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goldilocks.errors import Refused
from goldilocks.runs.ensembles import kept
from goldilocks.training.outcome import Outcome

Rows = NDArray[np.float64]


def right(outcome: Outcome) -> Rows:
    """Whether the likeliest class is the true one."""
    return (outcome.predicted.argmax(1) == outcome.true).astype(np.float64)


def absolute(outcome: Outcome) -> Rows:
    """Errors, the mean over the targets."""
    return np.abs(outcome.predicted - outcome.true).mean(1)


# What of each row a metric is the mean of, by its name; others are no means of rows.
PARTS: dict[str, Callable[[Outcome], Rows]] = {
    "loss": lambda outcome: outcome.losses.astype(np.float64),
    "accuracy": right,
    "mae": absolute,
}


class Paired:
    """Differences between the trials of a sweep.

    Args:
        folder: Of the sweep.
        metric: The objective.
    """

    def __init__(self, folder: Path, metric: str) -> None:
        self.folder = folder
        stage, _, name = metric.partition("/")
        self.part = PARTS.get(name) if stage == "val" else None
        self.rows_of = cache(self.read)  # each trial is compared with the best one

    def read(self, number: int) -> tuple[bytes, Rows] | None:
        """The rows of a trial, as what they are told by, and its part of the metric for each."""
        if self.part is None:
            return None
        try:
            outcome = kept(self.folder / str(number))
        except Refused:
            return None
        return outcome.rows.tobytes(), self.part(outcome)

    def error(self, pairs: Sequence[tuple[int, int]]) -> float | None:
        """The standard error of the difference between two configurations by their rows.

        Args:
            pairs: Numbers of the trials of both, one pair a seed.

        Returns:
            None where they have not kept predictions of the same rows.
        """
        differences = []
        for first, one in pairs:
            known, other = self.rows_of(first), self.rows_of(one)
            if known is None or other is None or known[0] != other[0]:
                return None
            differences.append(other[1] - known[1])
        if not differences or len({len(of) for of in differences}) > 1 or len(differences[0]) < 2:
            return None
        mean = np.mean(differences, axis=0)
        return float(mean.std(ddof=1)) / math.sqrt(len(mean))
