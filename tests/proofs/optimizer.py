"""Optimizers: the weights of a training against the paper's formula on the same gradients."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from proofs.drive import prepared, refusal, train, weights
from proofs.table import Measured, proof, within

SHORT = (
    "model=shallow",
    "model.width=6",
    "trainer.max_epochs=4",
    "model.output_scale=1",
)  # 12 steps
HIDDEN = (6, 4)  # of the hidden layer's weight
State = dict[str, Any]
Update = Callable[[np.ndarray, np.ndarray, State, int, dict[str, Any], bool], np.ndarray]


def formula_error(option: str, update: Update, *words: str) -> tuple[float, int]:
    """The largest difference, over how far the weights moved,
    of the training's weights from the formula's.

    The formula gets the gradients that the optimizer got, and the numbers of its group.
    """
    fit = train(*SHORT, f"optimizer={option}", *words)
    numbers = {
        key: value for key, value in fit.parts.settings.optimizer.items() if key != "_target_"
    }
    ends = weights(fit.network)  # after the epoch: those that are evaluated
    worst = 0.0
    for name, start in fit.steps[0].before.items():
        w = start.double().numpy()
        state: State = {}
        for count, step in enumerate(fit.steps, 1):
            gradient = step.gradient[name].double().numpy()
            w = update(w, gradient, state, count, numbers, w.ndim >= 2 or numbers["decay_all"])
        moved = np.abs(fit.steps[-1].after[name].double().numpy() - start.double().numpy()).max()
        w = state.get("evaluated", w)
        worst = max(worst, np.abs(w - ends[name].double().numpy()).max() / moved)
    return worst, len(fit.steps)


def sgd(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    g = g + n["weight_decay"] * w * is_weight
    s["v"] = n["momentum"] * s["v"] + g if "v" in s else g
    return w - n["lr"] * (g + n["momentum"] * s["v"] if n["nesterov"] else s["v"])


def moments(g: np.ndarray, s: State, n: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Running means of the gradient and of its square."""
    first, second = n["betas"]
    s["m"] = first * s.get("m", 0.0) + (1 - first) * g
    s["v"] = second * s.get("v", 0.0) + (1 - second) * g**2
    return s["m"], s["v"]


def adam(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    m, v = moments(g + n["weight_decay"] * w * is_weight, s, n)
    first, second = n["betas"]
    return w - n["lr"] * m / (1 - first**t) / (np.sqrt(v / (1 - second**t)) + n["eps"])


def adamw(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    shrunk = w * (1 - n["lr"] * n["weight_decay"] * is_weight)
    return adam(shrunk, g, s, t, {**n, "weight_decay": 0.0}, is_weight)


def adamax(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    g = g + n["weight_decay"] * w * is_weight
    first, second = n["betas"]
    s["m"] = first * s.get("m", 0.0) + (1 - first) * g
    s["u"] = np.maximum(second * s.get("u", 0.0), np.abs(g) + n["eps"])
    return w - n["lr"] / (1 - first**t) * s["m"] / s["u"]


def nadam(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    w, g = decayed(w, g, n, is_weight)
    m, v = moments(g, s, n)
    first, second = n["betas"]
    now, following = (
        first * (1 - 0.5 * 0.96 ** (count * n["momentum_decay"])) for count in (t, t + 1)
    )
    s["product"] = s.get("product", 1.0) * now
    ahead = (1 - now) * g / (1 - s["product"]) + following * m / (1 - s["product"] * following)
    return w - n["lr"] * ahead / (np.sqrt(v / (1 - second**t)) + n["eps"])


def rmsprop(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    g = g + n["weight_decay"] * w * is_weight
    s["v"] = n["alpha"] * s.get("v", 0.0) + (1 - n["alpha"]) * g**2
    s["b"] = n["momentum"] * s.get("b", 0.0) + g / (np.sqrt(s["v"]) + n["eps"])
    return w - n["lr"] * s["b"]


def radam(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    w, g = decayed(w, g, n, is_weight)
    m, v = moments(g, s, n)
    first, second = n["betas"]
    longest = 2 / (1 - second) - 1
    length = longest - 2 * t * second**t / (1 - second**t)
    step = m / (1 - first**t)
    if length > 5:  # torch's; the paper says 4
        ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        step = step * np.sqrt(ratio * (1 - second**t)) / (np.sqrt(v) + n["eps"])
    return w - n["lr"] * step


def decayed(
    w: np.ndarray, g: np.ndarray, n: dict[str, Any], is_weight: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weights after decoupled decay, or the gradient with coupled decay in it."""
    decoupled = n.get("decoupled_weight_decay", n.get("weight_decouple"))
    if decoupled:
        return w * (1 - n["lr"] * n["weight_decay"] * is_weight), g
    return w, g + n["weight_decay"] * w * is_weight


def adagrad(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    g = g + n["weight_decay"] * w * is_weight
    s["v"] = s.get("v", n["initial_accumulator_value"]) + g**2
    return w - n["lr"] / (1 + (t - 1) * n["lr_decay"]) * g / (np.sqrt(s["v"]) + n["eps"])


def adadelta(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    g = g + n["weight_decay"] * w * is_weight
    s["v"] = n["rho"] * s.get("v", 0.0) + (1 - n["rho"]) * g**2
    step = np.sqrt(s.get("d", 0.0) + n["eps"]) / np.sqrt(s["v"] + n["eps"]) * g
    s["d"] = n["rho"] * s.get("d", 0.0) + (1 - n["rho"]) * step**2
    return w - n["lr"] * step


def asgd(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    g = g + n["weight_decay"] * w * is_weight
    pull = n["lambd"] * is_weight
    rate = n["lr"] / (1 + pull * n["lr"] * (t - 1)) ** n["alpha"]
    return w * (1 - pull * rate) - rate * g


def lion(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    w, g = decayed(w, g, n, is_weight)
    first, second = n["betas"]
    m = s.get("m", np.zeros_like(w))
    s["m"] = second * m + (1 - second) * g
    return w - n["lr"] * np.sign(first * m + (1 - first) * g)


def schedule_free(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    """Algorithm 1 of the paper: z moves, x is its mean, y between them is trained (w is y)."""
    mixed = n["betas"][0] if "betas" in n else n["momentum"]
    rate = n["lr"] * min(t / (n["warmup_steps"] or 1), 1)
    if "betas" in n:
        s["v"] = n["betas"][1] * s.get("v", 0.0) + (1 - n["betas"][1]) * g**2
        g = g / (np.sqrt(s["v"] / (1 - n["betas"][1] ** t)) + n["eps"])
    z, x = s.get("z", w), s.get("evaluated", w)
    z = z - rate * (g + n["weight_decay"] * w * is_weight)
    weight = t ** n["r"] * rate ** n["weight_lr_power"]
    s["sum"] = s.get("sum", 0.0) + weight
    s["z"], s["evaluated"] = z, x + (z - x) * weight / s["sum"]
    return (1 - mixed) * s["z"] + mixed * s["evaluated"]


def muon(
    w: np.ndarray, g: np.ndarray, s: State, t: int, n: dict[str, Any], is_weight: bool
) -> np.ndarray:
    if w.shape != HIDDEN:
        return adamw(w, g, s, t, n, is_weight)
    rows, columns = w.shape
    s["b"] = n["momentum"] * s.get("b", 0.0) + (1 - n["momentum"]) * g
    update = orthogonal(
        (1 - n["momentum"]) * g + n["momentum"] * s["b"] if n["nesterov"] else s["b"], n["ns_steps"]
    )
    scale = (
        np.sqrt(max(1, rows / columns))
        if n["adjust_lr_fn"] == "original"
        else 0.2 * np.sqrt(max(rows, columns))
    )
    return w * (1 - n["lr"] * n["weight_decay"]) - n["lr"] * scale * update


def orthogonal(x: np.ndarray, steps: int) -> np.ndarray:
    """Newton and Schulz's iteration, which brings all singular values
    near 1 (Jordan et al. 2024).
    """
    x = x / np.linalg.norm(x)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


Words = dict[str, list[str]]


def formula_row(
    option: str,
    guide: str,
    claim: str,
    update: Update,
    *,
    words: Words | None = None,
    limit: float = 1e-4,
    missing: Callable[[], bool] | None = None,
    **changed: Any,
) -> None:
    """Trainings with the numbers of the option's file, and with every one of them changed.

    `words`: of a key, where each of them is an option. The file's decay is often 0: without
    `decay_all` the other numbers are tried again. `missing`: whether the library that has it is not
    there.
    """
    settings = [f"optimizer.{key}={str(value).replace(' ', '')}" for key, value in changed.items()]
    observable = (
        "weights after 12 steps minus the formula's, over how far they moved: as in the file;"
        " every key changed"
    )
    covers = [f"optimizer.{key}{word}" for key in changed for word in (words or {}).get(key, [""])]

    @proof(f"optimizer={option}", guide, claim, observable, covers=" ".join(covers))
    def by_formula() -> Measured:
        if missing is not None and missing():
            line = refusal(f"optimizer={option}")
            return f"not run: {line}", "needs" in line
        own, steps = formula_error(option, update)
        other, _ = formula_error(option, update, *settings)
        if "decay_all" in changed:
            other = max(
                other, formula_error(option, update, *settings, "optimizer.decay_all=false")[0]
            )
        return f"{within(own, limit)}; {within(other, limit)}", max(
            own, other
        ) < limit and steps == 12


DECAY: dict[str, Any] = {"weight_decay": 0.1, "decay_all": True}
ADAM = {"lr": 0.02, "betas": [0.8, 0.95], "eps": 0.01, **DECAY}
COUPLED = {**ADAM, "decoupled_weight_decay": False}
MUON = {**ADAM, "momentum": 0.8, "nesterov": False, "ns_steps": 3, "adjust_lr_fn": "original"}
RMSPROP = {"lr": 0.01, "alpha": 0.8, "eps": 0.01, "momentum": 0.5, **DECAY}
ADAGRAD = {"lr": 0.1, "lr_decay": 0.2, "initial_accumulator_value": 0.1, "eps": 0.01, **DECAY}
ASGD = {"lr": 0.1, "lambd": 0.3, "alpha": 0.5, **DECAY}
formula_row("sgd", "G25", "w - lr g", sgd, lr=0.1, momentum=0.5, nesterov=True, **DECAY)
formula_row("momentum", "G13 G25", "v = m v + g; w - lr v", sgd, lr=0.05, momentum=0.7)
formula_row("nesterov", "G13 G25", "looks a step ahead: w - lr (g + m v)", sgd, nesterov=False)
formula_row("asgd", "G25", "SGD whose rate falls as lr / (1 + lambd lr t)^alpha", asgd, **ASGD)
formula_row("adam", "G25", "running mean of g over the root of that of g^2", adam, **ADAM)
formula_row(
    "adamw", "G23 G25", "Adam, with weights shrunk by lr * weight_decay beside it", adamw, **ADAM
)
formula_row(
    "nadam", "G25", "Adam with Nesterov's look ahead", nadam, **COUPLED, momentum_decay=0.05
)
formula_row(
    "radam",
    "G25",
    "Adam whose first steps are plain momentum, the next rectified",
    radam,
    **COUPLED,
)
formula_row("adamax", "G25", "Adam with the largest |g| in place of the root", adamax, **ADAM)
formula_row("rmsprop", "G25", "g over the root of the running mean of g^2", rmsprop, **RMSPROP)
formula_row("adagrad", "G25", "g over the root of the sum of g^2", adagrad, **ADAGRAD)
formula_row(
    "adadelta",
    "G25",
    "g times the size of past steps over that of past g",
    adadelta,
    lr=0.5,
    rho=0.8,
    eps=1e-4,
    **DECAY,
)
formula_row(
    "lion",
    "G25",
    "steps of lr, with the sign of a momentum",
    lion,
    lr=0.01,
    betas=[0.8, 0.95],
    weight_decouple=False,
    limit=1e-3,  # its steps are short: rounding shows
    missing=lambda: importlib.util.find_spec("pytorch_optimizer") is None,
    **DECAY,
)
FREE: dict[str, Any] = {"warmup_steps": 5, "r": 0.5, "weight_lr_power": 1.5, **DECAY}
for name, formula, own in (
    ("schedule_free", "Adam's step", {"lr": 0.02, "betas": [0.8, 0.95], "eps": 0.01}),
    ("schedule_free_sgd", "lr g", {"lr": 0.1, "momentum": 0.8}),
):
    formula_row(
        name,
        "G25 G26",
        f"z - {formula}; the mean of all z is evaluated, a mixture of both is trained",
        schedule_free,
        missing=lambda: importlib.util.find_spec("pytorch_optimizer") is None,
        **own,
        **FREE,
    )
formula_row(
    "muon",
    "G25",
    "hidden matrices by a momentum made orthogonal (in 16 bits), the rest by AdamW",
    muon,
    words={"adjust_lr_fn": ["=original", "=match_rms_adamw"]},
    limit=0.03,
    **MUON,
)


# --- by gradients made up -------------------------------------------------------------------------


def moves(gradient: float, steps: int, *words: str) -> tuple[list[float], list[float]]:
    """How far a weight and a bias, both 1 at first,
    have moved after each step of a constant gradient.
    """
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    optimizer = prepared(*words).module.make_optimizer(layer)
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(steps):
        for parameter, values in zip((layer.weight, layer.bias), found, strict=True):
            parameter.grad = torch.full_like(parameter, gradient)
            values.append(0.0)
        optimizer.step()
        for parameter, values in zip((layer.weight, layer.bias), found, strict=True):
            values[-1] = 1 - parameter.item()
    return found


@proof(
    "optimizer.lr",
    "G11",
    "the length of a step",
    "first step of a gradient of 1: SGD with 0.1 and 0.2; Adam's, which is the rate itself",
)
def rate() -> Measured:
    found = [
        moves(1.0, 1, f"optimizer={name}", f"optimizer.lr={lr}")[0][0]
        for name, lr in (("sgd", 0.1), ("sgd", 0.2), ("adam", 0.003))
    ]
    return " ".join(f"{value:.4f}" for value in found), np.allclose(
        found, [0.1, 0.2, 0.003], rtol=1e-3
    )


@proof(
    "optimizer.momentum",
    "G13",
    "k steps of gradient 1 reach the speed (1 - m^k) / (1 - m)",
    "lengths of steps 1, 2, 3 and 60 over the rate, m = 0.9",
)
def momentum() -> Measured:
    path = np.array([0.0, *moves(1.0, 60, "optimizer=momentum", "optimizer.lr=0.001")[0]])
    speed = np.diff(path) / 0.001
    expected = (1 - 0.9 ** np.arange(1, 61)) / 0.1
    return " ".join(f"{speed[step]:.2f}" for step in (0, 1, 2, 59)), np.allclose(
        speed, expected, rtol=1e-3
    )


@proof(
    "optimizer.nesterov",
    "G13",
    "the first step is already 1 + m times the gradient",
    "first step over the rate with and without, m = 0.9",
)
def look_ahead() -> Measured:
    found = [
        moves(1.0, 1, f"optimizer={name}", "optimizer.lr=0.001")[0][0] / 0.001
        for name in ("nesterov", "momentum")
    ]
    return f"{found[0]:.2f} and {found[1]:.2f}", np.allclose(found, [1.9, 1.0], rtol=1e-3)


@proof(
    "optimizer.weight_decay",
    "G23",
    "weights shrink by 1 - lr * decay a step, biases do not",
    "weight and bias of 1 after two steps without gradient, lr 0.1, decay 0.5",
)
def decay() -> Measured:
    words = ("optimizer.lr=0.1", "optimizer.weight_decay=0.5")
    found = {
        name: [1 - values[-1] for values in moves(0.0, 2, f"optimizer={name}", *words)]
        for name in ("adamw", "sgd")
    }
    holds = all(np.allclose(values, [0.95**2, 1.0], rtol=1e-5) for values in found.values())
    return ", ".join(f"{name} {w:.4f} and {b:.4f}" for name, (w, b) in found.items()), holds


@proof(
    "optimizer.t0",
    "G25",
    "the step from which on torch keeps an average",
    "average that ASGD keeps after 6 steps with 2, minus the mean of the weights after steps 4,"
    " 5, 6",
)
def averaged() -> Measured:
    layer = nn.Linear(1, 1)
    optimizer = prepared(
        "optimizer=asgd", "optimizer.lr=0.1", "optimizer.t0=2"
    ).module.make_optimizer(layer)
    path = []
    for _ in range(6):
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        path.append(layer.weight.item())
    error = abs(optimizer.state[layer.weight]["ax"].item() - np.mean(path[3:]))
    return within(error, 1e-6), bool(error < 1e-6 and path[0] != path[-1])
