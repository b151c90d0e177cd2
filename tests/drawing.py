"""Tasks without data, with raw outputs and targets drawn at random."""

from typing import Any

import torch
from omegaconf import OmegaConf

from goldilocks.config.places import CONF
from goldilocks.data.spec import Spec
from goldilocks.tasks.losses import build_loss
from goldilocks.tasks.metrics import metric_makers
from goldilocks.tasks.task import Task

ROWS = {"train": 6, "val": 2, "test": 2}


def option(group, name, **changes) -> dict[str, Any]:
    """What the file of an option says, without the ranges for sweeps."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(node, dict)
    node.pop("search", None)
    return {**node, **changes}


def make(
    task,
    outputs=1,
    shift=(0.0,),
    scale=(1.0,),
    facts=None,
    loss="auto",
    metrics=("auto",),
    **options,
):
    """A task; `loss` is the name of an option, or its node, and `metrics` are names."""
    facts = facts or {}
    if task == "regression":
        facts = {"target_shift": shift, "target_scale": scale, "target_range": (0.0, 1.0), **facts}
    spec = Spec(task, (4,), outputs, **{"num_rows": ROWS, **facts})
    loss = build_loss(option("loss", loss) if isinstance(loss, str) else loss, spec)
    nodes = {key: node for name in metrics for key, node in option("metrics", name).items()}
    return Task(spec, loss, metric_makers(nodes, spec), **options)


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
