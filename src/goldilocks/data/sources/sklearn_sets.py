"""Real data sets that scikit-learn carries: nothing is downloaded."""

from functools import cache
from typing import Any, Literal

from sklearn import datasets

from goldilocks.data.base import Table, TableData

Name = Literal["digits", "breast_cancer", "wine", "iris", "diabetes"]


class EmbeddedData(TableData):
    """A data set of scikit-learn by name.

    Args:
        name: The name of the data set.
        options: See TableData.
    """

    def __init__(self, name: Name, **options: Any) -> None:
        super().__init__(**options)
        self.name = name

    def load(self) -> Table:
        return load_embedded(self.name)


@cache
def load_embedded(name: Name) -> Table:
    """Reads a data set once a process: the trials of a sweep share it."""
    bunch = getattr(datasets, f"load_{name}")()
    if hasattr(bunch, "images"):
        bunch.data, bunch.feature_names = bunch.images[:, None], ()  # [N, channels, height, width]
    classes = [str(word) for word in getattr(bunch, "target_names", [])]
    return Table(
        bunch.data, bunch.target, tuple(map(str, bunch.feature_names)), ("target",), tuple(classes)
    )
