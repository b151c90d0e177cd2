"""The one LightningModule: a network, its task, and how its weights are moved.

Lightning costs about 0.3 ms a call of `training_step`, more than a small network's own step. So one call takes several
batches and makes several optimizer steps, with the same result as one at a time. Clipping, accumulation and schedules
therefore belong to this module (manual optimization), never to Lightning's trainer.
"""

import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from goldilocks.data.loaders import Batches, epoch_seed
from goldilocks.machine import devices
from goldilocks.machine.compilation import Compiled
from goldilocks.optimizers.flat_parameters import FlatParameters, can_be_flat
from goldilocks.optimizers.optimizer import rates, split_parameters
from goldilocks.regularization.augmentation import Augmentation
from goldilocks.regularization.averaging import WeightAverage, share_statistics
from goldilocks.regularization.strengths import Regularization, add_penalty_gradients, limit_norms
from goldilocks.schedulers.schedule import Schedule, steps_in_epoch
from goldilocks.tasks.task import Task
from goldilocks.training.clipping import Gradients
from goldilocks.training.sharding import is_sharded, shard
from goldilocks.training.trainer import Trainer


class TrainingModule(pl.LightningModule):
    """Trains a network on a task.

    Args:
        network: From inputs to raw outputs, [B, C].
        task: Loss, output function, metrics.
        make_optimizer: Builds the optimizer on the network.
        make_schedule: Builds the schedule from the optimizer, the steps in an epoch and the number of epochs.
        regularization: Strengths of penalties, augmentation and averaging.
        seed: Every epoch draws its randomness from (seed, epoch), so a resumed run repeats it without saved states.
    """

    trainer: Trainer  # type: ignore[override]

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        make_optimizer: Callable[[nn.Module], Optimizer],
        make_schedule: Callable[..., Schedule],
        regularization: Regularization | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.task = network, task
        self.make_optimizer, self.make_schedule = make_optimizer, make_schedule
        self.regularization = regularization or Regularization()
        self.augmentation = Augmentation(self.regularization, task.spec)
        self.average = self.make_average()
        self.seed = seed
        self.schedule: Schedule
        self.flat: FlatParameters | None = None
        self.diverged = False
        self.compiled: Compiled | None = None
        self.epoch_metrics: dict[
            str, float
        ] = {}  # of this epoch only: a stage that was skipped is not in it

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
        """The network that is validated, tested and predicted with: the mean of the weights, where there is one."""
        averaged = self.average is not None and self.average.updates > 0
        return self.average.network if averaged else self.network  # type: ignore[union-attr]

    def configure_model(self) -> None:
        """Shards the network and changes its layout, where that is asked for; called before each stage."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not is_sharded(self):
            for network in (
                [self.network] if self.average is None else [self.network, self.average.network]
            ):
                shard(network, self.device_mesh["data_parallel"])  # type: ignore[index]
        if self.trainer.channels_last:
            self.to(memory_format=torch.channels_last)

    def configure_optimizers(self) -> Any:
        steps = steps_in_epoch(self.num_batches, self.trainer.accumulate_batches)
        optimizer = self.make_optimizer(self.network)
        one_device = isinstance(self.trainer.strategy, SingleDeviceStrategy)
        self.flat = FlatParameters(optimizer) if one_device and can_be_flat(optimizer) else None
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
        return (
            loader.num_batches
            if hasattr(loader, "num_batches")
            else int(self.trainer.num_training_batches)
        )

    # --- training -----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self.weights, _ = split_parameters(self.network)
        self.trained = [p for p in self.network.parameters() if p.requires_grad]
        self.raw = runs_raw(self.trainer)
        self.gradients = Gradients(self.trainer.clip_value, self.trainer.clip_algorithm)
        self.compiled = None
        if self.trainer.compiles:
            self.compiled = Compiled(self.network, self.device, self.trainer.accumulate_batches > 1)
        self.has_penalty = bool(self.regularization.l1 or self.regularization.l2)
        self.batches_in_epoch = self.num_batches
        if self.average is not None:
            self.average.begin(self.network)
        epochs = self.trainer.planned_epochs(
            steps_in_epoch(self.batches_in_epoch, self.trainer.accumulate_batches)
        )
        self.swa_start = epochs - math.ceil(self.regularization.swa * epochs)

    def on_train_epoch_start(self) -> None:
        seed_generators(epoch_seed(self.seed, self.current_epoch, self.global_rank), self.device)
        self.batch_index = 0
        self.losses: list[Tensor] = []
        self.sizes: list[int] = []  # rows of each batch that count
        self.rates: list[
            tuple[int, dict[str, float]]
        ] = []  # by step, after each call of a schedule of steps
        self.epoch_metrics = {}
        self.gradients.begin()
        self.task.reset_metrics("train")

    def training_step(self, item: Any, batch_idx: int) -> None:
        """One optimizer step for each batch of the item (or for each `accumulate_grad_batches` of them)."""
        trainer, task = self.trainer, self.task  # looked up once: a module's attributes are slow
        compiled = self.compiled
        network: Any = self.network if compiled is None else compiled
        optimizer = trainer.optimizers[0] if self.raw else self.optimizers()
        accumulate, index, in_epoch = (
            trainer.accumulate_batches,
            self.batch_index,
            self.batches_in_epoch,
        )
        losses, outputs, targets, steps = [], [], [], 0
        steps_left = trainer.steps_left(self.global_step)
        augment = self.augmentation if self.augmentation.active else None
        weights, plain = getattr(item, "weights", None), not trainer.channels_last
        for place, (x, y) in enumerate(batches_of(item)):
            inputs, target = augment(x, y) if augment is not None else (x, y)
            output = network(
                inputs if plain else inputs.contiguous(memory_format=torch.channels_last)
            )
            loss = task.loss(output, target, smooth=True)
            if weights is None or weights[place]:
                losses.append(loss.detach())
                outputs.append(output.detach() if compiled is None else compiled.kept(output))
                targets.append(y)  # of training
            if weights is not None:
                loss = loss * weights[place]
            window = min(accumulate, in_epoch - index // accumulate * accumulate)
            self.descend(loss / window if window > 1 else loss)
            if compiled is not None:
                compiled.passed_back()
            index += 1
            if index % accumulate == 0 or index == in_epoch:
                self.step(optimizer)
                steps += 1
                if steps == steps_left:  # the epoch ends here, wherever it is cut
                    break
        self.batch_index = index
        self.losses += losses
        self.sizes += [len(target) for target in targets]
        if self.raw:
            trainer.count_steps(steps)
        if steps and self.schedule.interval == "step":
            self.rates.append((self.global_step - 1, rates(self.schedule.scheduler.optimizer)))
        if index == in_epoch or steps == steps_left:
            self.average_epoch()
            share_statistics(
                [self.network] if self.average is None else [self.network, self.average.network]
            )
        if outputs:
            task.update_metrics("train", torch.cat(outputs), torch.cat(targets))

    def descend(self, loss: Tensor) -> None:
        """Adds a batch's gradients."""
        if self.raw:
            loss.backward()
        else:
            self.manual_backward(loss)

    def step(self, optimizer: Any) -> None:
        """Moves the weights and the schedule by one step."""
        if self.raw:
            self.on_before_optimizer_step(optimizer)
        optimizer.step()
        if not self.raw:  # Lightning calls this hook in automatic optimization only
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                callback.on_before_zero_grad(self.trainer, self, self.trainer.optimizers[0])
        for parameter in self.trained:
            parameter.grad = None
        if self.regularization.max_norm:
            limit_norms(self.weights, self.regularization.max_norm)
        if self.regularization.ema:
            self.average.update()  # type: ignore[union-attr]
        self.schedule.on_step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Penalties, then clipping. Where it is wrapped, Lightning calls this within the step, after unscaling.

        A fused step would unscale by itself, and Lightning leaves it to that: too late for what is done here.
        """
        if (
            getattr(optimizer, "_step_supports_amp_scaling", False)
            and (scaler := scaler_of(self.trainer)) is not None
        ):
            scaler.unscale_(optimizer)
        if self.has_penalty:
            add_penalty_gradients(self.weights, self.regularization.l1, self.regularization.l2)
        self.gradients.clip(self.trained)
        if self.flat is not None:
            self.flat.gather()

    def average_epoch(self) -> None:
        """Stochastic weight averaging at the end of an epoch; BatchNorm's statistics are taken anew."""
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

    def on_train_epoch_end(self) -> None:
        loss, self.rows_in_epoch = devices.mean_over_rows(self.losses, self.sizes)
        self.report(
            {"train/loss": loss, **self.task.compute_metrics("train"), **self.gradients.metrics()}
        )
        self.schedule.on_epoch_end(self.epoch_metrics)
        self.diverged = not math.isfinite(loss)
        if self.diverged:  # nothing good can follow
            self.trainer.should_stop = True

    def trial_step(self, x: Tensor, y: Tensor) -> Callable[[], None]:
        """A training step on a batch that moves a copy of the network, for measurements."""
        network = copy.deepcopy(self.network)
        optimizer = self.make_optimizer(network)

        def step() -> None:
            with torch.random.fork_rng(devices=[]):
                self.task.loss(network(x), y, smooth=True).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self.begin_evaluation("val")

    def on_test_epoch_start(self) -> None:
        self.begin_evaluation("test")

    def validation_step(self, item: Any, batch_idx: int) -> None:
        self.evaluate("val", item)

    def test_step(self, item: Any, batch_idx: int) -> None:
        self.evaluate("test", item)

    def on_validation_epoch_end(self) -> None:
        self.end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self.end_evaluation("test")

    def begin_evaluation(self, stage: str) -> None:
        self.evaluated_losses: list[Tensor] = []
        self.evaluated_sizes: list[int] = []
        self.task.reset_metrics(stage)

    def evaluate(self, stage: str, item: Any) -> None:
        network, outputs, targets = self.evaluated, [], []
        weights, plain = getattr(item, "weights", None), not self.trainer.channels_last
        for place, (x, y) in enumerate(batches_of(item)):
            output = network(x if plain else x.contiguous(memory_format=torch.channels_last))
            if weights is None or weights[place]:
                outputs.append(output)
                targets.append(y)
        if not outputs:
            return
        output, target = torch.cat(outputs), torch.cat(targets)
        self.evaluated_losses.append(self.task.loss(output, target))
        self.evaluated_sizes.append(len(target))
        self.task.update_metrics(stage, output, target)

    def end_evaluation(self, stage: str) -> None:
        loss, self.evaluated_rows = devices.mean_over_rows(
            self.evaluated_losses, self.evaluated_sizes
        )
        self.report({f"{stage}/loss": loss, **self.task.compute_metrics(stage)})

    def report(self, metrics: dict[str, float]) -> None:
        """Hands metrics to early stopping and the Recorder, which writes an epoch's metrics to the loggers at once.

        `self.log` would do the same, at about 0.2 ms a metric: as long as a small network's step.
        """
        metrics = devices.share(lambda: metrics)  # what is decided by them is the same everywhere
        self.epoch_metrics.update(metrics)
        self.trainer.callback_metrics.update(
            {name: torch.tensor(value) for name, value in metrics.items()}
        )

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["spec"] = self.task.spec.as_plain()
        checkpoint["diverged"] = self.diverged

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.diverged = checkpoint["diverged"]


def batches_of(item: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a loader's item: several of a TensorLoader, one `(x, y)` of any other."""
    return item.split() if isinstance(item, Batches) else iter([item])


def runs_raw(trainer: Trainer) -> bool:
    """Whether backward and step may bypass Lightning's wrappers, which cost as much as a small network's own step.

    Not with several devices (gradients must be shared), a gradient scaler, or a callback that watches single steps.
    """
    one_device = isinstance(trainer.strategy, SingleDeviceStrategy)
    return one_device and scaler_of(trainer) is None and not trainer.step_watchers()


def scaler_of(trainer: Trainer) -> Any:
    """The gradient scaler of `16-mixed`; None with any other precision."""
    return getattr(trainer.precision_plugin, "scaler", None)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds Python, numpy and torch on a device.

    `torch.manual_seed` does so for every kind of device, which takes as long as a small network's step.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
