"""PNG files, decoded by Pillow."""

import io

import numpy as np
from PIL import Image


def pixels(png):
    """A decoded PNG, [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)))


def is_drawn(png):
    """More than one colour, on white: neither blank nor black."""
    seen = pixels(png)
    return (
        seen.ndim == 3
        and len(np.unique(seen.reshape(-1, 3), axis=0)) > 5
        and (seen[0, 0] == 255).all()
    )
