"""From rows to loaders: split, spec.
A source of data of your own subclasses `TableData` and writes `load`.
"""

import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from goldilocks.data.fingerprint import fingerprint
from goldilocks.data.loaders import Batches, TensorLoader
from goldilocks.data.prefetch import PrefetchingLoader
from goldilocks.data.sampling import Balanced, RowSampler, row_sampler
from goldilocks.data.scaling import Scaling, apply_scaler, check_finite, fit_scaler
from goldilocks.data.spec import Spec, TaskName
from goldilocks.data.splitting import split_folds
from goldilocks.data.targets import TargetScaling, encode_target, infer_task, scale_target
from goldilocks.errors import Refused
from goldilocks.machine import devices

# Rows in a batch where no gradient is needed. On the CPU more of them leave the processor's cache:
# measured with layers of 64 to 2,048 units, 1,024 rows take 0.8 to 1.0 of the time of 8,192.
EVALUATION_ROWS, EVALUATION_ROWS_ON_CPU = 8192, 1024
EVALUATION_NUMBERS = (
    2**24
)  # in such a batch of large images, beyond which it may not fit where a training batch does
EVALUATION_BATCHES = 64  # in an item, whose metrics are computed at once
Fraction = Annotated[float, Field(ge=0, lt=1)]
Parts = dict[str, NDArray[Any]]  # row numbers by stage


class Table(NamedTuple):
    """What a source of data loads."""

    features: (
        Any  # an array of numbers, [N, F] or [N, channels, height, width]; or what `prepare` takes
    )
    target: NDArray[Any]  # [N] or [N, targets]: numbers, or anything that names a class
    feature_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()  # of the sorted classes; () names them by their values
    test_rows: NDArray[Any] | None = (
        None  # numbers of the rows that the source itself sets aside; None: drawn
    )
    val_rows: NDArray[Any] | None = None


class TableData(pl.LightningDataModule):
    """Rows of numbers, held in tensors on the training device.

    Args:
        batch_size: Rows in a training batch.
        val_fraction: Share of all rows on which the run decides when it is best.
            0: no validation set.
        test_fraction: Share of all rows that is seen once, at the end of a run. 0: none.
        scaling: Of the features: `standard`, `robust`, `quantile`, `minmax`, `none`; see
            `fit_scaler`. Fitted on the training rows only.
        target_scaling: Of the target of a regression: `standard`, `minmax`, `none`. Predictions and
            metrics are in the target's own units.
        task: `auto` reads it from the target: two values are binary; up to 20 distinct whole
            numbers, or words, are classes; the rest is regression.
        seed: Of the split.
        folds: Cross-validation: the rows that are not the test's are split into so many folds, and
            a run trains as many networks, each judged on another fold and trained on the others. In
            place of `val_fraction`.
        fold: The one fold to train for, from 0; null: a run trains for all.
        sampler: Draws the training rows of an epoch: `balanced`, each class as often as any
            other, or a class of your own; null: all rows, each once.
    """

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=1)] = 32,
        val_fraction: Fraction = 0.2,
        test_fraction: Fraction = 0.2,
        scaling: Scaling = "standard",
        target_scaling: TargetScaling = "standard",
        task: Literal["auto"] | TaskName = "auto",
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
        folds: Annotated[int, Field(ge=2)] | None = None,
        fold: Annotated[int, Field(ge=0)] | None = None,
        sampler: Literal["balanced"] | RowSampler | None = None,
    ) -> None:
        super().__init__()
        if fold is not None and fold >= (folds or 0):
            raise Refused(
                f"data.fold={fold}: there are {folds or 0} folds; write data.folds above it, or"
                " leave it out"
            )
        self.folds, self.fold = folds, fold
        self.groups: NDArray[Any] | None = (
            None  # of the rows, [N], where a split has kept them together
        )
        self.batch_size, self.task, self.seed = batch_size, task, seed
        self.row_sampler = row_sampler(sampler)
        self.scaling, self.target_scaling = scaling, target_scaling
        self.fractions = {"val": 0.0 if folds else val_fraction, "test": test_fraction}
        if sum(self.fractions.values()) >= 1:
            raise Refused(
                f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} leave no"
                " rows to train on;"
                " their sum must be below 1"
            )
        self.tensors: dict[str, tuple[Tensor, Tensor]] = {}
        self.fit: tuple[torch.device, bool] | None = None  # whether they lie on a device
        self.row_numbers: dict[str, NDArray[Any]] = {}  # by stage, as `load` counts them
        self.held: list[
            NDArray[Any]
        ] = []  # rows of each fold that a run trains for, as it counts them
        self.unscaled: NDArray[Any]  # targets of all rows, as `encode_target` gives them
        self.judged: list[Tensor] = []  # targets of the validation rows, of each network of a run
        self.scaler: dict[str, Tensor] = {}
        self.fingerprint: str | None = None  # of the rows, as `load` gives them
        self.spec: Spec

    def load(self) -> Table:
        """Reads the rows. The one method that a source of your own must write."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Loads, splits and prepares, once; Lightning calls it for every stage."""
        if self.tensors:
            return
        table = self.load()
        self.fingerprint = fingerprint(
            table.features, table.target, table.test_rows, table.val_rows
        )
        task = self.task if self.task != "auto" else infer_task(table.target)
        if task != "regression" and self.target_scaling != "standard":
            raise Refused(
                f"data.target_scaling={self.target_scaling}: scales the target of a regression,"
                " and these data are"
                f" {task}; leave it out"
            )
        if task == "regression" and isinstance(self.row_sampler, Balanced):
            raise Refused(
                "data.sampler=balanced: draws classes alike, and these data are a regression;"
                " leave it out"
            )
        target, classes = encode_target(table.target, task)
        self.unscaled = target
        parts = self.split(table, target, stratify=task != "regression")
        if self.folds:
            parts = self.hold_out(parts, target, stratify=task != "regression")
        self.row_numbers = parts
        inputs, facts = self.prepare(table, parts)
        if task == "regression":
            target, scales = scale_target(
                target, parts["train"], self.target_scaling, self.log_targets(target, parts)
            )
            facts |= scales
        else:
            counts = np.bincount(target[parts["train"]].reshape(-1), minlength=len(classes))
            names = table.class_names or tuple(map(str, classes))
            facts |= {"class_counts": tuple(counts.tolist()), "class_names": names}
        self.spec = Spec(
            task=task,
            input_shape=inputs["train"].shape[1:],
            num_outputs=len(classes) if task == "multiclass" else target.shape[1],
            num_rows={stage: len(rows) for stage, rows in parts.items()},
            target_names=table.target_names,
            **facts,
        )
        kind = torch.long if task == "multiclass" else torch.float32
        y = torch.from_numpy(target).to(kind)
        self.judged = [y[rows] for rows in self.held or [parts["val"]] if len(rows)]
        self.tensors = {
            stage: (torch.from_numpy(inputs[stage]), y[rows])
            for stage, rows in parts.items()
            if len(rows)
        }

    def split(self, table: Table, target: NDArray[Any], *, stratify: bool) -> Parts:
        """Row numbers by stage: those that the source sets aside, the others drawn."""
        given = {"test": table.test_rows, "val": table.val_rows}
        return split_rows(target, self.fractions, self.seed, stratify=stratify, given=given)

    def hold_out(self, parts: Parts, target: NDArray[Any], *, stratify: bool) -> Parts:
        """Makes the rows of one fold the validation rows; the test rows stay."""
        assert self.folds is not None
        if len(parts["val"]):
            raise Refused(
                f"data.folds={self.folds}: the data say themselves which rows validate; leave one"
                " out"
            )
        rest = np.sort(parts["train"])
        groups = self.groups[rest] if self.groups is not None else None
        every = split_folds(target[rest], self.folds, self.seed, stratify=stratify, groups=groups)
        held = every[self.fold or 0]
        self.held = [rest[rows] for rows in (every if self.fold is None else [held])]
        return {**parts, "train": np.delete(rest, held), "val": rest[held]}

    def prepare(
        self, table: Table, parts: Parts
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        """Inputs of the network by stage, fitted on the training rows;
        and what the spec says of them.
        """
        features = (
            table.features
            if table.features.dtype.kind in "fiub"
            else table.features.astype(np.float64)
        )
        check_finite(features, table.feature_names)
        if not self.scaler:
            self.scaler = fit_scaler(features[parts["train"]], self.scaling)
        inputs = {stage: apply_scaler(features, self.scaler, rows) for stage, rows in parts.items()}
        numbers = features.shape[1] if features.ndim == 2 else 0
        return inputs, {"feature_names": table.feature_names, "numbers": numbers}

    def log_targets(self, target: NDArray[Any], parts: Parts) -> tuple[bool, ...]:
        """Which targets of a regression, [N, targets], are learnt as logarithms; () for none."""
        return ()

    def plain_features(self) -> list[int]:
        """Which features, of a table's, are looked at one by one:
        not those that only say another one again.
        """
        return list(range(self.spec.input_shape[0]))

    def owners(self) -> tuple[str, ...]:
        """The column of the source that each of the network's inputs is of, [F]; () for images."""
        if len(self.spec.input_shape) != 1:
            return ()
        return self.spec.feature_names or tuple(
            f"feature {number}" for number in range(self.spec.input_shape[0])
        )

    def card(self) -> dict[str, Any] | None:
        """What was found out about the data and decided, for the run folder;
        None where nothing had to be.
        """
        return None

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of `batch_size`, several in an item where the
        trainer executes several steps at once.
        """
        return self.loader(
            "train",
            max_batches=self.limit("limit_train_batches"),
            batches_per_item=getattr(self.trainer, "batches_per_item", 1),
            shuffle_seed=getattr(self.trainer, "shuffle_seed", self.seed),
            least=min(self.batch_size, 2),  # BatchNorm needs two
        )

    def val_dataloader(self) -> TensorLoader | list:
        return self.evaluation_loader("val", "limit_val_batches")

    def test_dataloader(self) -> TensorLoader | list:
        return self.evaluation_loader("test", "limit_test_batches")

    def evaluation_loader(self, stage: str, limit: str, **place: int) -> TensorLoader | list:
        """The rows in order, in large batches. A limit counts batches of `batch_size`."""
        if stage not in self.tensors:
            return []
        max_batches = self.limit(limit)
        if max_batches is not None:
            return self.loader(
                stage, max_batches=max_batches, batches_per_item=EVALUATION_BATCHES, **place
            )
        rows = EVALUATION_ROWS_ON_CPU if self.device.type == "cpu" else EVALUATION_ROWS
        rows = min(rows, max(EVALUATION_NUMBERS // math.prod(self.spec.input_shape), 1))
        return self.loader(
            stage,
            batch_size=max(rows, self.batch_size),
            batches_per_item=EVALUATION_BATCHES,
            **place,
        )

    def limit(self, name: str) -> int | None:
        """Batches of `batch_size` that the trainer's option allows;
        Lightning turns null into the share 1.0.
        """
        limit = getattr(self.trainer, name, None)
        return limit if isinstance(limit, int) else None

    @property
    def device(self) -> torch.device:
        """Where the rows are used."""
        return (
            self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        )

    def loader(self, stage: str, **options: Any) -> TensorLoader:
        """A loader over a stage's rows, whose batches are on the trainer's device."""
        if self.trainer is not None:  # once, and not all rows for each item
            x, y = self.tensors[stage]
            self.tensors[stage] = self.trainer.precision_plugin.convert_input(x), y
        settings = {
            "batch_size": self.batch_size,
            "rank": devices.rank(),
            "world": devices.size(),
            **options,
        }
        return self.loader_on(
            self.device, stage, getattr(self.trainer, "data_memory_fraction", 1.0), **settings
        )

    def loader_on(
        self, device: torch.device, stage: str, fraction: float, **options: Any
    ) -> TensorLoader:
        """A loader over a stage's rows, whose batches are on a device.
        The rows are too, if those of all stages fit.

        Args:
            device: Where they are used.
            stage: `train`, `val` or `test`.
            fraction: Of the free memory of a GPU, that the rows may take.
            options: Of the `TensorLoader`.
        """
        if stage == "train":
            options["row_sampler"] = self.row_sampler
        if self.fit is None or self.fit[0] != device:
            self.fit = device, self.fits_on(device, fraction)
        if not self.fit[1]:
            return PrefetchingLoader(*self.tensors[stage], device=device, **options)
        self.tensors[stage] = tuple(tensor.to(device) for tensor in self.tensors[stage])  # type: ignore[assignment]
        return TensorLoader(*self.tensors[stage], **options)

    def fits_on(self, device: torch.device, fraction: float) -> bool:
        """Whether the rows may all lie on a device; says so if not."""
        if device.type != "cuda":
            return True
        needed = sum(t.nbytes for pair in self.tensors.values() for t in pair if t.device != device)
        free = torch.cuda.mem_get_info(device)[0]
        if needed > fraction * free and devices.is_first():
            print(
                f"the data ({needed / 2**30:.1f} GiB) stay in the machine's memory: they are more"
                " than"
                f" trainer.data_memory_fraction={fraction:g} of the {free / 2**30:.1f} GiB that"
                " the GPU has left",
                file=sys.stderr,
            )
        return needed <= fraction * free

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        if isinstance(batch, Batches) and batch.x.device == device:
            return batch  # spares Lightning's walk through the tuple
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        """What was fitted on the training rows, for the checkpoint."""
        return {"scaler": self.scaler, "spec": self.spec.as_plain()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the fitted scaler from a checkpoint."""
        self.scaler = state_dict["scaler"]


def split_rows(
    target: NDArray[Any],
    fractions: Mapping[str, float],
    seed: int,
    *,
    stratify: bool,
    given: Mapping[str, NDArray[Any] | None] | None = None,
) -> Parts:
    """Row numbers by stage; a stratified split keeps the classes' shares.

    Args:
        target: [N] or [N, targets].
        fractions: Share of all rows for `val` and `test`.
        seed: Of the split.
        stratify: Whether the target holds classes.
        given: Rows of `val` or `test` that are not drawn.
    """
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(target))
    parts = {stage: chosen for stage, chosen in (given or {}).items() if chosen is not None}
    parts["train"] = np.setdiff1d(rows, np.concatenate(list(parts.values()))) if parts else rows
    for stage in ("test", "val"):
        if stage in parts:
            continue
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
        parts["train"], parts[stage] = train_test_split(
            rest, test_size=count, random_state=seed, stratify=classes
        )
    return parts
