"""The metrics of runs that train together, computed for all of them at once.

A metric of a small network takes as long as its steps: most of it is Python, once for each run.

Legend: R runs, N rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from goldilocks.tasks.metrics import taken_by, value_of
from goldilocks.tasks.task import Task


def scores_of(
    tasks: Sequence[Task], stage: str, outputs: Tensor, targets: Tensor
) -> list[dict[str, float]]:
    """The metrics of each run by `stage/name`, the loss aside.

    Args:
        tasks: Of the runs, with the same metrics.
        stage: Whose metrics.
        outputs: Raw, [R, N, ...].
        targets: As the loss takes them, [R, N, ...].
    """
    outputs = outputs.float()
    if tasks[0].output_function is not None or tasks[0].quantiles or outputs.ndim > 3:
        pairs = zip(tasks, outputs, strict=True)
        outputs = torch.stack([task.middle(task.combine(own)) for task, own in pairs])
    found: list[dict[str, float]] = [{} for _ in tasks]
    forms: dict[str, tuple[Tensor, Tensor]] = {}
    for name, metric in tasks[0].metrics[stage].items():
        takes = taken_by(metric)
        if takes not in forms:
            forms[takes] = form(tasks, takes, outputs, targets)
        function = getattr(metric, "function", None)
        if function is not None:
            values = function(*forms[takes]).tolist()
        else:
            given = zip(tasks, *forms[takes], strict=True)
            values = [alone(task, stage, name, *own) for task, *own in given]
        for own, value in zip(found, values, strict=True):
            own[f"{stage}/{name}"] = value
    return found


def form(
    tasks: Sequence[Task], takes: str, outputs: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs and targets as a metric takes them, [R, N, ...]; see `Task.form`."""
    if tasks[0].spec.task == "regression":  # each run's target has a scale of its own
        pairs = [task.form(takes, *own) for task, *own in zip(tasks, outputs, targets, strict=True)]
        return torch.stack([values for values, _ in pairs]), torch.stack([y for _, y in pairs])
    rows = targets.shape[:2]
    given, true = tasks[0].form(takes, outputs.flatten(0, 1), targets.flatten(0, 1))
    return given.unflatten(0, rows), true.unflatten(0, rows)


def alone(task: Task, stage: str, name: str, output: Tensor, target: Tensor) -> float:
    """A metric that knows one run only."""
    metric = task.metrics[stage][name]
    metric.reset()
    metric.update(output, target)
    return value_of(metric)
