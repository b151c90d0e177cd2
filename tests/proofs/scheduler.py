"""Schedules: the rate of every step against the formula."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

from goldilocks.schedulers.schedule import Schedule, check_schedule
from proofs.drive import Step, train
from proofs.table import Measured, proof, within
from proofs.task import with_curve

LR, EPOCHS, PER_EPOCH = 0.01, 8, 3
SHORT = ("optimizer=sgd", f"optimizer.lr={LR}", f"trainer.max_epochs={EPOCHS}")
STEPS = EPOCHS * PER_EPOCH


def rates(steps: list[Step]) -> np.ndarray:
    """The rate of each step over the optimizer's own."""
    return np.array([step.group["lr"] / LR for step in steps])


def shown(found: np.ndarray) -> str:
    """A few of the rates: the first, a quarter, a half, three quarters of the way, the last."""
    places = [0, len(found) // 4, len(found) // 2, 3 * len(found) // 4, len(found) - 1]
    return " ".join(f"{found[place]:.3g}" for place in places)


WORDS = {
    "anneal_strategy": ["=cos", "=linear"],
    "decay": ["=sqrt", "=linear", "=cosine"],
}  # each of which is an option


Curve = Callable[[np.ndarray, dict[str, Any], int], np.ndarray]


def formula_row(option: str, guide: str, claim: str, curve: Curve, **changed: Any) -> None:
    """The formula gets the number of the step and the option's numbers,
    as in its file and with every one changed.
    """
    words = [f"scheduler.{key}={value}" for key, value in changed.items()]

    @proof(
        f"scheduler={option}",
        guide,
        claim,
        f"rates of {STEPS} steps over the option's, at 0, 1/4, 1/2, 3/4, the end; with every key"
        " changed; error",
        covers=" ".join(
            f"scheduler.{key}{word}" for key in changed for word in WORDS.get(key, [""])
        ),
    )
    def follows() -> Measured:
        found = []
        others = [
            [*words, f"scheduler.{key}{word}"] for key in changed for word in WORDS.get(key, [])
        ]
        for command in ([], words, *others):
            fit = train(*SHORT, f"scheduler={option}", *command)
            numbers = fit.parts.settings.scheduler
            steps = np.arange(STEPS)
            counted = steps if numbers["interval"] == "step" else steps // PER_EPOCH
            expected = curve(
                counted.astype(float), numbers, STEPS if numbers["interval"] == "step" else EPOCHS
            )
            found.append((rates(fit.steps), np.abs(rates(fit.steps) - expected).max()))
        error = max(wrong for _, wrong in found)
        return f"{shown(found[0][0])}; {shown(found[1][0])}; {within(error, 1e-9)}", error < 1e-9


def constant(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    return np.where(t < n["total_iters"], n["factor"], 1.0)


def step(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    return n["gamma"] ** (t // n["step_size"])


def exponential(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    return n["gamma"] ** t


def cosine(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    low = n["eta_min"] / LR
    return low + (1 - low) * (1 + np.cos(np.pi * t / length)) / 2


def onecycle(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    top, share = n["pct_start"] * length - 1, n["pct_start"]
    assert 0 < share < 1
    first, last = 1 / n["div_factor"], 1 / n["div_factor"] / n["final_div_factor"]
    rise, fall = t / top, (t - top) / (length - 1 - top)
    if n["anneal_strategy"] == "cos":
        rise, fall = (1 - np.cos(np.pi * rise)) / 2, (1 - np.cos(np.pi * fall)) / 2
    return np.where(t <= top, first + (1 - first) * rise, 1 + (last - 1) * fall)


def multistep(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    return n["gamma"] ** sum((t >= milestone).astype(float) for milestone in n["milestones"])


def polynomial(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    return (1 - t / length) ** n["power"]


def down(x: np.ndarray) -> np.ndarray:
    """Half a cosine from 1 to 0."""
    return (1 + np.cos(np.pi * x)) / 2


def restarts(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    sizes = n["cycle_growth"] ** np.arange(n["cycles"])
    ends = np.concatenate([[0], np.cumsum(sizes)]) / sizes.sum() * length
    cycle = np.searchsorted(ends, t, side="right") - 1
    x = (t - ends[cycle]) / (ends[cycle + 1] - ends[cycle])
    return n["min_factor"] + (1 - n["min_factor"]) * down(x)


def warmup(t: np.ndarray, steps: int, rest: np.ndarray) -> np.ndarray:
    """Along a line through 0 just before the first step, then the rest."""
    return np.where(t < steps, (t + 1) / (steps + 1), rest)


def warmup_cosine(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    steps = round(n["warmup_fraction"] * length)
    return warmup(
        t, steps, n["min_factor"] + (1 - n["min_factor"]) * down((t - steps) / (length - steps))
    )


def wsd(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    steps, decay = (round(n[f"{name}_fraction"] * length) for name in ("warmup", "decay"))
    x = np.maximum(t - (length - decay), 0) / decay
    fall = {"sqrt": 1 - np.sqrt(x), "linear": 1 - x, "cosine": down(x)}[n["decay"]]
    return warmup(t, steps, n["min_factor"] + (1 - n["min_factor"]) * fall)


CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "1 - t": lambda t: 1 - t,
    "0.5 * (1 - cos(2 * pi * log2(1 + 15 * t)))": lambda t: (
        0.5 - 0.5 * np.cos(2 * np.pi * np.log2(1 + 15 * t))
    ),
    "exp(-3 * t)": lambda t: np.exp(-3 * t),
}


def formula(t: np.ndarray, n: dict[str, Any], length: int) -> np.ndarray:
    return CURVES[n["formula"]](t / length)


formula_row(
    "multistep",
    "G26",
    "times gamma at each of the milestones, in epochs",
    multistep,
    gamma=0.3,
    milestones="[2,5]",
)
formula_row("polynomial", "G26", "(1 - t)^power over the whole run", polynomial, power=3.0)
formula_row(
    "cosine_restarts",
    "G26",
    "half cosines, each longer than the one before, over the whole run",
    restarts,
    cycles=2,
    cycle_growth=3.0,
    min_factor=0.1,
)
formula_row(
    "warmup_cosine",
    "G26",
    "up along a line, down half a cosine",
    warmup_cosine,
    warmup_fraction=0.25,
    min_factor=0.1,
)
formula_row(
    "wsd",
    "G26",
    "up along a line, constant, down at the end",
    wsd,
    warmup_fraction=0.25,
    decay_fraction=0.5,
    decay="linear",
    min_factor=0.1,
)
formula_row(
    "formula",
    "G26",
    "a formula of one's own of the run t from 0 to 1",
    formula,
    formula="exp(-3 * t)",
)
formula_row(
    "coslog4",
    "G26",
    "four waves, each twice as long as the one before",
    formula,
    formula="exp(-3 * t)",
)
formula_row("constant", "G26 G27", "the same rate throughout", constant, factor=0.5, total_iters=3)
formula_row("step", "G26", "times gamma every step_size epochs", step, gamma=0.3, step_size=2)
formula_row("exponential", "G26", "times gamma every epoch", exponential, gamma=0.7)
formula_row(
    "cosine", "G26", "half a cosine over the whole run, down to eta_min", cosine, eta_min=0.002
)
formula_row(
    "onecycle",
    "G26",
    "up from lr / div_factor, then down to lr / div_factor / final_div_factor over the whole run",
    onecycle,
    pct_start=0.5,
    anneal_strategy="linear",
    div_factor=10,
    final_div_factor=100,
)

CURVE = [
    1.0,
    0.9,
    0.95,
    0.95,
    0.95,
    0.95,
    0.95,
    0.95,
    0.95,
    0.95,
    0.95,
    0.95,
]  # its best epoch is 1


@proof(
    "scheduler=plateau",
    "G26",
    "times factor when the objective has not improved for more than patience epochs",
    "rates of 12 epochs of a loss best in epoch 1, factor 0.5, patience 8; 0.1, 2; last of a"
    " rising accuracy",
    covers=(
        "scheduler.factor scheduler.patience scheduler.monitor scheduler.mode=min"
        " scheduler.mode=max"
    ),
)
def plateau() -> Measured:
    found = []
    words: tuple[str, ...]
    for words in ((), ("scheduler.factor=0.1", "scheduler.patience=2")):
        fit = with_curve(
            "val/loss", CURVE, "optimizer=sgd", f"optimizer.lr={LR}", "scheduler=plateau", *words
        )
        found.append(rates(fit.steps)[::PER_EPOCH])
    rising = [0.5 + epoch / 100 for epoch in range(12)]
    words = ("optimizer=sgd", f"optimizer.lr={LR}", "scheduler=plateau", "scheduler.patience=0")
    found.append(rates(with_curve("val/accuracy", rising, *words).steps)[-1:])
    expected = [1.0] * 11 + [0.5], [1.0] * 5 + [0.1] * 3 + [0.01] * 3 + [0.001], [1.0]
    return "; ".join(" ".join(f"{rate:.3g}" for rate in rates) for rates in found), all(
        np.allclose(one, other) for one, other in zip(found, expected, strict=True)
    )


@proof(
    "scheduler.interval=epoch",
    "G26",
    "the rate changes after an epoch, as where an option does not say when",
    "rates of two epochs, gamma 0.5; what holds without the key",
)
def by_epoch() -> Measured:
    found, holds = halved("epoch", [1, 1, 1, 0.5, 0.5, 0.5])
    unsaid = signature(check_schedule).parameters["interval"].default
    return f"{found}; {unsaid}", holds and unsaid == Schedule.interval == "epoch"


@proof(
    "scheduler.interval=step",
    "G26",
    "the rate changes after a step",
    "rates of two epochs, gamma 0.5",
)
def by_step() -> Measured:
    return halved("step", [0.5**count for count in range(6)])


def halved(interval: str, expected: list[float]) -> Measured:
    words = (
        "scheduler=exponential",
        "scheduler.gamma=0.5",
        f"scheduler.interval={interval}",
        "trainer.max_epochs=2",
    )
    found = rates(train(*SHORT, *words).steps)
    return " ".join(f"{rate:.3g}" for rate in found), np.allclose(found, expected)


@proof(
    "scheduler=onecycle optimizer=nadam",
    "G26",
    "momentum goes the other way, where there is any",
    "first beta of NAdam at the start, the top and the end; momentum of plain SGD",
)
def onecycle_momentum() -> Measured:
    adaptive = train("optimizer=nadam", f"trainer.max_epochs={EPOCHS}", "scheduler=onecycle").steps
    betas, top = (
        [step.group["betas"][0] for step in adaptive],
        int(np.argmax([step.group["lr"] for step in adaptive])),
    )
    plain = {step.group["momentum"] for step in train(*SHORT, "scheduler=onecycle").steps}
    found = betas[0], betas[top], betas[-1]
    return f"{' '.join(f'{beta:.3f}' for beta in found)}; {max(plain):g}", (
        abs(found[0] - 0.95) < 1e-6
        and found[1] < 0.86
        and abs(found[2] - 0.95) < 1e-6
        and plain == {0.0}
    )
