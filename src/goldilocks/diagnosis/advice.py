"""What to try against a finding: the overrides to add to the command line.

A hint is the first thing that a practitioner would try, not a promise. Each is read off the options
that the run had, so nothing is advised that the network does not have or that is on already.
"""

import shlex
from collections.abc import Callable, Mapping

from goldilocks.config.choices import is_on
from goldilocks.diagnosis.evidence import Evidence
from goldilocks.diagnosis.findings import PEAK, Finding, rate_too_high
from goldilocks.machine.clock import seconds
from goldilocks.training.checks import SMALL_BATCH, adapts, balanced_by
from goldilocks.training.settings import Settings

Overrides = list[str]
FEW_STEPS = 500  # of the optimizer, in which a network may not have come far
FLAT_ACTIVATIONS = ("sigmoid", "tanh")
ENOUGH = 128  # units of a layer, as those of the plain network of `reference.py`


def advise(finding: Finding, evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    """What to do, in a few words, and the overrides that do it; none where only the user can."""
    return ADVICE[finding.name](evidence, settings)


def command(overrides: Overrides, advised: Overrides) -> str:
    """The command that a run was started with, with its advice in place
    of what it said of the same options.
    """
    return " ".join(["python train.py", *map(quoted, replaced(overrides, advised))])


def replaced(overrides: Overrides, advised: Overrides) -> Overrides:
    """The overrides of a run, with advice in place of those of the same options."""
    keys = {override.partition("=")[0] for override in advised} | {"name", "resume"}
    kept = [
        override
        for override in overrides
        if not keys & set(with_groups(override.lstrip("+~").partition("=")[0]))
    ]
    return [*kept, *advised]


def with_groups(key: str) -> Overrides:
    """A key and the groups above it: another `model=...` replaces `model.depth=...` too.

    >>> with_groups("model.depth")
    ['model', 'model.depth']
    """
    parts = key.split(".")
    return [".".join(parts[: number + 1]) for number in range(len(parts))]


def quoted(override: str) -> str:
    """An override as the shell takes it; brackets stay as they are in the README."""
    return (
        override
        if all(letter.isalnum() or letter in "_.,=[]/:+-~@" for letter in override)
        else shlex.quote(override)
    )


# --- the rate -------------------------------------------------------------------------------------


def lower_rate(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    _, losses = evidence.curve("train/loss")
    chance = evidence.train.chance if evidence.train else max(losses[:1], default=1.0)
    far = evidence.status == "diverged" or max(losses, default=0.0) > 100 * chance
    if far and evidence.rate:
        return "let the range test find a rate", ["optimizer.lr=auto"]
    # By less where the steps are hardly too large:
    # the advice against a rate too low would bring it back.
    factor = 0.1 if max(losses, default=0.0) > PEAK * chance else 0.3
    return scaled_rate(evidence, factor, "take smaller steps")


def raise_rate(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    return scaled_rate(evidence, 10.0, "take larger steps")


def scaled_rate(evidence: Evidence, factor: float, what: str) -> tuple[str, Overrides]:
    """Another rate. `auto` is not advised instead: a user learns more from a number."""
    if not evidence.rate:
        return f"{what} with an optimizer that has a rate, such as", ["optimizer=nadam"]
    return f"{what} (optimizer.lr=auto measures how large)", [
        f"optimizer.lr={factor * evidence.rate:.2g}"
    ]


# --- gradients and units --------------------------------------------------------------------------


def tame_gradients(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    if settings.model.get("init", "auto") != "auto":
        return "start with weights that fit the activation", ["model.init=auto"]
    if settings.model.get("norm") == "none":
        return "keep every layer's outputs on one scale", ["model.norm=layer"]
    return "limit the gradient", [f"trainer.gradient_clip_val={(evidence.clip or 10) / 10:.2g}"]


def revive_gradients(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    if settings.model.get("activation") in FLAT_ACTIVATIONS:
        return "take an activation without flat sides", ["model.activation=relu"]
    if settings.model.get("norm") == "none":
        norm = "batch" if suits_batch_norm(settings) else "layer"
        return "keep every layer's outputs on one scale", [f"model.norm={norm}"]
    if "depth" in settings.model:
        return "let the gradient pass beside the layers", ["model=resnet"]
    return "take fewer layers", []


def suits_batch_norm(settings: Settings) -> bool:
    """Whether BatchNorm has rows enough, and layers that need it."""
    model, rows = settings.model, settings.data.get("batch_size", SMALL_BATCH)
    dropped = settings.regularization.get("dropout")
    return rows >= SMALL_BATCH and model.get("activation") != "selu" and not dropped


def revive_units(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    if settings.model.get("activation") == "relu" and not rate_too_high(evidence):
        return "let units that are below zero learn too", ["model.activation=leaky_relu"]
    return lower_rate(evidence, settings)


def unsaturate(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    if settings.data.get("scaling") == "none":
        return "bring the features on one scale", ["data.scaling=standard"]
    if settings.model.get("init", "auto") != "auto":
        return "start with weights that fit the activation", ["model.init=auto"]
    if settings.model.get("activation") in FLAT_ACTIVATIONS:
        return "take an activation without flat sides", ["model.activation=relu"]
    return lower_rate(evidence, settings)


def clip_less(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    _, norms = evidence.curve("gradient_norm")
    return (
        "the limit decides on the step, not the loss: clip what is rare",
        [f"trainer.gradient_clip_val={2 * max(norms):.1g}"],
    )


# --- how well it learns ---------------------------------------------------------------------------


def train_longer(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    if (time := settings.trainer.get("max_time")) and evidence.time_ran_out:
        return "train for longer", [f"trainer.max_time={3 * seconds(time, 'trainer.max_time'):g}s"]
    if settings.trainer.get("max_steps"):
        return "train for longer", [f"trainer.max_steps={3 * settings.trainer['max_steps']}"]
    return "train for longer", [f"trainer.max_epochs={3 * settings.trainer['max_epochs']}"]


def look_at_rows(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    return "do rows and targets belong together, and is what decides among the features?", []


def learn_more(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    """What a plain network has and this one has not:
    no penalties, enough units, an optimizer that finds its way.
    """
    if any(is_on(strength) for strength in settings.regularization.values()):
        return "let it learn what is there, without what holds it back", ["regularization=[]"]
    if evidence.ran_out and evidence.steps < FEW_STEPS:
        return train_longer(evidence, settings)
    model, width = settings.model, settings.model.get("width")
    if model.get("depth") == 0:
        return "take a network that can bend", ["model=deep"]
    if isinstance(width, int) and width < ENOUGH:
        return "take a larger network", [f"model.width={max(4 * width, ENOUGH)}"]
    if not adapts(settings.optimizer):
        return "take an optimizer with a step of its own for each weight", ["optimizer=nadam"]
    if "depth" in model and model["depth"] != 0:
        return "let the gradient pass beside the layers", ["model=resnet"]
    return "compare it with a plain network: model=deep", []


def learn_less(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    strengths, model = settings.regularization, settings.model
    has_dropout = (
        "dropout" in model and model.get("depth") != 0 and model.get("activation") != "selu"
    )
    has_dropout = has_dropout and model.get("norm") != "batch"
    if has_dropout and not strengths.get("dropout"):
        return "drop units at random", ["regularization.dropout=0.3"]
    if not strengths.get("mixup"):
        return "blend the rows", ["regularization.mixup=0.2"]
    if isinstance(model.get("width"), int) and model["width"] > 8:
        return "take a smaller network", [f"model.width={model['width'] // 2}"]
    return "collect more rows, or take a smaller network", []


def as_well_as_linear(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    """The linear model itself; of a network that is one, what keeps it from its best weights."""
    if settings.model.get("depth") != 0:
        text = "a linear model does better on these rows: take it, or collect more"
        return text, ["model=linear"]
    if any(is_on(strength) for strength in settings.regularization.values()):
        return "let it learn what is there, without what holds it back", ["regularization=[]"]
    if evidence.ran_out:
        return train_longer(evidence, settings)
    return "hold its weights back, as scikit-learn does", ["regularization=l2"]


def as_well_as_trees(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    """What helps most often on tables: vectors for numbers, networks that predict together."""
    model = settings.model
    if model.get("embedding") == "none" and model.get("depth") != 0:
        return "learn a vector for each number", ["model.embedding=pbld"]
    if "k" not in model:
        return "take many networks in one, made for tables", ["model=tabm"]
    if settings.data.get("folds", 0) is None:
        return "let networks of several folds predict together", ["data.folds=5"]
    return "scikit-learn's HistGradientBoosting suits these rows better", []


def weigh_classes(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    if not balanced_by(settings):
        return "let every class count alike", ["task.class_weight=balanced"]
    return "it counts as much as the others already: collect more of its rows", []


def see_clearer(evidence: Evidence, settings: Settings) -> tuple[str, Overrides]:
    """More rows where they are drawn;
    a fold, or a split of the user's own, has as many as it has.
    """
    data = settings.data
    drawn = not any(data.get(key) for key in ("folds", "val_path", "split_column"))
    most = min(0.3, (1 - data.get("test_fraction", 0.0)) / 2)
    if drawn and data.get("val_fraction", most) < most:
        text = "validate on more rows, and compare means of several seeds"
        return text, [f"data.val_fraction={most:.2g}"]
    return "compare means of several seeds: -m seed=0,1,2,3,4", []


Adviser = Callable[[Evidence, Settings], tuple[str, Overrides]]
ADVICE: Mapping[str, Adviser] = {
    "diverged": lower_rate,
    "nothing to learn": look_at_rows,
    "exploding gradients": tame_gradients,
    "vanishing gradients": revive_gradients,
    "rate too high": lower_rate,
    "dead units": revive_units,
    "saturated units": unsaturate,
    "clipped": clip_less,
    "rate too low": raise_rate,
    "still improving": train_longer,
    "underfitting": learn_more,
    "overfitting": learn_less,
    "below linear": as_well_as_linear,
    "trees far ahead": as_well_as_trees,
    "rare class missed": weigh_classes,
    "noise": see_clearer,
}
