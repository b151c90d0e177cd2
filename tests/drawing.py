"""Tasks without data, with raw outputs and targets drawn at random."""

import torch

from goldilocks.data.spec import Spec
from goldilocks.tasks.task import Task

ROWS = {"train": 6, "val": 2, "test": 2}


def make(task, outputs=1, shift=(0.0,), scale=(1.0,), facts=None, **options):
    facts = facts or {}
    if task == "regression":
        facts = {"target_shift": shift, "target_scale": scale, "target_range": (0.0, 1.0), **facts}
    return Task(Spec(task, (4,), outputs, num_rows=ROWS, **facts), **options)


def draw(task, rows=64, outputs=None, seed=0):
    """Raw outputs and targets of a task."""
    torch.manual_seed(seed)
    outputs = outputs or {"regression": 1, "binary": 1, "multiclass": 5}[task]
    output = torch.randn(rows, outputs)
    if task == "multiclass":
        return output, torch.randint(outputs, (rows,))
    return output, torch.randint(
        2, (rows, 1)
    ).float() if task == "binary" else output + torch.randn(rows, outputs)


def score(task, output, target, stage="val"):
    """The metrics of a stage that came in two unequal pieces."""
    task.reset_metrics(stage)
    task.update_metrics(stage, output[:50], target[:50])
    task.update_metrics(stage, output[50:], target[50:])
    return task.compute_metrics(stage)
