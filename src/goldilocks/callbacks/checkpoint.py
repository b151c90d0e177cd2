"""checkpoints/best.ckpt and checkpoints/last.ckpt.

The library's ModelCheckpoint keeps the earlier epoch on a tie, forgets its best score when the
folder has moved, and writes its last checkpoint only when the best improved; so these few lines are
ours.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
from pydantic import Field
from pytorch_lightning.callbacks import Checkpoint

from goldilocks.callbacks.recorder import recorder_of, save_logs
from goldilocks.machine import devices


class BestCheckpoint(Checkpoint):
    """Saves best.ckpt whenever the objective improves:
    the weights that are tested, predicted with and exported.

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

    Resuming is exact from any epoch's end, so a short epoch need not be saved. A large network's
    checkpoint takes long: no more than a fiftieth of the time goes into saving. The metrics of all
    epochs are not in it, but appended to history.jsonl beside it, a line an epoch: they grow with
    the run.

    Args:
        dirpath: Live: the folder of the checkpoints.
        min_seconds: Least time between two saves. The last epoch is always saved.
    """

    SHARE = 0.02  # of the time

    def __init__(self, dirpath: str, min_seconds: Annotated[float, Field(ge=0)] = 1.0) -> None:
        self.path, self.history = Path(dirpath) / "last.ckpt", Path(dirpath) / "history.jsonl"
        self.min_seconds = min_seconds
        self._saved, self._took = time.monotonic(), 0.0
        self._kept = 0  # epochs in history.jsonl

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that is resumed takes up its history;
        what comes after the checkpoint is cut off.
        """
        recorder = recorder_of(trainer)
        if devices.is_first():
            recorder.history = read_history(self.history, recorder.epochs)
            write_history(self.history, recorder.history)
            self._kept = len(recorder.history)

    def on_train_epoch_end(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        now = time.monotonic()
        took = self._took * trainer.sharers if self.min_seconds else 0.0
        due = now - self._saved >= max(self.min_seconds, took / self.SHARE)
        if devices.share(lambda: due) or is_last_epoch(trainer):
            save_logs(
                trainer
            )  # what comes before the checkpoint is not written again by a run that resumes
            self.append_history(recorder_of(trainer).history)
            trainer.save_checkpoint(self.path)
            self._saved = time.monotonic()
            self._took = self._saved - now

    def append_history(self, history: Sequence[dict[str, float]]) -> None:
        """Writes the epochs since the last time."""
        if devices.is_first():
            with self.history.open("a", encoding="utf-8") as file:
                file.writelines(map(as_line, history[self._kept :]))
            self._kept = len(history)


def is_last_epoch(trainer: pl.Trainer) -> bool:
    """Whether training ends with the epoch that has just ended."""
    steps_done = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return (
        trainer.should_stop or steps_done or trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
    )


def as_line(metrics: dict[str, float]) -> str:
    """An epoch's metrics as a line of JSON, from which they come back to the bit."""
    return json.dumps(metrics, default=float) + "\n"


def read_history(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The metrics of the first epochs;
    an epoch that the file lacks has none, for only the diagnosis needs them.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    found: list[dict[str, Any]] = []
    for line in lines[:epochs]:
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            break
    if len(found) < epochs:
        print(f"warning: {path}: lacks epochs; the diagnosis will not see them", file=sys.stderr)
    return found + [{} for _ in range(epochs - len(found))]


def write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    """Replaces the file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(map(as_line, history)), encoding="utf-8")
    os.replace(temporary, path)
