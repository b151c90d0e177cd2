"""What Pillow draws is where its values say."""

import numpy as np
import pytest
from PIL import ImageColor

from goldilocks.figures.canvas import BLUE, RED, SHARP, Axes, Sheet, numbers


@pytest.fixture
def axes():
    """A frame of 100 by 50 points, a point of x being 0.1 and one of y 2."""
    return Axes(Sheet(200, 150, ""), (80, 50, 100, 50), (0, 10), (-50, 50), ("x", "y"))


def inside(axes):
    """A pixel of each point within the frame, [49, 99, 3]."""
    return np.asarray(axes.sheet.image)[::SHARP, ::SHARP][51:100, 81:180]


def of_colour(axes, colour):
    return (inside(axes) == ImageColor.getrgb(colour)).all(-1)


def test_values_have_their_places(axes):
    right, down = axes.at(np.array([0, 2.5, 10]), np.array([-50, 0, 50]))
    assert right.tolist() == [80, 105, 180]
    assert down.tolist() == [100, 75, 50]


def test_a_line_connects_its_points(axes):
    axes.line((0, 10), (10, 10), RED)
    assert np.flatnonzero(of_colour(axes, RED).any(1)).tolist() == [70 - 51]
    assert of_colour(axes, RED).any(0).all()


def test_bars_stand_on_zero_and_one_of_no_height_is_not_seen():
    axes = Axes(Sheet(200, 150, ""), (80, 50, 100, 50), (0, 10), (0, 50), ("x", "y"))
    axes.bars(np.array([1, 3, 5, 8]), np.array([20, 0, 40]), BLUE)
    heights = of_colour(axes, BLUE).sum(0)
    assert [heights[place] for place in (5, 20, 40, 60, 90)] == [0, 20, 0, 40, 0]
    assert of_colour(axes, BLUE)[-1].any()


def test_dots_get_darker_where_they_meet(axes):
    axes.dots(np.array([2, 6, 6]), np.array([0, 0, 0]), "black", 2.5, 0.5)
    seen = inside(axes)[..., 0]
    assert seen[75 - 51, 100 - 81] == pytest.approx(255 * 0.5, abs=2)
    assert seen[75 - 51, 140 - 81] == pytest.approx(255 * 0.25, abs=2)
    covered = (1 - seen[:, :40] / 255).sum() / 0.5
    assert covered == pytest.approx(np.pi * 2.5**2, rel=0.05)


@pytest.mark.parametrize(
    ("limits", "words", "left_out"),
    [
        ((-0.02, 1.02), ["0.00", "0.25", "0.50", "0.75", "1.00"], ""),
        ((1e6, 3e6), ["1.0", "1.5", "2.0", "2.5", "3.0"], "1e6"),
        ((10, -10), ["-10", "-5", "0", "5", "10"], ""),
    ],
)
def test_numbers_are_round(limits, words, left_out):
    ticks, written, power = numbers(*limits)
    assert [word.replace("\N{MINUS SIGN}", "-") for word in written] == words
    assert power == left_out
    factor = float(power or 1)
    assert ticks == pytest.approx([factor * float(word) for word in words])


def test_whole_numbers_stay_whole():
    ticks, words, _ = numbers(0, 2.1, whole=True)
    assert (ticks.tolist(), words) == ([0, 1, 2], ["0", "1", "2"])


def test_upright_words_are_read_from_below():
    """A letter L that has fallen on its back: its foot stands up at its right end."""
    sheet = Sheet(60, 90, "")
    sheet.write_upright(30, 60, "L")
    dark = np.asarray(sheet.image)[..., 0] < 128
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    assert np.ptp(columns) > np.ptp(rows)
    assert dark[:, columns[-1]].sum() > dark[:, columns[0]].sum()
