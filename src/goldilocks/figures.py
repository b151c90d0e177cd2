"""Pictures of how well a network does: from arrays to figures, and from a figure to a PNG.

Figures are drawn without pyplot, which would keep each of them. Margins are computed, for matplotlib's own layouts take
longer than the drawing.

Legend: N rows, C classes, T targets, H height, W width.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

COUNTED_CLASSES = 20  # up to which counts and names are legible
SHOWN_POINTS = 2000  # of a cloud; of more rows these are taken at even distances
SHOWN_STEPS = 500  # of a curve
NAME_WIDTH = 14  # letters of a class or target
LETTER = 0.09  # inches
DPI = 100
BLUE, RED, GREY = "#1f77b4", "#c0392b", "#777777"


# --- classes ----------------------------------------------------------------------------------------------------------


def count_confusions(true: Array, predicted: Array, classes: int) -> Array:
    """How many rows of each true class (row) were taken for each class (column), [C, C].

    >>> count_confusions(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def draw_confusion(counts: Array, names: Sequence[str], title: str) -> Any:
    """Each row's shares as shades; up to 20 classes with their names and the counts that are not zero.

    Args:
        counts: [C, C], true classes by predicted ones.
        names: Of the classes.
        title: Of the figure.
    """
    labels, small = shortened(names), len(counts) <= COUNTED_CLASSES
    longest = max(map(len, labels)) if small else 4
    side = min(max(0.46 * len(counts), 2.6), 7.5)
    room = 0.6 + LETTER * longest
    figure, axes = framed(side + (0 if small else 0.9), side, left=room, bottom=room)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal" if small else "auto")
    if small:
        places = range(len(counts))
        fits = LETTER * longest < side / len(counts)
        axes.set_xticks(places, labels, rotation=0 if fits else 90)
        axes.set_yticks(places, labels)
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = {"ha": "center", "va": "center", "fontsize": 9 if counts.max() < 1000 else 7, "color": colour}
            axes.text(column, row, str(counts[row, column]), **text)
    else:
        figure.colorbar(image, ax=axes, label="share of the true class's rows")
    axes.set(xlabel="predicted", ylabel="true")
    figure.suptitle(title, fontsize=10)
    return figure


def precision_recall(positive: Array, scores: Array) -> tuple[Array, Array, float]:
    """Precision and recall at every threshold, from the lowest, and the average precision.

    Args:
        positive: [N], whether a row is of the class; at least one is.
        scores: [N], its probability.
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    return precision, recall, float(-np.sum(np.diff(recall) * precision[:-1]))


def draw_precision_recall(curves: Mapping[str, tuple[Array, Array, float]], title: str) -> Any:
    """One curve a class, as `precision_recall` gives them."""
    figure, axes = framed(4.6, 4.0)
    for number, (name, (precision, recall, average)) in enumerate(curves.items()):
        shown = evenly(len(recall), SHOWN_STEPS)
        label = f"{shortened([name])[0]}  {average:.3f}"
        axes.plot(recall[shown], precision[shown], color=f"C{number}", drawstyle="steps-post", lw=1.3, label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    axes.legend(title="average precision", loc="lower left", fontsize=8, title_fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def draw_pictures(pictures: Array, captions: Sequence[tuple[str, str]], wrong: Sequence[bool], title: str) -> Any:
    """Pictures in a square, each below its caption of two lines, which is red where the prediction was wrong.

    Args:
        pictures: [N, H, W] grey or [N, H, W, 3] coloured, from 0 to 1.
        captions: For each the two lines.
        wrong: For each whether it was wrong.
        title: Of the figure.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures.shape[1:3]
    tall, wide = height / max(height, width), width / max(height, width)
    step = tall + 0.32  # a picture and its caption, in units of its longer side
    side = 1.35  # of a unit, in inches
    figure, axes = framed(max(columns * 1.2 * side, 3.4), rows * step * side, left=0.1, bottom=0.1, right=0.1)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(number, columns)
        centre, top = 1.2 * column + 0.6, step * row + 0.3
        extent = (centre - wide / 2, centre + wide / 2, top + tall, top)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        colour = RED if wrong[number] else "black"
        place = {"ha": "center", "va": "bottom", "fontsize": 7.5, "color": colour, "linespacing": 1.1}
        axes.text(centre, top - 0.02, "\n".join(caption), **place)
    axes.set(xlim=(0, 1.2 * columns), ylim=(step * rows, 0), aspect="equal")
    axes.axis("off")
    figure.suptitle(title, fontsize=10)
    return figure


# --- regression -------------------------------------------------------------------------------------------------------


def draw_predicted(true: Array, predicted: Array, names: Sequence[str], title: str) -> Any:
    """Predicted against true values, a column a target, with the diagonal where both are the same.

    Args:
        true: [N, T] in the targets' own units.
        predicted: Likewise.
        names: Of the targets.
        title: Of the figure.
    """
    figure, grid = framed(3.4 * len(names) + 0.9 * (len(names) - 1), 3.4, 1, len(names), left=0.95, top=0.75)
    shown = evenly(len(true), SHOWN_POINTS)
    for column, (axes, name) in enumerate(zip(grid[0], shortened(names), strict=True)):
        x, y = true[:, column], predicted[:, column]
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        margin = 0.04 * (high - low) or 1.0
        limits = (low - margin, high + margin)
        axes.plot(limits, limits, color=GREY, lw=1)
        axes.plot(x[shown], y[shown], ".", color=BLUE, **dots(len(x)))
        axes.set(xlabel="true", ylabel="predicted", xlim=limits, ylim=limits)
        root_mean = math.sqrt(np.mean((y - x) ** 2))
        axes.set_title(f"{name}: rmse {root_mean:.4g}", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def draw_residuals(true: Array, predicted: Array, names: Sequence[str], title: str) -> Any:
    """Predicted minus true values, a column a target: how they are spread, and against the prediction.

    Args:
        true: [N, T] in the targets' own units.
        predicted: Likewise.
        names: Of the targets.
        title: Of the figure.
    """
    size = 3.4 * len(names) + 0.9 * (len(names) - 1), 2 * 2.2 + 0.9
    figure, grid = framed(*size, 2, len(names), left=0.95, top=0.75)
    shown = evenly(len(true), SHOWN_POINTS)
    for column, name in enumerate(shortened(names)):
        residual, said = predicted[:, column] - true[:, column], predicted[:, column]
        above, below = grid[0, column], grid[1, column]
        above.stairs(*np.histogram(residual, bins=min(30, 5 + len(residual) // 5)), fill=True, color=BLUE)
        above.axvline(0, color=GREY, lw=1)
        above.set(xlabel="predicted - true", ylabel="rows")
        above.yaxis.get_major_locator().set_params(integer=True)
        above.set_title(f"{name}: mean {residual.mean():.3g}, standard deviation {residual.std():.3g}", fontsize=9)
        below.axhline(0, color=GREY, lw=1)
        below.plot(said[shown], residual[shown], ".", color=BLUE, **dots(len(said)))
        below.set(xlabel="predicted", ylabel="predicted - true")
    figure.suptitle(title, fontsize=10)
    return figure


# --- the figure -------------------------------------------------------------------------------------------------------


def framed(
    width: float,
    height: float,
    rows: int = 0,
    columns: int = 0,
    *,
    left: float = 0.75,
    bottom: float = 0.6,
    right: float = 0.25,
    top: float = 0.45,
) -> tuple[Any, Any]:
    """A figure around an area of a size, all in inches, and its axes: one, or a grid [rows, columns]."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    whole = left + width + right, bottom + height + top
    figure = Figure(figsize=whole, dpi=DPI)
    edges = {"left": left / whole[0], "right": 1 - right / whole[0]}
    edges |= {"bottom": bottom / whole[1], "top": 1 - top / whole[1]}
    if not rows:
        figure.subplots_adjust(**edges)
        return figure, figure.add_subplot()
    grid = figure.subplots(rows, columns, squeeze=False)
    panel = (width - 0.9 * (columns - 1)) / columns, (height - 0.9 * (rows - 1)) / rows
    figure.subplots_adjust(**edges, wspace=0.9 / panel[0], hspace=0.9 / panel[1])
    for axes in grid.flat:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.ticklabel_format(scilimits=(-3, 5))
        axes.tick_params(labelsize=8)
    return figure, grid


def dots(rows: int) -> dict[str, float]:
    """Smaller and fainter where there are many."""
    return {"markersize": 5, "alpha": 0.7} if rows <= 300 else {"markersize": 3, "alpha": 0.5}


def evenly(count: int, most: int) -> Array:
    """At most so many of `count` places, at even distances, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def shortened(names: Sequence[str]) -> list[str]:
    """Names of at most 14 letters."""
    return [name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…" for name in names]


# --- to a file --------------------------------------------------------------------------------------------------------


def png_of(figure: Any) -> bytes:
    """Draws a figure, once, and encodes it, in a third of the time that matplotlib's `savefig` takes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, file = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    return file.getvalue()


def save_figure(figure: Any, folder: Path, tag: str, loggers: Iterable[Any], step: int) -> None:
    """Writes a figure to `figures/` of a run folder and shows it in every logger that takes figures.

    Args:
        figure: Of matplotlib.
        folder: Of the run.
        tag: Its name in the loggers; what follows the last slash names the file.
        loggers: Of the run.
        step: Of the optimizer.
    """
    png = png_of(figure)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "figures" / f"{tag.rpartition('/')[2]}.png").write_bytes(png)
    for logger in loggers:
        if hasattr(logger, "log_figure"):
            logger.log_figure(tag, png, step)
