"""The health check of a configuration before it is trained:
a verdict for each thing that usually goes wrong.

It writes nothing, and trains copies for a moment only. The run's own steps are made in
`trainer.precision`, all else in 32 bits.

Legend: N rows of the probe.
"""

import math
import re
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from goldilocks.data import checks
from goldilocks.data.loaders import TensorLoader, epoch_seed
from goldilocks.data.verdict import Verdict
from goldilocks.diagnosis import network_checks, resource_checks
from goldilocks.errors import Refused
from goldilocks.machine.clock import duration
from goldilocks.machine.devices import plan, trains_on_cpu
from goldilocks.machine.threads import ALL_THREADS, SMALL_WORK, measure
from goldilocks.schedulers.schedule import steps_in_epoch
from goldilocks.tasks.losses import is_squared
from goldilocks.training.checks import balanced_by, warnings_for
from goldilocks.training.components import Parts, prepare
from goldilocks.training.layer_health import PROBE_ROWS, measure_health
from goldilocks.training.lr_range.sweep import range_test
from goldilocks.training.module import seed_generators
from goldilocks.training.rehearsal import Rehearsal, accelerator, endless
from goldilocks.training.settings import Settings
from goldilocks.training.threads import step_to_measure

BATCH_ROWS = 32  # that a network must be able to overfit
OWN_STEPS = 60  # of the run
LIMIT_S = 10.0  # for what learns: a large network makes fewer steps
LIGHT_WORK = (
    10 * SMALL_WORK
)  # parameters times rows of that batch, up to which one thread learns it
QUICK = 0.5  # of the first loss, left by the own steps: such a rate is not too small
SCALING = re.compile(r"data\.(target_)?scaling=standard")  # what is written against scales
SLOW_S = 0.5  # of a step, above which it uses all threads without a measurement


@dataclass
class Trial:
    """Some of the run's own steps, made on a copy of its network.

    Attributes:
        rehearsal: The copy and its optimizer.
        steps_in_epoch: Of the run.
        losses: Of the probe, before the first step and after each.
        seconds: Of each step.
    """

    rehearsal: Rehearsal
    steps_in_epoch: int
    losses: list[float]
    seconds: list[float]


def examine(cfg: DictConfig) -> Iterator[Verdict]:
    """The verdicts on a configuration, one after the other;
    nothing more can be said after values that are not finite.

    Raises:
        Refused: for what a run would refuse.
    """
    if cfg.resume is not None:
        raise Refused(
            f"resume={cfg.resume}: the check is for a run that has not begun; leave it out"
        )
    yield from scale_first(look(prepare(cfg, warn=False)))


def scale_first(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """The verdicts; behind one that advises to scale, none advises a rate: other scales need
    another one.
    """
    scaling = ""
    for verdict in verdicts:
        if found := SCALING.search(verdict.advice):
            scaling = scaling or found[0]
        elif scaling and "optimizer.lr" in verdict.advice:
            verdict = replace(
                verdict, advice=f"the scale comes first: write {scaling}, then check the rate"
            )
        yield verdict


def look(parts: Parts) -> Iterator[Verdict]:
    """The verdicts on what a run would be made of."""
    yield from look_at_configuration(parts)
    for verdict in look_at_data(parts):
        yield verdict
        if (verdict.name, verdict.status) == (checks.VALUES, "failed"):
            return
    device = device_for(parts.settings)
    x, y = (
        tensor[:: -(-len(tensor) // PROBE_ROWS)].to(device)
        for tensor in parts.data.tensors["train"]
    )
    threads = torch.get_num_threads()
    try:
        yield from look_at_network(parts, x, y)
        yield from look_at_training(parts, x, y)
    finally:
        torch.set_num_threads(threads)


def look_at_configuration(parts: Parts) -> Iterator[Verdict]:
    """Warnings of a run; what it refuses has been refused."""
    warnings = warnings_for(parts.settings, parts.module.network)
    if not warnings:
        yield Verdict("configuration", "ok", "nothing that contradicts itself")
    for warning in warnings:
        why, _, fix = warning.partition(": ")
        yield Verdict("configuration", "warning", why, fix)


def look_at_data(parts: Parts) -> Iterator[Verdict]:
    """The rows as the network gets them, split and scaled."""
    spec, settings = parts.data.spec, parts.settings
    rows = {stage: (x.numpy(), y.numpy()) for stage, (x, y) in parts.data.tensors.items()}
    x, y = rows["train"]
    yield checks.check_values(rows)
    looked_at, names = x, spec.feature_names
    if x.ndim == 2:
        plain = parts.data.plain_features()
        looked_at, names = x[:, plain], tuple(names[place] for place in plain) if names else names
    yield checks.check_constant(looked_at, names)
    if x.ndim == 2:
        yield checks.check_repeated(looked_at, names)
    numbers = looked_at.shape[1] - len(spec.category_counts)  # those of categories have no scale
    yield checks.check_scale(looked_at[:, :numbers], names)
    yield checks.check_equal_rows(rows, settings.data.get("drop_duplicates"))
    if spec.task == "regression":
        yield checks.check_target(y, is_squared(settings.loss))
    else:
        ways = balanced_by(settings)
        yield checks.check_classes(spec.class_counts, spec.class_names, ways)
    if x.ndim == 2:
        yield checks.check_single_features(looked_at, y, spec.task, names, spec.class_names)
    known = [rows[stage] for stage in ("train", "val") if stage in rows]
    inputs, targets = (np.concatenate(pieces) for pieces in zip(*known, strict=True))
    yield checks.check_signal(inputs, targets, spec.task)


def look_at_network(parts: Parts, x: Tensor, y: Tensor) -> Iterator[Verdict]:
    """Whether the network could learn, whatever the run's optimizer is.

    Args:
        parts: Of the run.
        x: Inputs of the probe, [N, ...], on the device on which the run would train.
        y: Its targets.
    """
    torch.set_num_threads(1 if num_parameters(parts) * BATCH_ROWS < LIGHT_WORK else ALL_THREADS)
    task, network = parts.module.task.to(x.device), parts.module.network.to(x.device)
    first = loss_of(parts, network, x, y)
    expected, what = network_checks.constant_loss(task, y)
    yield network_checks.judge_first_loss(first, expected, what, mend_first_loss(parts))
    few, answers = network_checks.distinct_batch(*parts.data.tensors["train"], BATCH_ROWS)
    few, answers = few.to(x.device), answers.to(x.device)
    guess = network_checks.constant_loss(task, answers)[0]
    memory = network_checks.overfit_batch(network, task.loss, guess, few, answers, LIMIT_S)
    yield network_checks.judge_memory(memory, mend_memory(parts))
    yield network_checks.judge_gradients(network_checks.probe_gradients(network, task.loss, x, y))


def look_at_training(parts: Parts, x: Tensor, y: Tensor) -> Iterator[Verdict]:
    """The run's own first steps, its rate, and what a whole run takes;
    for the arguments see `look_at_network`.
    """
    settings = parts.settings
    if x.device.type == "cpu":
        torch.set_num_threads(threads_for(parts))
    rate = look_for_rate(parts) if settings.finds_rate else settings.optimizer.get("lr")
    if settings.finds_rate:
        yield network_checks.judge_found_rate(rate)
        if rate is None:
            return
    trial = own_steps(parts, x, y, rate)
    yield network_checks.judge_progress(trial.losses, rate)
    if math.isfinite(trial.losses[-1]):
        own = trial.rehearsal
        health = measure_health(own.network.eval(), own.task.loss, x.to(own.kind), own.as_target(y))
        yield network_checks.judge_layers(health, len(trial.seconds))
    if not settings.finds_rate and rate is not None:
        yield compare_rate(parts, trial, rate, x, y)
    yield look_at_time(settings, trial)
    yield look_at_memory(parts, trial, x.device)


def look_for_rate(parts: Parts) -> float | None:
    """What the range test suggests; None where no rate lowers the loss."""
    return range_test(
        parts.module, parts.data, parts.settings.trainer, parts.settings.lr_range
    ).rate


def compare_rate(parts: Parts, trial: Trial, rate: float, x: Tensor, y: Tensor) -> Verdict:
    """The configured rate beside the range test's, where that does not take too long.

    A larger rate is advised only where the run's own is slow and its first steps bear the other: on
    few rows the range test may suggest one that a run does not survive.
    """
    name, options = "learning rate", parts.settings.lr_range
    seconds = 2 * statistics.median(trial.seconds) * options.steps * options.repeats
    if seconds > 2 * LIMIT_S:
        hint = (
            f"not compared: a range test takes about {duration(seconds)}; scripts/lr_range.py"
            " makes it"
        )
        return Verdict(name, "ok", hint)
    found = look_for_rate(parts)
    if found is None:
        return network_checks.judge_found_rate(None)
    verdict = network_checks.rate_verdict(rate, found)
    if verdict.status == "ok" or found < rate:
        return verdict
    if trial.losses[-1] < QUICK * trial.losses[0]:
        return Verdict(name, "ok", f"{verdict.measured}, but the steps above are quick enough")
    faster = own_steps(parts, x, y, found).losses
    if network_checks.judge_progress(faster, found).status != "ok" or faster[-1] > trial.losses[-1]:
        return Verdict(name, "ok", f"{verdict.measured}, which the run's own steps do not bear")
    return verdict


def loss_of(parts: Parts, network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The loss of some rows in evaluation mode; the network's own mode is as before."""
    mode = network.training
    with torch.no_grad():
        loss = float(parts.module.task.loss(network.eval()(x), y))
    network.train(mode)
    return loss


# --- the run's own first steps --------------------------------------------------------------------


def own_steps(parts: Parts, x: Tensor, y: Tensor, rate: float | None) -> Trial:
    """The run's first steps with its optimizer, rate, schedule, augmentation,
    penalties and clipping.

    Args:
        parts: Of the run.
        x: Inputs of the probe, [N, ...], on the device to train on.
        y: Its targets.
        rate: Of the optimizer; None: it has none.
    """
    settings, module, options = parts.settings, parts.module, parts.settings.trainer
    loader = TensorLoader(
        *(tensor.to(x.device) for tensor in parts.data.tensors["train"]),
        batch_size=parts.data.batch_size * plan(options).size,  # of all devices together
        shuffle_seed=settings.seed,
        row_sampler=parts.data.row_sampler,
        max_batches=options.get("limit_train_batches"),
    )
    steps, most = (
        steps_in_epoch(loader.num_batches, options.get("accumulate_grad_batches", 1)),
        max_steps(settings),
    )
    rehearsal = Rehearsal(module, options, x.device, rate)
    length = {"steps_per_epoch": steps, "max_epochs": epochs_of(settings, steps), "max_steps": most}
    schedule = rehearsal.step.schedule = module.make_schedule(rehearsal.optimizer, **length)
    trial, batches, began = (
        Trial(rehearsal, steps, [rehearsal.loss_of((x, y))], []),
        endless(loader),
        time.perf_counter(),
    )
    seed_generators(epoch_seed(settings.seed, 0), x.device)
    for step in range(1, min(OWN_STEPS, most or OWN_STEPS) + 1):
        start = time.perf_counter()
        rehearsal.take_step(batches)
        if step % steps == 0:
            schedule.on_epoch_end({})
        trial.seconds.append(time.perf_counter() - start)
        trial.losses.append(rehearsal.loss_of((x, y)))
        if not math.isfinite(trial.losses[-1]) or time.perf_counter() - began > LIMIT_S:
            break
    return trial


def max_steps(settings: Settings) -> int | None:
    """Optimizer steps of the run at most."""
    return settings.trainer.get("max_steps")


def epochs_of(settings: Settings, steps: int) -> int:
    """Epochs of a run that is not stopped early, of so many steps each."""
    epochs, most = settings.trainer["max_epochs"], max_steps(settings)
    return epochs if most is None else min(epochs, -(-most // steps))


def device_for(settings: Settings) -> torch.device:
    """The device that the run would train on."""
    if trains_on_cpu(settings.trainer.get("accelerator", "auto")):
        return torch.device("cpu")
    return accelerator()


def threads_for(parts: Parts) -> int:
    """Threads of the CPU, measured as a run does, but not remembered: nothing is written."""
    option = parts.settings.trainer.get("threads", "auto")
    if option != "auto":
        return option
    rows = parts.data.batch_size
    if num_parameters(parts) * rows < SMALL_WORK:
        return 1
    step = step_to_measure(parts)
    began = time.perf_counter()
    step()
    return measure(step, ALL_THREADS) if time.perf_counter() - began < SLOW_S else ALL_THREADS


def num_parameters(parts: Parts) -> int:
    return sum(p.numel() for p in parts.module.network.parameters())


# --- advice ---------------------------------------------------------------------------------------


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
    """What most likely keeps a network from overfitting one batch, and the override against it."""
    settings, task = parts.settings, parts.data.spec.task
    if task == "regression" and settings.data.get("target_scaling", "standard") == "none":
        return "a target on a scale of its own is in the way: write data.target_scaling=standard"
    if settings.data.get("scaling", "standard") == "none":
        return "features on scales of their own are in the way: write data.scaling=standard"
    if settings.model.get("init", "auto") != "auto":
        return "the first weights are in the way: write model.init=auto"
    if settings.model.get("activation") in ("sigmoid", "tanh"):
        return "a flat activation is in the way: write model.activation=relu"
    if settings.model.get("depth") == 0:
        return "a linear model is too small to overfit these rows: write model=shallow"
    return "too small to overfit these rows: write a larger model.width, or model=resnet"


# --- time and memory ------------------------------------------------------------------------------


def look_at_time(settings: Settings, trial: Trial) -> Verdict:
    """How long the run would take: the first steps warm up, so their median counts."""
    stops = settings.callbacks.get("early_stopping") is not None
    per_second = 1 / max(statistics.median(trial.seconds), 1e-9)
    epochs = epochs_of(settings, trial.steps_in_epoch)
    return resource_checks.judge_time(per_second, trial.steps_in_epoch, epochs, stops)


def look_at_memory(parts: Parts, trial: Trial, device: torch.device) -> Verdict:
    """What the network, its gradients, the optimizer and the data take."""
    size = sum(p.nbytes for p in trial.rehearsal.network.parameters())
    data = sum(tensor.nbytes for pair in parts.data.tensors.values() for tensor in pair)
    sizes = {
        "network": size,
        "gradients": sum(p.nbytes for p in trial.rehearsal.network.parameters() if p.requires_grad),
        "optimizer": resource_checks.optimizer_bytes(trial.rehearsal.optimizer),
        "data": data,
    }
    if device.type == "cuda":
        used, there = (
            torch.cuda.max_memory_reserved(device),
            torch.cuda.get_device_properties(device).total_memory,
        )
        return resource_checks.judge_memory_use(sizes, used, there)
    return resource_checks.judge_memory_use(sizes, *resource_checks.process_memory())
