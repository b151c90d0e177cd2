"""Pictures of how well a network does: from arrays to pictures, and from a picture to a PNG.

Legend: N rows, C classes, T targets, H height, W width.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldilocks.figures.canvas import BLUE, COLOURS, GREY, RED, SHARP, Axes, Sheet, width_of
from goldilocks.loggers import takers

Array = NDArray[Any]

COUNTED_CLASSES = 20  # up to which counts and names are legible
SHOWN_POINTS = 2000  # of a cloud; of more rows these are taken at even distances
SHOWN_STEPS = 500  # of a curve
NAME_WIDTH, IMPORTANCE_WIDTH = 14, 30  # letters of a class or target, of a column
CALIBRATION_BINS = 15  # as in val/ece
CALIBRATION_ROWS = 10  # of a dot: a share of three rows says nothing
WIDE = 30  # times the smallest value from which on an axis is logarithmic


# --- classes --------------------------------------------------------------------------------------


def count_confusions(true: Array, predicted: Array, classes: int) -> Array:
    """How many rows of each true class (row) were taken for each class (column), [C, C].

    >>> count_confusions(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def draw_confusion(counts: Array, names: Sequence[str], title: str) -> Any:
    """Each row's shares as shades; up to 20 classes with their names
    and the counts that are not zero.

    Args:
        counts: [C, C], true classes by predicted ones.
        names: Of the classes.
        title: Of the figure.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    if len(counts) > COUNTED_CLASSES:
        sheet, last = Sheet(700, 640, title), len(counts) - 0.5
        sheet.paste(blues(shares), (80, 40, 540, 540))
        Axes(sheet, (80, 40, 540, 540), (-0.5, last), (last, -0.5), ("predicted", "true"))
        sheet.paste(blues(np.linspace(1, 0, 100)[:, None]), (640, 40, 15, 540))
        for share in (0, 50, 100):
            sheet.write(660, 580 - 5.4 * share, f"{share}%", "lm")
        return sheet.image
    labels = shortened(names)
    longest, cell = width_of(labels), max(36, width_of([str(counts.max())]) + 8, 260 // len(counts))
    side, left, turned = cell * len(counts), longest + 40, longest > cell - 4
    sheet = Sheet(left + side + 20, 40 + side + (longest if turned else 16) + 34, title)
    sheet.paste(blues(shares), (left, 40, side, side))
    sheet.rectangle((left - 1, 39, left + side, 40 + side), outline="black")
    middles = [cell * place + cell // 2 for place in range(len(counts))]
    for middle, label in zip(middles, labels, strict=True):
        sheet.write(left - 8, 40 + middle, label, "rm")
        write = sheet.write_upright if turned else sheet.write
        write(left + middle, 40 + side + 7, label, "t" if turned else "mt")
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        sheet.write(
            left + middles[column], 40 + middles[row], str(counts[row, column]), colour=colour
        )
    sheet.write_upright(14, 40 + side // 2, "true")
    sheet.write(left + side // 2, sheet.height - 8, "predicted", "mb")
    return sheet.image


def blues(shares: Array) -> Array:
    """Shares from 0 to 1, of any shape, as colours: three bytes each."""
    from matplotlib import colormaps

    return np.ascontiguousarray(colormaps["Blues"](shares, bytes=True)[..., :3])


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
    labels = [
        f"{name}  {curve[2]:.3f}"
        for name, curve in zip(shortened(list(curves)), curves.values(), strict=True)
    ]
    sheet = Sheet(445 + width_of(["average precision", *labels]), 430, title)
    axes = Axes(sheet, (80, 40, 340, 340), (-0.02, 1.02), (-0.02, 1.02), ("recall", "precision"))
    sheet.write(435, 40, "average precision", "lt")
    for number, (label, (precision, recall, _)) in enumerate(
        zip(labels, curves.values(), strict=True)
    ):
        shown = evenly(len(recall), SHOWN_STEPS)
        # A precision holds until the next recall.
        axes.line(
            np.repeat(recall[shown], 2)[1:], np.repeat(precision[shown], 2)[:-1], COLOURS[number], 2
        )
        sheet.write(435, 60 + 18 * number, label, "lt", colour=COLOURS[number])
    return sheet.image


def bin_probabilities(sure: Array, right: Array) -> tuple[Array, Array, Array]:
    """Of each of 15 bins of probabilities, equally wide:
    its rows, their mean probability, the share of right ones.

    Args:
        sure: [N], probabilities.
        right: [N], whether what they are of came true.
    """
    places = np.minimum((sure * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    rows, sums, hits = (np.bincount(places, of, CALIBRATION_BINS) for of in (None, sure, right))
    return rows, sums / np.maximum(rows, 1), hits / np.maximum(rows, 1)


def enough_rows(rows: Array, least: int) -> Array:
    """Where bins begin that are put together until each has enough rows,
    and where the last one ends.

    >>> enough_rows(np.array([12, 3, 2, 9, 40, 1]), 10).tolist()
    [0, 1, 4, 6]
    """
    edges = [0]
    for place, count in enumerate(np.cumsum(rows), 1):
        if count - rows[: edges[-1]].sum() >= least:
            edges.append(place)
    if len(edges) == 1:
        return np.array([0, len(rows)])
    edges[-1] = len(rows)  # what is left over is too few
    return np.array(edges)


def likely_shares(hits: Array, rows: Array) -> tuple[Array, Array]:
    """Between which shares the true one is with a probability of 95 %, by Wilson's interval.

    >>> [end.round(3).tolist() for end in likely_shares(np.array([0, 5]), np.array([10, 10]))]
    [[0.0, 0.237], [0.278, 0.763]]
    """
    z, share = 1.96, hits / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def draw_calibration(sure: Array, right: Array, labels: tuple[str, str], title: str) -> Any:
    """How often what has a probability comes true, with the diagonal on which it should be;
    and how many rows there are.

    A dot is a bin, or as many neighbours as have ten rows together.
    The lines are intervals of 95 %.

    Args:
        sure: [N], probabilities.
        right: [N], whether what they are of came true.
        labels: What the probability is of, and what came true.
        title: Of the figure; the expected calibration error is added.
    """
    rows, mean, share = bin_probabilities(sure, right)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    error = np.sum(rows * np.abs(mean - share)) / len(sure)
    sheet, unit = Sheet(420, 590, f"{title}, ece {error:.4f}"), (-0.02, 1.02)
    above = Axes(sheet, (80, 40, 320, 300), unit, unit, labels)
    starts = enough_rows(rows, CALIBRATION_ROWS)
    merged, sums, hits = (
        np.add.reduceat(values, starts[:-1]) for values in (rows, rows * mean, rows * share)
    )
    above.line((0, 1), (0, 1), GREY)
    for place, low, high in zip(sums / merged, *likely_shares(hits, merged), strict=True):
        above.line((place, place), (low, high), BLUE, 1.5)
    above.dots(sums / merged, hits / merged, BLUE, 3, 1.0)
    most = (0, 1.05 * rows.max())
    below = Axes(sheet, (80, 410, 320, 130), unit, most, (labels[0], "rows"), whole=True)
    below.bars(edges, rows, BLUE)
    return sheet.image


def draw_pictures(
    pictures: Array, captions: Sequence[tuple[str, str]], wrong: Sequence[bool], title: str
) -> Any:
    """Pictures in a square, each below its caption of two lines,
    which is red where the prediction was wrong.

    Args:
        pictures: [N, H, W] grey or [N, H, W, 3] coloured, from 0 to 1.
        captions: For each the two lines.
        wrong: For each whether it was wrong.
        title: Of the figure.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    height, width = pictures.shape[1:3]
    cell = max(88, width_of([line for lines in captions for line in lines]) + 16)
    tall, wide = (round((cell - 18) * side / max(height, width)) for side in (height, width))
    step = tall + 48  # a picture, its caption of 34 pixels and a distance
    sheet = Sheet(10 + columns * cell, 40 + math.ceil(len(pictures) / columns) * step, title)
    left = (sheet.width - columns * cell) // 2
    bright = (255 * pictures).round().astype(np.uint8)
    for number, (picture, lines) in enumerate(zip(bright, captions, strict=True)):
        middle, top = left + number % columns * cell + cell // 2, 36 + number // columns * step
        for place, line in zip((top, top + 16), lines, strict=True):
            sheet.write(middle, place, line, "mt", colour=RED if wrong[number] else "black")
        sheet.paste(picture, (middle - wide // 2, top + 34, wide, tall))
    return sheet.image


# --- regression -----------------------------------------------------------------------------------


def draw_predicted(true: Array, predicted: Array, names: Sequence[str], title: str) -> Any:
    """Predicted against true values, a column a target, with the diagonal where both are the same.

    Args:
        true: [N, T] in the targets' own units.
        predicted: In the same form.
        names: Of the targets.
        title: Of the figure.
    """
    sheet = Sheet(20 + 400 * len(names), 440, title)
    for column, name in enumerate(shortened(names)):
        x, y = true[:, column], predicted[:, column]
        limits = around(min(x.min(), y.min()), max(x.max(), y.max()))
        subtitle = f"{name}: rmse {math.sqrt(np.mean((y - x) ** 2)):.4g}"
        axes = Axes(
            sheet,
            (80 + 400 * column, 70, 320, 320),
            limits,
            limits,
            ("true", "predicted"),
            subtitle,
        )
        axes.line(limits, limits, GREY)
        cloud(axes, x, y)
    return sheet.image


def draw_residuals(true: Array, predicted: Array, names: Sequence[str], title: str) -> Any:
    """Predicted minus true values, a column a target:
    how they are spread, and against the prediction.

    Args:
        true: [N, T] in the targets' own units.
        predicted: In the same form.
        names: Of the targets.
        title: Of the figure.
    """
    sheet = Sheet(20 + 400 * len(names), 590, title)
    for column, name in enumerate(shortened(names)):
        said, residual = predicted[:, column], predicted[:, column] - true[:, column]
        counts, edges = np.histogram(residual, bins=min(30, 5 + len(residual) // 5))
        spread, left = around(edges[0], edges[-1]), 80 + 400 * column
        subtitle = f"{name}: mean {residual.mean():.3g}, deviation {residual.std():.3g}"
        labels = "predicted - true", "rows"
        above = Axes(
            sheet,
            (left, 70, 320, 200),
            spread,
            (0, 1.05 * counts.max()),
            labels,
            subtitle,
            whole=True,
        )
        above.bars(edges, counts, BLUE)
        above.line((0, 0), above.y, GREY)
        below = Axes(
            sheet,
            (left, 340, 320, 200),
            around(said.min(), said.max()),
            spread,
            ("predicted", labels[0]),
        )
        below.line(below.x, (0, 0), GREY)
        cloud(below, said, residual)
    return sheet.image


def around(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis, a little outside of two values."""
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def cloud(axes: Axes, x: Array, y: Array) -> None:
    """Draws a dot a row; smaller and fainter where there are many."""
    shown = evenly(len(x), SHOWN_POINTS)
    radius, alpha = (3, 0.7) if len(x) <= 300 else (1.5, 0.5)
    axes.dots(x[shown], y[shown], BLUE, radius, alpha)


def evenly(count: int, most: int) -> Array:
    """At most so many of `count` places, at even distances, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def shortened(names: Sequence[str], most: int = NAME_WIDTH) -> list[str]:
    """Names of at most so many letters."""
    return [name if len(name) <= most else name[: most - 1] + "…" for name in names]


# --- training -------------------------------------------------------------------------------------


def draw_curves(curves: Sequence[Mapping[str, Sequence[float | None]]], best: int | None) -> Any:
    """Metrics by epoch, those of one name in one frame; the best epoch is marked.

    Args:
        curves: For each frame, by metric, a value for each epoch; None where it was not measured.
        best: Epoch.
    """
    labels = [f"{name}" for frame in curves for name in frame]
    sheet = Sheet(470 + width_of(labels), 40 + 270 * len(curves), "Over the epochs")
    for number, frame in enumerate(curves):
        epochs = max(len(curve) for curve in frame.values())
        known = [v for curve in frame.values() for v in curve if v is not None and math.isfinite(v)]
        log = bool(known) and min(known) > 0 and max(known) / min(known) >= WIDE
        scaled = {name: scaled_curve(curve, log) for name, curve in frame.items()}
        finite = np.concatenate([y[np.isfinite(y)] for y in scaled.values()])
        limits = around(finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
        top = 40 + 270 * number
        x = around(0, max(epochs - 1, 1))
        name = next(iter(frame)).partition("/")[2]
        axes = Axes(sheet, (80, top, 370, 210), x, limits, ("epoch", name), log=log)
        if best is not None:
            axes.line((best, best), limits, GREY)
        for place, (label, y) in enumerate(scaled.items()):
            shown = np.flatnonzero(np.isfinite(y))
            if len(shown) == 1:
                axes.dots(shown, y[shown], COLOURS[place], 3, 1.0)
            elif len(shown):
                axes.line(shown, y[shown], COLOURS[place], 2)
            sheet.write(462, top + 4 + 18 * place, label, "lt", colour=COLOURS[place])
        if best is not None:
            sheet.write(462, top + 10 + 18 * len(scaled), f"best {best}", "lt", colour=GREY)
    return sheet.image


def scaled_curve(curve: Sequence[float | None], log: bool) -> Array:
    """A curve as it is drawn: NaN where there is none."""
    values = np.array([np.nan if value is None else value for value in curve], float)
    with np.errstate(all="ignore"):
        return np.log10(values) if log else np.where(np.isfinite(values), values, np.nan)


# --- inputs ---------------------------------------------------------------------------------------


def draw_importance(
    names: Sequence[str], means: Array, spreads: Array, label: str, title: str
) -> Any:
    """A bar for each column from zero to its importance,
    with a line one standard deviation to both sides.

    Args:
        names: Of the columns, in the order from above; up to 30 are legible.
        means: [columns].
        spreads: [columns], standard deviations.
        label: What importance is measured in.
        title: Of the figure.
    """
    labels, count = shortened(names, IMPORTANCE_WIDTH), len(names)
    left, height = width_of(labels) + 20, 18 * count
    sheet = Sheet(left + 420, height + 90, title)
    low, high = min(0.0, float((means - spreads).min())), max(0.0, float((means + spreads).max()))
    margin = 0.03 * (high - low) or 1.0
    axes = Axes(
        sheet,
        (left, 40, 390, height),
        (low - margin, high + margin),
        (count, 0.0),
        (label, ""),
        upright=False,
    )
    for place, (name, mean, spread) in enumerate(zip(labels, means, spreads, strict=True)):
        zero, end, least, most = axes.at(np.array([0, mean, mean - spread, mean + spread]), 0)[0]
        middle = 40 + 18 * place + 9
        sheet.write(left - 8, middle, name, "rm")
        sheet.rectangle((min(zero, end), middle - 6, max(zero, end), middle + 6), BLUE)
        sheet.stroke((least, middle, most, middle), "black", 2)
    axes.line((0, 0), (0, count), GREY)
    return sheet.image


# --- to a file ------------------------------------------------------------------------------------


def png_of(figure: Any) -> bytes:
    """Encodes a picture of Pillow; a figure of matplotlib is drawn,
    in a third of the time that its `savefig` takes.
    """
    from PIL import Image

    if not isinstance(figure, Image.Image):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas, dpi = FigureCanvasAgg(figure), figure.dpi
        figure.set_dpi(SHARP * dpi)
        canvas.draw()
        figure.set_dpi(dpi)
        figure = Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    file = io.BytesIO()
    figure.save(file, "png", compress_level=1)
    return file.getvalue()


def save_figure(figure: Any, folder: Path, tag: str, loggers: Iterable[Any], step: int) -> None:
    """Writes a figure to `figures/` of a run folder and shows it in
    every logger that takes figures.

    Args:
        figure: Of Pillow or matplotlib.
        folder: Of the run.
        tag: Its name in the loggers; what follows the last slash names the file.
        loggers: Of the run.
        step: Of the optimizer.
    """
    png = png_of(figure)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "figures" / f"{tag.rpartition('/')[2]}.png").write_bytes(png)
    for logger in takers(loggers, "log_figure"):
        logger.log_figure(tag, png, step)
