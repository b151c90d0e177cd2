"""Early stopping with ranges on its options."""

from typing import Annotated, Literal

from pydantic import Field
from pytorch_lightning import callbacks as library


class EarlyStopping(library.EarlyStopping):
    """The library's, which takes any number; it stops at once when the metric is no longer finite.

    Args:
        monitor: The metric.
        mode: Whether less or more of it is better.
        patience: Epochs without improvement before the run ends.
        min_delta: The least change that counts as improvement.
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"],
        patience: Annotated[int, Field(ge=0)] = 20,
        min_delta: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        every_epoch = True if monitor.startswith("train/") else None  # None: where validation ends
        super().__init__(
            monitor,
            min_delta=min_delta,
            patience=patience,
            mode=mode,
            check_on_train_epoch_end=every_epoch,
        )
