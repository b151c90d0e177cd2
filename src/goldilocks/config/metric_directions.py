"""Which metrics there are, and which way is better.
Import-light: the configuration's resolvers need it.
"""

from collections.abc import Mapping
from typing import Any

from goldilocks.errors import Refused, near_miss

# Those of `metrics=auto`. Others say it in their option: `mode: max`.
BETTER = {
    "accuracy": "max",
    "balanced_accuracy": "max",
    "auroc": "max",
    "f1": "max",
    "ece": "min",
    "rmse": "min",
    "mae": "min",
    "r2": "max",
}
AUTO = "auto"  # the key of `metrics` that stands for all of the task's own
STAGES = ("train", "val", "test")
FIRST = ("train/", "val/")  # stages whose curves a reader looks at first


def board_tag(name: str) -> str:
    """What TensorBoard calls a number.
    It sorts by tag, capitals first, and opens the first two groups.

    >>> board_tag("val/loss"), board_tag("best/val/loss"), board_tag("learning_rate")
    ('Val/loss', 'best/val/loss', 'learning_rate')
    """
    return name[0].upper() + name[1:] if name.startswith(FIRST) else name


def directions(metrics: Mapping[str, Any] | None) -> dict[str, str]:
    """Which way is better, min or max, for the loss and each metric that a configuration has.

    Args:
        metrics: The group `metrics` of the configuration.

    Raises:
        Refused: for a metric that does not say it.
    """
    found = {"loss": "min"}
    for name, node in (metrics or {}).items():
        if name == AUTO:
            found |= BETTER if node else {}
        elif node is not None:
            found[str(name)] = stated(str(name), node)
    return found


def stated(name: str, node: Any) -> str:
    """What a metric's option says of its direction."""
    mode = node.get("mode") if isinstance(node, Mapping) or hasattr(node, "get") else None
    mode = BETTER.get(name) if mode is None else mode
    if name == "loss" or mode not in ("min", "max"):
        said = "is the name of the loss" if name == "loss" else f"says mode={mode}"
        write = "another name" if name == "loss" else f"metrics.{name}.mode=max if more is better"
        raise Refused(f"metrics.{name}: {said}; write {write}" + (", else min" * (name != "loss")))
    return str(mode)


def direction(metric: str, metrics: Mapping[str, Any] | None) -> str:
    """Whether less or more of a metric is better: min or max.

    >>> direction("val/accuracy", {"auto": True}), direction("val/mape", {"mape": {"mode": "min"}})
    ('max', 'min')

    Raises:
        Refused: if the metric is not among `metrics`.
    """
    name, known = str(metric).rpartition("/")[2], directions(metrics)
    if name not in known:
        raise Refused(
            f"objective.metric={metric}: no such metric;"
            f" {near_miss(str(metric), [f'val/{one}' for one in known])}"
        )
    return known[name]
