"""A training of copies, as the run would train.

For the range test, the health check and the measurement of threads.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from goldilocks.data.loaders import Batches, TensorLoader
from goldilocks.optimizers.flat_parameters import flattened
from goldilocks.training.clipping import Gradients
from goldilocks.training.module import TrainingModule
from goldilocks.training.step import OptimizerStep

TYPES = {"64": torch.float64, "bf16-true": torch.bfloat16, "64-true": torch.float64}
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "16": torch.float16}


class Rehearsal:
    """Copies of a module's network and task, and an optimizer of their own.

    Args:
        module: Not changed.
        trainer: The trainer's options: precision, clipping, accumulation.
        device: Where to train.
        lr: The optimizer's rate; None: the option's.
    """

    def __init__(
        self,
        module: TrainingModule,
        trainer: dict[str, Any],
        device: torch.device,
        lr: float | None = None,
    ) -> None:
        precision = str(trainer.get("precision", 32))
        self.kind = TYPES.get(precision, torch.float32)
        self.mixed = MIXED.get(precision)
        self.device = device
        self.network = copy.deepcopy(module.network).to(device, self.kind)
        self.task = copy.deepcopy(module.task).to(device)
        self.augment = module.augmentation if module.augmentation.active else None
        self.accumulate = trainer.get("accumulate_grad_batches", 1)
        self.optimizer = module.make_optimizer(self.network, lr)
        clip_value = trainer.get("gradient_clip_val")
        clip_algorithm = trainer.get("gradient_clip_algorithm", "norm")
        halved = self.mixed is torch.float16
        self.step = OptimizerStep(
            self.network,
            self.optimizer,
            module.regularization,
            Gradients(clip_value, clip_algorithm),
            transforms=module.gradient_transforms,
            flat=flattened(self.optimizer),
            scaler=torch.amp.GradScaler(device.type) if halved else None,
        )

    def take_step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """One step of the optimizer, on as many batches as the run accumulates."""
        self.network.train()
        self.step.begin()
        for _ in range(self.accumulate):
            x, y = next(batches)
            inputs, target = self.augment(x, y) if self.augment is not None else (x, y)
            with self.autocast():
                outputs = self.network(inputs.to(self.kind))
                loss = self.task.loss(outputs, self.as_target(target), smooth=True)
            self.step.backward(loss / self.accumulate)
        self.step.take()

    @torch.no_grad()
    def loss_of(self, probe: tuple[Tensor, Tensor]) -> float:
        """The loss in evaluation mode."""
        self.network.eval()
        self.step.end()
        x, y = probe
        with self.autocast():
            return float(self.task.loss(self.network(x.to(self.kind)), self.as_target(y)))

    def autocast(self) -> AbstractContextManager:
        """Mixed precision, where the trainer's option asks for it."""
        if self.mixed is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.mixed, cache_enabled=False)

    def as_target(self, target: Tensor) -> Tensor:
        """Targets in the type of the outputs."""
        return target.to(self.kind) if target.is_floating_point() else target


def accelerator() -> torch.device:
    """The device that is not the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "mps")


def endless(loader: TensorLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches, epoch after epoch."""
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        for item in loader:
            assert isinstance(item, Batches)
            yield from item.split()
        epoch += 1
