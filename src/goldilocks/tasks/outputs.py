"""What a regression's raw outputs go through before they are compared with the scaled target."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from goldilocks.data.spec import Spec
from goldilocks.errors import Refused

Output = Literal["identity", "tanh", "sigmoid", "softplus"]
# Output functions of a regression, each with the values that it can give.
OUTPUTS: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "tanh": (torch.tanh, -1.0, 1.0),
    "sigmoid": (torch.sigmoid, 0.0, 1.0),
    "softplus": (F.softplus, 0.0, math.inf),
}


def check_output(output: str, spec: Spec) -> None:
    """Refuses an output function that cannot give the scaled targets of the training rows."""
    if output not in OUTPUTS:
        return
    if spec.task != "regression":
        raise Refused(
            f"task.output={output}: is for a regression, and {spec.task} has its probabilities by"
            " itself;"
            " write task.output=identity"
        )
    low, high = OUTPUTS[output][1:]
    least, most = spec.target_range
    if not low <= least <= most <= high:
        values = f"from {low:g} to {high:g}" if high < math.inf else f"above {low:g}"
        raise Refused(
            f"task.output={output}: gives values {values}, but the scaled targets go from"
            f" {least:.3g} to {most:.3g};"
            " write data.target_scaling=minmax, or none if the target itself is within"
        )
