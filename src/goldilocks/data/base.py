"""From rows to loaders: split, scaling, spec. A source of data of your own subclasses `TableData` and writes `load`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from goldilocks.data.loaders import Batches, TensorLoader
from goldilocks.data.spec import Spec, TaskName
from goldilocks.errors import Refused

MAX_CLASSES = 20  # a target of more distinct whole numbers is taken for a quantity
# Rows in a batch where no gradient is needed. On the CPU more of them leave the processor's cache: measured with layers
# of 64 to 2,048 units, 1,024 rows take 0.8 to 1.0 of the time of 8,192.
EVALUATION_ROWS, EVALUATION_ROWS_ON_CPU = 8192, 1024
EVALUATION_BATCHES = 64  # in an item, whose metrics are computed at once
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Table(NamedTuple):
    """What a source of data loads."""

    features: NDArray[Any]  # [N, F], numbers
    target: NDArray[Any]  # [N] or [N, targets]: numbers, or anything that names a class
    feature_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()  # of the sorted classes; () names them by their values


class TableData(pl.LightningDataModule):
    """Rows of numbers, held in tensors on the training device.

    Args:
        batch_size: Rows in a training batch.
        val_fraction: Share of all rows on which the run decides when it is best. 0: no validation set.
        test_fraction: Share of all rows that is seen once, at the end of a run. 0: none.
        scaling: `standard`: mean 0, variance 1. `minmax`: from 0 to 1. `none`. Fitted on the training rows only.
        task: `auto` reads it from the target: two values are binary; up to 20 distinct whole numbers, or words, are
            classes; the rest is regression.
        seed: Of the split.
    """

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=1)] = 32,
        val_fraction: Fraction = 0.2,
        test_fraction: Fraction = 0.2,
        scaling: Literal["standard", "minmax", "none"] = "standard",
        task: Literal["auto"] | TaskName = "auto",
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.scaling, self.task, self.seed = batch_size, scaling, task, seed
        self.fractions = {"val": val_fraction, "test": test_fraction}
        if sum(self.fractions.values()) >= 1:
            raise Refused(
                f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} leave no rows to train on;"
                " their sum must be below 1"
            )
        self.tensors: dict[str, tuple[Tensor, Tensor]] = {}
        self.scaler: dict[str, Tensor] = {}
        self.spec: Spec

    def load(self) -> Table:
        """Reads the rows. The one method that a source of your own must write."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Loads, splits and scales, once; Lightning calls it for every stage."""
        if self.tensors:
            return
        table = self.load()
        task = self.task if self.task != "auto" else infer_task(table.target)
        target, classes = encode_target(table.target, task)
        parts = split_rows(target, self.fractions, self.seed, stratify=task != "regression")
        features = table.features.astype(np.float64)
        check_finite(features, table.feature_names)
        if not self.scaler:
            self.scaler = fit_scaler(features[parts["train"]], self.scaling)
        features = apply_scaler(features, self.scaler)
        train = target[parts["train"]]
        self.spec = Spec(
            task=task,
            input_shape=features.shape[1:],
            num_outputs=len(classes) if task == "multiclass" else target.shape[1],
            num_rows={stage: len(rows) for stage, rows in parts.items()},
            feature_names=table.feature_names,
            class_names=(table.class_names or tuple(map(str, classes))) if task != "regression" else (),
            target_names=table.target_names,
            target_mean=tuple(train.mean(0).tolist()) if task == "regression" else (),
            target_std=tuple(np.maximum(train.std(0), 1e-12).tolist()) if task == "regression" else (),
        )
        if task == "regression":
            target = (target - np.array(self.spec.target_mean)) / np.array(self.spec.target_std)
        kind = torch.long if task == "multiclass" else torch.float32
        x, y = torch.from_numpy(features), torch.from_numpy(target).to(kind)
        self.tensors = {stage: (x[rows], y[rows]) for stage, rows in parts.items() if len(rows)}

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of `batch_size`, several in an item where the trainer executes several steps at once."""
        return self.loader(
            "train",
            max_batches=self.limit("limit_train_batches"),
            batches_per_item=getattr(self.trainer, "batches_per_item", 1),
            shuffle_seed=getattr(self.trainer, "shuffle_seed", self.seed),
        )

    def val_dataloader(self) -> TensorLoader | list:
        return self.evaluation_loader("val", "limit_val_batches")

    def test_dataloader(self) -> TensorLoader | list:
        return self.evaluation_loader("test", "limit_test_batches")

    def evaluation_loader(self, stage: str, limit: str) -> TensorLoader | list:
        """The rows in order, in large batches. A limit counts batches of `batch_size`."""
        if stage not in self.tensors:
            return []
        max_batches = self.limit(limit)
        if max_batches is not None:
            return self.loader(stage, max_batches=max_batches, batches_per_item=EVALUATION_BATCHES)
        rows = EVALUATION_ROWS_ON_CPU if self.device.type == "cpu" else EVALUATION_ROWS
        return self.loader(stage, batch_size=max(rows, self.batch_size), batches_per_item=EVALUATION_BATCHES)

    def limit(self, name: str) -> int | None:
        """Batches of `batch_size` that the trainer's option allows; Lightning turns null into the share 1.0."""
        limit = getattr(self.trainer, name, None)
        return limit if isinstance(limit, int) else None

    @property
    def device(self) -> torch.device:
        """Where the rows are used."""
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def loader(self, stage: str, **options: Any) -> TensorLoader:
        """A loader over a stage's rows on the trainer's device."""
        self.tensors[stage] = tuple(tensor.to(self.device) for tensor in self.tensors[stage])  # type: ignore[assignment]
        x, y = self.tensors[stage]
        return TensorLoader(x, y, **{"batch_size": self.batch_size, **options})

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if isinstance(batch, Batches) and batch.x.device == device:
            return batch  # spares Lightning's walk through the tuple
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        """What was fitted on the training rows, for the checkpoint."""
        return {"scaler": self.scaler, "spec": self.spec.as_plain()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the fitted scaler from a checkpoint."""
        self.scaler = state_dict["scaler"]


def check_finite(features: NDArray[Any], names: tuple[str, ...]) -> None:
    """Refuses missing and infinite values, which would end as a diverged run."""
    bad = ~np.isfinite(features).reshape(len(features), -1)
    if bad.any():
        column = int(bad.any(0).argmax())
        name = names[column] if column < len(names) else column
        raise Refused(
            f"data: feature {name} holds {bad[:, column].sum()} missing or infinite values; fill or drop them"
        )


def infer_task(target: NDArray[Any]) -> TaskName:
    """Reads the task from the target.

    >>> infer_task(np.array([0, 1, 1])), infer_task(np.array([0.5, 1.2, 3.3])), infer_task(np.array(["a", "b", "c"]))
    ('binary', 'regression', 'multiclass')
    """
    if target.ndim > 1 and target.shape[1] > 1:
        return "regression"
    values = np.unique(target)
    if len(values) == 2:
        return "binary"
    numbers = np.issubdtype(target.dtype, np.number)
    if numbers and (len(values) > MAX_CLASSES or not np.all(values == np.round(values))):
        return "regression"
    return "multiclass"


def encode_target(target: NDArray[Any], task: TaskName) -> tuple[NDArray[Any], NDArray[Any]]:
    """The target as the losses take it, and the classes.

    Returns:
        regression [N, targets]; binary [N, 1] of 0 and 1; multiclass [N] of class indices; and the sorted classes.
    """
    if task != "regression" and target.ndim > 1:
        if target.shape[1] > 1:
            raise Refused(f"data.task={task}: the target has {target.shape[1]} columns; write data.task=regression")
        target = target[:, 0]
    if task == "regression":
        if not np.issubdtype(target.dtype, np.number):
            raise Refused("data.task=regression: the target holds words, not numbers; write data.task=auto")
        values = target.astype(np.float64)
        return values.reshape(len(values), -1), np.array([])
    classes, index = np.unique(target, return_inverse=True)
    if task == "binary" and len(classes) != 2:
        raise Refused(f"data.task=binary: the target has {len(classes)} values, not 2; write data.task=auto")
    if len(classes) < 2:
        raise Refused(f"data.task={task}: the target has a single value, {classes[0]}; there is nothing to learn")
    rare = np.bincount(index).min()
    if rare < 3:
        raise Refused(f"data.task={task}: a class has only {rare} rows; at least 3 are needed, one for each split")
    return (index[:, None] if task == "binary" else index), classes


def split_rows(
    target: NDArray[Any], fractions: Mapping[str, float], seed: int, *, stratify: bool
) -> dict[str, NDArray[Any]]:
    """Row numbers by stage; a stratified split keeps the classes' shares.

    Args:
        target: [N] or [N, targets].
        fractions: Share of all rows for `val` and `test`.
        seed: Of the split.
        stratify: Whether the target holds classes.
    """
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(target))
    parts = {"train": rows}
    for stage in ("test", "val"):
        count = round(fractions[stage] * len(target))
        if fractions[stage] == 0:
            parts[stage] = rows[:0]
            continue
        rest = parts["train"]
        classes = target[rest].reshape(-1) if stratify else None
        needed = len(np.unique(classes)) if classes is not None else 1
        if not needed <= count <= len(rest) - needed:
            raise Refused(
                f"data.{stage}_fraction={fractions[stage]}: {count} of {len(target)} rows;"
                f" at least {needed} and at most {len(rest) - needed} are needed"
            )
        parts["train"], parts[stage] = train_test_split(rest, test_size=count, random_state=seed, stratify=classes)
    return parts


def fit_scaler(features: NDArray[Any], scaling: str) -> dict[str, Tensor]:
    """Shift and scale of each feature: scaled = (feature - shift) / scale. A constant feature becomes 0."""
    values = torch.from_numpy(features).double()
    constant = values.amin(0) == values.amax(0)  # not by the scale, which rounding may leave above 0
    if scaling == "standard":
        shift, scale = torch.where(constant, values[0], values.mean(0)), values.std(0, correction=0)
    elif scaling == "minmax":
        shift, scale = values.amin(0), values.amax(0) - values.amin(0)
    else:
        shift, scale = torch.zeros_like(values[0]), torch.ones_like(values[0])
    return {"shift": shift, "scale": torch.where(constant, torch.ones_like(scale), scale)}


def apply_scaler(features: NDArray[Any], scaler: Mapping[str, Tensor]) -> NDArray[Any]:
    """Scales features, [N, F]."""
    return ((features - scaler["shift"].numpy()) / scaler["scale"].numpy()).astype(np.float32)
