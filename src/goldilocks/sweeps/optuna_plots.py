"""What Optuna knows to say and draw of a sweep's trials, by a study in memory: of grids as of any other sweep."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from goldilocks.sweeps.plots import BLUE, import_plotly, scale_of, styled
from goldilocks.sweeps.summary import Parameter, Summary, number_of


def study_of(summary: Summary, objectives: int | None = None) -> Any:
    """A study in memory with a trial for each configuration that is done."""
    import optuna
    from optuna.trial import create_trial

    directions = ["minimize" if sign == 1 else "maximize" for sign in summary.signs[:objectives]]
    study = optuna.create_study(directions=directions)
    spaces = {parameter.key: distribution_of(parameter) for parameter in summary.parameters}
    for one in summary.ranked:
        values = [one.value(place) or 0.0 for place in range(len(directions))]
        params: dict[str, Any] = {}
        for parameter in summary.parameters:
            word = one.varied.get(parameter.key)
            if word is not None:
                number = number_of(word) if parameter.numeric else None
                params[parameter.key] = word if number is None else int(number) if parameter.whole else number
        own = {key: spaces[key] for key in params}
        study.add_trial(create_trial(params=params, distributions=own, values=values))
    return study


def distribution_of(parameter: Parameter) -> Any:
    """Optuna's word for what a parameter may be."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not parameter.numeric:
        return CategoricalDistribution(parameter.words)
    low, high = parameter.ends
    if parameter.whole:
        return IntDistribution(int(low), int(high), log=parameter.log and low >= 1)
    return FloatDistribution(low, high, log=parameter.log and low > 0)


def importances_of(summary: Summary) -> dict[str, float]:
    """How much of the differences between configurations each parameter explains alone: fANOVA (Hutter et al. 2014).

    It is of ranks, not of objectives, so that a few that are far off do not decide. Empty with too few configurations.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    if len(summary.parameters) < 2 or len(summary.ranked) < 4:
        return {}
    study = study_of(summary, 1)
    ranks = {trial.number: place for place, trial in enumerate(study.trials)}  # of the values: they are added in order
    trees = 64 if len(ranks) <= 100 else 16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(
            study,
            evaluator=FanovaImportanceEvaluator(n_trees=trees, seed=0),
            target=lambda trial: float(ranks[trial.number]),
        )
    return {key: float(value) for key, value in found.items()}


def importance_figure(importances: Mapping[str, float]) -> Any:
    """Bars, the longest first."""
    go = import_plotly()
    names, shares = list(importances)[::-1], list(importances.values())[::-1]
    figure = go.Figure(
        go.Bar(
            x=shares,
            y=names,
            orientation="h",
            marker={"color": BLUE},
            text=[f"{100 * value:.0f} %" for value in shares],
            textposition="outside",
            cliponaxis=False,
            hoverinfo="skip",
        )
    )
    styled(figure, 110 + 34 * len(names), "share of what the parameters explain")
    figure.update_xaxes(tickformat=".0%", range=[0, max(shares) * 1.15])
    figure.update_layout(margin={"l": 180})
    return figure


def parallel_figure(summary: Summary) -> Any:
    """Parallel coordinates by Optuna: a line for each configuration through its values."""
    from optuna.visualization import plot_parallel_coordinate

    values = [one.value() or 0.0 for one in summary.ranked]
    log = scale_of(values, summary.signs[0]).get("type") == "log"
    name = f"log10 of {summary.objective}" if log else summary.objective
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = plot_parallel_coordinate(
            study_of(summary, 1),
            target=lambda trial: math.log10(trial.values[0]) if log else trial.values[0],
            target_name=name,
        )
    return styled(figure, 460).update_layout(margin={"l": 90, "r": 60, "t": 60, "b": 40})


def front_figure(summary: Summary) -> Any:
    """The Pareto front by Optuna, of two or three objectives."""
    from optuna.visualization import plot_pareto_front

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = plot_pareto_front(study_of(summary), target_names=list(summary.modes))
    return styled(figure, 460)
