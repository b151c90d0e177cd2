"""Schedules that torch does not have: the rate is the optimizer's times a curve over the whole run.

Every curve is a pure function of the step, so a resumed run needs the number of the step only.
Lengths are fractions of the run, which the caller adds as `total_steps`; steps are epochs where the
option's `interval` says so.
"""

import bisect
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch.optim import Optimizer
from torch.optim import lr_scheduler as library
from torch.optim.lr_scheduler import LRScheduler

from goldilocks.config.formula import FUNCTIONS, FormulaError, compile_formula, names_in
from goldilocks.errors import Refused

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
VARIABLES = ("t", "step", "steps", "epoch", "epochs")
ALLOWED = (
    f"write numbers, + - * / // % **, comparisons, `a if b else c`, {' '.join(FUNCTIONS)}, pi,"
    " t (the run from 0 to 1), step, steps, epoch, epochs"
)
CHECKED = 10_000  # points of a run at which a formula is tried


class MultiStepLR(library.MultiStepLR):
    """torch's, with ranges on its arguments.

    Args:
        optimizer: Whose rates it sets.
        milestones: When the rate is multiplied by gamma, counted in intervals.
        gamma: The factor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: list[Count],
        gamma: Annotated[float, Field(gt=0)] = 0.1,
        last_epoch: int = -1,
    ) -> None:
        super().__init__(optimizer, milestones, gamma, last_epoch)


class Curve(LRScheduler):
    """The optimizer's rate times `multiplier(step)`.

    Args:
        optimizer: Whose rates it sets.
        total_steps: Of the run. Behind them the last value stays.
    """

    def __init__(self, optimizer: Optimizer, total_steps: Count, last_epoch: int = -1) -> None:
        self.total_steps = total_steps
        super().__init__(optimizer, last_epoch)

    def multiplier(self, step: int) -> float:
        """The factor of the rate at a step from 0 to `total_steps`,
        the first that is no longer made.
        """
        raise NotImplementedError

    def get_lr(self) -> list[Any]:
        factor = self.multiplier(min(self.last_epoch, self.total_steps))
        return [base * factor for base in self.base_lrs]


def half_cosine(x: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * x)) / 2


def warmup(step: int, length: int) -> float:
    """Along a line that would be 0 before the first step and is 1 at step `length`."""
    return (step + 1) / (length + 1) if step < length else 1.0


class WarmupCosine(Curve):
    """Up along a line, then down along half a cosine (Goyal et al.
    2017; Loshchilov and Hutter 2017).

    Args:
        optimizer: Whose rates it sets.
        total_steps: Of the run.
        warmup_fraction: Of the run.
        min_factor: Of the rate, at the end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Count,
        *,
        warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05,
        min_factor: Fraction = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.warmup_steps, self.min_factor = round(warmup_fraction * total_steps), min_factor
        super().__init__(optimizer, total_steps, last_epoch)

    def multiplier(self, step: int) -> float:
        if step < self.warmup_steps:
            return warmup(step, self.warmup_steps)
        progress = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        return self.min_factor + (1 - self.min_factor) * half_cosine(progress)


class WarmupStableDecay(Curve):
    """Up along a line, constant, then down (Hu et al. 2024; Haegele et al. 2024, arXiv 2405.18392).

    Args:
        optimizer: Whose rates it sets.
        total_steps: Of the run.
        warmup_fraction: Of the run.
        decay_fraction: Of the run, its last part.
        decay: The way down, x from 0 to 1: `sqrt`, 1 - sqrt(x), `linear`, 1 - x, or `cosine`.
        min_factor: Of the rate, at the end.

    Raises:
        Refused: if warmup and decay are longer than the run.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Count,
        *,
        warmup_fraction: Fraction = 0.05,
        decay_fraction: Fraction = 0.2,
        decay: Literal["sqrt", "linear", "cosine"] = "sqrt",
        min_factor: Fraction = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if warmup_fraction + decay_fraction > 1:
            raise Refused(
                f"scheduler.decay_fraction={decay_fraction}: is more than"
                f" warmup_fraction={warmup_fraction} leaves;"
                f" write at most {math.floor(1e4 * (1 - warmup_fraction) + 1e-6) / 1e4:g}"
            )
        self.warmup_steps, self.decay_steps = (
            round(warmup_fraction * total_steps),
            round(decay_fraction * total_steps),
        )
        self.decay, self.min_factor = decay, min_factor
        super().__init__(optimizer, total_steps, last_epoch)

    def multiplier(self, step: int) -> float:
        if step < self.warmup_steps:
            return warmup(step, self.warmup_steps)
        x = max(step - (self.total_steps - self.decay_steps), 0) / max(self.decay_steps, 1)
        height = {"sqrt": 1 - math.sqrt(x), "linear": 1 - x, "cosine": half_cosine(x)}[self.decay]
        return self.min_factor + (1 - self.min_factor) * height


class CosineRestarts(Curve):
    """Half a cosine down, then from the top again (Loshchilov and Hutter 2017).
    The run ends where a cycle ends.

    Args:
        optimizer: Whose rates it sets.
        total_steps: Of the run.
        cycles: How many.
        cycle_growth: How much longer each cycle is than the one before it.
        min_factor: Of the rate, at the end of a cycle.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Count,
        *,
        cycles: Annotated[int, Field(ge=1, le=1000)] = 3,
        cycle_growth: Annotated[float, Field(ge=1, le=100)] = 2.0,
        min_factor: Fraction = 0.0,
        last_epoch: int = -1,
    ) -> None:
        lengths = [cycle_growth**cycle for cycle in range(cycles)]
        self.starts = [
            total_steps * sum(lengths[:cycle]) / sum(lengths) for cycle in range(cycles)
        ] + [total_steps]
        self.min_factor = min_factor
        super().__init__(optimizer, total_steps, last_epoch)

    def multiplier(self, step: int) -> float:
        cycle = min(bisect.bisect_right(self.starts, step), len(self.starts) - 1) - 1
        start, end = self.starts[cycle], self.starts[cycle + 1]
        return self.min_factor + (1 - self.min_factor) * half_cosine((step - start) / (end - start))


class FormulaLR(Curve):
    """A curve of the user's own.

    Args:
        optimizer: Whose rates it sets.
        total_steps: Of the run.
        steps_per_epoch: Optimizer steps in an epoch.
        formula: Of the rate's factor; see ALLOWED.

    Raises:
        Refused: if it is no formula, or not a finite number of at least 0 throughout the run.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Count,
        steps_per_epoch: Count,
        *,
        formula: str | float,
        last_epoch: int = -1,
    ) -> None:
        self.formula, self.steps_per_epoch, self.total_steps = (
            str(formula),
            steps_per_epoch,
            total_steps,
        )
        try:
            self.evaluate = compile_formula(self.formula, VARIABLES)
            points = {round(i * total_steps / CHECKED) for i in range(CHECKED + 1)}
            if max(map(self.multiplier, sorted(points))) == 0:
                raise FormulaError("is 0 throughout the run")
        except FormulaError as error:
            raise Refused(f"scheduler.formula={self.formula}: {error}; {ALLOWED}") from error
        super().__init__(optimizer, total_steps, last_epoch)

    def multiplier(self, step: int) -> float:
        """The formula's value.

        Raises:
            FormulaError: if that is not finite or below 0.
        """
        size, total = self.steps_per_epoch, self.total_steps
        where = {
            "step": float(step),
            "steps": float(total),
            "epoch": float(step // size),
            "t": step / total,
        }
        value = self.evaluate(**where, epochs=float(math.ceil(total / size)))
        if not (math.isfinite(value) and value >= 0):
            raise FormulaError(
                f"is {value:g} at step {step} of {total}; it must be finite and not below 0"
            )
        return value

    def state_dict(self) -> dict[str, Any]:
        """Without the compiled formula: a checkpoint holds plain values."""
        return {key: value for key, value in super().state_dict().items() if key != "evaluate"}

    @staticmethod
    def spans_run(node: Mapping[str, Any]) -> bool:
        """Whether a formula depends on the length of the run."""
        return bool(names_in(str(node.get("formula"))) & {"t", "steps", "epochs"})
