"""The range test: how `optimizer.lr=auto` finds a rate."""

import numpy as np
import torch

from goldilocks.training.lr_range.rules import RangeTest
from goldilocks.training.lr_range.sweep import range_test
from proofs.drive import finished, prepared
from proofs.table import Measured, proof

WORDS = ("data=iris", "optimizer=sgd", "lr_range.repeats=1")


def tested(*words: str) -> RangeTest:
    """The range test of a configuration."""
    parts = prepared(*WORDS, *words)
    return range_test(parts.module, parts.data, {"accelerator": "cpu"}, parts.settings.lr_range)


def smooth(curve: list[float]) -> np.ndarray:
    """A half of each loss and a half of the mean before,
    the weights of each mean adding up to one.
    """
    losses = np.where(np.isfinite(curve[1:]), curve[1:], np.inf)
    weights = [0.5 ** np.arange(step, -1, -1) for step in range(len(losses))]
    return np.array([(w * losses[: len(w)]).sum() / w.sum() for w in weights])


@proof(
    "optimizer.lr=auto scheduler=onecycle",
    "G11 G12",
    "a range test finds the rate before the optimizer is built; 1cycle takes it as its peak",
    "rate of the run; peak of the schedule over the rate",
)
def auto() -> Measured:
    words = (*WORDS, "optimizer.lr=auto", "scheduler=onecycle", "trainer.max_epochs=10")
    callbacks = (
        "callbacks=default",
        "callbacks.progress_bar=null",
        "callbacks.baselines=null",
        "callbacks.early_stopping=null",
    )
    with finished(*words, *callbacks) as (folder, result):
        rate, found = result["learning_rate"], result["lr_range"]["fall"]
        last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    peak = last["optimizer_states"][0]["param_groups"][0]["max_lr"]
    return f"{rate:.3g}; {peak / rate:.3f}", rate == found and abs(peak / rate - 1) < 1e-9


def rule_row(rule: str, claim: str, observable: str, guide: str = "G12") -> None:
    @proof(f"lr_range.rule={rule}", guide, claim, f"{observable}, over the rate that is used")
    def measured() -> Measured:
        test = tested(f"lr_range.rule={rule}")
        rates, curve = np.array(test.rates), smooth(test.curves[0])
        lowest, start = int(curve.argmin()), test.curves[0][0]
        if rule == "minimum":
            expected = rates[lowest] / 5
        elif rule == "fall":
            expected = rates[np.flatnonzero(curve <= 0.1 * start + 0.9 * curve[lowest])[0]] / 1.5
        elif rule == "half_divergence":
            expected = next(rates[i] for i in range(lowest, len(curve)) if curve[i] > start) / 2
        elif rule == "steepest":
            losses = np.array([start, *curve[: lowest + 1]])
            drops = [
                losses[max(i - 5, 0)] - losses[min(i + 5, lowest) + 1] for i in range(lowest + 1)
            ]
            expected = rates[int(np.argmax(drops))]
        else:
            first, last = longest_fall(curve)
            expected = rates[(first + last) // 2]
        assert test.rate is not None
        return f"{expected / test.rate:.3f}", abs(expected / test.rate - 1) < 1e-6


def longest_fall(losses: np.ndarray) -> tuple[int, int]:
    """First and last step of the longest run of falling losses, gaps allowed."""
    best: list[list[int]] = []
    for step, loss in enumerate(losses):
        runs = [run for run in best if losses[run[-1]] > loss]
        best.append([*max(runs, key=len), step] if runs else [step])
    run = max(best, key=len)
    return run[0], run[-1]


rule_row(
    "fall",
    "two thirds of the first rate with nine tenths of the fall done",
    "that rate of the smoothed curve / 1.5",
)
rule_row(
    "minimum",
    "a fifth of the rate with the lowest loss",
    "a fifth of the lowest point of the smoothed curve",
)
rule_row(
    "steepest", "the rate at which the loss falls fastest", "the largest fall over eleven steps"
)
rule_row(
    "valley", "the middle of the longest fall", "the middle of the longest run of falling losses"
)
rule_row(
    "half_divergence",
    "the guide's: half the rate that diverges",
    "half the first rate that ends above the start",
)


@proof(
    "lr_range.steps",
    "G12",
    "rates from the first to the last by a constant factor",
    "rates from 1e-4 to 1 in 50 steps: number, first, last, factor",
    covers="lr_range.min_lr lr_range.max_lr",
)
def steps() -> Measured:
    rates = np.array(tested("lr_range.steps=50", "lr_range.min_lr=1e-4", "lr_range.max_lr=1").rates)
    factors = rates[1:] / rates[:-1]
    holds = np.allclose(factors, 1e4 ** (1 / 49)) and np.allclose(rates[[0, -1]], [1e-4, 1])
    return f"{len(rates)}, {rates[0]:g}, {rates[-1]:.3g}, {factors.mean():.3f}", bool(
        holds and len(rates) == 50
    )


@proof(
    "lr_range.repeats",
    "G12",
    "sweeps over other batches, whose median counts",
    "sweeps of 5; different ones",
)
def repeats() -> Measured:
    test = tested("lr_range.repeats=5")
    different = {tuple(curve) for curve in test.curves}
    lowest = [test.rates[int(smooth(curve).argmin())] for curve in test.curves]
    median = bool(np.isclose(np.median(lowest), test.points["lowest_loss"] or 0))
    return f"{len(test.curves)}; {len(different)}", median and len(test.curves) == len(
        different
    ) == 5
