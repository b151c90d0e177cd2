"""Figures of a sweep's outcome, by plotly: curves, seeds, several objectives;
and what all its figures share.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from goldilocks.figures.canvas import powers
from goldilocks.runs.printing import rounded
from goldilocks.sweeps.report.summary import Configuration, Summary
from goldilocks.sweeps.report.wording import with_deviation

BLUE, ORANGE = "#2f6db3", "#e08214"
FAR = 30  # times the smallest value from which on objectives are drawn by their logarithm
MARGIN = 0.05  # of an axis that is cut
MOST_SEEDED = 20  # configurations whose seeds are drawn


def import_plotly() -> Any:
    """plotly's figures. Raises ModuleNotFoundError where plotly or Optuna is not installed."""
    import optuna  # noqa: F401
    import plotly.graph_objects as go

    return go


def styled(figure: Any, height: int, x: str = "", y: str = "") -> Any:
    """A figure in the manner of the page."""
    figure.update_layout(
        template="none",  # the default one takes longer to make than a figure
        plot_bgcolor="white",
        height=height,
        margin={"l": 64, "r": 20, "t": 24, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    lines = {
        "gridcolor": "#e8edf3",
        "linecolor": "#c9d2dc",
        "showline": True,
        "zeroline": False,
        "automargin": True,
    }
    figure.update_xaxes(title_text=x, **lines)
    figure.update_yaxes(title_text=y, **lines)
    return figure


def scale_of(values: Sequence[float], sign: int) -> dict[str, Any]:
    """An axis on which objectives can be told apart:
    logarithmic if they are wide apart, without what is far off.
    """
    log = min(values) > 0 and max(values) / min(values) >= FAR
    axis: dict[str, Any] = {"type": "log"} if log else {}
    places = [math.log10(value) for value in values] if log else list(values)
    low, high = min(places), max(places)
    best, worst = (low, high) if sign == 1 else (high, low)
    reach = 4 * abs(statistics.median(places) - best)
    if reach and abs(worst - best) > 2 * reach:
        low, high = sorted([best, best + sign * reach])
        pad = MARGIN * (high - low)
        axis["range"] = [low - pad, high + pad]
    return axis | (ticks_of(10**low, 10**high) if log else {})


def ticks_of(low: float, high: float) -> dict[str, Any]:
    """Where a logarithmic axis has its numbers:
    at powers of ten, of few powers at 2 and 5 times each too.

    plotly's own would write every digit from 2 to 9 between two powers.
    """
    places, words, _ = powers(math.log10(low), math.log10(high))
    if len(words) < 2:  # a part of a decade
        return {"nticks": 5, "tickmode": "auto", "dtick": None, "exponentformat": "power"}
    return {"tickvals": [10**place for place in places], "ticktext": words}


def hover(one: Configuration, summary: Summary) -> str:
    """What is shown of a configuration under the mouse."""
    value = with_deviation(one.value(), one.deviation()) or one.status
    lines = [
        f"<b>trial {one.number}</b>: {value}",
        *(f"{key} = {rounded(value)}" for key, value in one.varied.items()),
    ]
    return "<br>".join(lines)


def curves_figure(summary: Summary, curves: Mapping[int, Mapping[int, float]]) -> Any:
    """The objective by epoch of the best configurations, by number; the best one in front."""
    go = import_plotly()
    figure = go.Figure()
    best = summary.best.number if summary.best else None
    for place, (number, curve) in reversed(list(enumerate(curves.items()))):
        shade = 0.25 + 0.5 * (1 - place / len(curves))
        figure.add_scatter(
            x=list(curve),
            y=list(curve.values()),
            mode="lines" if len(curve) > 1 else "markers",
            name=f"trial {number}",
            line={
                "color": ORANGE if number == best else BLUE,
                "width": 3 if number == best else 1.5,
            },
            opacity=1.0 if number == best else shade,
            hovertemplate=f"trial {number}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    styled(figure, 420, "epoch", summary.objective)
    if max(max(curve) for curve in curves.values()) <= 12:
        figure.update_xaxes(dtick=1)
    values = [
        value for curve in curves.values() for value in curve.values() if math.isfinite(value)
    ]
    figure.update_yaxes(scale_of(values, summary.signs[0]) if values else {})
    figure.update_layout(
        legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top", "traceorder": "reversed"}
    )
    return figure


def seeds_figure(summary: Summary) -> Any:
    """The objective by seed of the best configurations: how far a mean can be trusted."""
    go = import_plotly()
    figure = go.Figure()
    ranked = summary.ranked[:MOST_SEEDED]
    names = [f"trial {one.number}" for one in ranked]
    points = [
        (name, seed, row[0])
        for name, one in zip(names, ranked, strict=True)
        for seed, row in one.by_seed.items()
    ]
    figure.add_scatter(
        x=[value for _, _, value in points],
        y=[name for name, _, _ in points],
        mode="markers",
        name="one seed",
        marker={"color": BLUE, "size": 9, "opacity": 0.7},
        text=[f"{name}, seed {seed}: {value:.4g}" for name, seed, value in points],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_scatter(
        x=[one.value() for one in ranked],
        y=names,
        mode="markers",
        name="mean",
        marker={"color": ORANGE, "symbol": "line-ns-open", "size": 20, "line": {"width": 3}},
        text=[hover(one, summary) for one in ranked],
        hovertemplate="%{text}<extra></extra>",
    )
    styled(figure, 140 + 28 * len(ranked), summary.objective)
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names[::-1])
    figure.update_xaxes(
        {
            k: v
            for k, v in scale_of([v for *_, v in points], summary.signs[0]).items()
            if k == "type"
        }
    )
    return figure


def front_figure(summary: Summary) -> Any:
    """The first two objectives against each other:
    what no other configuration beats, and the rest.
    """
    go = import_plotly()
    figure = go.Figure()
    front = {one.number for one in summary.front}
    beaten = [one for one in summary.ranked if one.number not in front]
    for name, group, colour, size in (
        ("beaten", beaten, BLUE, 8),
        ("not beaten", summary.front, ORANGE, 12),
    ):
        figure.add_scatter(
            x=[one.value(0) for one in group],
            y=[one.value(1) for one in group],
            mode="markers",
            name=name,
            marker={"color": colour, "size": size},
            text=[hover(one, summary) for one in group],
            hovertemplate="%{text}<extra></extra>",
        )
    styled(figure, 420, *list(summary.modes)[:2])
    for place, update in enumerate((figure.update_xaxes, figure.update_yaxes)):
        values = [one.value(place) or 0.0 for one in summary.ranked]
        update(
            {
                key: value
                for key, value in scale_of(values, summary.signs[place]).items()
                if key != "range"
            }
        )
    return figure
