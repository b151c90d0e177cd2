"""Pictures by Pillow: words, and axes with lines, bars and dots.

matplotlib takes 25 ms for axes with nothing in them, and a run of a second draws three figures at
its end. Fonts, colours and the numbers at the axes are matplotlib's. All places and lengths are in
points, from the upper left corner; a point is two pixels in each direction, for screens that are as
fine as that.

Legend: N points.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Limits = tuple[float, float]

SHARP = 2  # pixels of a point
LETTER = 12  # height
COLOURS = [
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
    "#17becf",
]
BLUE, RED, GREY = COLOURS[0], "#c0392b", "#777777"


@cache
def font(size: int) -> Any:
    """matplotlib's own, of a height in pixels."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def width_of(words: Sequence[str], size: int = LETTER) -> int:
    """Of the widest of some words."""
    return max(round(font(SHARP * size).getlength(text) / SHARP) for text in words)


class Sheet:
    """A white picture with a title.

    Args:
        width: Of the picture.
        height: In the same unit.
        title: Is centred at the top, in the first 30 points.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        from PIL import Image, ImageDraw

        self.width, self.height = max(width, width_of([title], 13) + 20), height
        self.image = Image.new("RGB", (SHARP * self.width, SHARP * height), "white")
        self.pen = ImageDraw.Draw(self.image)
        self.write(self.width // 2, 16, title, size=13)

    def write(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "mm",
        *,
        size: int = LETTER,
        colour: str = "black",
    ) -> None:
        """Writes at a place, which is where the words' left, middle or right and top,
        middle or bottom are: `lt`.
        """
        place, letters = (SHARP * x, SHARP * y), anchor.replace("t", "a").replace("b", "d")
        self.pen.text(place, text, colour, font(SHARP * size), letters)

    def write_upright(self, x: int, y: int, text: str, anchor: str = "m") -> None:
        """Writes from below to above, centred at x;
        the words' middle, or with `t` their end, is at y.
        """
        from PIL import Image, ImageDraw

        length, height = SHARP * width_of([text]), SHARP * (LETTER + 4)
        mask = Image.new("L", (length, height))
        ImageDraw.Draw(mask).text((0, height // 2), text, 255, font(SHARP * LETTER), "lm")
        corner = SHARP * x - height // 2, SHARP * y - (length // 2 if anchor == "m" else 0)
        self.image.paste("black", corner, mask.transpose(Image.Transpose.ROTATE_90))

    def paste(self, pixels: Array, box: tuple[int, int, int, int]) -> None:
        """Fills a box, left, top, width and height, with a picture [H, W] or [H, W, 3] of bytes."""
        from PIL import Image

        left, top, width, height = (SHARP * length for length in box)
        # Of fewer pixels: the nearest.
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
        self.image.paste(resized, (left, top))

    def rectangle(
        self, box: Sequence[float], fill: str | None = None, outline: str | None = None
    ) -> None:
        """Draws from the first point to the last one, left, top, right and bottom,
        both of them included.
        """
        left, top, right, bottom = (round(SHARP * place) for place in box)
        corners = left, top, right + SHARP - 1, bottom + SHARP - 1
        self.pen.rectangle(corners, fill, outline, SHARP)

    def stroke(self, places: Sequence[float] | Array, colour: str, width: float = 1) -> None:
        """Connects places: x, y, x, y and so on."""
        self.pen.line((SHARP * np.asarray(places)).tolist(), colour, round(SHARP * width))


class Axes:
    """A frame with numbers at its left and lower edge; what is drawn in it goes by value.

    Args:
        sheet: To draw on.
        box: Left, top, width and height of the frame.
            Numbers and label take 75 pixels at its left, 45 below it.
        x: Lowest and highest value.
        y: In the same unit.
        labels: Of both axes.
        title: Above the frame.
        whole: Whether the vertical axis has whole numbers only.
        upright: Whether it has numbers at all.
        log: Whether its values are powers of ten, whose numbers are written.
    """

    def __init__(
        self,
        sheet: Sheet,
        box: tuple[int, int, int, int],
        x: Limits,
        y: Limits,
        labels: tuple[str, str],
        title: str = "",
        *,
        whole: bool = False,
        upright: bool = True,
        log: bool = False,
    ) -> None:
        self.sheet, self.x, self.y = sheet, x, y
        self.left, self.top, self.width, self.height = box
        right, bottom = self.left + self.width, self.top + self.height
        sheet.rectangle((self.left, self.top, right, bottom), outline="black")
        ticks, words, power = numbers(*x)
        for place, word in zip(self.at(ticks, ticks)[0].tolist(), words, strict=True):
            sheet.stroke((place, bottom, place, bottom + 4), "black")
            sheet.write(place, bottom + 7, word, "mt")
        sheet.write(right, bottom + 24, power, "rt")
        ticks, words, power = np.empty(0), [], ""
        if upright:
            ticks, words, power = powers(*y) if log else numbers(*y, whole)
        for place, word in zip(self.at(ticks, ticks)[1].tolist(), words, strict=True):
            sheet.stroke((self.left - 4, place, self.left, place), "black")
            sheet.write(self.left - 7, place, word, "rm")
        sheet.write(self.left, self.top - 4, power, "lb")
        sheet.write((self.left + right) // 2, bottom + 24, labels[0], "mt")
        sheet.write_upright(self.left - 62, (self.top + bottom) // 2, labels[1])
        sheet.write((self.left + right) // 2, self.top - (20 if power else 5), title, "mb")

    def at(self, x: Array | float, y: Array | float) -> tuple[Array, Array]:
        """Where values are in the picture, to a pixel."""
        right = self.left + self.width * (np.asarray(x) - self.x[0]) / (self.x[1] - self.x[0])
        down = self.top + self.height * (self.y[1] - np.asarray(y)) / (self.y[1] - self.y[0])
        return (SHARP * right).round() / SHARP, (SHARP * down).round() / SHARP

    def line(
        self, x: Sequence[float] | Array, y: Sequence[float] | Array, colour: str, width: float = 1
    ) -> None:
        """Connects points."""
        right, down = self.at(np.asarray(x), np.asarray(y))
        self.sheet.stroke(np.stack([right, down], 1).ravel(), colour, width)

    def bars(self, edges: Array, heights: Array, colour: str) -> None:
        """Fills bars from zero, each between two edges."""
        right, down = self.at(edges, np.append(heights, 0))
        for left, end, top in zip(right, right[1:], down, strict=False):
            if top < down[-1]:
                self.sheet.rectangle((left, top, end, down[-1] - 1), colour)

    def dots(self, x: Array, y: Array, colour: str, radius: float, alpha: float) -> None:
        """Discs, [N] and [N], that let through a part of what is below:
        it gets darker where more of them are.
        """
        from PIL import Image

        radius *= SHARP
        reach = np.arange(-int(radius) - 1, int(radius) + 2)
        disc = np.clip(
            radius + 0.5 - np.hypot(reach[:, None], reach), 0, 1
        )  # the share of a pixel that it covers
        right, down = (
            (SHARP * values).astype(int)[:, None, None] + SHARP // 2 for values in self.at(x, y)
        )
        width, height = self.sheet.image.size
        places = (down + reach[:, None]) * width + right + reach
        discs = np.bincount(
            places.ravel(), np.broadcast_to(disc, places.shape).ravel(), width * height
        )
        mask, hit = (
            np.zeros(discs.shape, np.uint8),
            discs > 0,
        )  # most pixels are not, and powers take long
        mask[hit] = 255 * (1 - (1 - alpha) ** discs[hit])
        self.sheet.image.paste(colour, mask=Image.fromarray(mask.reshape(height, width)))


def numbers(low: float, high: float, whole: bool = False) -> tuple[Array, list[str], str]:
    """Up to six round numbers between two, and as words,
    and the power of ten or the sum that the words leave out.
    """
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    low, high = sorted((low, high))
    ticks = np.asarray(
        MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    )
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    formatter: Any = ScalarFormatter()
    formatter.create_dummy_axis()
    formatter.set_powerlimits((-3, 5))
    formatter.axis.set_view_interval(low, high)
    return ticks, formatter.format_ticks(ticks), formatter.get_offset()


def powers(low: float, high: float) -> tuple[Array, list[str], str]:
    """Up to eight round numbers on a logarithmic axis between two powers of ten:
    where, and as words.

    >>> powers(-3.1, 0.2)[1], powers(0.0, 1.0)[1]
    (['0.001', '0.01', '0.1', '1'], ['1', '2', '5', '10'])
    """
    decades = range(math.floor(low), math.ceil(high) + 1)
    wide = high - low > 2.5
    every = max(1, math.ceil((high - low) / 7))
    found = [
        (decade + math.log10(digit), f"{digit * 10.0**decade:g}")
        for decade in decades
        for digit in ((1,) if wide else (1, 2, 5))
        if decade % every == 0
    ]
    shown = [(place, word) for place, word in found if low - 1e-9 <= place <= high + 1e-9]
    return np.array([place for place, _ in shown]), [word for _, word in shown], ""
