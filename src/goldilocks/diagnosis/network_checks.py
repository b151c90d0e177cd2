"""Checks of whether a network can learn:
its first loss, overfitting one batch, gradients, and the run's own first steps.

Everything here moves copies; the network that is given stays as it is.

Legend: B rows of a batch, N rows.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from goldilocks.data.verdict import Status, Verdict, grade
from goldilocks.optimizers.optimizer import factors_of
from goldilocks.tasks.task import Task
from goldilocks.training.layer_health import Health, measure_health, relative_gradients

Loss = Callable[[Tensor, Tensor], Tensor]

FIRST_LOSS = (
    1.5,
    10.0,
)  # by chance level; every option of conf/model, as it is, starts within 3 %
OVERFITTED = (
    0.05,
    0.7,
)  # share of chance level that the loss on one batch reaches: overfitted, hardly learnt
ADAM_RATE, ADAM_STEPS = 3e-3, 400
VANISHED = (
    1e-3,
    1e-6,
)  # the smallest gradient of a hidden layer by the largest, each by its weights
EXPLODED = 1e3  # a hidden layer's gradient by its weights
FLAT = (0.5, 0.95)  # share of a layer's units that are dead, or of its outputs that are saturated
FELL, ROSE, PEAK = (
    0.999,
    (1.05, 2.0),
    (5.0, 30.0),
)  # the loss after some steps, and the highest on the way, by the first
FEW_STEPS = 50  # below which a time that is up decides nothing
RATE_OFF, RATE_FAR = 10.0, 100.0  # a rate by the one that a range test suggests


# --- the first loss -------------------------------------------------------------------------------


def constant_loss(task: Task, y: Tensor) -> tuple[float, str]:
    """The loss of a network that knows nothing, and what it guesses.

    Args:
        task: Whose loss it is.
        y: Targets as the loss takes them, [N] or [N, C].
    """
    if task.spec.task == "regression":
        centre = task.criterion.constant(y).expand(len(y), -1)
        return float(task.criterion.mean(centre, y)), f"the target's {task.criterion.centre}"
    alike = torch.zeros(len(y), task.spec.num_outputs, device=y.device)
    what = "both classes alike" if task.spec.task == "binary" else "all classes alike"
    return float(task.criterion.mean(alike, y)), what


def judge_first_loss(first: float, expected: float, what: str, fix: str) -> Verdict:
    """Whether a network starts near chance level, the loss of a constant guess.

    Args:
        first: The untrained network's loss.
        expected: Chance level.
        what: What is guessed.
        fix: What would lower it.
    """
    measured = f"{first:.4g}, where guessing {what} has {expected:.4g}"
    if not math.isfinite(first):
        return Verdict("first loss", "failed", measured, f"NaN before any step: {fix}")
    status = grade(first / max(expected, 1e-12), *FIRST_LOSS)
    if status != "ok":
        return Verdict("first loss", status, measured, f"the untrained outputs are far off: {fix}")
    if first < expected / 2:
        return Verdict(
            "first loss",
            "warning",
            measured,
            "it knows something already: were its weights trained before?",
        )
    return Verdict("first loss", "ok", measured)


# --- one batch ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """The result of training on one batch only.

    Attributes:
        guess: Chance level on it.
        last: That of the network in the end.
        steps: Of the optimizer.
        rows: Of the batch.
    """

    guess: float
    last: float
    steps: int
    rows: int


def distinct_batch(x: Tensor, y: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Rows that differ in their features, so that all can be learnt;
    of classes in turn, so that none fills the batch.

    Args:
        x: [N, ...].
        y: [N] or [N, C].
        rows: At most.
    """
    seen: dict[bytes, int] = {}
    for row, values in enumerate(x[: 100 * rows].cpu().flatten(1).numpy()):
        seen.setdefault(values.tobytes(), row)
    turns: dict[float, int] = {}
    places = []
    for row in seen.values():
        key = (
            float(y[row].flatten()[0])
            if not y[row].is_floating_point() or y[row].numel() == 1
            else 0.0
        )
        turns[key] = turns.get(key, 0) + 1
        places.append((turns[key], row))
    chosen = torch.tensor([row for _, row in sorted(places)[:rows]], device=x.device)
    return x[chosen], y[chosen]


def overfit_batch(
    network: nn.Module, loss: Loss, guess: float, x: Tensor, y: Tensor, limit_s: float
) -> Memory:
    """Trains a copy on one batch by Adam, whatever the run's optimizer is, without dropout,
    until its loss is low.

    Args:
        network: Which is copied.
        loss: From raw outputs and targets.
        guess: Chance level on the batch.
        x: [B, ...].
        y: [B] or [B, C].
        limit_s: Seconds.
    """
    network = copy.deepcopy(network).train()
    for module in network.modules():
        if "Drop" in type(module).__name__:
            module.eval()
    factors = factors_of(network)
    groups = [
        {"params": [p], "lr": ADAM_RATE * max(factors.get(p, 1.0), 1.0)}
        for p in network.parameters()
        if p.requires_grad
    ]
    optimizer = torch.optim.Adam(groups)
    began, value, steps = time.perf_counter(), math.inf, 0
    while steps < ADAM_STEPS and time.perf_counter() - began < limit_s:
        optimizer.zero_grad()
        reached = loss(network(x), y)
        value = float(reached.detach())
        if not value >= OVERFITTED[0] * guess:  # low enough, or NaN
            break
        reached.backward()
        optimizer.step()
        steps += 1
    return Memory(guess, value, steps, len(x))


def judge_memory(memory: Memory, fix: str) -> Verdict:
    """Whether a network can overfit a few rows: one that cannot will not learn many."""
    name = "overfits one batch"
    share = memory.last / max(memory.guess, 1e-12)
    measured = (
        f"{memory.steps} steps of Adam bring the loss of {memory.rows} rows to {share:.1%} of"
        " chance level"
    )
    status = grade(share, *OVERFITTED)
    if status == "ok":
        return Verdict(name, "ok", measured)
    if memory.steps < FEW_STEPS and math.isfinite(share):  # NaN: after any number of steps
        return Verdict(
            name,
            "warning",
            measured + ", then time was up",
            "a slow network: look at train/loss yourself",
        )
    return Verdict(name, status, measured, fix)


# --- gradients ------------------------------------------------------------------------------------


def probe_gradients(network: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> Health:
    """The health of a copy in evaluation mode.
    A zero output layer lets no gradient through before its first step.
    """
    network = copy.deepcopy(network).eval()
    health = measure_health(network, loss, x, y)
    if any(layer.gradient_norm == 0 for layer in health.layers):
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad])
        for _ in range(3):
            optimizer.zero_grad()
            loss(network(x), y).backward()
            optimizer.step()
        health = measure_health(network, loss, x, y)
    return health


def judge_gradients(health: Health) -> Verdict:
    """Whether a gradient of about the same size reaches all layers;
    the output layer's own is not compared.
    """
    name, count = "gradients by layer", len(health.layers)
    places = {
        layer.name: f"layer {number} of {count}" for number, layer in enumerate(health.layers, 1)
    }
    cut = [places[layer.name] for layer in health.layers if layer.gradient_norm is None]
    if cut:
        advice = (
            "the network's forward() does not use it, or detaches it: freeze it or fix the code"
        )
        return Verdict(
            name,
            "failed",
            f"none reaches {cut[0]}" + (f" and {len(cut) - 1} more" * (len(cut) > 1)),
            advice,
        )
    sizes = relative_gradients(health)
    if not math.isfinite(health.loss) or not all(map(math.isfinite, sizes.values())):
        return Verdict(name, "failed", "NaN", "write model.init=auto, or model.norm=layer")
    if len(sizes) < 2:
        return Verdict(
            name, "ok", f"one reaches {'both layers' if count == 2 else 'the one layer'}"
        )
    least, most = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    share = sizes[least] / sizes[most] if sizes[most] else 0.0
    measured = f"the smallest, in {places[least]}, is {share:.1g} of the largest, in {places[most]}"
    if sizes[most] > EXPLODED:
        measured = f"{sizes[most]:.1g} times the weights of {places[most]}"
        advice = "exploding: write model.init=auto, model.norm=layer or trainer.gradient_clip_val=1"
        return Verdict(name, "failed", measured, advice)
    status = grade(1 / max(share, 1e-30), 1 / VANISHED[0], 1 / VANISHED[1])
    if status == "ok":
        return Verdict(name, "ok", measured)
    early = list(sizes).index(least) < list(sizes).index(most)
    way = "vanishing on the way to the input" if early else "exploding on the way to the input"
    return Verdict(
        name,
        status,
        measured,
        f"{way}: write model.activation=relu, model.norm=batch or a smaller model.depth",
    )


# --- the run's own first steps --------------------------------------------------------------------


def judge_layers(health: Health, steps: int) -> Verdict:
    """Whether layers have units that no longer learn, after some steps."""
    name = "dead or saturated units"
    found = [(part.dead, "dead", part.kind) for part in health.activations if part.dead is not None]
    found += [
        (part.saturated, "saturated", part.kind)
        for part in health.activations
        if part.saturated is not None
    ]
    if not found:
        return Verdict(name, "ok", "no activation of the network has a flat side")
    share, what, kind = max(found)
    measured = f"{share:.0%} {what} in the worst layer ({kind}) after {steps} steps"
    status = grade(share, *FLAT)
    fix = "model.activation=leaky_relu" if what == "dead" else "model.activation=relu"
    advice = f"they pass no gradient on: write a smaller optimizer.lr, or {fix}"
    return Verdict(name, status, measured, advice if status != "ok" else "")


def judge_progress(losses: Sequence[float], rate: float | None) -> Verdict:
    """Whether the loss falls over the run's own first steps.

    Args:
        losses: Of some training rows, without dropout, before the first step and after each.
        rate: The learning rate; None where the optimizer has none.
    """
    name, first, last, peak = "the run's own steps", losses[0], losses[-1], max(losses)
    measured = f"loss from {first:.4g} to {last:.4g} in {len(losses) - 1} steps"
    measured += f" at a rate of {rate:.3g}" if rate else ""
    rose, high = last / max(first, 1e-12), peak / max(first, 1e-12)
    status = max(grade(rose, *ROSE), grade(high, *PEAK), key=("ok", "warning", "failed").index)
    if status == "ok":
        if rose <= FELL:
            return Verdict(name, "ok", measured)
        larger = f", such as {10 * rate:.1g}" if rate else ""
        return Verdict(
            name, "warning", measured, f"it hardly falls: write a larger optimizer.lr{larger}"
        )
    measured += f", up to {peak:.3g} on the way" if high > max(rose, 1) else ""
    smaller = f", such as {rate / (10 if status == 'warning' else 100):.1g}" if rate else ""
    return Verdict(
        name, status, measured, f"the steps are too large: write a smaller optimizer.lr{smaller}"
    )


def judge_found_rate(rate: float | None) -> Verdict:
    """The result of `optimizer.lr=auto`."""
    if rate is not None:
        return Verdict("learning rate", "ok", f"{rate:.2g}, from the range test")
    advice = "can the network learn at all? See above, or write a number for optimizer.lr"
    return Verdict("learning rate", "warning", "in the range test no rate lowered the loss", advice)


def rate_verdict(configured: float, suggested: float) -> Verdict:
    """Whether a rate is near the one that a range test suggests;
    a rate that is too small only takes longer.
    """
    measured = f"{configured:.2g}, and a range test suggests {suggested:.2g}"
    times = configured / suggested
    status: Status = (
        "failed" if times > RATE_FAR else "ok" if 1 / RATE_OFF <= times <= RATE_OFF else "warning"
    )
    advice = (
        f"{'far too large: write' if times > 1 else 'slower than need be: try'}"
        f" optimizer.lr={suggested:.2g}"
    )
    return Verdict("learning rate", status, measured, advice if status != "ok" else "")
