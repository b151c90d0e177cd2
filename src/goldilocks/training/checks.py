"""Everything about a configuration that can be refused or warned
about before a run folder is made.
"""

import math
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
from lightning_utilities.core.imports import RequirementCache
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer

from goldilocks.config.build import check_arguments, find_class
from goldilocks.config.choices import is_on
from goldilocks.config.passed import once
from goldilocks.config.plain import plain
from goldilocks.data.base import TableData
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused, missing
from goldilocks.machine.devices import plan
from goldilocks.optimizers.optimizer import switches, try_optimizer
from goldilocks.regularization.gradient_transforms import LIVE as LIVE_OF_TRANSFORMS
from goldilocks.regularization.gradient_transforms import (
    GradientTransform,
    strengths_in,
    transforms_in,
)
from goldilocks.regularization.strengths import Regularization
from goldilocks.schedulers.schedule import has_length, try_schedule
from goldilocks.tasks.decisions import Decisions
from goldilocks.tasks.losses import try_loss
from goldilocks.tasks.metrics import check_metrics
from goldilocks.tasks.objective import Objective, check_objective
from goldilocks.tasks.task import Task
from goldilocks.training.settings import Node, Settings, build_task
from goldilocks.training.trainer import try_trainer

EXACT = {"bf16-true": 257, "16-true": 2049}  # numbers from 0 that a kind of inputs can tell apart
SMALL_BATCH = 16  # rows below which BatchNorm's statistics are unreliable
DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
ALPHA_DROPOUT = (nn.AlphaDropout, nn.FeatureAlphaDropout)
LIVE = {
    "data": (),
    "model": ("input_shape", "num_outputs"),
    "loss": ("reduction",),
    "regularization": LIVE_OF_TRANSFORMS,
    "callbacks": ("dirpath", "save_dir", "is_trial"),
    "logger": ("save_dir", "resume_step"),
}  # what the run adds to an option's own keywords


def check(cfg: DictConfig | dict[str, Any]) -> Settings:
    """Checks a composed configuration, or its values, resolved,
    without loading data or building the network.

    Returns:
        The configuration, resolved, as plain values.

    Raises:
        Refused: for the first thing that is wrong, in one line.
    """
    return check_values(resolved(cfg) if isinstance(cfg, DictConfig) else cfg)


def check_values(values: dict[str, Any]) -> Settings:
    """Checks a configuration that is resolved already; see `check`."""
    settings = Settings(**check_arguments(Settings, values, ""))
    packages = settings.packages
    check_regularization(settings.regularization, packages)
    check_node(settings.data, TableData, "data", packages)
    check_node(settings.model, nn.Module, "model", packages)
    check_node(settings.loss, nn.Module, "loss", packages)
    check_metrics(settings.metrics, packages)
    check_task(settings.task)
    check_kept(settings)
    objective = check_arguments(Objective, settings.objective, "objective", given=("metrics",))
    Objective(**objective, metrics=settings.metrics)
    check_optimizer(settings)
    try_trainer(settings.trainer, packages)
    precision = settings.trainer.get("precision")
    if precision == "bf16-true" and (
        name := next((n for n in ("ema", "swa") if settings.regularization[n]), None)
    ):
        raise Refused(
            f"regularization.{name}: a mean in 16 bits stands still; write"
            " trainer.precision=bf16-mixed"
        )
    if plan(settings.trainer).strategy == "fsdp":
        check_sharded(settings.regularization)
    for group, base in (("callbacks", pl.Callback), ("logger", Logger)):
        for key, node in getattr(settings, group).items():
            if node is not None:
                check_node(node, base, f"{group}.{key}", packages)
    return settings


def check_optimizer(settings: Settings) -> None:
    """Refuses an optimizer and a schedule whose classes reject their values."""
    optimizer, scheduler, packages = settings.optimizer, settings.scheduler, settings.packages
    once(
        lambda: try_schedule(scheduler, try_optimizer(optimizer, packages), packages),
        *("optimizer", optimizer, scheduler, packages),
    )


def check_regularization(node: Node, packages: Iterable[str]) -> None:
    """Refuses strengths out of range, and transforms of gradients that their classes reject."""
    strengths = strengths_in(node)
    Regularization(**check_arguments(Regularization, strengths, "regularization"))
    for name, own in transforms_in(node).items():
        check_node(own, GradientTransform, f"regularization.{name}", packages)


def check_sharded(node: Node) -> None:
    """Refuses what cannot be done where each device has a share of every weight."""
    if node["max_norm"]:
        raise Refused(
            "regularization.max_norm: torch does not limit the norms of sharded weights; write"
            " trainer=ddp"
        )
    for name, own in transforms_in(node).items():
        if is_on(own):
            raise Refused(
                f"regularization.{name}: is for whole gradients, and fsdp shards them;"
                " write trainer=ddp"
            )


def check_task(node: Node) -> None:
    """Refuses keys of `task` that there are not, and those that other groups set."""
    elsewhere = {
        "spec": "data=NAME",
        "loss": "loss=NAME",
        "makers": "metrics=[NAME]",
        "label_smoothing": "regularization.label_smoothing=0.1",
    }
    for key in elsewhere.keys() & node.keys():
        raise Refused(f"task.{key}: has no such key; write {elsewhere[key]}")
    check_arguments(Task, node, "task", given=elsewhere)


def check_kept(settings: Settings) -> None:
    """Refuses what is decided by kept predictions where none are kept."""
    node = settings.task
    decisions = Decisions(node.get("calibration", "none"), node.get("threshold", 0.5))
    if decisions.needs_rows and not settings.kept_predictions:
        raise Refused(
            f"{decisions.needs_rows}: needs kept predictions, and kept_predictions=0 keeps none;"
            " leave that out"
        )


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, every reference followed."""
    try:
        container = plain(cfg, throw_on_missing=True)
    except OmegaConfBaseException as error:
        cause: BaseException | None = error
        while cause is not None:  # a resolver of ours may have refused
            if isinstance(cause, Refused):
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        if match := re.search(r"node `([^`]+)` is not a container", str(error.msg)):
            node = match[1]
            raise Refused(f"{node}: holds several keys; write {node}.KEY=VALUE") from error
        raise Refused(
            f"{error.full_key or 'the configuration'}: {str(error.msg).splitlines()[0]}"
        ) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def check_node(node: Node, base: type, where: str, packages: Iterable[str]) -> None:
    """Checks an option against the signature of its class, without building it."""
    kind: Any = find_class(node, base, where, packages)
    check_installed(kind, f"{where}._target_={node['_target_']}")
    values = {key: value for key, value in node.items() if key != "_target_"}
    live = LIVE[where.partition(".")[0]]
    once(
        lambda: check_arguments(kind, values, where, packages, given=live),
        *("arguments", node, where, packages),
    )


def check_installed(kind: type, where: str) -> None:
    """Refuses a logger whose package is missing.
    Lightning's say so only when they are built, in a run folder.
    """
    if not issubclass(kind, Logger):
        return
    for module in {sys.modules[above.__module__] for above in kind.__mro__}:
        needed = [value for value in vars(module).values() if isinstance(value, RequirementCache)]
        if needed and not any(needed):
            package = needed[0].module or re.split(r"[^\w-]", str(needed[0].requirement))[0]
            raise Refused(f"{where}: {missing(ModuleNotFoundError(name=package))}")


# --- once the data are known ----------------------------------------------------------------------


def check_with_data(settings: Settings, spec: Spec) -> Task:
    """Checks what depends on the task and the split: metrics that are followed, and the loss.

    Returns:
        The task.

    Raises:
        Refused: for a metric or loss that these data do not have,
            or an augmentation for other data.
    """
    if (shift := settings.regularization["shift"]) and len(spec.input_shape) != 3:
        raise Refused(
            f"regularization.shift={shift}: moves images, and these data are a table; leave it out"
        )
    if settings.trainer.get("channels_last") and len(spec.input_shape) != 3:
        raise Refused(
            "trainer.channels_last=true: is for images, and these data are a table; leave it out"
        )
    precision, most = (
        str(settings.trainer.get("precision", 32)),
        max(spec.category_counts, default=0),
    )
    if most > EXACT.get(precision, math.inf):
        raise Refused(
            f"trainer.precision={precision}: cannot hold the numbers of {most} categories; write"
            " trainer.precision=32"
        )
    check_rows(settings, spec)
    task = build_task(settings, spec)
    learnt = settings.loss, settings.metrics, settings.task, settings.regularization
    followers = settings.objective, settings.callbacks, settings.scheduler
    once(
        lambda: try_task(settings, spec, task),
        *("task", spec, *learnt, *followers, settings.packages),
    )
    return task


def try_task(settings: Settings, spec: Spec, task: Task) -> None:
    """Refuses a loss and metrics that cannot take the data's rows,
    and metrics that are followed and are none of the task's.
    """
    mixes = (settings.regularization[key] for key in ("mixup", "cutmix", "label_smoothing"))
    where = f"loss._target_={settings.loss['_target_']}"
    try_loss(task.criterion, spec, where, probabilities=False)
    if spec.task == "multiclass" and any(mixes):
        try_loss(task.criterion, spec, where, probabilities=True)
    task.try_metrics()
    for where, metric in followed(settings).items():
        check_objective(metric, task, where)


def followed(settings: Settings) -> dict[str, str]:
    """The metrics that decide on something in a run, by their keys: the objective first."""
    followers = {
        f"callbacks.{name}.monitor": node for name, node in settings.callbacks.items() if node
    }
    followers["scheduler.monitor"] = settings.scheduler
    found = {"objective.metric": settings.objective["metric"]}
    for where, node in followers.items():
        if node.get("monitor") is not None:
            found[where] = node["monitor"]
    return found


def check_rows(settings: Settings, spec: Spec) -> None:
    """Refuses more devices than there are rows for."""
    size = plan(settings.trainer).size
    for stage, rows in spec.num_rows.items():
        most = rows // 2 if stage == "train" else rows  # BatchNorm needs two
        if size > 1 and rows > 0 and size > most:
            raise Refused(
                f"trainer.devices: {size} processes share {rows} rows of {stage}; write"
                f" {max(most, 1)} at most, or"
                " more rows"
            )


def check_network(settings: Settings, network: nn.Module) -> None:
    """Refuses a dropout rate that no layer of the network takes up,
    and batches that its layers cannot take.
    """
    if settings.data.get("batch_size") == 1 and any(
        isinstance(layer, nn.BatchNorm1d) for layer in network.modules()
    ):
        raise Refused(
            "data.batch_size=1: BatchNorm has no statistics of a single row; write model.norm=layer"
        )
    for name, kinds, other in (
        ("dropout", DROPOUT, "a deeper one"),
        ("alpha_dropout", ALPHA_DROPOUT, "model=selfnorm"),
    ):
        rate = settings.regularization[name]
        if is_on(rate) and not dropout_layers(network, kinds):
            raise Refused(
                f"regularization.{name}={rate}: no layer of this model takes it up; leave {name}"
                f" out or choose {other}"
            )


def dropout_layers(network: nn.Module, kinds: tuple[type, ...]) -> list[nn.Module]:
    """The layers of certain kinds whose rate is not zero."""
    return [layer for layer in network.modules() if isinstance(layer, kinds) and layer.p > 0]  # type: ignore[operator]


def warnings_for(settings: Settings, network: nn.Module) -> list[str]:
    """What will run but is probably not meant: each says why and what to write instead."""
    return [
        *warnings_about_layers(settings, network),
        *warnings_about_switches(settings, network),
        *warnings_about_training(settings),
    ]


def warnings_about_layers(settings: Settings, network: nn.Module) -> Iterator[str]:
    """Layers that do not go together, or not with the size of a batch."""
    layers, rows = list(network.modules()), settings.data.get("batch_size", SMALL_BATCH)
    batch_norm = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers)
    selu = any(isinstance(layer, nn.SELU) for layer in layers)
    if drops_before_norm(layers):
        yield (
            "dropout before BatchNorm shifts the variance between training and evaluation (arXiv"
            " 1801.05134):"
            " write model.norm=layer, or leave the dropout out"
        )
    if batch_norm and selu:
        yield (
            "SELU keeps mean and variance by itself, and BatchNorm is pointless with it (arXiv"
            " 1706.02515):"
            " write model.norm=none, or model.activation=relu"
        )
    if batch_norm and rows < SMALL_BATCH:
        yield (
            f"BatchNorm's statistics are unreliable over {rows} rows (arXiv 1803.08494):"
            f" write data.batch_size={2 * SMALL_BATCH}, or model.norm=layer"
        )
    if dropout_layers(network, ALPHA_DROPOUT) and not selu:
        yield (
            "AlphaDropout keeps mean and variance of SELU's outputs only (arXiv 1706.02515):"
            " write model=selfnorm, or regularization=dropout"
        )


def warnings_about_switches(settings: Settings, network: nn.Module) -> Iterator[str]:
    """What does not go with an optimizer that evaluates other weights than it trains."""
    if not switches(find_class(settings.optimizer, Optimizer, "optimizer", settings.packages)):
        return
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules()):
        yield (
            "BatchNorm's statistics are those of the weights that this optimizer trains, and the"
            " mean of these is evaluated (arXiv 2405.15682): write model.norm=layer, or another"
            " optimizer"
        )
    if settings.regularization["max_norm"]:
        yield (
            "max_norm limits the weights that this optimizer trains, and not their mean, which is"
            " evaluated: write optimizer.weight_decay=0.1, or another optimizer"
        )
    if has_length(settings.scheduler, settings.packages):
        yield (
            "this optimizer takes the place of a schedule that ends low (arXiv 2405.15682): write"
            " scheduler=constant"
        )


def drops_before_norm(layers: list[nn.Module]) -> bool:
    """Whether a dropout comes before a BatchNorm, in the order of the layers."""
    norms = [
        place
        for place, layer in enumerate(layers)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    ]
    before = layers[: norms[-1]] if norms else []
    return any(isinstance(layer, DROPOUT) and layer.p > 0 for layer in before)


def warnings_about_training(settings: Settings) -> Iterator[str]:
    """Penalties in the wrong optimizer, classes that are balanced twice, and what early stopping
    cuts off.
    """
    if settings.regularization["l2"] and adapts(settings.optimizer):
        yield (
            "L2 in an adaptive optimizer is not weight decay, its strength is divided by the"
            " gradients' size"
            " (arXiv 1711.05101): write optimizer=adamw optimizer.weight_decay=0.01, or use the"
            " SGD family"
        )
    if len(balanced_by(settings)) > 1:
        yield (
            "data.sampler=balanced draws every class alike and task.class_weight=balanced weighs"
            " them as if it did not, so rare classes count twice: write task.class_weight=none, or"
            " data.sampler=null"
        )
    if settings.trainer.get("max_time") and has_length(settings.scheduler, settings.packages):
        yield (
            "the schedule is drawn over trainer.max_epochs and trainer.max_time may cut it before"
            " the rate is low: write scheduler=constant or scheduler=plateau, or leave the time out"
        )
    stopping = settings.callbacks.get("early_stopping")
    first = stopping.get("patience", 0) + stopping.get("patience_starts_at", 0) if stopping else 0
    if not stopping or first >= settings.trainer.get("max_epochs", 0):
        return
    fix = "write callbacks.early_stopping=null and the trainer.max_epochs you want"
    if has_length(settings.scheduler, settings.packages):
        yield (
            "the schedule is drawn over trainer.max_epochs and early stopping may cut it before"
            " the rate is low: " + fix
        )
    if settings.regularization["swa"]:
        yield (
            "stochastic weight averaging begins late in trainer.max_epochs and early stopping may"
            " end the run before: " + fix
        )


def balanced_by(settings: Settings) -> list[str]:
    """What makes every class count alike in training."""
    ways = {"task.class_weight": settings.task, "data.sampler": settings.data}
    return [key for key, of in ways.items() if of.get(key.partition(".")[2]) == "balanced"]


def adapts(optimizer: Node) -> bool:
    """Whether an optimizer divides the gradients by their running size, or takes their sign."""
    return re.search(r"Adam|RMSprop|Adagrad|Adadelta|Lion", optimizer["_target_"]) is not None
