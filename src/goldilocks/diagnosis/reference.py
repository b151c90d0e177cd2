"""What the rows of a run have to give:
a plain network trained on them, and a test whether they say anything.

A run's loss alone does not tell noise, which nobody can learn, from a network that does not learn.
Both look at up to 4,096 rows of a stage and take about a second, so the diagnosis asks only where
it has to know.

Legend: N rows, F features, C outputs.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks.data import checks
from goldilocks.data.verdict import Verdict
from goldilocks.diagnosis.evidence import Comparison, row_losses, standard_error, values_of
from goldilocks.models.embedding import CategoryVectors, WithVectors
from goldilocks.models.mlp import MLP
from goldilocks.tasks.task import Task

Rows = Mapping[str, tuple[Tensor, Tensor, Tensor]]  # inputs, targets and a network's values

MOST_FEATURES = 4096  # of a row; larger ones take long
WIDTH, RATE, BATCH = 128, 2e-3, 32
# Steps of the optimizer; between two looks; looks without a better one.
STEPS, EVERY, PATIENCE = 2000, 20, 20
HELD_OUT = 5  # every fifth training row, where there are no validation rows


def compare(task: Task, rows: Rows) -> Comparison | None:
    """Trains a plain network and compares it with a run's own on rows that it has not seen;
    None where they are large.

    Args:
        task: Of the run.
        rows: By stage. Without validation rows a fifth of the training rows take their place.
    """
    rows = {stage: (x.float(), y, values) for stage, (x, y, values) in rows.items()}
    x, y, values = rows["train"]
    if math.prod(x.shape[1:]) > MOST_FEATURES:
        return None
    if "val" in rows:
        known, judged = (x, y), rows["val"]
    else:
        held = torch.arange(len(x), device=x.device) % HELD_OUT == 0
        known, judged = (x[~held], y[~held]), (x[held], y[held], values[held])
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        network = plain_network(task, x).to(x.device)
    losses = best_losses(task, network, known, judged[:2])
    leads = row_losses(task, judged[2], judged[1]) - losses
    return Comparison(float(losses.mean()), float(leads.mean()), standard_error(leads))


def plain_network(task: Task, x: Tensor) -> nn.Module:
    """Two hidden layers for inputs like `x`, [N, ...]."""
    spec, shape = task.spec, tuple(x.shape[1:])
    vectors = CategoryVectors(spec.category_counts) if spec.category_counts else None
    if vectors is not None:
        shape = (vectors.width(*shape),)
    network = MLP(shape, task.outputs, depth=2, width=WIDTH, output_scale=0.01)
    return WithVectors(vectors, network) if vectors is not None else network


def best_losses(
    task: Task, network: nn.Module, known: tuple[Tensor, Tensor], judged: tuple[Tensor, Tensor]
) -> Tensor:
    """Trains on some rows until other ones get no better;
    returns the loss of each of these, [N], at the best.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(0)
    best, since = row_losses(task, values_of(task, network, judged[0]), judged[1]), 0
    for step in range(1, STEPS + 1):
        places = torch.randint(len(known[0]), (BATCH,), generator=generator).to(known[0].device)
        optimizer.zero_grad()
        task.loss(network(known[0][places]), known[1][places], smooth=True).backward()
        optimizer.step()
        if step % EVERY:
            continue
        losses = row_losses(task, values_of(task, network, judged[0]), judged[1])
        best, since = (losses, 0) if losses.mean() < best.mean() else (best, since + 1)
        if since == PATIENCE:
            break
    return best


def signal(task: Task, rows: Rows) -> Verdict | None:
    """Whether the features of the training and validation rows tell anything about the target;
    None for large rows.
    """
    if math.prod(rows["train"][0].shape[1:]) > MOST_FEATURES:
        return None
    inputs, targets = (
        np.concatenate([part[place].float().cpu().numpy() for part in rows.values()])
        for place in (0, 1)
    )
    return checks.check_signal(inputs, targets, task.spec.task)
