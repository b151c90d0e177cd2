"""What Optuna knows to say and draw of a sweep's trials, by a study in memory: of grids as of any other sweep."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from goldilocks.sweeps.plots import BLUE, ends_of_colour, import_plotly, scale_of, styled
from goldilocks.sweeps.summary import Parameter, Summary, number_of

FEWEST = 4  # configurations for each parameter below which nothing is said of their importance


def study_of(summary: Summary) -> Any:
    """A study in memory, by the first objective, with a trial for each configuration that is done, the best first."""
    import optuna
    from optuna.trial import create_trial

    study = optuna.create_study(direction="minimize" if summary.signs[0] == 1 else "maximize")
    spaces = {parameter.key: distribution_of(parameter) for parameter in summary.parameters}
    for one in summary.ranked:
        params: dict[str, Any] = {}
        for parameter in summary.parameters:
            word = one.varied.get(parameter.key)
            if word is not None:
                number = number_of(word) if parameter.numeric else None
                params[parameter.key] = word if number is None else int(number) if parameter.whole else number
        own = {key: spaces[key] for key in params}
        study.add_trial(create_trial(params=params, distributions=own, value=one.value()))
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

    if len(summary.parameters) < 2 or len(summary.ranked) < FEWEST * len(summary.parameters):
        return {}
    study = study_of(summary)
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
            study_of(summary),
            target=lambda trial: math.log10(trial.values[0]) if log else trial.values[0],
            target_name=name,
        )
    colours = [math.log10(value) if log else value for value in values]
    low, high = ends_of_colour(colours, summary.signs[0])
    figure.update_traces(
        line={"colorscale": "Viridis", "reversescale": summary.signs[0] == -1, "cmin": low, "cmax": high}
    )
    return styled(figure, 440).update_layout(margin={"l": 90, "r": 60, "t": 40, "b": 40})
