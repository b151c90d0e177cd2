"""Figures of a sweep's parameters, by plotly:
each, two together, all together, and how much each matters.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from goldilocks.sweeps.report.plots import (
    BLUE,
    MARGIN,
    ORANGE,
    hover,
    import_plotly,
    scale_of,
    styled,
    ticks_of,
)
from goldilocks.sweeps.report.summary import (
    INFEASIBLE,
    Configuration,
    Parameter,
    Summary,
    number_of,
)
from goldilocks.sweeps.report.wording import shown

MARKS = {  # colour, symbol and size by status
    "done": (BLUE, "circle", 9),
    "pruned": ("#9aa5b1", "circle-open", 8),
    "diverged": ("#c0392b", "x", 8),
    "failed": ("#7b241c", "cross", 8),
}


def parameter_figure(summary: Summary, parameter: Parameter) -> Any:
    """The objective against a parameter's value;
    what failed or diverged has no objective and stands at the edge.
    """
    go = import_plotly()
    figure = go.Figure()
    known = [one for one in summary.configurations if parameter.key in one.varied]
    values = [
        value
        for one in known
        if one.status not in INFEASIBLE and (value := one.value()) is not None
    ]
    axis = scale_of(values, summary.signs[0]) if values else {}
    edge = place_of_infeasible(values, summary.signs[0], axis)
    for status, (colour, symbol, size) in MARKS.items():
        group = [
            one for one in known if one.status == status and (status in INFEASIBLE or one.by_seed)
        ]
        if not group:
            continue
        tried = [one.varied[parameter.key] for one in group]
        deviations = [0 if status in INFEASIBLE else one.deviation() or 0 for one in group]
        figure.add_scatter(
            x=[number_of(value) for value in tried] if parameter.numeric else tried,
            y=[edge if status in INFEASIBLE else one.value() for one in group],
            error_y={"type": "data", "array": deviations, "thickness": 1, "width": 0}
            if any(deviations)
            else None,
            mode="markers",
            name=status,
            marker={"color": colour, "symbol": symbol, "size": size, "opacity": 0.8},
            text=[hover(one, summary) for one in group],
            hovertemplate="%{text}<extra></extra>",
        )
    best = summary.best
    if best is not None and parameter.key in best.varied:
        chosen = best.varied[parameter.key]
        figure.add_scatter(
            x=[number_of(chosen) if parameter.numeric else chosen],
            y=[best.value()],
            mode="markers",
            name="best",
            marker={
                "color": ORANGE,
                "symbol": "star",
                "size": 15,
                "line": {"width": 1, "color": "white"},
            },
            text=[hover(best, summary)],
            hovertemplate="%{text}<extra></extra>",
        )
    styled(figure, 330, parameter.key, summary.objective)
    figure.update_yaxes(axis)
    figure.update_xaxes(axis_of(parameter))
    return figure


def place_of_infeasible(values: Sequence[float], sign: int, axis: Mapping[str, Any]) -> float:
    """Where trials without an objective are drawn: beyond the worst one that is in sight."""
    if not values:
        return 1.0
    log = axis.get("type") == "log"
    places = [math.log10(value) for value in values] if log else values
    if "range" in axis:
        low, high = axis["range"]
        margin = (high - low) * MARGIN / (1 + 2 * MARGIN)
        place = high - margin if sign == 1 else low + margin
    else:
        low, high = min(places), max(places)
        place = (high if sign == 1 else low) + sign * 0.08 * (high - low or abs(high) or 1.0)
    return 10**place if log else place


def axis_of(parameter: Parameter) -> dict[str, Any]:
    """An axis for a parameter's values."""
    if not parameter.numeric:
        return {"type": "category", "categoryorder": "array", "categoryarray": parameter.values}
    numbers = sorted({number_of(value) or 0.0 for value in parameter.values})
    axis: dict[str, Any] = {"type": "log"} if parameter.log else {}
    if not parameter.ranged and len(numbers) <= 8:
        axis |= {"tickvals": numbers, "ticktext": [f"{number:g}" for number in numbers]}
    elif parameter.log:
        axis |= ticks_of(*parameter.ends)
    return axis


def pair_figure(summary: Summary, first: Parameter, second: Parameter) -> Any:
    """Two parameters against each other, the objective as colour:
    whether the best of one depends on the other.
    """
    go = import_plotly()
    known = [
        one
        for one in summary.configurations
        if first.key in one.varied and second.key in one.varied
    ]
    done = [one for one in known if one.status not in INFEASIBLE and one.value() is not None]
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
        value = one.varied[parameter.key]
        return number_of(value) if parameter.numeric else value

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
    """Between which values colours tell more from less:
    without the worst tenth and the best twentieth.
    """
    ordered = sorted(values, key=lambda value: sign * value)
    best, worst = ordered[len(ordered) // 20], ordered[max(0, math.ceil(0.9 * len(ordered)) - 1)]
    return min(best, worst), max(best, worst)


def parallel_figure(summary: Summary, parameters: Sequence[Parameter]) -> Any:
    """Parallel coordinates: a line for each configuration through its values;
    the objective is the first axis.
    """
    go = import_plotly()
    known = [
        one
        for one in summary.ranked
        if all(parameter.key in one.varied for parameter in parameters)
    ]
    known = known[::-1]  # the best is drawn last, on top
    values = [one.value() or 0.0 for one in known]
    log = scale_of(values, summary.signs[0]).get("type") == "log"
    colours = [math.log10(value) for value in values] if log else values
    low, high = ends_of_colour(colours, summary.signs[0])
    first = {"label": summary.objective, "values": colours, **(powers(colours) if log else {})}
    axes = [
        parallel_axis(parameter, [one.varied[parameter.key] for one in known])
        for parameter in parameters
    ]
    line = {
        "color": colours,
        "colorscale": "Viridis",
        "reversescale": summary.signs[0] == -1,
        "cmin": low,
        "cmax": high,
    }
    names = {"labelfont": {"size": 12}, "labelangle": -20}  # long ones would overlap
    figure = go.Figure(go.Parcoords(dimensions=[first, *axes], line=line, **names))
    return styled(figure, 460).update_layout(margin={"l": 70, "r": 70, "t": 100, "b": 24})


def parallel_axis(parameter: Parameter, values: Sequence[str]) -> dict[str, Any]:
    """An axis of parallel coordinates, which know neither text nor logarithms."""
    axis: dict[str, Any] = {"label": parameter.key}
    if not parameter.numeric:
        places = list(range(len(parameter.values)))
        return (
            axis
            | {"values": [parameter.values.index(value) for value in values], "tickvals": places}
            | {"ticktext": parameter.values}
        )
    numbers = [number_of(value) or 0.0 for value in values]
    if parameter.log:
        exponents = [math.log10(number) for number in numbers]
        return axis | {"values": exponents, **powers(exponents)}
    ticks = sorted(set(numbers)) if not parameter.ranged else []
    return (
        axis
        | {"values": numbers}
        | ({"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]} if ticks else {})
    )


def powers(exponents: Sequence[float]) -> dict[str, Any]:
    """Ticks of an axis of logarithms, as the numbers that they stand for:
    the ends and powers of ten between.
    """
    low, high = min(exponents), max(exponents)
    gap = 0.06 * (high - low)
    step = max(1, round((high - low) / 6))
    inner = [
        float(n)
        for n in range(math.ceil(low), math.floor(high) + 1, step)
        if low + gap < n < high - gap
    ]
    ticks = [low, *inner, high]
    return {"tickvals": ticks, "ticktext": [shown(float(f"{10**tick:.3g}")) for tick in ticks]}


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
