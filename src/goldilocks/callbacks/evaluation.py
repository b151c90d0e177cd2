"""Pictures of how well the network of the best epoch does on the validation rows.

Legend: N rows, C classes, T targets.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from goldilocks.callbacks.predictions import can_inspect, predictions_of
from goldilocks.callbacks.recorder import recorder_of
from goldilocks.config.metric_directions import FIRST
from goldilocks.data.scaling import undo_scaling
from goldilocks.data.spec import Spec
from goldilocks.errors import one_line
from goldilocks.figures import charts
from goldilocks.loggers import takers
from goldilocks.machine.interrupts import uninterrupted
from goldilocks.training.module import TrainingModule
from goldilocks.training.outcome import Outcome

Array = NDArray[Any]

MOST_WRONG = 25  # rows that are shown
MOST_CURVES = 10  # of precision and recall: the classes with the most rows
MOST_TARGETS = 4


class EvaluationFigures(pl.Callback):
    """Draws once, after training, into `figures/` of the run folder and
    to every logger that takes figures.

    Loss and objective by epoch. Of classes: the confusion matrix, curves of precision and recall,
    how often rows of a probability are right, and the rows with the highest loss. Of a regression:
    predicted against true values, and the residuals. Neither the weights nor any random numbers are
    touched, and a run does not fail because of its pictures.

    Args:
        save_dir: Live: the run folder.
        trials: Whether the trials of a sweep draw too;
            a trial of a second would take a fifth longer.
        is_trial: Live: whether this run is one.
    """

    def __init__(self, save_dir: str, trials: bool = False, is_trial: bool = False) -> None:
        self.folder = Path(save_dir)
        self.draws = trials or not is_trial

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not can_inspect(pl_module) or not self.draws:
            return
        try:
            with uninterrupted():
                self.draw_curves(trainer)
            outcome = predictions_of(trainer, pl_module)
            if outcome is not None:
                with uninterrupted():  # half a picture, or an event that is never written out
                    self.draw(trainer, pl_module, outcome)
        except Exception as error:
            print(
                f"warning: the figures were not drawn: {type(error).__name__}: {one_line(error)}",
                file=sys.stderr,
            )

    def draw_curves(self, trainer: Any) -> None:
        """Draws the loss by epoch, and the objective where that is another metric."""
        recorder = recorder_of(trainer)
        wanted = dict.fromkeys(("loss", recorder.objective.metric.partition("/")[2]))
        history = recorder.history
        frames = [
            {
                tag: [metrics.get(tag) for metrics in history]
                for tag in (stage + name for stage in FIRST)
                if any(tag in metrics for metrics in history)
            }
            for name in wanted
        ]
        if frames := [frame for frame in frames if frame]:
            figure, step = charts.draw_curves(frames, recorder.best_epoch), trainer.global_step
            tag = "evaluation/curves"
            charts.save_figure(figure, self.folder, tag, trainer.loggers, step)

    def draw(self, trainer: Any, module: TrainingModule, outcome: Outcome) -> None:
        """Draws all figures of the task."""
        folder, data, spec = self.folder / "figures", trainer.datamodule, module.task.spec
        step = trainer.global_step  # after the last epoch's: drawn again, it hides these
        folder.mkdir(parents=True, exist_ok=True)
        order = np.argsort(-outcome.losses, kind="stable")[:MOST_WRONG]
        if spec.task == "regression":
            drawn = regression_figures(outcome, spec)
            table = wrong_values(outcome, order, spec)
        else:
            drawn = class_figures(outcome, spec.class_names)
            table = wrong_classes(outcome, order, spec.class_names)
            for name, positive, scores in curves(outcome, spec.class_names):
                for logger in takers(trainer.loggers, "log_precision_recall"):
                    logger.log_precision_recall(f"precision_recall/{name}", positive, scores, step)
            if len(spec.input_shape) == 3:
                inputs = data.tensors["val"][0]
                inputs = inputs[torch.from_numpy(order).to(inputs.device)].cpu().numpy()
                pictures = as_pictures(undo_scaling(inputs, data.scaler))
                drawn["most_wrong"] = wrong_pictures(outcome, order, pictures, spec.class_names)
        (folder / "most_wrong.txt").write_text(table + "\n", encoding="utf-8")
        for logger in takers(trainer.loggers, "log_text"):
            logger.log_text("most_wrong", table, step)
        for name, figure in drawn.items():
            charts.save_figure(figure, self.folder, f"evaluation/{name}", trainer.loggers, step)


# --- classes --------------------------------------------------------------------------------------


def class_figures(outcome: Outcome, names: tuple[str, ...]) -> dict[str, Any]:
    """The confusion matrix and the curves, by their file's name."""
    true, said = outcome.true, outcome.predicted.argmax(1)
    rows = f"{len(true):,} validation rows"
    counts = charts.count_confusions(true, said, len(names))
    lines = {
        name: charts.precision_recall(positive, scores)
        for name, positive, scores in curves(outcome, names)
    }
    two = len(names) == 2
    sure = outcome.predicted[:, 1] if two else outcome.predicted.max(1)
    name = charts.shortened(names)[-1]
    labels = (
        (f"probability of {name}", f"share that is {name}")
        if two
        else ("probability of the predicted class", "share that is right")
    )
    return {
        "confusion": charts.draw_confusion(
            counts, names, f"Confusion matrix: {rows}, {np.mean(true == said):.3f} right"
        ),
        "calibration": charts.draw_calibration(
            sure, true == (1 if two else said), labels, f"Calibration: {rows}"
        ),
        "precision_recall": charts.draw_precision_recall(lines, f"Precision and recall: {rows}"),
    }


def curves(outcome: Outcome, names: tuple[str, ...]) -> Iterator[tuple[str, Array, Array]]:
    """Of the second of two classes, else of the most frequent ones:
    name, whether a row is of it, its probability.
    """
    rows = np.bincount(outcome.true, minlength=len(names))
    shown = [1] if len(names) == 2 else sorted(np.argsort(-rows, kind="stable")[:MOST_CURVES])
    for index in shown:
        if rows[index]:
            yield names[index], outcome.true == index, outcome.predicted[:, index]


def wrong_classes(outcome: Outcome, order: Array, names: tuple[str, ...]) -> str:
    """A table of rows.

    Args:
        outcome: Of all rows.
        order: The rows to be shown, in their order.
        names: Of the classes.
    """
    lines = [("row", "true", "predicted", "probability", "loss")]
    for row in order:
        said = outcome.predicted[row].argmax()
        sure, loss = outcome.predicted[row, said], outcome.losses[row]
        lines.append(
            (
                str(outcome.rows[row]),
                names[outcome.true[row]],
                names[said],
                f"{sure:.3f}",
                f"{loss:.3f}",
            )
        )
    return aligned(lines)


def wrong_pictures(outcome: Outcome, order: Array, pictures: Array, names: tuple[str, ...]) -> Any:
    """The rows of the table as pictures."""
    said, true = outcome.predicted[order].argmax(1), outcome.true[order]
    short = charts.shortened(names)
    captions = [
        (f"{short[right]} → {short[taken]}", f"{outcome.predicted[row, taken]:.2f}")
        for row, right, taken in zip(order, true, said, strict=True)
    ]
    title = f"Highest loss of {len(outcome.true):,} rows: true → predicted, probability"
    return charts.draw_pictures(pictures, captions, (said != true).tolist(), title)


def as_pictures(values: Array) -> Array:
    """Images [N, channels, height, width] from 0 to 1:
    three channels as colours, any other number as grey.
    """
    pictures = np.moveaxis(values, 1, -1) if values.shape[1] == 3 else values.mean(1)
    low, high = pictures.min(), pictures.max()
    return (pictures - low) / (high - low or 1.0)


# --- regression -----------------------------------------------------------------------------------


def regression_figures(outcome: Outcome, spec: Spec) -> dict[str, Any]:
    """Predictions and residuals of up to four targets, by their file's name."""
    names = shown_targets(spec)
    true, said = (
        values[:, : len(names)].astype(float) for values in (outcome.true, outcome.predicted)
    )
    rows = f"{len(true):,} validation rows"
    return {
        "predicted": charts.draw_predicted(true, said, names, f"Predicted and true: {rows}"),
        "residuals": charts.draw_residuals(true, said, names, f"Residuals: {rows}"),
    }


def wrong_values(outcome: Outcome, order: Array, spec: Spec) -> str:
    """A table of rows with up to four targets; see `wrong_classes`."""
    names = shown_targets(spec)
    lines = [
        ("row", *(f"{word} {name}" for name in names for word in ("true", "predicted")), "loss")
    ]
    for row in order:
        values = [
            f"{of[row, target]:.5g}"
            for target in range(len(names))
            for of in (outcome.true, outcome.predicted)
        ]
        lines.append((str(outcome.rows[row]), *values, f"{outcome.losses[row]:.3f}"))
    return aligned(lines)


def shown_targets(spec: Spec) -> list[str]:
    """Names of the targets that are shown; a source need not name them."""
    count = min(spec.num_outputs, MOST_TARGETS)
    return list(spec.target_names[:count]) or [f"target {number}" for number in range(count)]


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Lines of cells as text, each column to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
