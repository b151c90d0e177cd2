"""The learning-rate range test: a few short trainings of copies of the network at ever larger rates."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from goldilocks.data.base import TableData
from goldilocks.data.loaders import Batches, TensorLoader
from goldilocks.machine.devices import plan, trains_on_cpu
from goldilocks.optimizers.flat_parameters import FlatParameters, can_be_flat
from goldilocks.optimizers.optimizer import split_parameters
from goldilocks.regularization.strengths import add_penalty_gradients, limit_norms
from goldilocks.training.clipping import Gradients
from goldilocks.training.layer_health import PROBE_ROWS
from goldilocks.training.lr_range.rules import RangeOptions, RangeTest, read_curves
from goldilocks.training.module import TrainingModule, seed_generators

STOP = 20.0  # times the first loss: nothing is learnt about rates beyond
TYPES = {"64": torch.float64, "bf16-true": torch.bfloat16, "64-true": torch.float64}
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "16": torch.float16}
REMEMBERED = 64  # range tests of this process: trials that differ in the schedule, say, share one
_known: dict[str, RangeTest] = {}


def range_test(
    module: TrainingModule, data: TableData, trainer: dict[str, Any], options: RangeOptions
) -> RangeTest:
    """Trains copies of a module's network at ever larger rates, as the run would: its batches, penalties, augmentation.

    The network and the state of the random generators are afterwards what they were.

    Args:
        module: Whose optimizer takes any rate: its own is overwritten.
        data: Set up.
        trainer: The trainer's options: device, precision, clipping, accumulation.
        options: The range test's.
    """
    key = description(module, data, trainer, options)
    if key not in _known:
        if len(_known) >= REMEMBERED:
            _known.pop(next(iter(_known)))
        with isolate_rng():
            _known[key] = measure(module, data, trainer, options)
    return _known[key]


def description(
    module: TrainingModule, data: TableData, trainer: dict[str, Any], options: RangeOptions
) -> str:
    """A hash of all that the range test's outcome depends on."""
    task, used = (
        module.task,
        ("accelerator", "precision", "accumulate_grad_batches", "limit_train_batches"),
    )
    clipping = ("gradient_clip_val", "gradient_clip_algorithm")
    facts = (
        repr(module.network),
        repr(module.make_optimizer(copy.deepcopy(module.network))),
        vars(module.regularization),
        (
            task.spec,
            task.criterion.facts(),
            task.output_function,
            task.weighted,
            task.label_smoothing,
        ),
        {key: trainer.get(key) for key in (*used, *clipping)},
        (vars(options), module.seed, data.batch_size * plan(trainer).size, torch.get_num_threads()),
    )
    found = hashlib.sha256(repr(facts).encode())
    for tensor in (*data.tensors["train"], *module.network.state_dict().values()):
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def measure(
    module: TrainingModule, data: TableData, trainer: dict[str, Any], options: RangeOptions
) -> RangeTest:
    """The sweeps and what they show."""
    device = (
        torch.device("cpu") if trains_on_cpu(trainer.get("accelerator", "auto")) else accelerator()
    )
    tensors = data.tensors["train"]
    rows = torch.linspace(0, len(tensors[0]) - 1, min(PROBE_ROWS, len(tensors[0]))).long()
    x, y = (tensor[rows.to(tensor.device)].to(device) for tensor in tensors)
    rates, curves = options.rates(), []
    for repeat in range(options.repeats):
        seed_generators(module.seed + 7919 * (repeat + 1), device)
        loader = data.loader_on(
            device,
            "train",
            trainer.get("data_memory_fraction", 1.0),
            batch_size=data.batch_size * plan(trainer).size,  # of all devices together
            shuffle_seed=module.seed + repeat,
            max_batches=trainer.get("limit_train_batches"),
        )
        curves.append(Sweep(module, trainer, device).run(rates, endless(loader), (x, y)))
    return RangeTest(rates, curves, options.rule, read_curves(rates, curves))


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


class Sweep:
    """One training at ever larger rates, on copies of a module's network and task.

    Args:
        module: Not changed.
        trainer: The trainer's options.
        device: Where to train.
    """

    def __init__(
        self, module: TrainingModule, trainer: dict[str, Any], device: torch.device
    ) -> None:
        precision = str(trainer.get("precision", 32))
        self.kind, self.mixed = TYPES.get(precision, torch.float32), MIXED.get(precision)
        self.network = copy.deepcopy(module.network).to(device, self.kind)
        self.task = copy.deepcopy(module.task).to(device)
        self.optimizer = module.make_optimizer(self.network)
        self.flat = FlatParameters(self.optimizer) if can_be_flat(self.optimizer) else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.mixed is torch.float16)
        self.augment = module.augmentation if module.augmentation.active else None
        self.strengths, self.device = module.regularization, device
        self.accumulate = trainer.get("accumulate_grad_batches", 1)
        self.gradients = Gradients(
            trainer.get("gradient_clip_val"), trainer.get("gradient_clip_algorithm", "norm")
        )
        self.trained = [p for p in self.network.parameters() if p.requires_grad]
        self.weights, _ = split_parameters(self.network)

    def run(
        self,
        rates: Sequence[float],
        batches: Iterator[tuple[Tensor, Tensor]],
        probe: tuple[Tensor, Tensor],
    ) -> list[float]:
        """The probe's loss before the first step, then after each, up to the one at which training blows up."""
        curve = [self.loss_of(probe)]
        for rate in rates:
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group.get("lr_factor", 1.0)
            self.step(batches)
            curve.append(self.loss_of(probe))
            if not curve[-1] <= STOP * curve[0]:
                break
        return curve

    def step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """One step of the optimizer."""
        self.network.train()
        for _ in range(self.accumulate):
            x, y = next(batches)
            inputs, target = self.augment(x, y) if self.augment is not None else (x, y)
            with self.autocast():
                loss = self.task.loss(
                    self.network(inputs.to(self.kind)), self.as_target(target), smooth=True
                )
            self.scaler.scale(loss / self.accumulate).backward()
        self.scaler.unscale_(self.optimizer)
        if self.strengths.l1 or self.strengths.l2:
            add_penalty_gradients(self.weights, self.strengths.l1, self.strengths.l2)
        self.gradients.clip(self.trained)
        if self.flat is not None:
            self.flat.gather()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for parameter in self.trained:
            parameter.grad = None
        if self.strengths.max_norm:
            limit_norms(self.weights, self.strengths.max_norm)

    @torch.no_grad()
    def loss_of(self, probe: tuple[Tensor, Tensor]) -> float:
        """The loss in evaluation mode."""
        self.network.eval()
        x, y = probe
        with self.autocast():
            return float(self.task.loss(self.network(x.to(self.kind)), self.as_target(y)))

    def autocast(self) -> AbstractContextManager:
        """Mixed precision, where the trainer's option asks for it."""
        return (
            torch.autocast(self.device.type, self.mixed, cache_enabled=False)
            if self.mixed
            else nullcontext()
        )

    def as_target(self, target: Tensor) -> Tensor:
        """Targets in the type of the outputs."""
        return target.to(self.kind) if target.is_floating_point() else target
