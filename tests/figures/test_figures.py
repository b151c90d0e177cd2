"""Figures as they are drawn: counts by scikit-learn,
and words that neither overlap nor leave the picture.
"""

import math

import numpy as np
import pytest
from PIL import ImageChops
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, confusion_matrix

from goldilocks.callbacks import evaluation
from goldilocks.figures import canvas, charts
from pictures import is_drawn, pixels


@pytest.fixture
def draws():
    return np.random.default_rng(0)


def test_confusions_are_counted_as_by_scikit_learn(draws):
    true, predicted = draws.integers(0, 6, (2, 500))
    counts = charts.count_confusions(true, predicted, 7)  # the last class has no rows
    assert np.array_equal(counts, confusion_matrix(true, predicted, labels=range(7)))


def test_average_precision_is_scikit_learns(draws):
    positive, scores = draws.random(200) < 0.3, draws.random(200).round(1)  # with ties
    precision, recall, average = charts.precision_recall(positive, scores)
    assert average == pytest.approx(average_precision_score(positive, scores))
    assert (precision[0], recall[0]) == (
        pytest.approx(positive.mean()),
        1.0,
    )  # the lowest threshold takes all rows


def test_calibration_is_scikit_learns(draws):
    sure = draws.random(400) ** 2
    right = draws.random(400) < sure**1.5
    rows, mean, share = charts.bin_probabilities(sure, right)
    true, predicted = calibration_curve(right, sure, n_bins=15)
    assert rows.sum() == 400
    assert share[rows > 0] == pytest.approx(true)
    assert mean[rows > 0] == pytest.approx(predicted)
    assert charts.bin_probabilities(np.ones(3), np.ones(3))[0][-1] == 3  # one is in the last bin


NAMES = ["a", "benign", "an extremely long name", *(f"class {number}" for number in range(3, 45))]


def confusion(draws, classes, largest=50):
    return charts.draw_confusion(
        draws.integers(0, largest, (classes, classes)), NAMES[:classes], "Of rows"
    )


def some_figures(draws):
    true, said = draws.normal(size=(2, 40, 4)) * [1, 1e7, 1e-6, 300] + [0, 1e8, 0, 5000]
    curves = {
        name: charts.precision_recall(draws.random(90) < 0.4, draws.random(90))
        for name in NAMES[:10]
    }
    captions = [("ankle boot → an extremely l…", "0.97")] * 25
    yield from (
        confusion(draws, classes, largest)
        for classes, largest in ((2, 90), (20, 9999), (21, 9), (45, 9))
    )
    yield charts.draw_precision_recall(curves, "Precision and recall: 90 rows")
    for sure in (draws.random(90), np.ones(1)):
        yield charts.draw_calibration(
            sure,
            draws.random(len(sure)) < sure,
            ("probability of benign", "share that is benign"),
            "Calibration",
        )
    for count, scale in ((1, 1.0), (25, 1e-6), (3, 0.0)):
        means, spreads = scale * draws.normal(size=(2, count))
        yield charts.draw_importance(
            NAMES[:count], means, abs(spreads), "rise of val/loss", "Importance: 90 rows"
        )
    falling = [3.0 * 0.5**epoch for epoch in range(12)]
    for curve in (falling, falling[:1], [*falling[:3], None, math.inf]):
        frames = [{"train/loss": curve, "val/loss": curve[::-1]}, {"val/accuracy": curve}]
        yield charts.draw_curves(frames, 0)
    yield charts.draw_pictures(
        draws.random((25, 8, 8)), captions, [True, False] * 13, "Highest loss of 90 rows"
    )
    yield charts.draw_pictures(
        draws.random((2, 12, 30, 3)), captions[:2], [True, False], "Highest loss of 2 rows"
    )
    for targets in (1, 4):
        values = true[:, :targets], said[:, :targets], NAMES[:targets]
        yield charts.draw_predicted(*values, "Predicted and true: 40 rows")
        yield charts.draw_residuals(*values, "Residuals: 40 rows")
    yield charts.draw_predicted(true[:1, :1], true[:1, :1], NAMES[:1], "A single row that is right")
    yield charts.draw_residuals(true[:1, :1], true[:1, :1], NAMES[:1], "A single row that is right")


@pytest.fixture
def written(monkeypatch):
    """All words that are written on the sheets of a test,
    each with the box of the pixels that they changed.
    """
    words = []
    monkeypatch.setattr(canvas, "SHARP", 1)  # the places are the same, and there are fewer pixels

    def watched(write):
        def watching(sheet, x, y, text, *place, **look):
            before = sheet.image.copy()
            write(sheet, x, y, text, *place, **look)
            words.append((text, ImageChops.difference(before, sheet.image).getbbox()))

        return watching

    for name in ("write", "write_upright"):
        monkeypatch.setattr(canvas.Sheet, name, watched(getattr(canvas.Sheet, name)))
    return words


def test_no_words_overlap_or_leave_the_picture(draws, written):
    for figure in some_figures(draws):
        assert is_drawn(charts.png_of(figure))
        boxes = [(text, box) for text, box in written if text.strip()]
        written.clear()
        assert len(boxes) > 2
        for number, (words, box) in enumerate(boxes):
            assert box, words  # something is seen
            assert 0 < box[0] <= box[2] < figure.width, words
            assert 0 < box[1] <= box[3] < figure.height, words
            for other, another in boxes[number + 1 :]:
                assert overlap(box, another) == 0, (words, other)


def overlap(one, other):
    """Pixels that two boxes share."""
    wide, tall = (min(one[end + 2], other[end + 2]) - max(one[end], other[end]) for end in (0, 1))
    return max(wide, 0) * max(tall, 0)


def test_counts_are_written_where_they_are_legible(draws, written):
    charts.draw_confusion(np.diag(np.arange(101, 121)), NAMES[:20], "")
    assert {text for text, _ in written if text.isdigit()} == {
        str(number) for number in range(101, 121)
    }
    written.clear()
    confusion(draws, 21, 1000)
    assert max(int(text) for text, _ in written if text.isdigit()) <= 21  # numbers of classes


def test_a_figure_of_matplotlib_is_encoded_too():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2), dpi=100)
    figure.add_subplot().plot([0, 1])
    png = charts.png_of(figure)
    assert pixels(png).shape == (400, 600, 3)  # twice as sharp
    assert is_drawn(png)


@pytest.mark.parametrize(("count", "most"), [(1, 5), (2, 5), (5, 5), (6, 5), (10_001, 2000)])
def test_many_points_are_thinned_evenly(count, most):
    shown = charts.evenly(count, most)
    assert len(shown) == min(count, most)
    assert (shown[0], shown[-1]) == (0, count - 1)
    assert len(shown) < 3 or np.ptp(np.diff(shown)) <= 1


def test_images_are_grey_or_coloured_from_0_to_1(draws):
    values = draws.normal(size=(3, 3, 4, 5))
    coloured, grey = evaluation.as_pictures(values), evaluation.as_pictures(values[:, :2])
    assert coloured.shape == (3, 4, 5, 3)
    assert np.array_equal(coloured.argmax(3), values.argmax(1))
    assert grey.shape == (3, 4, 5)
    assert all((found.min(), found.max()) == (0, 1) for found in (coloured, grey))
    assert (evaluation.as_pictures(np.ones((2, 1, 4, 4))) == 0).all()
