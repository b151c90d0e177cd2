"""How many threads train a run's network: as the option says, or as its own step is fastest."""

import itertools
from collections.abc import Callable

import torch
from pytorch_lightning.utilities.seed import isolate_rng

from goldilocks.machine import threads
from goldilocks.machine.devices import plan, trains_on_cpu
from goldilocks.training.components import Parts
from goldilocks.training.rehearsal import Rehearsal


def threads_for(parts: Parts) -> int:
    """Threads of the CPU to train with. Neither the network nor any random numbers are touched."""
    option = parts.settings.trainer.get("threads", "auto")
    if option != "auto":
        return option
    # Each process of this machine has its share.
    most = max(threads.ALL_THREADS // plan(parts.settings.trainer).devices, 1)
    if not trains_on_cpu(parts.settings.trainer.get("accelerator", "auto")):
        return most
    network = parts.module.network
    rows = parts.data.batch_size
    work = sum(p.numel() for p in network.parameters()) * rows
    # No rates and strengths: the trials of a sweep over them share one measurement.
    layers = [
        (type(layer).__name__, *(tuple(p.shape) for p in layer.parameters(False)))
        for layer in network.modules()
    ]
    description = f"{layers} {rows} {parts.settings.optimizer['_target_']}"
    with isolate_rng(include_cuda=False):
        return threads.choose_threads(work, description, lambda: step_to_measure(parts), most)


def step_to_measure(parts: Parts) -> Callable[[], None]:
    """A step of the run on its first rows, which moves copies."""
    rows = parts.data.batch_size
    x, y = (tensor[:rows] for tensor in parts.data.tensors["train"])
    rehearsal = Rehearsal(parts.module, parts.settings.trainer, torch.device("cpu"))
    batches = itertools.repeat((x, y))
    return lambda: rehearsal.take_step(batches)
