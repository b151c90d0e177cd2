"""How much each parameter of a sweep matters, by Optuna:
with a study in memory, so of grids as of other sweeps.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from goldilocks.sweeps.report.summary import Configuration, Parameter, Summary, number_of

FEWEST = 4  # configurations for each parameter below which nothing is said of their importance
MOST = 200  # configurations that are looked at; the time grows with their square


def study_of(summary: Summary, some: Sequence[Configuration]) -> Any:
    """A study in memory, by the first objective, with a trial for each of some configurations,
    in their order.
    """
    import optuna
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize" if summary.signs[0] == 1 else "maximize")
    spaces = {parameter.key: distribution_of(parameter) for parameter in summary.parameters}
    for one in some:
        params: dict[str, Any] = {}
        for parameter in summary.parameters:
            value = one.varied.get(parameter.key)
            if value is not None:
                number = number_of(value) if parameter.numeric else None
                params[parameter.key] = (
                    value if number is None else int(number) if parameter.whole else number
                )
        own = {key: spaces[key] for key in params}
        study.add_trial(create_trial(params=params, distributions=own, value=one.value()))
    return study


def distribution_of(parameter: Parameter) -> Any:
    """Optuna's word for what a parameter may be."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not parameter.numeric:
        return CategoricalDistribution(parameter.values)
    low, high = parameter.ends
    if parameter.whole:
        return IntDistribution(int(low), int(high), log=parameter.log and low >= 1)
    return FloatDistribution(low, high, log=parameter.log and low > 0)


def importances_of(summary: Summary) -> dict[str, float]:
    """How much of the differences between configurations each parameter explains alone:
    fANOVA (Hutter et al. 2014).

    It is of ranks, not of objectives, so that a few that are far off do not decide. Those that
    cannot be told from the best share one rank. Of more than MOST configurations it is of some,
    evenly spread from best to worst. Empty with too few configurations, or where none of them can
    be told from the others.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    too_few = len(summary.ranked) < FEWEST * len(summary.parameters)
    if len(summary.parameters) < 2 or too_few or summary.nothing_differs:
        return {}
    places = spread_evenly(len(summary.ranked), MOST)
    study = study_of(summary, [summary.ranked[place] for place in places])
    shared = len(summary.alike) - 1
    ranks = [max(place, shared) for place in places]
    trees = 64 if len(ranks) <= 100 else 16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(
            study,
            evaluator=FanovaImportanceEvaluator(n_trees=trees, seed=0),
            target=lambda trial: float(ranks[trial.number]),  # numbered as they were added
        )
    return {key: float(value) for key, value in found.items()}


def spread_evenly(count: int, most: int) -> list[int]:
    """At most so many of the places 0 to count - 1, the first and the last among them.

    >>> spread_evenly(3, 5), spread_evenly(9, 3)
    ([0, 1, 2], [0, 4, 8])
    """
    if count <= most:
        return list(range(count))
    return [round(step * (count - 1) / (most - 1)) for step in range(most)]
