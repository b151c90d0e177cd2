"""What a range test's losses say about the learning rate: the options, the rules, the picture.

Smith, Cyclical learning rates for training neural networks (arXiv 1506.01186), with three changes
that made its answer reliable: the loss is that of a fixed probe in evaluation mode instead of a
batch's, the sweep is repeated with other batches, and the rate is that at which the loss has come
down. docs/lr_range.md compares the rules.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import Field

from goldilocks.errors import Refused

AUTO = "auto"  # optimizer.lr, to be found
ANY_RATE = 1e-3  # for an optimizer whose rate is not found yet
FALLEN, FALL_BACK_OFF = (
    0.9,
    1.5,
)  # share of the whole fall, and how far below its rate to stay: docs/lr_range.md
LOWEST_BACK_OFF = 5.0  # from the rate with the lowest loss
SMOOTH = 0.5  # weight of the steps before: without it a noisy loss is lowest anywhere in its basin
WINDOW = 5  # steps on either side, over which the steepest fall is measured
Rule = Literal["fall", "minimum", "steepest", "valley", "half_divergence"]


class RangeOptions:
    """How the range test is made: the signature is the schema of `lr_range` in conf/train.yaml.

    Args:
        min_lr: The first rate.
        max_lr: The last.
        steps: Optimizer steps of a sweep, each at a rate larger by the same factor.
        repeats: Sweeps, with other batches; each point is their median.
        rule: Which point is used. `fall`: two thirds of the first rate at which nine tenths of the
            fall are done; `minimum`: a fifth of the rate with the lowest loss; `steepest`: where
            the loss falls fastest; `valley`: in the middle of the longest fall; `half_divergence`:
            half the rate from which on the loss is above that of the untrained network.
    """

    def __init__(
        self,
        min_lr: Annotated[float, Field(gt=0)] = 1e-6,
        max_lr: Annotated[float, Field(gt=0)] = 10.0,
        steps: Annotated[int, Field(ge=10, le=10_000)] = 200,
        repeats: Annotated[int, Field(ge=1, le=100)] = 3,
        rule: Rule = "fall",
    ) -> None:
        if min_lr >= max_lr:
            raise Refused(
                f"lr_range.min_lr={min_lr}: must be below lr_range.max_lr, which is {max_lr}"
            )
        self.min_lr, self.max_lr, self.steps, self.repeats, self.rule = (
            min_lr,
            max_lr,
            steps,
            repeats,
            rule,
        )

    def rates(self) -> list[float]:
        """From the first to the last by a constant factor."""
        factor = (self.max_lr / self.min_lr) ** (1 / (self.steps - 1))
        return [self.min_lr * factor**step for step in range(self.steps)]


@dataclass(frozen=True)
class RangeTest:
    """What a range test has found.

    Attributes:
        rates: Of the steps.
        curves: The probe's loss before the first step, then after each;
            shorter where a sweep was stopped.
        rule: The rule that is used.
        points: Rates by name: `lowest_loss`, `divergence` and the rules' `fall`, `minimum`,
            `steepest`, `valley`, `half_divergence`; None where a curve has no such point.
    """

    rates: list[float]
    curves: list[list[float]]
    rule: Rule
    points: dict[str, float | None]

    @property
    def rate(self) -> float | None:
        """The rate to train with."""
        return self.points[self.rule]

    def as_plain(self) -> dict[str, Any]:
        """For result.json."""
        return {"rule": self.rule, "rate": self.rate, **self.points}


def suggested_rate(found: Mapping[str, Any]) -> float:
    """The rate that a range test, as it is in result.json, suggests.

    Raises:
        Refused: if its rule found none.
    """
    if found["rate"] is None:
        reason = (
            "no rate lowered the loss"
            if found["lowest_loss"] is None
            else f"there is no {found['rule']}"
        )
        raise Refused(
            f"optimizer.lr=auto: in the range test {reason}; write a rate, or another lr_range.rule"
        )
    return found["rate"]


# --- from curves to rates -------------------------------------------------------------------------


def read_curves(
    rates: Sequence[float], curves: Sequence[Sequence[float]]
) -> dict[str, float | None]:
    """The points of several sweeps: of each, the median over those sweeps that have it."""
    found = [read_curve(rates, curve) for curve in curves]
    points = {}
    for name in found[0]:
        known = [rate for one in found if (rate := one[name]) is not None]
        # A point that most sweeps do not have is no property of the network.
        points[name] = median(known) if len(known) > len(curves) / 2 else None
    return points


def read_curve(rates: Sequence[float], curve: Sequence[float]) -> dict[str, float | None]:
    """The points of one sweep.

    >>> read_curve([0.1, 1.0, 10.0], [3.0, 2.0, 1.0, 9.0])["divergence"]
    10.0

    Args:
        rates: Of the steps.
        curve: The loss before the first step, then after each; not finite where training blew up.
    """
    start, after = (
        curve[0],
        smoothed([loss if math.isfinite(loss) else math.inf for loss in curve[1:]]),
    )
    lowest = min(range(len(after)), key=after.__getitem__)
    divergence = next((rates[i] for i in range(lowest + 1, len(after)) if after[i] > start), None)
    learnt = after[lowest] < start
    level = start - FALLEN * (start - after[lowest])
    fallen = next((i for i, loss in enumerate(after) if loss <= level), lowest)
    falling = [start, *after[: lowest + 1]]
    steepest = max(
        range(lowest + 1),
        key=lambda i: falling[max(i - WINDOW, 0)] - falling[min(i + WINDOW, lowest) + 1],
    )
    return {
        "lowest_loss": rates[lowest] if learnt else None,
        "divergence": divergence,
        "fall": rates[fallen] / FALL_BACK_OFF if learnt else None,
        "minimum": rates[lowest] / LOWEST_BACK_OFF if learnt else None,
        "steepest": rates[steepest] if learnt else None,
        "valley": rates[valley(after)] if learnt else None,
        "half_divergence": divergence / 2 if divergence is not None else None,
    }


def smoothed(losses: Sequence[float]) -> list[float]:
    """The running mean with exponential weights, without its bias towards zero."""
    means, total, weight = [], 0.0, 0.0
    for loss in losses:
        total, weight = SMOOTH * total + loss, SMOOTH * weight + 1
        means.append(total / weight)
    return means


def valley(losses: Sequence[float]) -> int:
    """The step in the middle of the longest fall, as in fastai's `valley`.

    The longest fall is the longest run of steps, gaps allowed, whose losses decrease from one to
    the next and whose last step ends it.
    """
    longest, before = [1] * len(losses), list(range(len(losses)))
    for i, loss in enumerate(losses):
        for j in range(i):
            if losses[j] > loss and longest[j] + 1 > longest[i]:
                longest[i], before[i] = longest[j] + 1, j
    end = start = max(range(len(losses)), key=longest.__getitem__)
    while before[start] != start:
        start = before[start]
    return start + (end - start) // 2


# --- a picture ------------------------------------------------------------------------------------


def draw_range_test(test: RangeTest) -> Any:
    """The sweeps' losses against the rate, and the points; a matplotlib Figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for number, curve in enumerate(test.curves):
        legend = "loss of the probe, a line a sweep" if number == 0 else None
        axis.plot(
            test.rates[: len(curve) - 1],
            curve[1:],
            color="tab:blue",
            alpha=0.6,
            linewidth=1.2,
            label=legend,
        )
    start = median(curve[0] for curve in test.curves)
    axis.axhline(start, color="grey", linewidth=0.8, linestyle=":", label="before the first step")
    names = {
        "lowest_loss": "lowest loss",
        "fall": f"nine tenths of the fall / {FALL_BACK_OFF:g}",
        "minimum": f"lowest loss / {LOWEST_BACK_OFF:g}",
        "half_divergence": "half the divergence",
    }
    colours = (
        "tab:cyan",
        "tab:grey",
        "tab:red",
        "tab:green",
        "tab:olive",
        "tab:purple",
        "tab:orange",
    )
    for (name, rate), colour in zip(test.points.items(), colours, strict=True):
        if rate is None:
            continue
        used = name == test.rule
        label = f"{names.get(name, name)} {rate:.2g}" + (" (used)" if used else "")
        axis.axvline(
            rate,
            color=colour,
            linewidth=2.5 if used else 1,
            linestyle="-" if used else "--",
            label=label,
        )
    lowest = min(loss for curve in test.curves for loss in curve if math.isfinite(loss))
    axis.set(
        xscale="log",
        xlabel="learning rate",
        ylabel="loss",
        ylim=(lowest - 0.1 * start, 2.5 * start),
    )
    axis.legend(fontsize=8, loc="upper left")
    axis.grid(alpha=0.3)
    return figure
