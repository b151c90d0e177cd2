"""The one LightningModule: a network, its task, and how it is trained and evaluated.

Lightning costs about 0.3 ms a call of `training_step`, more than a small network's own step. So
one call takes several batches and makes several optimizer steps, with the same result as one at a
time. The step of the optimizer (step.py) therefore belongs to this module (manual optimization),
never to Lightning's trainer.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from goldilocks.data.loaders import Batches, epoch_seed
from goldilocks.machine import devices
from goldilocks.machine.compilation import Compiled
from goldilocks.optimizers.flat_parameters import FlatParameters, flattened
from goldilocks.optimizers.optimizer import rates
from goldilocks.regularization.augmentation import Augmentation
from goldilocks.regularization.averaging import WeightAverage, share_statistics
from goldilocks.regularization.gradient_transforms import GradientTransform
from goldilocks.regularization.strengths import Regularization
from goldilocks.schedulers.schedule import Schedule, steps_in_epoch
from goldilocks.tasks.task import Task
from goldilocks.training.clipping import Gradients
from goldilocks.training.sharding import is_sharded, shard
from goldilocks.training.step import OptimizerStep, WrappedStep
from goldilocks.training.trainer import Trainer


@dataclass
class Taken:
    """What the steps on an item's batches have given."""

    losses: list[Tensor]  # of a batch, or of several, [K]
    outputs: list[Tensor]  # of a batch, or of several, [N, ...]
    targets: list[Tensor]  # the same, of training
    sizes: list[int]  # rows of each batch
    steps: int = 0  # of the optimizer
    batches: int = 0
    ended: bool = False  # with the epoch's last step
    metrics: dict[str, float] | None = None  # of the whole epoch; None: outputs tell


class MakeOptimizer(Protocol):
    """Builds an optimizer on a network's parameters, at the rate `lr`; None: at the option's."""

    def __call__(self, network: nn.Module, lr: float | None = None) -> Optimizer: ...


class TrainingModule(pl.LightningModule):
    """Trains a network on a task.

    Args:
        network: From inputs to raw outputs, [B, C].
        task: Loss, output function, metrics.
        make_optimizer: Builds the optimizer on a network, at a rate; None: at the option's.
        make_schedule: Builds the schedule from the optimizer, the steps in an epoch and the epochs.
        regularization: Strengths of penalties, augmentation and averaging.
        gradient_transforms: What is done to a step's gradients before they are clipped.
        seed: Every epoch draws its randomness from (seed, epoch),
            so a resumed run repeats it without saved states.
    """

    trainer: Trainer  # type: ignore[override]

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        make_optimizer: MakeOptimizer,
        make_schedule: Callable[..., Schedule],
        regularization: Regularization | None = None,
        gradient_transforms: Sequence[GradientTransform] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.task = task
        self.make_optimizer = make_optimizer
        self.make_schedule = make_schedule
        self.regularization = regularization or Regularization()
        self.gradient_transforms = gradient_transforms
        self.augmentation = Augmentation(self.regularization, task.spec)
        self.average = self.make_average()
        self.seed = seed
        self.schedule: Schedule
        self.flat: FlatParameters | None = None
        self.alone = True  # False: the steps are taken together with those of other runs
        self.diverged = False
        self.compiled: Compiled | None = None
        # Of this epoch only: a stage that was skipped is not in it.
        self.epoch_metrics: dict[str, float] = {}
        self.found_rate: float | None = None  # by the range test; None: the rate is the option's

    def forward(self, x: Tensor) -> Tensor:
        """Predictions in the target's own units: probabilities for classes."""
        return self.task.predict(self.evaluated(x))

    def make_average(self) -> WeightAverage | None:
        """The mean of the weights that the regularization asks for."""
        if not self.regularization.ema and not self.regularization.swa:
            return None
        return WeightAverage(self.network, self.regularization.ema or None)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated, tested and predicted with:
        the mean of the weights, where there is one.
        """
        averaged = self.average is not None and self.average.updates > 0
        return self.average.network if averaged else self.network  # type: ignore[union-attr]

    @property
    def networks(self) -> list[nn.Module]:
        """The network, and the mean of its weights, where there is one."""
        return [self.network] if self.average is None else [self.network, self.average.network]

    def configure_model(self) -> None:
        """Shards the network and changes its layout, where that is asked for;
        called before each stage.
        """
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not is_sharded(self):
            for network in self.networks:
                shard(network, self.device_mesh["data_parallel"])  # type: ignore[index]
        if self.trainer.channels_last:
            self.to(memory_format=torch.channels_last)

    def configure_optimizers(self) -> Any:
        steps = steps_in_epoch(self.num_batches, self.trainer.accumulate_batches)
        optimizer = self.make_optimizer(self.network, self.found_rate)
        one_device = isinstance(self.trainer.strategy, SingleDeviceStrategy)
        self.flat = flattened(optimizer) if one_device and self.alone else None
        epochs = self.trainer.planned_epochs(steps)
        length = {
            "steps_per_epoch": steps,
            "max_epochs": epochs,
            "max_steps": self.trainer.steps_left(0),
        }
        self.schedule = self.make_schedule(optimizer, **length)
        return {"optimizer": optimizer, "lr_scheduler": self.schedule.scheduler}

    @property
    def num_batches(self) -> int:
        """Batches in a training epoch."""
        if self.trainer.train_dataloader is None:  # not yet made where optimizers are configured
            self.trainer.fit_loop.setup_data()
        loader: Any = self.trainer.train_dataloader
        if hasattr(loader, "num_batches"):
            return loader.num_batches
        return int(self.trainer.num_training_batches)

    # --- training ---------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self.raw = runs_raw(self.trainer)
        self.gradients = Gradients(self.trainer.clip_value, self.trainer.clip_algorithm)
        self.compiled = None
        if self.trainer.compiles:
            self.compiled = Compiled(self.network, self.device, self.trainer.accumulate_batches > 1)
        self.batches_in_epoch = self.num_batches
        if self.average is not None:
            self.average.begin(self.network)
        self.step = self.make_step()
        epochs = self.trainer.planned_epochs(
            steps_in_epoch(self.batches_in_epoch, self.trainer.accumulate_batches)
        )
        self.swa_start = epochs - math.ceil(self.regularization.swa * epochs)

    def make_step(self) -> OptimizerStep:
        """What moves the weights, by itself or within Lightning's wrappers.

        Lightning leaves unscaling to an optimizer whose fused step does it by itself: too late for
        penalties and clipping.
        """
        optimizer = self.trainer.optimizers[0]
        unscales = getattr(optimizer, "_step_supports_amp_scaling", False)
        make: Any = OptimizerStep if self.raw else partial(WrappedStep, self)
        return make(
            self.network,
            optimizer,
            self.regularization,
            self.gradients,
            transforms=self.gradient_transforms,
            flat=self.flat,
            schedule=self.schedule,
            average=self.average if self.regularization.ema else None,
            scaler=scaler_of(self.trainer) if unscales else None,
        )

    def on_train_epoch_start(self) -> None:
        if self.alone:
            self.seed_epoch()
        self.batch_index = 0
        self.losses: list[Tensor] = []
        self.sizes: list[int] = []  # rows of each batch that count
        # By step, after each call of a schedule of steps.
        self.rates: list[tuple[int, dict[str, float]]] = []
        self.epoch_metrics = {}
        self.gradients.begin()
        self.step.taken = self.trainer.global_step
        self.step.begin()
        self.task.reset_metrics("train")

    def seed_epoch(self) -> None:
        """Seeds what this epoch draws."""
        seed_generators(epoch_seed(self.seed, self.current_epoch, self.global_rank), self.device)

    def training_step(self, item: Any, batch_idx: int) -> None:
        """One optimizer step for each batch of the item (or for each
        `accumulate_grad_batches` of them).
        """
        self.count(self.take(item))

    def take(self, item: Any) -> Taken:
        """Takes the steps."""
        trainer = self.trainer  # looked up once: a module's attributes are slow
        task = self.task
        compiled = self.compiled
        network: Any = self.network if compiled is None else compiled
        backward = self.step.backward
        augment = self.augmentation if self.augmentation.active else None
        weights = getattr(item, "weights", None)
        plain = not trainer.channels_last
        accumulate = trainer.accumulate_batches
        in_epoch = self.batches_in_epoch
        steps_left = trainer.steps_left(self.global_step)
        index = self.batch_index
        taken = Taken([], [], [], [])
        for place, (x, y) in enumerate(batches_of(item)):
            inputs, target = augment(x, y) if augment is not None else (x, y)
            if not plain:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            output = network(inputs)
            loss = task.loss(output, target, smooth=True)
            if weights is None or weights[place]:
                taken.losses.append(loss.detach())
                taken.outputs.append(
                    output.detach() if compiled is None else compiled.output_to_keep(output)
                )
                taken.targets.append(y)  # of training
                taken.sizes.append(len(y))
            if weights is not None:
                loss = loss * weights[place]
            window = min(accumulate, in_epoch - index // accumulate * accumulate)
            backward(loss / window if window > 1 else loss)
            if compiled is not None:
                compiled.after_backward()
            index += 1
            taken.batches += 1
            if index % accumulate == 0 or index == in_epoch:
                self.step.take()
                taken.steps += 1
                if taken.steps == steps_left:  # the epoch ends here, wherever it is cut
                    break
        taken.ended = index == in_epoch or taken.steps == steps_left
        return taken

    def count(self, taken: Taken) -> None:
        """Keeps account of the steps that were taken, by this module or together with others."""
        trainer = self.trainer
        self.batch_index += taken.batches
        self.losses += taken.losses
        self.sizes += taken.sizes
        if self.raw:
            trainer.count_steps(taken.steps)
        if taken.steps and self.schedule.interval == "step":
            self.rates.append((self.global_step - 1, rates(self.schedule.scheduler.optimizer)))
        if trainer.look_at_clock() or taken.ended:
            self.step.end()
            self.average_epoch()
            share_statistics(self.networks)
        self.trained_metrics = taken.metrics
        if taken.outputs and taken.metrics is None:
            self.task.update_metrics("train", torch.cat(taken.outputs), torch.cat(taken.targets))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Called by Lightning's wrapper within the step, after its unscaling."""
        self.step.before_optimizer()

    def average_epoch(self) -> None:
        """Stochastic weight averaging at the end of an epoch;
        BatchNorm's statistics are taken again.
        """
        if (
            self.average is None
            or not self.regularization.swa
            or self.current_epoch < self.swa_start
        ):
            return
        self.average.update()
        loader: Any = self.trainer.train_dataloader
        convert = self.trainer.precision_plugin.convert_input
        inputs = (convert(x) for item in loader for x, _ in batches_of(item))
        torch.optim.swa_utils.update_bn(inputs, self.average.network, self.device)
        self.average.network.train(self.network.training)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.trainer.align_log_step()

    def publish_training(self) -> None:
        """Publishes an epoch's training metrics;
        `PublishedMetrics` calls it before other callbacks.
        """
        found = self.trained_metrics
        self.rows_in_epoch = sum(self.sizes)
        if found is None:
            loss, self.rows_in_epoch = devices.mean_over_rows(self.losses, self.sizes)
            found = {"train/loss": loss, **self.task.compute_metrics("train")}
            found |= self.gradients.metrics()
        self.publish_metrics(found)
        self.diverged = not math.isfinite(found["train/loss"])

    def on_train_epoch_end(self) -> None:
        self.trainer.look_at_clock()
        self.schedule.on_epoch_end(self.epoch_metrics)
        if self.diverged:  # nothing good can follow
            self.trainer.should_stop = True

    # --- evaluation -------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self.begin_evaluation("val")

    def on_test_epoch_start(self) -> None:
        self.begin_evaluation("test")

    def validation_step(self, item: Any, batch_idx: int) -> None:
        self.evaluate("val", item)

    def test_step(self, item: Any, batch_idx: int) -> None:
        self.evaluate("test", item)

    def begin_evaluation(self, stage: str) -> None:
        self.evaluated_losses: list[Tensor] = []
        self.evaluated_sizes: list[int] = []
        self.judged: dict[str, float] | None = None  # together with other runs
        self.task.reset_metrics(stage)

    def evaluate(self, stage: str, item: Any) -> None:
        pairs = self.outputs_of(item)
        if not pairs:
            return
        output, target = (torch.cat(list(of)) for of in zip(*pairs, strict=True))
        self.evaluated_losses.append(self.task.loss(output, target))
        self.evaluated_sizes.append(len(target))
        self.task.update_metrics(stage, output, target)

    def outputs_of(self, item: Any) -> list[tuple[Tensor, Tensor]]:
        """Raw outputs of the evaluated network and targets, [B, ...] each,
        of an item's batches that count.
        """
        network = self.evaluated
        weights = getattr(item, "weights", None)
        plain = not self.trainer.channels_last
        pairs = []
        for place, (x, y) in enumerate(batches_of(item)):
            output = network(x if plain else x.contiguous(memory_format=torch.channels_last))
            if weights is None or weights[place]:
                pairs.append((output, y))
        return pairs

    def publish_evaluation(self, stage: str) -> None:
        """Publishes the metrics of `val` or `test`; `PublishedMetrics` calls it too."""
        if self.judged is not None:
            self.publish_metrics(self.judged)
            return
        loss, self.evaluated_rows = devices.mean_over_rows(
            self.evaluated_losses, self.evaluated_sizes
        )
        self.publish_metrics({f"{stage}/loss": loss, **self.task.compute_metrics(stage)})

    def publish_metrics(self, metrics: dict[str, float]) -> None:
        """Hands metrics to callbacks; the Recorder writes those of an epoch to the loggers at once.

        `self.log` would do the same, at about 0.2 ms a metric: as long as a small network's step.
        """
        metrics = devices.share(lambda: metrics)  # what is decided by them is the same everywhere
        self.epoch_metrics.update(metrics)
        self.trainer.callback_metrics.update(
            {name: torch.tensor(value) for name, value in metrics.items()}
        )

    # --- checkpoints ------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["spec"] = self.task.spec.as_plain()
        checkpoint["diverged"] = self.diverged

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.diverged = checkpoint["diverged"]


def batches_of(item: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a loader's item: several of a TensorLoader, one `(x, y)` of any other."""
    return item.split() if isinstance(item, Batches) else iter([item])


def runs_raw(trainer: Trainer) -> bool:
    """Whether backward and step may bypass Lightning's wrappers,
    which cost as much as a small network's own step.

    Not with several devices (gradients must be shared), a gradient scaler,
    or a callback that watches single steps.
    """
    one_device = isinstance(trainer.strategy, SingleDeviceStrategy)
    return one_device and scaler_of(trainer) is None and not trainer.step_watchers()


def scaler_of(trainer: Trainer) -> Any:
    """The gradient scaler of `16-mixed`; None with any other precision."""
    return getattr(trainer.precision_plugin, "scaler", None)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds Python, numpy and torch on a device.

    `torch.manual_seed` does so for every kind of device,
    which takes as long as a small network's step.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
