"""Regularizers: what each adds to a training step, and nothing to an evaluation."""

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks.config.choices import is_on
from goldilocks.training.checks import warnings_for
from goldilocks.training.components import Parts
from proofs.drive import (
    Fit,
    Step,
    composed,
    prepared,
    probabilities,
    train,
    train_batches,
    vector,
    weights,
)
from proofs.table import Measured, proof, within

ONE_BATCH = (
    "model=linear",
    "model.output_scale=3",
    "data.batch_size=90",
    "optimizer=sgd",
)  # all rows in every step


def added_to_gradient(*words: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the optimizer gets beyond the cross-entropy's gradient, (softmax - onehot)' x / N;
    and the weights.
    """
    fit = train(*ONE_BATCH, *words)
    return added_in(fit, fit.steps[0])


def added_in(fit: Fit, step: Step) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same of any step of such a training."""
    x, y = (tensor.double().numpy() for tensor in fit.parts.data.tensors["train"])
    before = {
        name.rpartition(".")[2]: value.double().numpy() for name, value in step.before.items()
    }
    got = {name.rpartition(".")[2]: value.double().numpy() for name, value in step.gradient.items()}
    miss = (
        probabilities(x @ before["weight"].T + before["bias"]) - np.eye(3)[y.astype(int)]
    ) / len(x)
    plain = {"weight": miss.T @ x, "bias": miss.sum(0)}
    return {name: got[name] - plain[name] for name in got}, before


@proof(
    "regularization=none",
    "G6",
    "nothing is added",
    "gradient that the optimizer gets minus the cross-entropy's",
)
def none() -> Measured:
    added, _ = added_to_gradient("regularization=none")
    error = max(np.abs(value).max() for value in added.values())
    return within(error, 1e-6), error < 1e-6


def penalty_row(name: str, claim: str, gradient: str) -> None:
    observable = f"gradient minus the cross-entropy's, over {gradient} of the weight; of the biases"

    @proof(f"regularization={name}", "G23", claim, observable, covers=f"regularization.{name}")
    def penalty() -> Measured:
        added, before = added_to_gradient(f"regularization={name}", f"regularization.{name}=0.01")
        weight = before["weight"]
        unit = weight if name == "l2" else np.sign(weight)
        ratio, error = (added["weight"] / unit).mean(), np.abs(added["weight"] - 0.01 * unit).max()
        on_bias = np.abs(added["bias"]).max()
        said = strength(name)
        return (
            f"{ratio:.4f} where 0.01 was written; biases {within(on_bias, 1e-6)}; the file's own"
            f" strength is {said:g}",
            error < 1e-6 and on_bias < 1e-6 and said > 0,
        )


def strength(name: str) -> float:
    """Of the option as its file has it."""
    return float(composed(f"regularization={name}").regularization[name])


penalty_row("l1", "adds l1 * sum of |w|: gradient l1 * sign(w), no biases", "sign(w)")
penalty_row("l2", "adds l2 / 2 * sum of w^2: gradient l2 * w, no biases", "w")


@proof(
    "regularization=gradient_noise",
    "",
    "adds normal noise of variance eta / (1 + step)^0.55 to every gradient,"
    " drawn from (seed, step)",
    "gradient minus the cross-entropy's: its variance over that, of 200 steps, of the last 50;"
    " its mean over its deviation; from the same seed, from another",
    covers="regularization.gradient_noise",
)
def gradient_noise() -> Measured:
    def units(*words: str) -> np.ndarray:
        fit = train(*ONE_BATCH, "regularization=gradient_noise", "trainer.max_epochs=200", *words)
        assert len(fit.steps) == 200
        found = []
        for number, step in enumerate(fit.steps):
            added, _ = added_in(fit, step)
            noise = np.concatenate([part.ravel() for part in added.values()])
            found.append(noise / np.sqrt(0.01 / (1 + number) ** 0.55))
        return np.array(found)

    first, again, other = units(), units(), units("seed=1")
    same, differs = np.abs(again - first).max(), np.abs(other - first).mean()
    spread, last, mean = first.var(), first[-50:].var(), abs(first.mean() / first.std())
    return (
        f"{spread:.2f}, {last:.2f}; {within(mean, 0.05)}; {within(same, 1e-4)} away, {differs:.1f}",
        abs(spread - 1) < 0.1 and abs(last - 1) < 0.2 and mean < 0.05 and same < 1e-4 < differs,
    )


# --- dropout --------------------------------------------------------------------------------------


def shares(*words: str, model: str = "deep") -> tuple[list[float], list[float], float]:
    """Share of units zeroed by each dropout layer in training and in validation,
    and the largest kept / given.
    """
    parts = prepared(
        "data=digits", f"model={model}", "model.width=64", "model.activation=tanh", *words
    )
    seen: dict[bool, dict[nn.Module, list[float]]] = {True: {}, False: {}}
    scale = [0.0]

    def look(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen[layer.training].setdefault(layer, []).append((output == 0).double().mean().item())
        if layer.training:
            scale[0] = max(scale[0], (output / inputs[0])[output != 0].median().item())

    for layer in parts.module.network.modules():
        if isinstance(layer, nn.Dropout):
            layer.register_forward_hook(look)
    train(parts=parts)
    found = [[float(np.mean(values)) for values in seen[mode].values()] for mode in (True, False)]
    return found[0], found[1], scale[0]


@proof(
    "regularization=dropout",
    "G20",
    "zeroes that share of each hidden layer's units in training, and scales the others by 1 / (1"
    " - p)",
    "zeroed units by layer in training, in validation; scale of the others",
    covers="regularization.dropout",
)
def dropout() -> Measured:
    trained, evaluated, _ = shares("regularization=dropout")
    listed, _, scale = shares("regularization=dropout", "regularization.dropout=[0.5,0.2,0.3]")
    one, *_ = shares("regularization.dropout=0.5", model="shallow")
    shown = " ".join(f"{share:.2f}" for share in trained)
    return (
        f"{shown}, in validation {max(evaluated):.2f}; with 0.5 0.2 0.3:"
        f" {' '.join(f'{s:.2f}' for s in listed)}",
        np.allclose(trained, [0.1] * 3, atol=0.01)
        and np.allclose(listed, [0.5, 0.2, 0.3], atol=0.01)
        and np.allclose(one, [0.5], atol=0.01)
        and evaluated == [0.0] * 3
        and 1.25 - 1e-3 <= scale <= 2 + 1e-3,
    )


@proof(
    "regularization=dropout model.norm=batch",
    "G22",
    "dropout shifts the variance that BatchNorm has learnt: think first",
    "what the run says before it starts",
)
def dropout_and_norm() -> Measured:
    return warned(
        "model=deep",
        "regularization=dropout",
        "model.norm=batch",
        expected="arXiv 1801.05134",
        free="model.norm=layer",
    )


@proof(
    "regularization=l2 optimizer=adam",
    "G23",
    "L2 inside Adam is not weight decay",
    "what the run says before it starts",
)
def l2_in_adam() -> Measured:
    return warned(
        "regularization=l2", "optimizer=adam", expected="arXiv 1711.05101", free="optimizer=sgd"
    )


def warned(*words: str, expected: str, free: str) -> Measured:
    """One warning with a reference, and none where one word is another."""
    found, others = (
        [line for line in said(*command) if expected in line] for command in (words, (*words, free))
    )
    return (f"warns: {found[0].split(': write')[0]}" if found else "says nothing"), len(
        found
    ) == 1 and not others


def said(*words: str) -> list[str]:
    """The warnings of a run."""
    parts = prepared(*words)
    return warnings_for(parts.settings, parts.module.network)


@proof(
    "regularization=alpha_dropout",
    "G21",
    "sets that share of units to SELU's lower limit and keeps mean and variance, in training only",
    "p = 0.2: share of units at the limit; mean and spread before, after; units changed in"
    " evaluation",
    covers="regularization.alpha_dropout model.alpha_dropout",
)
def alpha_dropout() -> Measured:
    rate = 0.2
    limit = -1.0507009873554805 * 1.6732632423543772
    scale = ((1 - rate) * (1 + rate * limit**2)) ** -0.5  # Klambauer et al. 2017, before equation 6
    at_limit = scale * limit - scale * rate * limit
    parts = prepared(
        "data=digits",
        "model=selfnorm",
        "regularization=alpha_dropout",
        f"regularization.alpha_dropout={rate}",
    )
    seen: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}
    for layer in parts.module.network.modules():
        if isinstance(layer, nn.AlphaDropout):
            layer.register_forward_hook(
                lambda layer, inputs, out: seen[layer.training].append((inputs[0], out.detach()))
            )
    train(parts=parts)
    before, after = (torch.cat(tensors).double() for tensors in zip(*seen[True], strict=True))
    share = ((after - at_limit).abs() < 1e-5).double().mean().item()
    changed = sum(int((given != out).sum()) for given, out in seen[False])
    moments = [value.item() for value in (before.mean(), before.std(), after.mean(), after.std())]
    return (
        f"{share:.2f}; {moments[0]:.1f} and {moments[1]:.1f}, {moments[2]:.1f} and"
        f" {moments[3]:.1f}; {changed}",
        abs(share - rate) < 0.005
        and abs(moments[0] - moments[2]) < 0.06
        and abs(moments[1] / moments[3] - 1) < 0.1
        and changed == 0
        and layers_of(parts) == 3,
    )


def layers_of(parts: Parts) -> int:
    return sum(isinstance(layer, nn.AlphaDropout) for layer in parts.module.network.modules())


@proof(
    "regularization=alpha_dropout model.activation=relu",
    "G21",
    "belongs to SELU only",
    "what the run says before it starts",
)
def alpha_dropout_and_relu() -> Measured:
    return warned(
        "regularization=alpha_dropout",
        "model.activation=relu",
        expected="AlphaDropout",
        free="model.activation=selu",
    )


@proof(
    "model.norm=batch model.activation=selu",
    "G17",
    "BatchNorm is pointless with SELU",
    "what the run says before it starts",
)
def batch_norm_and_selu() -> Measured:
    return warned(
        "model.activation=selu", "model.norm=batch", expected="pointless", free="model.norm=layer"
    )


@proof(
    "model.norm=batch data.batch_size=8",
    "G17",
    "BatchNorm is unreliable over few rows",
    "what the run says before it starts",
)
def batch_norm_of_few() -> Measured:
    return warned(
        "model.norm=batch", "data.batch_size=8", expected="unreliable", free="data.batch_size=32"
    )


# --- the weights themselves -----------------------------------------------------------------------


@proof(
    "regularization=max_norm",
    "G23",
    "weights into a unit are shortened to the limit after each step",
    "longest weights into a unit over 12 steps, without; with 0.5; with the file's 3",
    covers="regularization.max_norm",
)
def max_norm() -> Measured:
    words = ("optimizer=sgd", "optimizer.lr=0.3", "trainer.max_epochs=4", "model.output_scale=1")
    found = [
        max(
            step.before[name].norm(dim=1).max().item()
            for step in train(*words, *more).steps[1:]
            for name in step.before
            if step.before[name].ndim == 2
        )
        for more in (
            (),
            ("regularization=max_norm", "regularization.max_norm=0.5"),
            ("regularization=max_norm",),
        )
    ]
    return " ".join(f"{length:.3f}" for length in found), found[0] > 1 and abs(
        found[1] - 0.5
    ) < 1e-4 and found[2] <= 3 + 1e-4


def averaged(fit: Fit) -> Tensor:
    """The weights that are evaluated in place of the trained ones."""
    return vector(weights(fit.parts.module.evaluated))


@proof(
    "regularization=ema",
    "",
    "a = d a + (1 - d) w after each step, d = min(decay, n / (9 + n)); evaluated in place of w",
    "24 steps with decay 0.5: average minus the formula; val/loss minus the cross-entropy of the"
    " average, of w",
    covers="regularization.ema",
)
def ema() -> Measured:
    fit = train(
        "regularization=ema", "regularization.ema=0.5", "trainer.max_epochs=8", "optimizer.lr=0.03"
    )
    mean = vector(fit.steps[0].before)
    for count, step in enumerate(fit.steps, 1):
        decay = min(0.5, count / (9 + count))
        mean = decay * mean + (1 - decay) * vector(step.after)
    return judged(fit, mean)


@proof(
    "regularization=swa",
    "",
    "the mean of the weights at the ends of the last quarter of the epochs is evaluated",
    "8 epochs: average minus the mean of the last two ends; val/loss minus the cross-entropy of"
    " the average, of w",
    covers="regularization.swa",
)
def swa() -> Measured:
    fit = train("regularization=swa", "trainer.max_epochs=8", "optimizer.lr=0.03")
    return judged(fit, (vector(fit.steps[-4].after) + vector(fit.steps[-1].after)) / 2)


def judged(fit: Fit, expected: Tensor) -> Measured:
    """Whether the average is the expected one, and the one that is validated."""
    error = (averaged(fit) - expected).abs().max().item()
    of_mean, of_last = (
        validation_error(fit, fit.parts.module.evaluated),
        validation_error(fit, fit.network),
    )
    return (
        f"{within(error, 1e-5)}; {within(of_mean, 1e-5)}, {of_last:.4f}",
        error < 1e-5 and of_mean < 1e-5 and of_last > 1e-4,
    )


@proof(
    "regularization=cocktail",
    "G20 G24",
    "several that go together",
    "strengths that are not zero, each of them seen to act",
)
def cocktail() -> Measured:
    on = {
        name: value
        for name, value in composed("regularization=cocktail").regularization.items()
        if is_on(value)
    }
    fit, batches = train_batches("regularization=cocktail", "model=deep")
    acts = {
        "dropout": any(isinstance(layer, nn.Dropout) for layer in fit.network.modules()),
        "mixup": not np.array_equal(batches[0].x, batches[0].seen),
        "cutmix": not np.array_equal(batches[0].x, batches[0].seen),
        "ema": not torch.equal(averaged(fit), vector(fit.steps[-1].after)),
    }
    return ", ".join(f"{name} {value:g}" for name, value in on.items()), len(on) > 1 and all(
        acts[name] for name in on
    )


# --- targets --------------------------------------------------------------------------------------


@proof(
    "regularization=label_smoothing",
    "G7",
    "class targets of 1 - a + a / K and a / K, in training only",
    "targets of a training step, a = 0.1; val/loss minus the plain cross-entropy",
    covers="regularization.label_smoothing",
)
def label_smoothing() -> Measured:
    several = np.unique(targets("regularization=label_smoothing").round(5))
    binary = np.unique(targets("data=breast_cancer", "regularization=label_smoothing").round(5))
    error = validation_error((fit := train("regularization=label_smoothing")), fit.network)
    return (
        f"{several[-1]:.4f} and {several[0]:.4f} of three classes, {binary[-1]:.3f} and"
        f" {binary[0]:.3f} of two;"
        f" val/loss {within(error, 1e-5)}",
        np.allclose(several, [0.1 / 3, 0.9 + 0.1 / 3], atol=1e-4)
        and np.allclose(binary, [0.05, 0.95], atol=1e-4)
        and error < 1e-5,
    )


def targets(*words: str) -> np.ndarray:
    """What the first training step pulls the outputs to."""
    return train_batches(*words)[1][0].targets


def validation_error(fit: Fit, network: nn.Module) -> float:
    """How far val/loss is from the mean of -log(softmax) of the true classes."""
    x, y = fit.parts.data.tensors["val"]
    output = network.eval()(x).detach().double().numpy()
    plain = -np.log(probabilities(output)[np.arange(len(y)), y.numpy()]).mean()
    return abs(fit.metrics[-1]["val/loss"] - plain)
