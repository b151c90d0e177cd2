"""The health check of a configuration before it is trained: a verdict for each thing that usually goes wrong.

It writes nothing, and trains copies for a moment only. All arithmetic is in 32 bits, whatever `trainer.precision` says.

Legend: N rows.
"""

import copy
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from goldilocks import data_checks, network_checks
from goldilocks.checks import Settings, warnings_for
from goldilocks.data.loaders import TensorLoader, epoch_seed
from goldilocks.errors import Refused
from goldilocks.flat import FlatParameters, can_be_flat
from goldilocks.health import PROBE_ROWS, measure_health
from goldilocks.module import seed_generators
from goldilocks.optimizers import split_parameters
from goldilocks.regularization import add_penalty_gradients, limit_norms
from goldilocks.run import Parts, prepare
from goldilocks.schedulers import steps_in_epoch
from goldilocks.threads import ALL_THREADS, SMALL_WORK, measure
from goldilocks.trainer import clip_gradients, trains_on_cpu
from goldilocks.verdict import Verdict

BATCH_ROWS = 32  # that are learnt by heart
OWN_STEPS = 60  # of the run
LIMIT_S = 10.0  # for what learns: a large network makes fewer steps
LIGHT_WORK = (
    10 * SMALL_WORK
)  # of the batch that is learnt by heart: one thread, for more of them wait for other processes
SLOW_S = 0.5  # of a step, above which it uses all threads without a measurement


def examine(cfg: DictConfig) -> Iterator[Verdict]:
    """The verdicts on a configuration, one after the other.

    Raises:
        Refused: for what a run would refuse.
    """
    if cfg.resume is not None:
        raise Refused(f"resume={cfg.resume}: the check is for a run that has not begun; leave it out")
    parts = prepare(cfg, warn=False)
    yield from look_at_configuration(parts)
    yield from look_at_data(parts)
    yield from look_at_network(parts)


def look_at_configuration(parts: Parts) -> Iterator[Verdict]:
    """What a run would warn of; what it refuses has been refused."""
    warnings = warnings_for(parts.settings, parts.module.network)
    if not warnings:
        yield Verdict("configuration", "ok", "nothing that contradicts itself")
    for warning in warnings:
        why, _, mend = warning.partition(": ")
        yield Verdict("configuration", "warning", why, mend)


def look_at_data(parts: Parts) -> Iterator[Verdict]:
    """The rows as the network gets them, split and scaled."""
    spec, settings = parts.data.spec, parts.settings
    rows = {stage: (x.numpy(), y.numpy()) for stage, (x, y) in parts.data.tensors.items()}
    x, y = rows["train"]
    values = data_checks.check_values(rows)
    yield values
    if values.status == "failed":  # nothing can be said of the rest
        return
    yield data_checks.check_constant(x, spec.feature_names)
    if x.ndim == 2:
        yield data_checks.check_repeated(x, spec.feature_names)
    yield data_checks.check_scale(x, spec.feature_names)
    yield data_checks.check_equal_rows(rows)
    if spec.task == "regression":
        yield data_checks.check_target(y, settings.task["loss"])
    else:
        balanced = settings.task["class_weight"] == "balanced"
        yield data_checks.check_classes(spec.class_counts, spec.class_names, balanced)
    if x.ndim == 2:
        yield data_checks.check_single_features(x, y, spec.task, spec.feature_names)
    known = [rows[stage] for stage in ("train", "val") if stage in rows]
    inputs, targets = (np.concatenate(pieces) for pieces in zip(*known, strict=True))
    yield data_checks.check_signal(inputs, targets, spec.task)


def look_at_network(parts: Parts) -> Iterator[Verdict]:
    """Whether the network learns, on the device on which the run would train."""
    device = device_for(parts.settings)
    torch.set_num_threads(1 if num_parameters(parts) * BATCH_ROWS < LIGHT_WORK else ALL_THREADS)
    task, network = parts.module.task.to(device), parts.module.network.to(device)
    x, y = (tensor[:: -(-len(tensor) // PROBE_ROWS)].to(device) for tensor in parts.data.tensors["train"])
    first = loss_of(parts, network, x, y)
    expected, what = network_checks.constant_loss(task, y)
    yield network_checks.judge_first_loss(first, expected, what, mend_first_loss(parts))
    rows = network_checks.distinct_batch(*parts.data.tensors["train"], BATCH_ROWS)
    few, answers = (tensor.to(device) for tensor in rows)
    guess = network_checks.constant_loss(task, answers)[0]
    memory = network_checks.learn_by_heart(network, task.loss, guess, few, answers, LIMIT_S)
    yield network_checks.judge_memory(memory, mend_memory(parts))
    yield network_checks.judge_gradients(network_checks.probe_gradients(network, task.loss, x, y))
    if device.type == "cpu":
        torch.set_num_threads(threads_for(parts))
    trial = own_steps(parts, network, device)
    last = loss_of(parts, trial.network, x, y)
    finite = all(map(math.isfinite, trial.losses))
    peak, rate = max(trial.losses), parts.settings.optimizer.get("lr")
    yield network_checks.judge_progress(first, last if finite else math.nan, peak, len(trial.seconds), rate)
    if finite:
        health = measure_health(trial.network.eval(), task.loss, x, y)
        yield network_checks.judge_layers(health, len(trial.seconds))
    yield look_at_time(parts, trial)
    yield look_at_memory(parts, trial, device)


def loss_of(parts: Parts, network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The loss of some rows in evaluation mode; the network's own mode is as before."""
    mode = network.training
    with torch.no_grad():
        loss = float(parts.module.task.loss(network.eval()(x), y))
    network.train(mode)
    return loss


# --- the run's own first steps ----------------------------------------------------------------------------------------


@dataclass
class Trial:
    """Some of the run's own steps, made on a copy of its network."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    steps_in_epoch: int
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def own_steps(parts: Parts, network: nn.Module, device: torch.device) -> Trial:
    """The run's first steps, as its module makes them: optimizer, rate, schedule, augmentation, penalties, clipping."""
    settings, module = parts.settings, parts.module
    options, strengths = settings.trainer, module.regularization
    accumulate = options.get("accumulate_grad_batches", 1)
    x, y = (tensor.to(device) for tensor in parts.data.tensors["train"])
    limit = options.get("limit_train_batches")
    loader = TensorLoader(
        x,
        y,
        batch_size=parts.data.batch_size,
        shuffle_seed=settings.seed,
        max_batches=limit,
        batches_per_item=accumulate,
    )
    network = copy.deepcopy(network).train()
    optimizer = module.make_optimizer(network)
    flat = FlatParameters(optimizer) if can_be_flat(optimizer) else None
    steps, most = steps_in_epoch(loader.num_batches, accumulate), options.get("max_steps")
    schedule = module.make_schedule(
        optimizer, steps_per_epoch=steps, max_epochs=epochs_of(parts, steps), max_steps=most
    )
    trained, (weights, _) = [p for p in network.parameters() if p.requires_grad], split_parameters(network)
    trial, began = Trial(network, optimizer, steps), time.perf_counter()
    for epoch in range(options["max_epochs"]):
        loader.set_epoch(epoch)
        seed_generators(epoch_seed(settings.seed, epoch), device)
        for item in loader:  # the batches of one step
            start = time.perf_counter()
            for inputs, target in item.split():
                inputs, target = module.augmentation(inputs, target) if module.augmentation.active else (inputs, target)
                loss = module.task.loss(network(inputs), target, smooth=True)
                (loss / len(item.sizes)).backward()
            if strengths.l1 or strengths.l2:
                add_penalty_gradients(weights, strengths.l1, strengths.l2)
            clip_gradients(trained, options.get("gradient_clip_val"), options.get("gradient_clip_algorithm", "norm"))
            if flat is not None:
                flat.gather()
            optimizer.step()
            for parameter in trained:
                parameter.grad = None
            if strengths.max_norm:
                limit_norms(weights, strengths.max_norm)
            schedule.on_step()
            trial.losses.append(float(loss.detach()))
            trial.seconds.append(time.perf_counter() - start)
            enough = len(trial.seconds) == min(OWN_STEPS, most or OWN_STEPS)
            if enough or not math.isfinite(trial.losses[-1]) or time.perf_counter() - began > LIMIT_S:
                return trial
        if schedule.monitor is None:
            schedule.on_epoch_end({})
    return trial


def epochs_of(parts: Parts, steps: int) -> int:
    """Epochs of a run that is not stopped early, of so many steps each."""
    epochs, most = parts.settings.trainer["max_epochs"], parts.settings.trainer.get("max_steps")
    return epochs if most is None else min(epochs, -(-most // steps))


def device_for(settings: Settings) -> torch.device:
    """The device that the run would train on."""
    if trains_on_cpu(settings.trainer.get("accelerator", "auto")):
        return torch.device("cpu")
    return torch.device("cuda" if torch.cuda.is_available() else "mps")


def threads_for(parts: Parts) -> int:
    """Threads of the CPU, measured as a run does, but not remembered: nothing is written."""
    option = parts.settings.trainer.get("threads", "auto")
    if option != "auto":
        return option
    rows = parts.data.batch_size
    if num_parameters(parts) * rows < SMALL_WORK:
        return 1
    step = parts.module.trial_step(*(tensor[:rows] for tensor in parts.data.tensors["train"]))
    began = time.perf_counter()
    step()
    return measure(step, ALL_THREADS) if time.perf_counter() - began < SLOW_S else ALL_THREADS


def num_parameters(parts: Parts) -> int:
    return sum(p.numel() for p in parts.module.network.parameters())


# --- advice -----------------------------------------------------------------------------------------------------------


def mend_first_loss(parts: Parts) -> str:
    """The override that most likely lowers a first loss that is far too high."""
    settings, task = parts.settings, parts.data.spec.task
    if task == "regression" and settings.data.get("target_scaling", "standard") != "standard":
        return "write data.target_scaling=standard"
    if settings.data.get("scaling", "standard") == "none":
        return "write data.scaling=standard"
    if settings.model.get("init", "auto") != "auto":
        return "write model.init=auto"
    if settings.model.get("output_scale", 0) > 0.01:
        return "write model.output_scale=0.01"
    return "start its last layer with small weights"


def mend_memory(parts: Parts) -> str:
    """What most likely keeps a network from learning a batch by heart, and the override against it."""
    settings, task = parts.settings, parts.data.spec.task
    if settings.data.get("scaling", "standard") == "none":
        return "features on scales of their own are in the way: write data.scaling=standard"
    if task == "regression" and settings.data.get("target_scaling", "standard") == "none":
        return "a target on a scale of its own is in the way: write data.target_scaling=standard"
    if settings.model.get("init", "auto") != "auto":
        return "the first weights are in the way: write model.init=auto"
    if settings.model.get("activation") in ("sigmoid", "tanh"):
        return "a flat activation is in the way: write model.activation=relu"
    if settings.model.get("depth") == 0:
        return "a linear model is too small to know these rows by heart: write model=shallow"
    return "too small to know these rows by heart: write a larger model.width, or model=resnet"


# --- time and memory --------------------------------------------------------------------------------------------------


def look_at_time(parts: Parts, trial: Trial) -> Verdict:
    """How long the run would take: the first steps warm up, so their median counts."""
    stops = parts.settings.callbacks.get("early_stopping") is not None
    per_second = 1 / max(statistics.median(trial.seconds), 1e-9)
    epochs = epochs_of(parts, trial.steps_in_epoch)
    return network_checks.judge_time(per_second, trial.steps_in_epoch, epochs, stops)


def look_at_memory(parts: Parts, trial: Trial, device: torch.device) -> Verdict:
    """What the network, its gradients, the optimizer and the data take."""
    size = sum(p.nbytes for p in trial.network.parameters())
    data = sum(tensor.nbytes for pair in parts.data.tensors.values() for tensor in pair)
    sizes = {
        "network": size,
        "gradients": sum(p.nbytes for p in trial.network.parameters() if p.requires_grad),
        "optimizer": network_checks.optimizer_bytes(trial.optimizer),
        "data": data,
    }
    if device.type == "cuda":
        used, there = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        return network_checks.judge_memory_use(sizes, used, there)
    return network_checks.judge_memory_use(sizes, *process_memory())


def process_memory() -> tuple[int | None, int | None]:
    """Bytes that this process has taken at most, and that the machine has; None where the system does not say."""
    try:
        import os
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return most, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ImportError, OSError, ValueError, AttributeError):  # Windows
        return None, None


# --- the page ---------------------------------------------------------------------------------------------------------


def lines_of(verdict: Verdict) -> list[str]:
    """A verdict as lines for the terminal, the advice below what was measured."""
    lines = [f"{verdict.status:<8} {verdict.name:<24} {verdict.measured}"]
    return [*lines, f"{'':<8} {'':<24} -> {verdict.advice}"] if verdict.advice else lines


def summary(verdicts: list[Verdict], seconds: float) -> str:
    """The last line.

    >>> summary([Verdict("a", "failed", ""), Verdict("b", "warning", ""), Verdict("c", "ok", "")], 7.23)
    '1 failed, 1 warning, 1 ok in 7.2 s; nothing was written'
    """
    counts = [(status, sum(verdict.status == status for verdict in verdicts)) for status in ("failed", "warning", "ok")]
    told = ", ".join(
        f"{count} {status}{'s' * (status == 'warning' and count > 1)}" for status, count in counts if count
    )
    return f"{told} in {seconds:.1f} s; nothing was written"
