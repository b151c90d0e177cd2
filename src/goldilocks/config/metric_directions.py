"""Which metrics there are, by task, and which way is better. Import-light: the configuration's resolvers need it."""

from goldilocks.errors import Refused, near_miss

BETTER = {
    "loss": "min",
    "accuracy": "max",
    "balanced_accuracy": "max",
    "auroc": "max",
    "f1": "max",
    "ece": "min",
    "rmse": "min",
    "mae": "min",
    "r2": "max",
}
STAGES = ("train", "val", "test")
FIRST = ("train/", "val/")  # stages whose curves a reader looks at first


def board_tag(name: str) -> str:
    """What TensorBoard calls a number. It sorts by tag, capitals first, and opens the first two groups.

    >>> board_tag("val/loss"), board_tag("best/val/loss"), board_tag("learning_rate")
    ('Val/loss', 'best/val/loss', 'learning_rate')
    """
    return name[0].upper() + name[1:] if name.startswith(FIRST) else name


def direction(metric: str) -> str:
    """Whether less or more of a metric is better: min or max.

    >>> direction("val/accuracy")
    'max'

    Raises:
        Refused: if the metric is not known.
    """
    name = str(metric).rpartition("/")[2]
    if name not in BETTER:
        known = [f"val/{known}" for known in BETTER]
        raise Refused(f"objective.metric={metric}: no such metric; {near_miss(str(metric), known)}")
    return BETTER[name]
