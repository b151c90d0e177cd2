"""The learning-rate range test:
a few short trainings of copies of the network at ever larger rates.
"""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from goldilocks.data.base import TableData
from goldilocks.machine.devices import plan, trains_on_cpu
from goldilocks.optimizers.optimizer import set_rate
from goldilocks.training.layer_health import PROBE_ROWS
from goldilocks.training.lr_range.rules import RangeOptions, RangeTest, read_curves
from goldilocks.training.module import TrainingModule, seed_generators
from goldilocks.training.rehearsal import Rehearsal, accelerator, endless

STOP = 20.0  # times the first loss: nothing is learnt about rates beyond
REMEMBERED = 64  # range tests of this process: trials that differ in the schedule, say, share one
_known: dict[str, RangeTest] = {}


def range_test(
    module: TrainingModule, data: TableData, trainer: dict[str, Any], options: RangeOptions
) -> RangeTest:
    """Trains copies of a module's network at ever larger rates, as the run would:
    its batches, penalties, augmentation.

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
    task = module.task
    used = (
        "accelerator",
        "precision",
        "accumulate_grad_batches",
        "limit_train_batches",
        "gradient_clip_val",
        "gradient_clip_algorithm",
    )
    facts = (
        repr(module.network),
        repr(module.make_optimizer(copy.deepcopy(module.network))),
        vars(module.regularization),
        facts_of(data.row_sampler),
        [facts_of(transform) for transform in module.gradient_transforms],
        (
            task.spec,
            task.criterion.facts(),
            task.output_function,
            task.weighted,
            task.label_smoothing,
        ),
        {key: trainer.get(key) for key in used},
        (vars(options), module.seed, data.batch_size * plan(trainer).size, torch.get_num_threads()),
    )
    found = hashlib.sha256(repr(facts).encode())
    for tensor in (*data.tensors["train"], *module.network.state_dict().values()):
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def facts_of(part: Any) -> tuple[str, dict[str, Any]]:
    """What an object without state is told by: its class and its arguments."""
    return type(part).__qualname__, vars(part) if part is not None else {}


def measure(
    module: TrainingModule, data: TableData, trainer: dict[str, Any], options: RangeOptions
) -> RangeTest:
    """The sweeps and what they show."""
    on_cpu = trains_on_cpu(trainer.get("accelerator", "auto"))
    device = torch.device("cpu") if on_cpu else accelerator()
    tensors = data.tensors["train"]
    rows = torch.linspace(0, len(tensors[0]) - 1, min(PROBE_ROWS, len(tensors[0]))).long()
    x, y = (tensor[rows.to(tensor.device)].to(device) for tensor in tensors)
    rates = options.rates()
    curves = []
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
        rehearsal = Rehearsal(module, trainer, device)
        curves.append(sweep(rehearsal, rates, endless(loader), (x, y)))
    return RangeTest(rates, curves, options.rule, read_curves(rates, curves))


def sweep(
    rehearsal: Rehearsal,
    rates: Sequence[float],
    batches: Iterator[tuple[Tensor, Tensor]],
    probe: tuple[Tensor, Tensor],
) -> list[float]:
    """The probe's loss before the first step, then after each,
    up to the one at which training blows up.
    """
    curve = [rehearsal.loss_of(probe)]
    for rate in rates:
        set_rate(rehearsal.optimizer, rate)
        rehearsal.take_step(batches)
        curve.append(rehearsal.loss_of(probe))
        if not curve[-1] <= STOP * curve[0]:
            break
    return curve
