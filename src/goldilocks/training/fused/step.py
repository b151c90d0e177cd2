"""The optimizer's step of several runs: that of step.py, with an axis of runs.

penalties -> transforms of gradients -> clipping -> optimizer -> limits of norms -> mean of weights
          -> schedules
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from goldilocks.training.clipping import EVERY
from goldilocks.training.fused.network import StackedNetwork
from goldilocks.training.fused.optimizer import StackedOptimizer
from goldilocks.training.step import OptimizerStep

SMALL = 1e-6  # that torch adds to a norm before it divides by it, and below when it limits weights
SMALL_OF_LIMIT = 1e-7


class StackedStep:
    """Takes the steps of several runs at once. Each run's strengths are those of its own step.

    Args:
        stack: The runs' weights and gradients.
        steps: The runs' own, in the order of the rows.
    """

    def __init__(self, stack: StackedNetwork, steps: Sequence[OptimizerStep]) -> None:
        self.stack = stack
        self.steps = steps
        self.optimizer = StackedOptimizer(
            stack.values, stack.gradient, stack.widths, [step.optimizer for step in steps]
        )
        like = stack.values
        strengths = [step.regularization for step in steps]
        is_weight = [len(shape) >= 2 for shape in stack.shapes]
        self.weights = [number for number, weight in enumerate(is_weight) if weight]
        of_weights = [
            like.new_full((shape.numel(),), float(weight))
            for shape, weight in zip(stack.shapes, is_weight, strict=True)
        ]
        mask = torch.cat(of_weights)
        self.l1 = column(like, [one.l1 for one in strengths], mask)
        self.l2 = column(like, [one.l2 for one in strengths], mask)
        self.max_norm = [one.max_norm for one in strengths]
        self.clip_values = [step.gradients.value for step in steps]
        self.by_norm = [step.gradients.algorithm == "norm" for step in steps]
        self.limits = like.new_tensor([value or torch.inf for value in self.clip_values])
        self.clips_norms = any(
            value is not None and norm
            for value, norm in zip(self.clip_values, self.by_norm, strict=True)
        )
        self.clips_values = any(
            value is not None and not norm
            for value, norm in zip(self.clip_values, self.by_norm, strict=True)
        )
        self.transformed = [row for row, step in enumerate(steps) if step.transforms]
        self.begin(range(len(steps)))

    def begin(self, present: Sequence[int]) -> None:
        """Before the batches of an item.

        Args:
            present: The rows whose runs have not left.
        """
        self.present = present
        self.optimizer.read(present)
        self.norms: list[Tensor] = []  # [R], of measured steps
        self.clipped: list[Tensor] = []
        self.measured: list[bool] = []

    def take(self) -> None:
        """The whole step."""
        gradient = self.stack.gradient
        if self.l2 is not None:
            gradient.addcmul_(self.stack.values, self.l2)
        if self.l1 is not None:
            gradient.addcmul_(self.stack.values.sign(), self.l1)
        for row in self.transformed:
            if row in self.present:
                self.transform(row)
        self.clip(gradient)
        self.optimizer.step()
        if any(self.max_norm):
            self.limit_norms()
        self.after()

    def transform(self, row: int) -> None:
        """Applies a run's own transforms to its part of the gradients."""
        step = self.steps[row]
        for parameter, slot in zip(step.moved, self.stack.slots, strict=True):
            parameter.grad = slot[row]
        for transform in step.transforms:
            transform(step.trained, step.taken)
        for parameter in step.moved:
            parameter.grad = None

    def clip(self, gradient: Tensor) -> None:
        """By each run's norm, or value; keeps the norms as `Gradients` does."""
        due = self.steps[self.present[0]].gradients.step % EVERY == 0
        for row in self.present:
            self.steps[row].gradients.step += 1
        if not (due or self.clips_norms):
            if self.clips_values:
                self.clip_values_of(gradient)
            return
        norms = torch.linalg.vector_norm(gradient, dim=1)
        self.norms.append(norms)
        self.measured.append(due)
        if self.clips_norms:
            by_norm = norms.new_tensor(self.by_norm)
            factor = torch.where(by_norm > 0, self.limits / (norms + SMALL), torch.inf)
            gradient.mul_(factor.clamp(max=1.0)[:, None])
        if self.clips_values:
            self.clip_values_of(gradient)
            if due:
                self.clipped.append(torch.linalg.vector_norm(gradient, dim=1))

    def clip_values_of(self, gradient: Tensor) -> None:
        by_norm = self.limits.new_tensor(self.by_norm)
        limits = torch.where(by_norm > 0, torch.inf, self.limits)[:, None]
        torch.minimum(torch.maximum(gradient, -limits, out=gradient), limits, out=gradient)

    def limit_norms(self) -> None:
        """Shortens the weights into each unit."""
        limits = self.stack.values.new_tensor([norm or torch.inf for norm in self.max_norm])
        for number in self.weights:
            weight = self.stack.columns[number]
            norms = torch.linalg.vector_norm(weight.flatten(2), dim=2)
            factor = limits[:, None] / (norms + SMALL_OF_LIMIT)
            factor = torch.where(norms > limits[:, None], factor, 1.0)
            weight.mul_(factor.view(*factor.shape, *[1] * (weight.ndim - 2)))

    def after(self) -> None:
        """What follows from the weights that have moved, run by run."""
        moved = False
        for row in self.present:
            step = self.steps[row]
            step.taken += 1
            if step.average is not None:
                step.average.update()
            if step.schedule is not None and step.schedule.interval == "step":
                step.schedule.on_step()
                moved = True
        if moved:
            self.optimizer.read(self.present)

    def hand_out(self) -> None:
        """Gives each run's own step the norms of the item that has ended."""
        norms, after, due = self.measurements()
        for row in self.present:
            self.hand_to(row, norms, after, due)

    def hand_to(self, row: int, norms: Tensor, after: Tensor | None, due: Tensor) -> None:
        """Gives a run's own step its norms."""
        own = self.steps[row].gradients
        every = own.value is not None and own.algorithm == "norm"
        own.before.append(norms[row] if every else norms[row][due])
        if own.value is not None and not every and after is not None:
            own.after.append(after[row])

    def metrics(self) -> list[dict[str, float]]:
        """What `Gradients.metrics` gives of each run, of an item that was a whole epoch."""
        norms, after, due = self.measurements()
        measured = norms[:, due].double()
        plain = measured.mean(1).tolist()
        capped = torch.minimum(norms.double(), self.limits[:, None])
        shares = (capped < norms * (1 - 1e-6)).double().mean(1).tolist()
        clipped = capped.mean(1).tolist()
        whole = norms.double().mean(1).tolist()
        finite = norms.isfinite().all(1).tolist()
        found: list[dict[str, float]] = []
        for row, step in enumerate(self.steps):
            own = step.gradients
            if finite[row] and own.value is None:
                found.append({"gradient_norm": plain[row]})
            elif finite[row] and own.algorithm == "norm":
                names = ("gradient_norm", "gradient_norm_clipped", "clipped_share")
                values = (whole[row], clipped[row], shares[row])
                found.append(dict(zip(names, values, strict=True)))
            else:
                own.begin()
                self.hand_to(row, norms, after, due)
                found.append(own.metrics())
        return found

    def measurements(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Norms before clipping, [R, steps], after that by value, and which steps of them every run
        has measured.
        """
        norms = torch.stack(self.norms, 1)
        after = torch.stack(self.clipped, 1) if self.clipped else None
        return norms, after, torch.tensor(self.measured, device=norms.device)


def column(like: Tensor, strengths: list[float], mask: Tensor) -> Tensor | None:
    """A strength of each run for the weights alone, [R, P]; None: it is zero for all."""
    if not any(strengths):
        return None
    return like.new_tensor(strengths)[:, None] * mask
