"""checkpoints/best.ckpt and checkpoints/last.ckpt.

The library's ModelCheckpoint keeps the earlier epoch on a tie, forgets its best score when the folder has moved, and
writes its last checkpoint only when the best improved; so these few lines are ours.
"""

import time
from pathlib import Path
from typing import Annotated

import pytorch_lightning as pl
from pydantic import Field
from pytorch_lightning.callbacks import Checkpoint

from goldilocks import devices
from goldilocks.callbacks.recorder import recorder_of, save_logs


class BestCheckpoint(Checkpoint):
    """Saves best.ckpt whenever the objective improves: the weights that are tested, predicted with and exported.

    Args:
        dirpath: Live: the folder of the checkpoints.
    """

    def __init__(self, dirpath: str) -> None:
        self.path = Path(dirpath) / "best.ckpt"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        recorder = recorder_of(trainer)
        if recorder.is_best(trainer.current_epoch):
            trainer.save_checkpoint(self.path, weights_only=True)


class LastCheckpoint(Checkpoint):
    """Saves last.ckpt at the end of an epoch, from which an interrupted run resumes.

    Resuming is exact from any epoch's end, so a short epoch need not be saved. A large network's checkpoint takes long:
    no more than a fiftieth of the time goes into saving.

    Args:
        dirpath: Live: the folder of the checkpoints.
        min_seconds: Least time between two saves. The last epoch is always saved.
    """

    SHARE = 0.02  # of the time

    def __init__(self, dirpath: str, min_seconds: Annotated[float, Field(ge=0)] = 1.0) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.min_seconds = min_seconds
        self._saved, self._took = time.monotonic(), 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.monotonic()
        due = now - self._saved >= max(
            self.min_seconds, self._took / self.SHARE if self.min_seconds else 0.0
        )
        if devices.share(lambda: due) or is_last_epoch(trainer):
            save_logs(
                trainer
            )  # what comes before the checkpoint is not written again by a run that resumes
            trainer.save_checkpoint(self.path)
            self._saved = time.monotonic()
            self._took = self._saved - now


def is_last_epoch(trainer: pl.Trainer) -> bool:
    """Whether training ends with the epoch that has just ended."""
    steps_done = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return (
        trainer.should_stop or steps_done or trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
    )
