"""The figures of docs/guide.md, from the measured values."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies.guide.experiments import CHANCE, Experiment, Variant
from studies.guide.measure import Store
from studies.guide.page import shown
from studies.guide.verdicts import scores

COLOURS = [
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#555555",
]  # for every eye: Okabe and Ito
MARKERS = "os^Dv*P"
DPI = 100
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw_all(table: Mapping[str, Experiment], store: Store, folder: Path) -> None:
    """Draws the experiments that have a figure and have been measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name, experiment in table.items():
        if not experiment.figure or not measured(experiment, store):
            continue
        beside = [table[other] for other in [experiment.figure.get("beside")] if other]
        with pyplot.rc_context(STYLE):
            figure = KINDS[experiment.figure["kind"]](pyplot, [*beside, experiment], store)
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
            pyplot.close(figure)


def measured(experiment: Experiment, store: Store) -> bool:
    """Whether every variant has a run on every data set."""
    return all(
        store.get(words, 0)
        for variant in experiment.variants.values()
        for data in experiment.data
        for words in experiment.words(variant, data)
    )


def mean_and_spread(
    store: Store, experiment: Experiment, variant: Variant, data: str
) -> tuple[float, float]:
    values = list(scores(store, experiment, variant, data, experiment.metrics_of(data)[0]).values())
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def axis_name(experiment: Experiment, data: str) -> str:
    """The metric and what guessing reaches."""
    return f"test {shown(experiment.metrics_of(data)[0])} (chance: {CHANCE[data]:g})"


def points(pyplot: Any, experiments: list[Experiment], store: Store) -> Any:
    """A row for each variant, mean and standard deviation;
    a panel for each data set and experiment.
    """
    assert experiments[-1].figure is not None
    suffix = experiments[-1].figure.get("pairs")
    panels = [(experiment, data) for experiment in experiments for data in experiment.data]
    names = [name for name in experiments[0].variants if not suffix or not name.endswith(suffix)]
    size = (max(5.0, 1.5 + 2.9 * len(panels)), 1.0 + 0.24 * len(names))
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (experiment, data) in zip(axes[0], panels, strict=True):
        for number, ending in enumerate(["", suffix] if suffix else [""]):
            rows = [
                mean_and_spread(store, experiment, experiment.variants[name + ending], data)
                for name in names
            ]
            places = [
                row + (0.16 if number else -0.16 if suffix else 0) for row in range(len(rows))
            ]
            axis.errorbar(
                *([mean for mean, _ in rows], places),
                xerr=[sd for _, sd in rows],
                fmt=MARKERS[number],
                color=COLOURS[number],
                markersize=4,
                elinewidth=1,
                label=ending.removeprefix(", ") or "the option's own rate",
            )
        axis.set(
            xlabel=axis_name(experiment, data),
            title=data if len(experiments) == 1 else title_of(experiment),
        )
        axis.set_yticks(range(len(names)), names)
        axis.locator_params(axis="x", nbins=5)
        show_chance(axis.axvline, axis.get_xlim(), CHANCE[data])
    axes[0][0].invert_yaxis()
    if suffix:
        figure.legend(
            *axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8
        )
    return figure


def title_of(experiment: Experiment) -> str:
    return experiment.title.split(",")[0]


def show_chance(line: Any, limits: tuple[float, float], chance: float) -> None:
    """A dashed line where guessing ends up, if that is near."""
    if limits[0] - 0.3 * (limits[1] - limits[0]) < chance < limits[1]:
        line(chance, color="#888888", linestyle="--", linewidth=1)


def lines(pyplot: Any, experiments: list[Experiment], store: Store) -> Any:
    """A line for each series over x; a panel for each data set."""
    experiment = experiments[-1]
    assert experiment.figure is not None
    size = (max(5.5, 0.8 + 3.1 * len(experiment.data)), 3.2)
    figure, axes = pyplot.subplots(
        1, len(experiment.data), figsize=size, squeeze=False, layout="constrained"
    )
    for axis, data in zip(axes[0], experiment.data, strict=True):
        series: dict[str, list[tuple[float, float, float]]] = {}
        for variant in experiment.variants.values():
            assert variant.x is not None
            mean, sd = mean_and_spread(store, experiment, variant, data)
            series.setdefault(variant.series, []).append((variant.x, mean, sd))
        for number, (name, found) in enumerate(series.items()):
            x, means, spreads = zip(*found, strict=True)
            axis.errorbar(
                *(x, means),
                yerr=spreads,
                marker=MARKERS[number],
                color=COLOURS[number],
                markersize=4,
                linewidth=1.2,
                elinewidth=0.8,
                capsize=2,
                label=name,
            )
        if experiment.figure.get("log"):
            axis.set_xscale("log")
            axis.set_xticks(x, [f"{value:g}" for value in x], fontsize=8)
            axis.minorticks_off()
        axis.set(xlabel=experiment.figure["label"], ylabel=axis_name(experiment, data))
        if len(experiment.data) > 1:
            axis.set_title(data)
        axis.locator_params(axis="y", nbins=6)
        show_chance(axis.axhline, axis.get_ylim(), CHANCE[data])
    if len(series) > 1:
        axes[0][0].legend(fontsize=7)
    return figure


def course(pyplot: Any, experiments: list[Experiment], store: Store) -> Any:
    """Left the gradient's norm by layer before the first step, right a metric by epoch:
    a band for the seeds.
    """
    experiment = experiments[-1]
    data = experiment.data[0]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.5, 3.0), layout="constrained")
    for number, (name, variant) in enumerate(experiment.variants.items()):
        words = experiment.words(variant, data)[0]
        rows = store.runs[" ".join(words)].values()
        for axis, key in ((left, "gradients"), (right, "curve")):
            columns = list(zip(*(row[key] for row in rows), strict=False))
            x = range(1, len(columns) + 1)
            middle = [statistics.median(column) for column in columns]
            axis.plot(x, middle, color=COLOURS[number], label=name, linewidth=1.2)
            axis.fill_between(
                x,
                [*map(min, columns)],
                [*map(max, columns)],
                color=COLOURS[number],
                alpha=0.2,
                lw=0,
            )
    left.set(
        yscale="log", xlabel="layer (the last is the output)", ylabel="norm of the first gradient"
    )
    right.set(xlabel="epoch", ylabel=f"validation accuracy (chance: {CHANCE[data]:g})", ylim=(0, 1))
    show_chance(right.axhline, right.get_ylim(), CHANCE[data])
    left.legend(fontsize=8, loc="center right")
    return figure


KINDS = {"points": points, "lines": lines, "course": course}
