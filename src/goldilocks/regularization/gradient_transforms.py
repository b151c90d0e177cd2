"""What may be done to the gradients of a step before they are clipped: options that name a class.

A node with a `_target_` in the group `regularization` is one: `regularization.gradient_noise`.
A new one is a class like `gradient_noise.GradientNoise`, here or in `src/project/`, and an option.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from goldilocks.config.build import build
from goldilocks.config.choices import is_on

LIVE = ("seed",)  # of the run, for a transform whose constructor takes it


class GradientTransform(ABC):
    """Changes gradients, with the penalties' in them, before they are clipped.

    It keeps no state: a random one draws from (seed, step), never from torch's own generator. So a
    resumed run repeats it, all devices do the same, and a rehearsal may share it with its run.
    """

    @abstractmethod
    def __call__(self, parameters: Sequence[nn.Parameter], step: int) -> None:
        """Changes the parameters' gradients in place.

        Args:
            parameters: Those that are trained. The gradient of one that was not used is None.
            step: Steps that the optimizer has taken before this one, from 0.
        """


def strengths_in(node: Mapping[str, Any]) -> dict[str, Any]:
    """The strengths in the group `regularization`, without its transforms."""
    return {name: value for name, value in node.items() if not is_transform(value)}


def transforms_in(node: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The transforms in the group `regularization`, those at zero too."""
    return {name: value for name, value in node.items() if is_transform(value)}


def is_transform(value: Any) -> bool:
    """Whether a value in the group is a class and its keywords, not a strength."""
    return isinstance(value, Mapping) and "_target_" in value


def build_transforms(
    node: Mapping[str, Any], seed: int, packages: Iterable[str] = ()
) -> list[GradientTransform]:
    """Builds the transforms that are not at zero, in their order in the group.

    Raises:
        Refused: for a class that is no transform, and for a keyword or value that it rejects.
    """
    return [
        build(
            own,
            GradientTransform,  # type: ignore[type-abstract]
            f"regularization.{name}",
            packages=packages,
            offered={"seed": seed},
        )
        for name, own in transforms_in(node).items()
        if is_on(own)
    ]
