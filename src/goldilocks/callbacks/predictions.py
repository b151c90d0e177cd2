"""Predictions of rows that the network was not trained on are kept: `predictions/val.npz`, and of a
test `test.npz`.
"""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from goldilocks.errors import one_line
from goldilocks.machine import devices
from goldilocks.machine.interrupts import uninterrupted
from goldilocks.training.module import TrainingModule
from goldilocks.training.outcome import Outcome, best_network, outcome_of, save_outcome
from goldilocks.training.sharding import is_sharded

FOLDER = "predictions"


class KeptPredictions(pl.Callback):
    """Writes the predictions of the best epoch's network into the run folder. Every run has it.

    They are what ensembles, paired comparisons, calibration and intervals are made of. Neither the
    weights nor any random numbers are touched, and a run does not fail because of them.

    Args:
        folder: The run folder.
        max_rows: Rows of a stage that are kept at most. 0: none.
    """

    def __init__(self, folder: Path, max_rows: int) -> None:
        self.folder = folder
        self.max_rows = max_rows
        self.outcome: Outcome | None = None  # of the validation rows
        self.tested: Outcome | None = None  # of all test rows

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.max_rows or not can_inspect(pl_module):
            return
        try:
            self.keep("val", self.validation(trainer, pl_module))
        except Exception as error:  # a network that can only be trained, a full disk
            self.warn(error)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.max_rows or not can_inspect(pl_module):
            return
        try:
            self.tested = outcome_of(trainer, pl_module, pl_module.evaluated, "test")
            self.keep("test", self.tested)
        except Exception as error:
            self.warn(error)

    def validation(self, trainer: Any, module: TrainingModule) -> Outcome | None:
        """Of the best network, for the validation rows; computed once."""
        if self.outcome is None:
            network = best_network(module, self.folder / "checkpoints" / "best.ckpt")
            self.outcome = outcome_of(trainer, module, network)
        return self.outcome

    def keep(self, stage: str, outcome: Outcome | None) -> None:
        """Writes the file of a stage, if there is anything to write."""
        if outcome is not None:
            with uninterrupted():
                save_outcome(outcome, self.folder / FOLDER / f"{stage}.npz", self.max_rows)

    def warn(self, error: Exception) -> None:
        """Says why there are none."""
        print(
            f"warning: the predictions were not kept: {type(error).__name__}: {one_line(error)}",
            file=sys.stderr,
        )


def predictions_of(trainer: Any, module: TrainingModule) -> Outcome | None:
    """What the best network of a run that has ended predicts for the validation rows."""
    return own_of(trainer).validation(trainer, module)


def tested_of(trainer: Any) -> Outcome | None:
    """What was predicted for all test rows in the last test; None where nothing is kept."""
    return own_of(trainer).tested


def own_of(trainer: Any) -> KeptPredictions:
    """The callback of a trainer."""
    return next(one for one in trainer.callbacks if isinstance(one, KeptPredictions))


def can_inspect(module: TrainingModule) -> bool:
    """Whether this process looks at the network that several have trained, and can do so without
    the others.
    """
    return devices.is_first() and not is_sharded(module)
