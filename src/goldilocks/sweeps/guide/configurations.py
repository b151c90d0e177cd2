"""The configurations of a guided search: words of a trial by key, and how they are changed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from goldilocks.sweeps.search.space import Space

Words = dict[str, str]  # overrides of a trial by key, without those of the command

PATIENCE = "callbacks.early_stopping.patience"
RATE, EPOCHS, BATCH, SEED = "optimizer.lr", "trainer.max_epochs", "data.batch_size", "seed"
RATES = (1.0, 0.4, 2.5)  # times a rate, at which a network is trained
# Rows for training from which on a batch is larger.
BATCHES = ((0, 32), (500, 64), (2_500, 128), (10_000, 256), (100_000, 1024))
# Drawn for each network again: what trials of the same layers may differ in.
NUISANCE = (
    RATE,
    "regularization.mixup",
    "regularization.cutmix",
    "regularization.ema",
    "regularization.l2",
    "scheduler",
)


def portfolio(entries: Sequence[str], said: set[str]) -> Iterator[Words]:
    """The configurations of `sweep.portfolio`, without what the command says."""
    seen: list[Words] = []
    for entry in entries:
        words = dict(word.split("=", 1) for word in entry.split())
        words = {key: value for key, value in words.items() if key not in said}
        if words not in seen:
            seen.append(words)
            yield words


def at_rates(words: Words, rate: float, factors: Sequence[float] = RATES) -> list[Words]:
    """A configuration at several rates, its own first."""
    return [{**words, RATE: f"{rate * factor:.3g}"} for factor in factors]


def batch_for(rows: int) -> int:
    """Rows of a batch for so many rows for training.

    >>> batch_for(500), batch_for(5000)
    (64, 128)
    """
    return next(size for least, size in reversed(BATCHES) if rows >= least)


def drawn(space: Space, seed: int, networks: int, each: int, skip: int) -> Iterator[list[Words]]:
    """Networks from the whole space, evenly spread, each with several rates and strengths.

    Args:
        space: Of the search.
        seed: Of the draws.
        networks: How many; fewer if `each` of them comes to nothing.
        each: Trials of a network.
        skip: Networks that were drawn before.
    """
    of_networks = space.points("qmc", seed)
    nuisance = Space([], [one for one in space.dimensions if one.key in NUISANCE])
    of_rates = nuisance.points("qmc", seed + 1) if nuisance.dimensions else None
    for number, chosen in zip(range(skip + networks), of_networks, strict=False):
        own = space.trial(chosen)[1]
        trials = []
        for _ in range(each):
            rest = nuisance.trial(next(of_rates))[1] if of_rates is not None else {}
            trials.append(own | {key: value for key, value in rest.items() if key in own})
        if number >= skip:
            yield trials


# --- one change at a time -------------------------------------------------------------------------

ACTIVATIONS = ("relu", "elu", "selu", "gelu", "silu", "mish", "leaky_relu", "tanh")


def changes(cfg: Any, choices: Mapping[str, Any]) -> Iterator[tuple[str, Words]]:
    """Questions of the guide, and what to change of a configuration to answer them, in the guide's
    order: layers before neurons, the schedule last.

    Args:
        cfg: Of the network that is best so far.
        choices: Its options by group.
    """
    model = cfg.model
    for key in ("depth", "blocks"):
        if isinstance(model.get(key), int):
            most = max(model[key], 0)
            yield "depth", {f"model.{key}": str(most + 1)}
            if most > 1:
                yield "depth", {f"model.{key}": str(most - 1)}
    if isinstance(model.get("width"), int) and model.get("depth") != 0:
        yield "width", {"model.width": str(min(2 * model.width, 1024))}
        yield "width", {"model.width": str(max(model.width // 2, 4))}
    hidden = model.get("depth") != 0
    if hidden and isinstance(model.get("activation"), str):
        for other in [one for one in ACTIVATIONS if one != model.activation][:3]:
            yield "activation", {"model.activation": other}
    if hidden and model.get("norm") is not None:
        without = "none" if "depth" in model else "layer"  # a resnet needs one
        other = "batch" if model.norm != "batch" else without
        yield "norm", {"model.norm": other}
    yield "batch size", {BATCH: str(2 * cfg.data.batch_size)}
    yield "batch size", {BATCH: str(max(cfg.data.batch_size // 2, 4))}
    yield from of_optimizer(cfg, choices)
    yield from of_regularizers(cfg)
    if model.get("embedding") is not None:
        other = "none" if model.embedding != "none" else "pbld"
        yield "embedding", {"model.embedding": other}
    if cfg.data.get("scaling") is not None:
        other = "quantile" if cfg.data.scaling != "quantile" else "standard"
        yield "scaling", {"data.scaling": other}
    if hidden and model.get("init") is not None:
        yield "init", {"model.init": "orthogonal" if model.init != "orthogonal" else "auto"}
    if cfg.trainer.gradient_clip_val is None:
        yield "clipping", {"trainer.gradient_clip_val": "1.0"}
    schedule = choices.get("scheduler")
    yield "schedule", {"scheduler": "cosine" if schedule != "cosine" else "constant"}


def of_optimizer(cfg: Any, choices: Mapping[str, Any]) -> Iterator[tuple[str, Words]]:
    """Another optimizer, and another momentum."""
    now = choices.get("optimizer")
    for other in [one for one in ("nadam", "adamw", "momentum") if one != now]:
        yield "optimizer", {"optimizer": other}
    if cfg.optimizer.get("betas") is not None:
        high = cfg.optimizer.betas[0] < 0.95
        yield "momentum", {"optimizer.betas": "[0.95,0.999]" if high else "[0.9,0.999]"}
    if cfg.optimizer.get("weight_decay") is not None:
        decay = cfg.optimizer.weight_decay
        yield "weight decay", {"optimizer.weight_decay": f"{3 * decay:.3g}" if decay else "0.1"}


def of_regularizers(cfg: Any) -> Iterator[tuple[str, Words]]:
    """Each regularizer off where it is on, and on where it is off."""
    strengths = cfg.regularization
    usual = {"dropout": "0.15", "l2": "1e-4", "ema": "0.97", "mixup": "0.2", "cutmix": "0.5"}
    usual |= {"noise": "0.1"}
    names = {"l2": "penalty", "ema": "averaged weights", "dropout": "dropout"}
    for key, value in usual.items():
        now = strengths.get(key)
        drops_nothing = key == "dropout" and cfg.model.get("depth") == 0
        if not isinstance(now, int | float) or drops_nothing:
            continue
        yield names.get(key, "augmentation"), {f"regularization.{key}": "0" if now else value}


# What goes with a group, and not with another option of it.
OWNED = {"optimizer": "optimizer.", "model": "model.", "scheduler": "scheduler."}


def changed(words: Words, change: Words) -> Words:
    """A configuration with other words; what belongs to an option that is replaced is gone."""
    kept = dict(words)
    for key in change:
        if key in OWNED and kept.get(key) != change[key]:
            kept = {own: value for own, value in kept.items() if not own.startswith(OWNED[key])}
    return {**kept, **change}
