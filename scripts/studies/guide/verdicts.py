"""From measured values to words:
scores by seed, paired differences, and the rule by which a claim holds.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from studies.guide.experiments import CHANCE, LOWER_IS_BETTER, Claim, Experiment, Variant
from studies.guide.measure import Store

HOLDS, FAILS, NOISE = "holds", "does not hold", "within noise"
DIVERGED = 0.95  # a best validation loss above this share of a guess's loss has learnt nothing
GUESS = {"digits": math.log(10)}  # loss of equal probabilities


def scores(
    store: Store, experiment: Experiment, variant: Variant, data: str, metric: str
) -> dict[int, float]:
    """The test metric by seed, of the candidate that validation chose;
    a run that learnt nothing scores chance.
    """
    candidates = experiment.words(variant, data)
    found = {}
    for seed in range(10_000):
        runs = [store.get(words, seed) for words in candidates]
        if any(run is None for run in runs):
            break
        run = runs[chosen(store, experiment, variant, data, seed)]
        assert run is not None
        value = run.get(metric)
        assert value is not None or metric in ("accuracy", "r2"), f"{candidates}: no {metric}"
        found[seed] = CHANCE[data] if value is None else value
    return found


def chosen(store: Store, experiment: Experiment, variant: Variant, data: str, seed: int) -> int:
    """Which candidate counts for a seed:
    the best by the validation objective, or as `variant.pick` says.
    """
    values = validated(store, experiment, variant, data, seed)
    if variant.pick == "best":
        return values.index(min(values))
    if variant.pick == "half":
        limit = DIVERGED * GUESS[data]
        diverging = next((i for i, value in enumerate(values) if value > limit), len(values))
        return max(diverging - 1, 0)
    other = validated(store, experiment, experiment.variants[variant.pick], data, seed)
    return other.index(min(other))


def validated(
    store: Store, experiment: Experiment, variant: Variant, data: str, seed: int
) -> list[float]:
    """The validation objective of each candidate; all of them are losses."""
    runs = [store.get(words, seed) or {} for words in experiment.words(variant, data)]
    return [math.inf if run.get("val") is None else run["val"] for run in runs]


@dataclass(frozen=True)
class Comparison:
    """What came of a claim on a data set:
    the mean paired difference, positive where the guide is right.
    """

    experiment: str
    claim: Claim
    data: str
    metric: str
    mean: float
    half: float  # of the 95 % interval
    seeds: int
    verdict: str


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float, float, int]:
    """Mean of the paired differences, half of its 95 % interval by Student's t,
    and the number of pairs.
    """
    from scipy.stats import t

    differences = [first[seed] - second[seed] for seed in first.keys() & second.keys()]
    count = len(differences)
    if count < 2:
        return (differences[0] if differences else math.nan), math.inf, count
    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return statistics.mean(differences), half, count


def verdict(mean: float, half: float, margin: float | None) -> str:
    """The rule. With a margin the claim is that something is no worse by more than that.

    >>> verdict(0.02, 0.01, None), verdict(-0.02, 0.01, None), verdict(0.005, 0.01, None)
    ('holds', 'does not hold', 'within noise')
    >>> verdict(-0.002, 0.005, 0.01), verdict(-0.03, 0.01, 0.01), verdict(-0.01, 0.01, 0.01)
    ('holds', 'does not hold', 'within noise')
    """
    bound = -(margin or 0.0)
    if mean - half > bound or (margin is not None and mean - half >= bound and half == 0):
        return HOLDS
    return FAILS if mean + half < bound else NOISE


def comparisons(store: Store, experiments: Iterable[Experiment]) -> list[Comparison]:
    """Every claim on every data set for which it is made and measured."""
    found = []
    for experiment in experiments:
        for claim in experiment.claims:
            for data in claim.data:
                metric = claim.metric or experiment.metrics_of(data)[0]
                pair = [
                    scores(store, experiment, experiment.variants[name], data, metric)
                    for name in (claim.better, claim.than)
                ]
                mean, half, count = compare(*pair)
                if count < 2:
                    continue
                mean = -mean if metric in LOWER_IS_BETTER else mean
                found.append(
                    Comparison(
                        experiment.name,
                        claim,
                        data,
                        metric,
                        mean,
                        half,
                        count,
                        verdict(mean, half, claim.margin),
                    )
                )
    return found


def overall(found: Iterable[Comparison]) -> str:
    """One word for a row of the guide: what more than half of its comparisons say, else `mixed`."""
    verdicts = [comparison.verdict for comparison in found]
    return next(
        (word for word in (HOLDS, FAILS, NOISE) if 2 * verdicts.count(word) > len(verdicts)),
        "mixed",
    )
