"""The progress of a run in the terminal: one line for all its epochs."""

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks as library
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from goldilocks.callbacks.recorder import recorder_of


class ProgressBar(library.ProgressBar):
    """A rich progress bar over the epochs, with the latest metrics and the best so far.

    Where the output is not a terminal, it prints a line every `LOG_SECONDS` instead.
    """

    LOG_SECONDS = 30.0

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._progress: Progress | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        console = Console(stderr=True)
        self._printed = time.monotonic()
        self._shown = recorder_of(trainer).epochs
        if not self._enabled or not trainer.is_global_zero or not console.is_terminal:
            return
        shown = (TextColumn("epoch"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *shown, TextColumn("{task.description}"), console=console, refresh_per_second=8
        )
        self._progress.start()
        self._task = self._progress.add_task(
            "", total=trainer.max_epochs, completed=trainer.current_epoch
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *given: Any) -> None:
        """Moves within a long epoch."""
        if self._progress is not None:
            share = (given[-1] + 1) / max(float(self.total_train_batches), 1.0)
            self._progress.update(self._task, completed=trainer.current_epoch + share)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer)
        self._stop()

    def _show(self, trainer: pl.Trainer) -> None:
        """Shows the epoch before: at its own end the Recorder comes after this callback."""
        recorder = recorder_of(trainer)
        now, done = trainer.callback_metrics.get(recorder.objective.metric), recorder.epochs
        if now is None or done == self._shown:
            return
        self._shown = done
        best = recorder.best_value
        text = f"{recorder.objective.metric} {float(now):.4g}" + (
            f" (best {best:.4g})" if best is not None else ""
        )
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=text)
        elif (
            self._enabled
            and trainer.is_global_zero
            and time.monotonic() - self._printed > self.LOG_SECONDS
        ):
            print(f"epoch {done}/{trainer.max_epochs} {text}", file=sys.stderr, flush=True)
            self._printed = time.monotonic()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
