"""What the data know and the network needs."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

TaskName = Literal["regression", "binary", "multiclass"]


@dataclass(frozen=True)
class Spec:
    """Facts of a data set that no YAML states.

    Attributes:
        task: What is predicted.
        input_shape: Of one row: `(features,)` for tables, `(channels, height, width)` for images.
        num_outputs: One a class; one for binary; one a target for regression.
        num_rows: By stage: train, val, test.
        feature_names: One for each input of a table; empty for images.
        class_names: By class index; empty for regression.
        target_names: One for each regression target.
        class_counts: Training rows of each class; empty for regression.
        target_shift: One for each regression target: the network is trained on
            `(target - target_shift) / target_scale`. What they are depends on
            `data.target_scaling`.
        target_scale: See `target_shift`.
        target_centre: Mean of the scaled training targets, one for each.
        target_log: One for each regression target:
            whether its logarithm is what shift and scale are of; () for none.
        target_range: Least and greatest of all scaled training targets.
        category_counts: Of each of the last inputs of a table that hold the number of a category:
            how many numbers there are, from 0. The network gets a vector in place of each.
        numbers: How many of the first inputs of a table are numbers on a scale,
            which a network can embed.
    """

    task: TaskName
    input_shape: tuple[int, ...]
    num_outputs: int
    num_rows: dict[str, int] = field(default_factory=dict)
    feature_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    target_shift: tuple[float, ...] = ()
    target_scale: tuple[float, ...] = ()
    target_centre: tuple[float, ...] = ()
    target_log: tuple[bool, ...] = ()
    target_range: tuple[float, ...] = ()
    category_counts: tuple[int, ...] = ()
    numbers: int = 0

    def as_plain(self) -> dict[str, Any]:
        """Plain containers, for a checkpoint that loads with `weights_only=True`."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Spec":
        """The inverse of `as_plain`."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()
        }
        return cls(**fields)
