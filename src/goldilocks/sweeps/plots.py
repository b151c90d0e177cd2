"""The figures of a sweep's report, by plotly. What Optuna draws is in optuna_plots.py."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from goldilocks.sweeps.summary import INFEASIBLE, Configuration, Parameter, Summary, number_of
from goldilocks.sweeps.wording import shown, with_deviation

BLUE, ORANGE, RED, GREY = "#2f6db3", "#e08214", "#c0392b", "#9aa5b1"
MARKS = {  # colour, symbol and size by status
    "done": (BLUE, "circle", 9),
    "pruned": (GREY, "circle-open", 8),
    "diverged": (RED, "x", 8),
    "failed": ("#7b241c", "cross", 8),
}
FAR = 30  # times the smallest value from which on objectives are drawn by their logarithm
MOST_SEEDED = 20  # configurations whose seeds are drawn


def import_plotly() -> Any:
    """plotly's figures. Raises ModuleNotFoundError where plotly or Optuna is not installed."""
    import optuna
    import plotly.graph_objects as go

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return go


def styled(figure: Any, height: int, x: str = "", y: str = "") -> Any:
    """A figure in the manner of the page."""
    figure.update_layout(
        template="plotly_white",
        title=None,
        height=height,
        margin={"l": 64, "r": 20, "t": 24, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    if x:
        figure.update_xaxes(title_text=x)
    if y:
        figure.update_yaxes(title_text=y)
    return figure


def scale_of(values: Sequence[float], sign: int) -> dict[str, Any]:
    """An axis on which objectives can be told apart: logarithmic, or without what is far worse than the median."""
    low, high, middle = min(values), max(values), statistics.median(values)
    if low > 0 and high / low >= FAR:
        return {"type": "log", **ticks_of(low, high)}
    best, worst = (low, high) if sign == 1 else (high, low)
    reach = 4 * abs(middle - best)
    if reach and abs(worst - best) > 3 * reach:
        end = best + sign * reach
        pad = 0.05 * reach
        return {"range": [best - sign * pad, end + sign * pad][::sign]}
    return {}


def ticks_of(low: float, high: float) -> dict[str, Any]:
    """Where a logarithmic axis has its ticks: at powers of ten, once there are a few of them."""
    return {"dtick": max(1, round(math.log10(high / low) / 6)), "exponentformat": "power"} if high / low > 50 else {}


def hover(one: Configuration, summary: Summary) -> str:
    """What is shown of a configuration under the mouse."""
    value = with_deviation(one.value(), one.deviation()) or one.status
    lines = [f"<b>trial {one.number}</b>: {value}", *(f"{key} = {word}" for key, word in one.varied.items())]
    return "<br>".join(lines)


# --- each parameter ---------------------------------------------------------------------------------------------------


def parameter_figure(summary: Summary, parameter: Parameter) -> Any:
    """The objective against a parameter's value; what failed or diverged has no objective and stands at the edge."""
    go = import_plotly()
    figure = go.Figure()
    known = [one for one in summary.configurations if parameter.key in one.varied]
    values = [value for one in known if (value := one.value()) is not None]
    axis = scale_of(values, summary.signs[0]) if values else {}
    edge = place_of_infeasible(values, summary.signs[0], axis)
    for status, (colour, symbol, size) in MARKS.items():
        group = [one for one in known if one.status == status and (status in INFEASIBLE or one.by_seed)]
        if not group:
            continue
        words = [one.varied[parameter.key] for one in group]
        deviations = [one.deviation() or 0 for one in group]
        figure.add_scatter(
            x=[number_of(word) for word in words] if parameter.numeric else words,
            y=[edge if status in INFEASIBLE else one.value() for one in group],
            error_y={"type": "data", "array": deviations, "thickness": 1, "width": 0} if any(deviations) else None,
            mode="markers",
            name=status,
            marker={"color": colour, "symbol": symbol, "size": size, "opacity": 0.8},
            text=[hover(one, summary) for one in group],
            hovertemplate="%{text}<extra></extra>",
        )
    best = summary.best
    if best is not None and parameter.key in best.varied:
        word = best.varied[parameter.key]
        figure.add_scatter(
            x=[number_of(word) if parameter.numeric else word],
            y=[best.value()],
            mode="markers",
            name="best",
            marker={"color": ORANGE, "symbol": "star", "size": 15, "line": {"width": 1, "color": "white"}},
            text=[hover(best, summary)],
            hovertemplate="%{text}<extra></extra>",
        )
    styled(figure, 330, parameter.key, summary.objective)
    figure.update_yaxes(axis)
    figure.update_xaxes(axis_of(parameter))
    return figure


def place_of_infeasible(values: Sequence[float], sign: int, axis: Mapping[str, Any]) -> float:
    """Where trials without an objective are drawn: behind the worst one that is in sight."""
    if not values:
        return 1.0
    if "range" in axis:
        near, far = axis["range"][::sign]
        return far - (far - near) / 22  # the margin that it has
    low, high = min(values), max(values)
    if axis:
        return high * (high / low) ** 0.08 if sign == 1 else low / (high / low) ** 0.08
    pad = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
    return high + pad if sign == 1 else low - pad


def axis_of(parameter: Parameter) -> dict[str, Any]:
    """An axis for a parameter's values."""
    if not parameter.numeric:
        return {"type": "category", "categoryorder": "array", "categoryarray": parameter.words}
    numbers = sorted({number_of(word) or 0.0 for word in parameter.words})
    axis: dict[str, Any] = {"type": "log"} if parameter.log else {}
    if not parameter.ranged and len(numbers) <= 8:
        axis |= {"tickvals": numbers, "ticktext": [f"{number:g}" for number in numbers]}
    elif parameter.log:
        axis |= ticks_of(*parameter.ends)
    return axis


def pair_figure(summary: Summary, first: Parameter, second: Parameter) -> Any:
    """Two parameters against each other, the objective as colour: whether the best of one depends on the other."""
    go = import_plotly()
    known = [one for one in summary.configurations if first.key in one.varied and second.key in one.varied]
    done = [one for one in known if one.value() is not None]
    values = [one.value() or 0.0 for one in done]
    log = scale_of(values, summary.signs[0]).get("type") == "log"
    colours = [math.log10(value) for value in values] if log else values
    ends = ends_of_colour(colours, summary.signs[0])
    bar: dict[str, Any] = {"title": {"text": summary.objective, "side": "right"}, "thickness": 14}
    if log:
        ticks = [ends[0] + (ends[1] - ends[0]) * i / 4 for i in range(5)]
        bar |= {"tickvals": ticks, "ticktext": [shown(10**tick) for tick in ticks]}
    figure = go.Figure()

    def place(one: Configuration, parameter: Parameter) -> Any:
        word = one.varied[parameter.key]
        return number_of(word) if parameter.numeric else word

    figure.add_scatter(
        x=[place(one, first) for one in done],
        y=[place(one, second) for one in done],
        mode="markers",
        name="done or pruned",
        marker={
            "size": 17,
            "color": colours,
            "colorscale": "Viridis",
            "reversescale": summary.signs[0] == -1,
            "cmin": ends[0],
            "cmax": ends[1],
            "colorbar": bar,
            "line": {"width": [3 if one is summary.best else 0 for one in done], "color": ORANGE},
        },
        text=[hover(one, summary) for one in done],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    for status in INFEASIBLE:
        group = [one for one in known if one.status == status]
        colour, symbol, size = MARKS[status]
        if group:
            figure.add_scatter(
                x=[place(one, first) for one in group],
                y=[place(one, second) for one in group],
                mode="markers",
                name=status,
                marker={"color": colour, "symbol": symbol, "size": size + 2},
                text=[hover(one, summary) for one in group],
                hovertemplate="%{text}<extra></extra>",
            )
    styled(figure, 420, first.key, second.key)
    figure.update_xaxes(axis_of(first))
    figure.update_yaxes(axis_of(second))
    return figure


def ends_of_colour(values: Sequence[float], sign: int) -> tuple[float, float]:
    """Between which values colours tell more from less: without the worst tenth and the best twentieth."""
    ordered = sorted(values, key=lambda value: sign * value)
    best, worst = ordered[len(ordered) // 20], ordered[max(0, math.ceil(0.9 * len(ordered)) - 1)]
    return min(best, worst), max(best, worst)


# --- curves and seeds -------------------------------------------------------------------------------------------------


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
            line={"color": ORANGE if number == best else BLUE, "width": 3 if number == best else 1.5},
            opacity=1.0 if number == best else shade,
            hovertemplate=f"trial {number}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    styled(figure, 420, "epoch", summary.objective)
    if max(max(curve) for curve in curves.values()) <= 12:
        figure.update_xaxes(dtick=1)
    values = [value for curve in curves.values() for value in curve.values() if math.isfinite(value)]
    figure.update_yaxes(scale_of(values, summary.signs[0]) if values else {})
    figure.update_layout(legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top", "traceorder": "reversed"})
    return figure


def seeds_figure(summary: Summary) -> Any:
    """The objective by seed of the best configurations: how far a mean can be trusted."""
    go = import_plotly()
    figure = go.Figure()
    ranked = summary.ranked[:MOST_SEEDED]
    names = [f"trial {one.number}" for one in ranked]
    points = [
        (name, seed, row[0]) for name, one in zip(names, ranked, strict=True) for seed, row in one.by_seed.items()
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
    figure.update_xaxes({k: v for k, v in scale_of([v for *_, v in points], summary.signs[0]).items() if k == "type"})
    return figure


def front_figure(summary: Summary) -> Any:
    """The first two objectives against each other: what no other configuration beats, and the rest."""
    go = import_plotly()
    figure = go.Figure()
    front = {one.number for one in summary.front}
    beaten = [one for one in summary.ranked if one.number not in front]
    for name, group, colour, size in (("beaten", beaten, BLUE, 8), ("not beaten", summary.front, ORANGE, 12)):
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
        update({key: value for key, value in scale_of(values, summary.signs[place]).items() if key != "range"})
    return figure
