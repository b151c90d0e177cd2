"""What several networks' constructors take:
ranges of their options, and whether rows are images.
"""

import math
from typing import Annotated

from pydantic import Field

from goldilocks.errors import Refused

Count = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=100_000)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(gt=0)]
Scale = Annotated[float, Field(ge=0)]


def image_shape(model: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of an image.

    Args:
        model: The option's name, for the message.
        input_shape: Of one row.

    Raises:
        Refused: for anything but images.
    """
    if len(input_shape) != 3:
        raise Refused(
            f"model={model}: needs images (channels,height,width), and these data have rows of"
            f" {math.prod(input_shape)} numbers; write data=digits or model=deep"
        )
    channels, height, width = input_shape
    return channels, height, width
