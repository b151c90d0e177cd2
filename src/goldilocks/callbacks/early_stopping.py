"""Early stopping with ranges on its options."""

from typing import Annotated, Literal

import pytorch_lightning as pl
from pydantic import Field
from pytorch_lightning import callbacks as library


class EarlyStopping(library.EarlyStopping):
    """The library's, which takes any number; it stops at once when the metric is no longer finite.

    Args:
        monitor: The metric.
        mode: Whether less or more of it is better.
        patience: Epochs without improvement before the run ends.
        min_delta: The least change that counts as improvement.
        patience_starts_at: Epochs at the start that do not count, however bad they are. The best
            of them is to be improved on all the same.
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"],
        patience: Annotated[int, Field(ge=0)] = 20,
        min_delta: Annotated[float, Field(ge=0)] = 0.0,
        patience_starts_at: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        every_epoch = True if monitor.startswith("train/") else None  # None: where validation ends
        super().__init__(
            monitor,
            min_delta=min_delta,
            patience=patience,
            mode=mode,
            check_on_train_epoch_end=every_epoch,
        )
        self.patience_starts_at = patience_starts_at

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        """A private name of Lightning; tests/callbacks/test_callbacks.py watches it."""
        counts = trainer.current_epoch >= self.patience_starts_at
        if not counts:
            self.wait_count = -self.patience - 2  # so that this epoch does not reach the patience
        super()._run_early_stopping_check(trainer)
        if not counts:
            self.wait_count = 0
