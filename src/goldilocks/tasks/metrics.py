"""What an option of conf/metrics names:
the metrics of each task, and how any of torchmetrics becomes one.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
import torchmetrics
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

from goldilocks.config.build import build, check_arguments, find_class
from goldilocks.config.metric_directions import AUTO, stated
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused, one_line
from goldilocks.machine import devices
from goldilocks.tasks.pooled_metrics import (
    AUROC,
    F1,
    BalancedAccuracy,
    CalibrationError,
    Pooled,
    accuracy,
)

Maker = Callable[[], Metric]
LIVE = ("task", "num_classes", "num_outputs")  # what a metric's class is given, where it takes it
REGRESSION, CLASSES = ("regression",), ("binary", "multiclass")


# Those of several networks at once, [R], of values and targets, [R, N] or [R, N, C]; see `Pooled`.


def rmse(values: Tensor, target: Tensor) -> Tensor:
    return (values - target).square().flatten(1).mean(1).sqrt()


def mae(values: Tensor, target: Tensor) -> Tensor:
    return (values - target).abs().flatten(1).mean(1)


def r2(values: Tensor, target: Tensor) -> Tensor:
    """The mean over the targets; NaN for a single row."""
    if target.shape[1] < 2:
        return values.new_full((len(values),), math.nan)
    missed = (target - values).square().sum(1)
    spread = target.square().sum(1) - target.sum(1).square() / target.shape[1]
    found = 1 - missed / spread
    return found if found.ndim == 1 else found.mean(1)


class RMSE(MeanSquaredError):  # noqa: N818 - no exception
    """The root of the mean squared error, in the target's units."""

    tasks = REGRESSION
    function = staticmethod(rmse)

    def __init__(self) -> None:
        super().__init__(squared=False)


class MAE(MeanAbsoluteError):  # noqa: N818 - no exception
    """The mean absolute error, in the target's units."""

    tasks = REGRESSION
    function = staticmethod(mae)

    def __init__(self) -> None:
        super().__init__()


class CentredR2(R2Score):
    """R2 of values around the training rows' mean:
    the same number, without cancellation in single precision.
    """

    tasks = REGRESSION
    takes = "centred"
    function = staticmethod(r2)

    def __init__(self) -> None:
        super().__init__()

    def compute(self) -> Tensor:
        """NaN for a single row, where the library raises."""
        return super().compute() if self.total > 1 else torch.tensor(math.nan)


class Accuracy(torchmetrics.Accuracy):
    """The share of rows whose class is right.
    It keeps no rows, so it costs next to nothing in training.
    """

    tasks = CLASSES

    def __new__(cls, task: str, num_classes: int) -> Metric:  # type: ignore[misc]
        """One of the library's, by the task."""
        if task == "binary":
            found: Metric = BinaryAccuracy(validate_args=False)
        else:
            found = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
            found.takes = "raw"
        found.function = accuracy
        return found


# Log-loss is none of them: it is val/loss, which is of the rows as they are,
# neither smoothed nor weighted.
OURS: dict[str, type] = {
    "rmse": RMSE,
    "mae": MAE,
    "r2": CentredR2,
    "accuracy": Accuracy,
    "balanced_accuracy": BalancedAccuracy,
    "auroc": AUROC,
    "f1": F1,
    "ece": CalibrationError,
}
Metric.register(Pooled)  # it has the methods, without what they cost a small network


def own_metrics(task: str) -> dict[str, dict[str, Any]]:
    """The options of a task's own metrics.
    The first is also computed in training, so it keeps no rows.
    """
    return {
        name: {"_target_": f"{kind.__module__}.{kind.__qualname__}"}
        for name, kind in OURS.items()
        if task in kind.tasks  # type: ignore[attr-defined]
    }


def check_metrics(metrics: Mapping[str, Any], packages: Iterable[str]) -> None:
    """Refuses options of metrics that cannot be built, or that mistake which way is better.
    Builds none.
    """
    for name, node in metrics.items():
        if name == AUTO:
            if not isinstance(node, bool | None):
                raise Refused(f"metrics.{AUTO}={node}: true, false or null is expected")
            continue
        if node is None:
            continue
        where = f"metrics.{name}"
        kind: Any = find_class(node, cast("Any", Metric), where, packages)
        check_arguments(kind, keywords(node), where, packages, given=LIVE)
        mode, higher = stated(name, node), getattr(kind, "higher_is_better", None)
        if isinstance(higher, bool) and (mode == "max") != higher:
            better = "max" if higher else "min"
            raise Refused(f"{where}.mode={mode}: {better} is better for {kind.__name__}")


def metric_makers(
    metrics: Mapping[str, Any] | None, spec: Spec, packages: Iterable[str] = ()
) -> dict[str, Maker]:
    """What builds each metric that a configuration names, in its order.

    Raises:
        Refused: for one that is not for the task.
    """
    nodes: dict[str, Any] = {}
    for name, node in (metrics or {}).items():
        if name == AUTO:
            nodes |= own_metrics(spec.task) if node else {}
        elif node is not None:
            nodes[name] = node
            tasks = getattr(find_class(node, cast("Any", Metric), name, packages), "tasks", None)
            if tasks and spec.task not in tasks:
                raise not_for(name, spec.task)
    return {name: maker(name, node, spec, packages) for name, node in nodes.items()}


def not_for(name: str, task: str) -> Refused:
    """The refusal of a metric that is for other tasks."""
    fitting = ", ".join([AUTO, *own_metrics(task)])
    return Refused(f"metrics.{name}: is not for {task}; write some of: {fitting}")


def maker(name: str, node: Mapping[str, Any], spec: Spec, packages: Iterable[str]) -> Maker:
    """What builds a metric of the rows that it is given: one process may look at some by itself."""
    known = {"task": spec.task, "num_classes": spec.num_outputs, "num_outputs": spec.num_outputs}
    plain = {"_target_": node["_target_"], **keywords(node)}

    def of(live: Mapping[str, Any]) -> Any:
        with warnings.catch_warnings():  # that it keeps the rows
            warnings.filterwarnings("ignore", message="Metric .* will save all")
            kind = cast("Any", Metric)
            return build(plain, kind, f"metrics.{name}", packages=packages, offered=live)

    def make() -> Metric:
        try:
            metric = of(known)
        except Refused:
            others = [task for task in (*REGRESSION, *CLASSES) if task != spec.task]
            if any(builds(of, {**known, "task": task, "num_classes": 3}) for task in others):
                raise not_for(name, spec.task) from None
            raise
        if not isinstance(metric, Pooled):
            metric.distributed_available_fn = this_process
            metric.takes = getattr(metric, "takes", "predictions")
        return cast("Metric", metric)

    return make


def builds(make: Callable[[Mapping[str, Any]], Metric], live: Mapping[str, Any]) -> bool:
    """Whether a metric can be built for another task."""
    try:
        make(live)
    except Refused:
        return False
    return True


def keywords(node: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a metric's class: `mode` is ours."""
    return {key: value for key, value in node.items() if key not in ("_target_", "mode")}


def this_process() -> bool:
    return False


def all_processes() -> bool:
    return True


def of_all_rows(metric: Metric) -> float:
    """A metric's value over the rows of all processes that train together."""
    if devices.size() == 1:
        return value_of(metric)
    if isinstance(metric, Pooled):
        with metric.sync_context():
            return value_of(metric)
    metric.distributed_available_fn = all_processes
    try:
        return value_of(metric)
    finally:
        metric.distributed_available_fn = this_process


def taken_by(metric: Metric) -> str:
    """The form of outputs and targets that a metric takes; see `Task.form`."""
    return cast("str", metric.takes)


def value_of(metric: Metric) -> float:
    """One number; of a metric that has one for each target or class, their mean."""
    found: Tensor = metric.compute()
    return found.item() if found.numel() == 1 else found.float().mean().item()


def try_metric(name: str, make: Maker, output: Tensor, target: Tensor, task: str) -> None:
    """Refuses a class that is no metric of a task, before anything is trained.

    Args:
        name: Of the metric.
        make: Builds it.
        output: As the task's metrics take it.
        target: In the same form.
        task: Whose rows they are.
    """
    metric = make()
    try:
        metric.update(output, target)
        found = metric.compute()
    except Refused:
        raise
    except Exception as error:  # whatever a library says of rows that it is not made for
        if takes_others(make(), task):
            raise not_for(name, task) from error
        raise Refused(f"metrics.{name}: cannot take these rows ({one_line(error)})") from error
    if not isinstance(found, Tensor) or found.ndim > 1:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise Refused(f"metrics.{name}: gives {shape}; one number is needed")


def takes_others(metric: Metric, task: str) -> bool:
    """Whether a metric takes values, though not these classes, or classes, though not values."""
    values, places = torch.tensor([0.1, 0.7, 0.8, 0.2]), torch.tensor([0, 1, 1, 0])
    try:
        metric.update(values, values.flip(0) if task != "regression" else places)
    except Exception:  # whatever a library says
        return False
    return True
