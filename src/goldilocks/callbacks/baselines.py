"""Whether a network is worth it: what a constant, a linear model and trees reach on its rows."""

import copy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pydantic import Field

from goldilocks.callbacks import baseline_models
from goldilocks.callbacks.baseline_models import MODELS, MOST_NUMBERS, Rows
from goldilocks.callbacks.comparison import NETWORK, Entries, compare, merged
from goldilocks.callbacks.predictions import (
    FOLDER,
    KeptPredictions,
    can_inspect,
    predictions_of,
    tested_of,
)
from goldilocks.callbacks.recorder import recorder_of
from goldilocks.data.sampling import Balanced
from goldilocks.errors import one_line
from goldilocks.machine.interrupts import uninterrupted
from goldilocks.tasks.task import Task
from goldilocks.training.outcome import Outcome, outcome_of, save_outcome, with_losses

LEAST_SECONDS = 5.0  # that the models may take,
SHARE = 0.1  # or so much of the run
MANY_NUMBERS = 1_000_000  # of a table, below which several threads wait longer than they work
CHOICES = {"default": ("constant", "linear", "trees"), "all": tuple(MODELS)}


GivenOut = Callable[[str, Outcome], Outcome]  # of the rows of a stage, from what was trained


class Baselines(pl.Callback):
    """Compares the network of a table with plain models, once, after training.

    They are fitted on the training rows as the network gets them, and judged on the validation
    rows, and where the run is tested on the test rows, by the same loss and metrics. Neither the
    weights nor the run's random numbers are touched, and a run does not fail because of them. The
    network's probabilities are those that are given out, with the temperature.
    Trials of a sweep, images and diverged runs have none.

    They take a tenth of the run, or 5 s: then no more trees are grown, and the result says so.

    Args:
        save_dir: Live: the run folder.
        models: `default`: a constant, a linear model, boosted trees. `all`: a random forest too.
        max_rows: Training rows that they are fitted on at most, evenly spread.
        is_trial: Live: whether this run is a trial of a sweep.
    """

    def __init__(
        self,
        save_dir: str,
        models: Literal["default", "all"] = "default",
        max_rows: Annotated[int, Field(ge=10)] = 100_000,
        is_trial: bool = False,
    ) -> None:
        self.folder = Path(save_dir)
        self.names = () if is_trial else CHOICES[models]
        self.max_rows = max_rows
        self.fitted: dict[str, baseline_models.Fitted] = {}
        self.found: Entries = {}
        self.task: Task  # on the CPU
        self.given_out: GivenOut | None = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.names or not can_inspect(pl_module) or not is_table(trainer, pl_module):
            return
        try:
            own = predictions_of(trainer, pl_module)
            if own is not None:
                self.fit(trainer, pl_module)
                self.judge(trainer, "val", own)
        except Exception as error:
            self.warn(error)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.fitted or not can_inspect(pl_module):
            return
        try:
            own = tested_of(trainer)
            if own is None:  # nothing is kept
                own = outcome_of(trainer, pl_module, pl_module.evaluated, "test")
            if own is not None:
                self.judge(trainer, "test", own)
        except Exception as error:
            self.warn(error)

    def fit(self, trainer: Any, module: Any) -> None:
        """Fits the models within their part of the run."""
        self.task = copy.deepcopy(module.task).cpu()
        seconds = max(LEAST_SECONDS, SHARE * recorder_of(trainer).elapsed())
        self.fitted, self.found = fitted_models(
            trainer.datamodule, self.task, self.names, self.max_rows, seconds
        )

    def compare_again(self, trainer: Any, module: Any, given_out: GivenOut) -> None:
        """Compares what is given out, the test rows too when they come: a temperature is known
        only when the network has been judged.
        """
        self.given_out = given_out
        if not self.fitted:
            return
        try:
            own = predictions_of(trainer, module)
            if own is not None:
                self.judge(trainer, "val", own)
        except Exception as error:
            self.warn(error)

    def judge(self, trainer: Any, stage: str, own: Outcome) -> None:
        """Compares the models with the network on the rows of a stage."""
        if self.given_out is not None:
            own = self.given_out(stage, own)
        x = as_array(trainer.datamodule.tensors[stage][0][: len(own.rows)])
        outcomes = {NETWORK: own}
        for name, model in self.fitted.items():
            outcomes[name] = judged(self.task, own, model.predict(x))
        objective = vars(recorder_of(trainer).objective)
        merged(self.found, compare(self.task, objective, stage, outcomes))
        if trainer.datamodule.folds is not None:
            self.keep(trainer, stage, outcomes)

    def keep(self, trainer: Any, stage: str, outcomes: dict[str, Outcome]) -> None:
        """Writes a fold's predictions, by which those of all folds are compared."""
        most = next(one for one in trainer.callbacks if isinstance(one, KeptPredictions)).max_rows
        for name in self.fitted if most else ():
            path = file_of(self.folder, name, stage)
            path.parent.mkdir(parents=True, exist_ok=True)
            with uninterrupted():
                save_outcome(outcomes[name], path, most)

    def warn(self, error: Exception) -> None:
        """Says why there are none."""
        self.found, self.fitted = {}, {}
        print(
            f"warning: the network was not compared: {type(error).__name__}: {one_line(error)}",
            file=sys.stderr,
        )


def fitted_models(
    data: Any, task: Task, names: Sequence[str], max_rows: int, seconds: float
) -> tuple[dict[str, baseline_models.Fitted], Entries]:
    """Models that are fitted on the training rows, each within its part of the time that is left,
    and what result.json says of each.

    Args:
        data: Of the run, prepared.
        task: On the CPU.
        names: Of the models.
        max_rows: That they are fitted on at most.
        seconds: That they may take together.
    """
    from threadpoolctl import threadpool_limits  # scikit-learn's

    fitted, entries = {}, {}
    ends = time.monotonic() + seconds
    size = data.tensors["train"][0].numel()
    with threadpool_limits(1 if size < MANY_NUMBERS else torch.get_num_threads()):
        for place, name in enumerate(names):
            began = time.monotonic()
            part = max(ends - began, 0.0) / (len(names) - place)
            rows, cut = training_rows(data, task, max_rows, began + part)
            model = fitted[name] = MODELS[name](rows)
            note = "; ".join(text for text in (cut, model.note) if text)
            spent = round(time.monotonic() - began, 3)
            entries[name] = {"metrics": {}, "seconds": spent, "note": note}
    return fitted, entries


def baselines_in(trainer: Any) -> Baselines | None:
    """The callback of a trainer, if it has it."""
    return next((one for one in trainer.callbacks if isinstance(one, Baselines)), None)


def baselines_of(trainer: Any) -> Entries | None:
    """What a run was compared with, for result.json; None for nothing."""
    own = baselines_in(trainer)
    return own.found or None if own is not None else None


def file_of(folder: Path, name: str, stage: str) -> Path:
    """Where a fold's baseline has its predictions."""
    return folder / FOLDER / "baselines" / f"{name}_{stage}.npz"


# --- rows -----------------------------------------------------------------------------------------


def is_table(trainer: Any, module: Any) -> bool:
    """Whether the rows of a run that has ended well are those of a table."""
    spec = getattr(trainer.datamodule, "spec", None)
    if spec is None or module.task.quantiles:  # a model of values has no quantiles
        return False
    return len(spec.input_shape) == 1 and not module.diverged


def training_rows(data: Any, task: Task, most: int, ends: float) -> tuple[Rows, str]:
    """The training rows as scikit-learn takes them, and in words how many they are where they are
    not all.
    """
    x, y = data.tensors["train"]
    most = min(most, max(MOST_NUMBERS // (x.shape[1] * task.spec.num_outputs), 1))
    places = torch.linspace(0, len(x) - 1, min(most, len(x)), dtype=torch.float64).round().long()
    x, y = (as_array(rows[places.to(rows.device)]) for rows in (x, y))
    if task.spec.task != "regression":
        y = y.reshape(-1).astype(np.int64)
    balanced = task.weighted or isinstance(data.row_sampler, Balanced)
    total = len(data.tensors["train"][0])
    cut = f"fitted on {len(x):,} of {total:,} training rows" if len(x) < total else ""
    return Rows(task, x, y, balanced, ends), cut


def as_array(rows: torch.Tensor) -> NDArray[Any]:
    """Rows in double precision; class indices as they are."""
    rows = rows.cpu()
    return (rows.double() if rows.is_floating_point() else rows).numpy()


def judged(task: Task, own: Outcome, predicted: NDArray[Any]) -> Outcome:
    """What a model predicts, [N, C], for the rows of the network's Outcome, in its form."""
    if task.spec.task == "regression":
        predicted = task.unscale(torch.from_numpy(predicted)).numpy()
    return with_losses(task, own.rows, own.true, predicted)
