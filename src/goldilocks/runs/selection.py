"""Which networks predict together, chosen by predictions of rows that none of them was trained on.

Greedy selection with replacement (Caruana et al., "Ensemble Selection from Libraries of Models",
2004) fits the rows that it chooses by; with few rows the plain mean of the best ones is better. So
a finer way has to be shown to be better than a plainer one, once its optimism is taken off: by how
much what is chosen by rows drawn with replacement is better on these than on all (the bootstrap of
Efron and Tibshirani, 1993, chapter 17). Folds of the rows in place of the bootstrap mislead: among
twelve networks of german with losses of 0.459 to 0.485 they gave the chosen one 0.508, since a
network that looks good without some rows looks bad on them.

Legend: M candidates, N rows, C classes or targets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goldilocks.training.standard_errors import jackknife

Predictions = NDArray[np.float32]
Places = NDArray[np.intp]
# The objective of predictions, [K, N, C], for N rows given by their places: [K].
Scores = Callable[[Predictions, Places], NDArray[np.float64]]

DRAWS = 20  # of the bootstrap
MANY_ROWS = 1000  # below which greedy selection may end with the single luckiest network
SHOWN = 2  # standard errors from which on a difference counts as shown
MOST_CANDIDATES = 50  # the best ones
MOST_ROWS = 20_000  # to choose by, evenly spread


@dataclass(frozen=True)
class Selection:
    """What predicts together.

    Attributes:
        how: `mean`, the plain mean of the best; `shrunk`, greedy from the mean of the best half;
            `greedy`.
        weights: By candidate; their sum is 1.
        value: The objective, without the optimism of the choice.
        best: The candidate with the best value.
        best_value: The objective of this one, without the optimism too.
        gain: By how much `value` is better than `best_value`.
        error: Of `gain`, its standard error.
        rows: That chose.
    """

    how: str
    weights: Mapping[int, float]
    value: float
    best: int
    best_value: float
    gain: float
    error: float
    rows: int


def select(predicted: Predictions, scores: Scores, mode: str, members: int) -> Selection:
    """Chooses.

    Args:
        predicted: [M, N, C] of each candidate.
        scores: The objective of several predictions at once.
        mode: Whether `min` or `max` of it is better.
        members: Candidates to choose at most.
    """
    sign = 1.0 if mode == "min" else -1.0
    rows = np.arange(predicted.shape[1])
    if len(rows) > MOST_ROWS:
        rows = np.linspace(0, len(rows) - 1, MOST_ROWS).round().astype(int)

    def costs(values: Predictions, places: Places) -> NDArray[np.float64]:
        found = sign * scores(values, places)
        return np.where(np.isfinite(found), found, np.inf)

    alone = costs(predicted[:, rows], rows)
    order = np.argsort(alone, kind="stable")[:MOST_CANDIDATES]
    library = Library(predicted, costs, order, members)
    chosen = judged = library.judge("mean", rows)
    for how in ("shrunk", "greedy") if len(rows) >= MANY_ROWS else ("shrunk",):
        judged = library.judge(how, rows)
        error = difference(costs, chosen.predictions, judged.predictions, rows)
        if chosen.cost - judged.cost > SHOWN * error:
            chosen = judged
    single = library.judge("single", rows)
    return Selection(
        chosen.how,
        chosen.weights,
        sign * chosen.cost,
        int(order[0]),
        sign * single.cost,
        single.cost - chosen.cost,
        difference(costs, single.predictions, chosen.predictions, rows),
        len(rows),
    )


@dataclass(frozen=True)
class Judged:
    """What one way chooses: its cost without the optimism, and its predictions, [N, C]."""

    how: str
    weights: Mapping[int, float]
    cost: float
    predictions: Predictions


class Library:
    """The candidates.

    Args:
        predicted: [M, N, C].
        costs: Of predictions; less is better.
        order: The candidates that count, the best one first.
        members: To choose at most.
    """

    def __init__(
        self, predicted: Predictions, costs: Scores, order: NDArray[np.intp], members: int
    ) -> None:
        self.predicted = predicted
        self.costs = costs
        self.order = order
        self.members = members

    def judge(self, how: str, rows: Places) -> Judged:
        """What a way chooses by rows."""
        weights = self.weights(how, rows)
        mean = self.mean(weights, rows)
        apparent = float(self.costs(mean[None], rows)[0])
        draws = np.random.default_rng(0)
        optimism = []
        for _ in range(DRAWS):
            drawn = np.sort(draws.choice(len(rows), len(rows)))
            chosen = self.mean(self.weights(how, rows[drawn]), rows)[None]
            there = self.costs(chosen[:, drawn], rows[drawn])
            optimism.append(float((self.costs(chosen, rows) - there)[0]))
        known = [one for one in optimism if math.isfinite(one)]
        return Judged(how, weights, apparent + float(np.mean(known or [0.0])), mean)

    def weights(self, how: str, rows: Places) -> dict[int, float]:
        """By candidate, chosen by some rows."""
        alone = self.costs(self.predicted[self.order][:, rows], rows)
        best = [int(one) for one in self.order[np.argsort(alone, kind="stable")]]
        counts = WAYS[how](self, best, rows) if how in WAYS else {best[0]: 1}
        return {one: count / sum(counts.values()) for one, count in sorted(counts.items())}

    def mean(self, weights: Mapping[int, float], rows: Places) -> Predictions:
        """Predictions of rows together, [N, C]."""
        chosen = self.predicted[list(weights)][:, rows]
        return np.average(chosen, axis=0, weights=list(weights.values())).astype(np.float32)

    def plain(self, best: Sequence[int], rows: Places) -> dict[int, int]:
        """Each of the best ones once."""
        return dict.fromkeys(best[: self.members], 1)

    def greedy(self, best: Sequence[int], rows: Places, begun: int = 0) -> dict[int, int]:
        """Adds whichever candidate makes the objective best, as often as there are members.

        Args:
            best: The candidates, the best one first.
            rows: To choose by.
            begun: How many of the best are in from the start.
        """
        library = self.predicted[best][:, rows]
        counts = dict.fromkeys(best[:begun], 1)
        total = library[:begun].sum(0, dtype=np.float64)
        path: list[tuple[float, dict[int, int]]] = []
        if begun:
            path.append(
                (float(self.costs((total / begun)[None].astype(np.float32), rows)[0]), counts)
            )
        for size in range(begun + 1, self.members + 1):
            costs = self.costs(((total + library) / size).astype(np.float32), rows)
            place = int(costs.argmin())
            counts = {**counts, best[place]: counts.get(best[place], 0) + 1}
            total = total + library[place]
            path.append((float(costs[place]), counts))
        return min(path, key=lambda step: step[0])[1]  # of equal ones the one with fewer members

    def shrunk(self, best: Sequence[int], rows: Places) -> dict[int, int]:
        """Greedy, from the mean of the best half on: the paper's sorted initialization."""
        return self.greedy(best, rows, begun=min(self.members // 2, len(best)))


WAYS = {"mean": Library.plain, "shrunk": Library.shrunk, "greedy": Library.greedy}


def difference(costs: Scores, before: Predictions, after: Predictions, rows: Places) -> float:
    """The standard error of the difference between the costs of two predictions, [N, C], of rows.

    By a jackknife over groups of rows.
    """
    both = np.stack([before, after])

    def gain(places: Places) -> float:
        return float(np.diff(costs(both[:, places], rows[places]))[0])

    return jackknife(gain, len(rows))
