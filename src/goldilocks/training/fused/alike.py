"""Which runs can be trained as one network, and whether it pays."""

from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from goldilocks.config.build import find_class
from goldilocks.config.choices import is_on
from goldilocks.machine import devices
from goldilocks.regularization.gradient_transforms import strengths_in
from goldilocks.schedulers.schedule import cycles_momentum
from goldilocks.training.fused.optimizer import LINEAR
from goldilocks.training.settings import Settings
from goldilocks.training.trainer import Trainer, watches_steps

# May differ between trials of a stack: by group, or key of a group.
FREE = {"seed", "name", "log_dir", "callbacks", "logger", "objective", "lr_range", "loss"}
FREE |= {"kept_predictions", "record_changes", "resume"}
FREE_IN = {
    "trainer": {"max_epochs", "gradient_clip_val", "gradient_clip_algorithm"},
    "data": {"fold"},
    "optimizer": {
        "lr",
        "betas",
        "eps",
        "momentum",
        "momentum_decay",
        "alpha",
        "rho",
        "weight_decay",
    },
    "task": {"calibration", "threshold", "false_positive_cost", "false_negative_cost"},
}
# What training/fused applies; a strength that somebody adds to the module's steps is none of these.
STRENGTHS = {
    "l1",
    "l2",
    "max_norm",
    "label_smoothing",
    "noise",
    "mixup",
    "cutmix",
    "cutout",
    "shift",
}
STRENGTHS |= {"dropout", "alpha_dropout", "ema", "swa"}
DROPOUTS = ("dropout", "alpha_dropout")
# Parameters times rows of a batch up to which training together is faster than one by one, by kind
# of device: from `python scripts/benchmark.py fused`, docs/benchmarks.md.
PAYS = {"cpu": 4_000_000, "cuda": 400_000_000, "mps": 40_000_000}
BYTES = 4  # of a number
COPIES = 12  # of a trial's parameters at a time: weights, gradients, moments, what is passed on
# A layer of `WIDTH` units has a number for each row of the batch and unit beside its weights.
WIDTH, MOST_ACTIVE = 32, 4096
SHARE_OF_MEMORY = 0.4  # of what is free
MOST = 256  # trials in a stack: beyond that the share of each no longer falls


def reason_against(settings: Settings) -> str | None:
    """Why a trial cannot be trained together with any other; None: it can."""
    trainer = settings.trainer
    if devices.plan(trainer).strategy != "single":
        return "several devices"
    for name in ("compile", "channels_last", "max_time"):
        if trainer.get(name):
            return f"trainer.{name}"
    if str(trainer.get("precision", 32)) not in ("32", "32-true", "64", "64-true", "bf16-mixed"):
        return f"trainer.precision={trainer['precision']}"
    if find_class(trainer, pl.Trainer, "trainer", settings.packages) is not Trainer:
        return "a trainer of its own"
    kind: Any = find_class(settings.optimizer, Optimizer, "optimizer", settings.packages)
    if kind not in LINEAR:
        return f"{kind.__name__} does not move in proportion to its rate"
    if settings.optimizer.get("maximize"):
        return "optimizer.maximize"
    for name, strength in strengths_in(settings.regularization).items():
        if name not in STRENGTHS and is_on(strength):
            return f"regularization.{name} is none that a stack knows"
    for name, node in settings.callbacks.items():
        if node is None:
            continue
        callback: Any = find_class(node, pl.Callback, f"callbacks.{name}", settings.packages)
        if watches_steps(callback):
            return f"callbacks.{name} watches single steps"
    return None


def layers_of(settings: Settings) -> str:
    """What must be the same for trials that are trained as one network."""
    optimizer = settings.optimizer
    cycled = cycles_momentum(settings.scheduler, settings.packages)
    kept = {
        "data": without(settings.data, FREE_IN["data"]),
        "model": {key: pattern(key, value) for key, value in settings.model.items()},
        "trainer": without(settings.trainer, FREE_IN["trainer"]),
        "optimizer": without(optimizer, {"lr", "weight_decay"} if cycled else FREE_IN["optimizer"]),
        "decays": bool(optimizer.get("weight_decay")),
        "scheduler": settings.scheduler if cycled else None,
        "task": without(settings.task, FREE_IN["task"]),
        "metrics": settings.metrics,
        "dropout": [is_on(settings.regularization.get(name)) for name in DROPOUTS],
    }
    return repr(kept)


def without(node: Any, keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in keys}


def pattern(key: str, value: Any) -> Any:
    """A rate of dropout by whether it is on, in each layer; any other value as it is."""
    if key not in DROPOUTS:
        return value
    return [is_on(rate) for rate in value] if isinstance(value, list) else is_on(value)


def too_large(settings: Settings, network: nn.Module) -> str | None:
    """Why a network takes so long that it is better trained alone; None: it does not.

    Args:
        settings: Of a run.
        network: Of the run, with or without memory.
    """
    kind = devices.plan(settings.trainer).kind
    if kind == "cpu" and any(isinstance(layer, _ConvNd) for layer in network.modules()):
        return "convolutions of several networks are slower together on a CPU"
    most = PAYS[kind]
    work = count_trained(network) * batch_of(settings)
    if work <= most:
        return None
    return f"{work:,} parameters times rows of a batch, more than {most:,}"


def count_trained(network: nn.Module) -> int:
    """The parameters that are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def most_of(settings: Settings, network: nn.Module) -> int:
    """How many such runs memory holds at a time."""
    free = devices.free_memory(devices.plan(settings.trainer).kind)
    rows = min(batch_of(settings), MOST_ACTIVE)
    own = BYTES * count_trained(network) * (COPIES + rows / WIDTH)
    return max(2, min(MOST, int(SHARE_OF_MEMORY * free / own)))


def threads_of(settings: Settings) -> int:
    """Threads of the CPU that train a stack."""
    asked = settings.trainer.get("threads", "auto")
    return 1 if asked == "auto" else asked


def batch_of(settings: Settings) -> int:
    """Rows in a batch."""
    return int(settings.data.get("batch_size") or 1)
