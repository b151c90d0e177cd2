"""Task: losses, metrics, and the one that decides."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn import metrics as reference

from goldilocks.callbacks import recorder_of
from goldilocks.runs.ensembles import kept
from proofs.drive import Fit, finished, prepared, probabilities, train, train_batches
from proofs.table import Measured, proof, within

DATA = {
    "mse": "diabetes",
    "mae": "diabetes",
    "huber": "diabetes",
    "log_cosh": "diabetes",
    "quantile": "diabetes",
    "bce": "breast_cancer",
    "cross_entropy": "iris",
    "focal": "breast_cancer",
}
# Losses with parameters are shown at other values than their options'.
SET = {
    "huber": ("loss.delta=0.5",),
    "quantile": ("loss.q=0.9",),
    "focal": ("loss.gamma=3", "loss.alpha=0.25"),
}


def huber(error: np.ndarray) -> np.ndarray:
    return np.where(np.abs(error) < 0.5, error**2 / 2, 0.5 * (np.abs(error) - 0.25))


def focal(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    share = probabilities(output)
    share, weight = np.where(target == 1, share, 1 - share), np.where(target == 1, 0.25, 0.75)
    return -weight * (1 - share) ** 3 * np.log(share)


def cross_entropy(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    return -np.log(probabilities(output)[np.arange(len(target)), target.astype(int)])


def bce(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    share = probabilities(output)
    return -target * np.log(share) - (1 - target) * np.log(1 - share)


LOSSES: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "mse": ("mean of e^2", lambda output, target: (output - target) ** 2),
    "mae": (
        "mean of |e|: outliers count by their size only",
        lambda output, target: np.abs(output - target),
    ),
    "huber": (
        "e^2 / 2 up to delta, beyond it delta * (|e| - delta / 2); delta 0.5",
        lambda output, target: huber(output - target),
    ),
    "log_cosh": (
        "log(cosh(e))",
        lambda output, target: np.log(np.cosh(output - target)),
    ),
    "quantile": (
        "0.9 * e above the prediction, 0.1 * |e| below, for q 0.9",
        lambda output, target: np.maximum(0.9 * (target - output), 0.1 * (output - target)),
    ),
    "bce": ("-log of the true class's probability, of two", bce),
    "cross_entropy": ("-log of the true class's probability", cross_entropy),
    "focal": ("-alpha (1 - p)^gamma log p, p the true class's; gamma 3, alpha 0.25", focal),
}


def reported(loss: str, name: str) -> tuple[float, float]:
    """val/loss of a trained epoch, and the formula's value on the network's outputs."""
    own = SET.get(loss, ())
    fit = train(f"data={DATA[name]}", f"loss={loss}", *own, "model.output_scale=2")
    x, y = fit.parts.data.tensors["val"]
    output = fit.network.eval()(x).detach().double().numpy()
    return fit.metrics[-1]["val/loss"], float(LOSSES[name][1](output, y.double().numpy()).mean())


def loss_row(name: str) -> None:
    @proof(
        f"loss={name}",
        "G7",
        LOSSES[name][0],
        f"val/loss on {DATA[name]} minus the formula on the outputs",
        covers=" ".join(word.partition("=")[0] for word in SET.get(name, ())),
    )
    def value() -> Measured:
        found, expected = reported(name, name)
        error = abs(found / expected - 1)
        return f"{within(error, 1e-5)} of it", error < 1e-5


for one in LOSSES:
    loss_row(one)


@proof(
    "loss=auto",
    "G7",
    "squared error, binary or many-class cross-entropy by task",
    "val/loss over each formula",
)
def auto() -> Measured:
    found = {name: reported("auto", name) for name in ("mse", "bce", "cross_entropy")}
    errors = {name: abs(value / expected - 1) for name, (value, expected) in found.items()}
    shown = ", ".join(f"{DATA[name]} is {name}" for name, error in errors.items() if error < 1e-5)
    return shown, max(errors.values()) < 1e-5


# --- metrics --------------------------------------------------------------------------------------


def scikit_learns(task: str, output: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """The metrics of predictions, by scikit-learn."""
    if task == "regression":
        return {
            "rmse": reference.mean_squared_error(target, output) ** 0.5,
            "mae": reference.mean_absolute_error(target, output),
            "r2": reference.r2_score(target, output),
            "spearman": spearmanr(target, output.squeeze()).statistic,
        }
    chosen = output.argmax(1)
    return {
        "accuracy": reference.accuracy_score(target, chosen),
        "balanced_accuracy": reference.balanced_accuracy_score(target, chosen),
        "auroc": reference.roc_auc_score(target, output, multi_class="ovr"),
        "f1": reference.f1_score(target, chosen, average="macro"),
        "matthews": reference.matthews_corrcoef(target, chosen),
        "kappa": reference.cohen_kappa_score(target, chosen),
        "ece": binned_error(output.max(1), chosen == target),
    }


def binned_error(sure: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error by its definition, over 15 bins."""
    bins = np.minimum((sure * 15).astype(int), 14)
    parts = [bins == number for number in set(bins)]
    return float(sum(part.mean() * abs(right[part].mean() - sure[part].mean()) for part in parts))


def metric_row(words: str, data: str, claim: str, covers: str) -> None:
    observable = f"those of validation on {data} minus scikit-learn's or their formula"

    @proof(f"{words} data={data}", "G9", claim, observable, covers=covers)
    def value() -> Measured:
        fit = train(words, f"data={data}")
        x, y = fit.parts.data.tensors["val"]
        predicted = fit.parts.module.eval()(x).detach().double()
        truth = y.double()
        if data == "diabetes":
            truth = fit.parts.module.task.unscale(y).double()
        expected = scikit_learns(
            fit.parts.data.spec.task, predicted.numpy(), truth.numpy().squeeze()
        )
        found = fit.metrics[-1]
        names = [name for name in expected if f"val/{name}" in found]
        worst = max(
            abs(found[f"val/{name}"] - expected[name]) / abs(expected[name]) for name in names
        )
        return f"{', '.join(names)}: {within(worst, 1e-4)} of it", worst < 1e-4


metric_row(
    "metrics=[accuracy,balanced_accuracy,auroc,f1,ece,matthews,kappa]",
    "digits",
    "the named metrics, of classes",
    "metrics=accuracy metrics=balanced_accuracy metrics=auroc metrics=f1 metrics=ece"
    " metrics=matthews metrics=kappa",
)
metric_row(
    "metrics=[auto,spearman]",
    "diabetes",
    "the task's own metrics, in the target's units",
    "metrics=auto metrics=rmse metrics=mae metrics=r2 metrics=spearman",
)


# --- what comes out -------------------------------------------------------------------------------

OUTPUTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "identity": ("nothing: any value", lambda raw: raw),
    "tanh": ("from -1 to 1", lambda raw: np.tanh(raw)),
    "sigmoid": ("from 0 to 1", lambda raw: 1 / (1 + np.exp(-raw))),
    "softplus": ("above 0", lambda raw: np.log1p(np.exp(raw))),
}


def output_row(name: str) -> None:
    claim, function = OUTPUTS[name]
    observable = (
        "predictions minus the formula of the raw outputs, target scaled to 0..1; val/loss minus"
        " its square error"
    )

    @proof(f"task.output={name}", "G15", claim, observable)
    def predictions() -> Measured:
        words = ("data=diabetes", f"task.output={name}", "model.output_scale=3", "model=linear")
        fit = train(*words, "data.target_scaling=minmax", "optimizer.lr=0.0001")
        raw_target = prepared("data=diabetes", "data.target_scaling=none").data.tensors["train"][1]
        low, high = raw_target.min().item(), raw_target.max().item()
        x, y = fit.parts.data.tensors["val"]
        raw = fit.network.eval()(x).detach().double().numpy()
        scaled = (fit.parts.module.eval()(x).detach().double().numpy() - low) / (high - low)
        error = np.abs(scaled - function(raw)).max()
        loss = ((function(raw) - y.double().numpy()) ** 2).mean()
        off = abs(fit.metrics[-1]["val/loss"] / loss - 1)
        span = (
            f"raw {raw.min():.1f} to {raw.max():.1f} become {scaled.min():.2f} to"
            f" {scaled.max():.2f}"
        )
        return (
            f"{span}; {within(error, 1e-5)}; {within(off, 1e-5)} of it",
            error < 1e-5 and off < 1e-5,
        )


for word in OUTPUTS:
    output_row(word)


@proof(
    "task.output=identity data=iris",
    "G15",
    "classes train on logits and are predicted as probabilities",
    "sum over classes of raw outputs, of predictions; the latter minus softmax, minus the"
    " logistic function",
)
def predicted() -> Measured:
    rows = []
    for data in ("iris", "breast_cancer"):
        parts = prepared(f"data={data}", "model.output_scale=3")
        x = parts.data.tensors["val"][0]
        raw = parts.module.network.eval()(x).detach().double().numpy()
        rows.append((raw, parts.module.eval()(x).detach().double().numpy()))
    (raw, found), (logit, binary) = rows
    errors = np.abs(found - probabilities(raw)).max(), np.abs(binary - probabilities(logit)).max()
    sums = raw.sum(1), found.sum(1)
    return (
        f"{sums[0].min():.1f} to {sums[0].max():.1f}; {sums[1].min():.2f} to {sums[1].max():.2f};"
        f" {within(errors[0], 1e-6)}; {within(errors[1], 1e-6)}",
        max(errors) < 1e-6 and np.ptp(sums[0]) > 0.5,
    )


# --- rare classes ---------------------------------------------------------------------------------


def class_weights(word: str) -> dict[str, list[float]]:
    """How much a row of each class counts in a training step:
    its gradient over what an unweighted one is.
    """
    found = {}
    for data in ("breast_cancer", "wine"):
        batch = train_batches(f"data={data}", f"task.class_weight={word}")[1][0]
        y = batch.y.flatten().astype(int)
        several = batch.output.shape[1] > 1
        plain = probabilities(batch.output) - (
            np.eye(batch.output.shape[1])[y] if several else y[:, None]
        )
        ratio = (batch.gradient / plain)[np.arange(len(y)), y if several else 0] * len(y)
        found[data] = [float(ratio[y == kind].mean()) for kind in np.unique(y)]
    return found


def weight_row(word: str, claim: str) -> None:
    observable = (
        "how much a row of each class counts in a training step, for 127 and 214 tumours and for"
        " the wines"
    )

    @proof(f"task.class_weight={word}", "G7", claim, observable)
    def counted() -> Measured:
        found, expected = class_weights(word), {}
        for data in found:
            y = prepared(f"data={data}").data.tensors["train"][1].flatten().long().numpy()
            rows = np.bincount(y)
            expected[data] = (
                len(y) / (len(rows) * rows) if word == "balanced" else np.ones(len(rows))
            )
        shown = ", ".join(
            " ".join(f"{weight:.2f}" for weight in weights) for weights in found.values()
        )
        return shown, all(np.allclose(found[data], expected[data], rtol=1e-3) for data in found)


weight_row("none", "every row counts alike")
weight_row("balanced", "a row counts as n / (classes * rows of its class)")


# --- probabilities, once training is over --------------------------------------------------------

AFTERWARDS = ("data=breast_cancer", "kept_predictions=1000", "trainer.max_epochs=3")


def decided(*words: str) -> tuple[Any, Any, dict[str, Any]]:
    """Kept validation and test rows, as trained, of a run, and its result."""
    with finished(*AFTERWARDS, *words) as (folder, result):
        return kept(folder), kept(folder, "test"), result


def sum_of_losses(rows: Any, temperature: float) -> float:
    """The log-losses of rows whose logits are divided by a temperature."""
    shares = probabilities(np.log(rows.predicted.astype(float)) / temperature)
    return float(-np.log(shares[np.arange(len(rows.true)), rows.true]).sum())


def calibration_row(word: str, claim: str) -> None:
    observable = (
        "temperature, against the least of log-loss plus (log T)^2 / 0.5 over a grid, and test/loss"
        " over that of the logits divided by it"
    )

    @proof(f"task.calibration={word}", "", claim, observable)
    def fitted() -> Measured:
        val, test, result = decided("data=digits", f"task.calibration={word}")
        grid = np.exp(np.linspace(-1.5, 1.5, 1501)) if word != "none" else np.ones(1)
        losses = [sum_of_losses(val, one) + np.log(one) ** 2 / 0.5 for one in grid]
        best = grid[np.argmin(losses)]
        own = (result["calibration"] or {"temperature": 1.0})["temperature"]
        loss = sum_of_losses(test, own) / len(test.true)
        off = abs(result["metrics"]["test/loss"] / loss - 1)
        error = abs(own / best - 1)
        return f"{own:.2f}: {within(error, 0.01)}; {within(off, 1e-4)}", error < 0.01 and off < 1e-4


calibration_row("none", "probabilities are as trained")
calibration_row("temperature", "logits are divided by the temperature of least log-loss")
calibration_row("auto", "the same, where rows that it was not fitted on show a gain")


@proof(
    "task.threshold",
    "",
    "two classes: the second is predicted above it, or above the best by F1, recall or cost",
    "thresholds of 0.3, f1, balanced_accuracy and cost, of a false positive ten times as dear and"
    " of a miss; each over the best of a grid by scikit-learn",
    covers="task.false_positive_cost task.false_negative_cost",
)
def thresholds() -> Measured:
    shown, holds = [], True
    for words in (
        ("task.threshold=0.3",),
        ("task.threshold=f1",),
        ("task.threshold=balanced_accuracy",),
        ("task.threshold=cost", "task.false_positive_cost=10"),
        ("task.threshold=cost", "task.false_negative_cost=10"),
    ):
        val, _, result = decided(*words)
        own = result["threshold"]["threshold"]
        costs = [
            10.0 if f"false_{kind}_cost" in words[-1] else 1.0 for kind in ("positive", "negative")
        ]
        rule = words[0].partition("=")[2]
        score = partial(rule_score, rule, val, costs)
        holds &= own == 0.3 if rule == "0.3" else score(own) > max(map(score, GRID)) - 1e-9
        shown.append(f"{own:.2f}")
    return " ".join(shown), holds and float(shown[3]) > float(shown[4])


GRID = np.linspace(0, 1, 2001)


def rule_score(rule: str, rows: Any, costs: list[float], threshold: float) -> float:
    """What a rule makes of a threshold; more is better."""
    said = rows.predicted[:, 1].astype(float) > threshold
    if rule == "f1":
        return float(reference.f1_score(rows.true, said))
    if rule == "balanced_accuracy":
        return float(reference.balanced_accuracy_score(rows.true, said))
    false, missed = said & (rows.true == 0), ~said & (rows.true == 1)
    return -float(np.mean(costs[0] * false + costs[1] * missed))


# --- the objective --------------------------------------------------------------------------------


def with_curve(metric: str, curve: list[float], *words: str) -> Fit:
    """A training whose metric is made to follow a curve."""
    parts = prepared(f"objective.metric={metric}", f"trainer.max_epochs={len(curve)}", *words)
    report = parts.module.publish_metrics

    def made_up(metrics: dict[str, float]) -> None:
        report(
            {k: curve[parts.module.current_epoch] if k == metric else v for k, v in metrics.items()}
        )

    parts.module.publish_metrics = made_up  # type: ignore[method-assign]
    return train(parts=parts)


@proof(
    "objective.metric",
    "G9 G19",
    "decides on the best epoch, less or more being better by the metric; on a tie the later",
    "best epoch of a made-up curve of val/loss 3 1 2 1, of val/accuracy 0.5 0.7 0.6",
    covers="objective.mode=min objective.mode=max",
)
def objective() -> Measured:
    curves = {"val/loss": [3.0, 1.0, 2.0, 1.0], "val/accuracy": [0.5, 0.7, 0.6]}
    best = [
        recorder_of(with_curve(metric, curve).trainer).best_epoch
        for metric, curve in curves.items()
    ]
    return f"epoch {best[0]}, epoch {best[1]} (counted from 0)", best == [3, 1]
