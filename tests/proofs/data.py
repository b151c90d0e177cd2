"""Data: rows, split, scaling, task."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from sklearn import datasets
from torch import nn

from goldilocks.runs.folder import read_result
from proofs.drive import finished, prepared, train
from proofs.table import Measured, proof, within

# rows, inputs of the network, outputs, task: as the data sets are described
FACTS = {
    "digits": (1797, 64, 10, "multiclass"),
    "breast_cancer": (569, 30, 1, "binary"),
    "wine": (178, 13, 3, "multiclass"),
    "iris": (150, 4, 3, "multiclass"),
    "diabetes": (442, 10, 1, "regression"),
}


def network_of(*words: str) -> tuple[int, int, int, str]:
    """Rows in all stages, inputs and outputs of the network's weights, and the task."""
    parts = prepared(*words, "model=shallow")
    first, last = (
        layer for layer in parts.module.network.modules() if isinstance(layer, nn.Linear)
    )
    rows = sum(len(x) for x, _ in parts.data.tensors.values())
    return rows, first.in_features, last.out_features, parts.data.spec.task


def described(found: tuple[int, int, int, str]) -> str:
    rows, inputs, outputs, task = found
    return f"{rows:,} rows, {inputs} inputs, {outputs} output{'s' if outputs > 1 else ''}, {task}"


def embedded(name: str) -> None:
    what = "the network's inputs and outputs come from the data"
    many = "all of its rows arrive; weights of the first and last layer"

    @proof(f"data={name}", "G1 G2", what, many, covers=f"data.name={name}")
    def arrives() -> Measured:
        found = network_of(f"data={name}")
        parts = prepared(f"data={name}", "data.scaling=none")
        total = sum(x.double().square().sum().item() for x, _ in parts.data.tensors.values())
        same = abs(total / (getattr(datasets, f"load_{name}")().data ** 2).sum() - 1) < 1e-5
        return described(found) + ("" if same else ", with other numbers"), found == FACTS[
            name
        ] and same


for one in FACTS:
    embedded(one)


SYNTHETIC = ("data=synthetic", "data.rows=1000", "data.features=6")


@proof(
    "data=synthetic",
    "G1 G2",
    "rows at random, as many and as wide as asked",
    "the network built for it",
    covers="data.rows data.features",
)
def synthetic() -> Measured:
    found = network_of(*SYNTHETIC, "data.classes=4")
    return described(found), found == (1000, 6, 4, "multiclass")


@proof(
    "data.classes",
    "G2",
    "0: regression; 2: binary; more: classes",
    "task and outputs with 0, 2, 3, 7",
)
def classes() -> Measured:
    found = [network_of(*SYNTHETIC, f"data.classes={number}")[2:] for number in (0, 2, 3, 7)]
    expected = [(1, "regression"), (1, "binary"), (3, "multiclass"), (7, "multiclass")]
    return ", ".join(f"{task} {outputs}" for outputs, task in found), found == expected


@proof(
    "data.noise",
    "",
    "standard deviation of what is added to the target",
    "target with 0.5 minus target with 0",
)
def noise() -> Measured:
    with_noise, without = (
        raw_target(*SYNTHETIC, "data.classes=0", f"data.noise={size}") for size in (0.5, 0.0)
    )
    spread = np.std(with_noise - without)
    return f"standard deviation {spread:.2f}", abs(spread - 0.5) < 0.03


def raw_target(*words: str) -> np.ndarray:
    """Targets of all rows in the data's own units, in the source's order."""
    return prepared(*words).data.load().target


# --- the split ------------------------------------------------------------------------------------


@proof(
    "data.batch_size",
    "G8",
    "rows in a training batch",
    "rows that each forward pass of an epoch gets; 90 rows",
)
def batch_size() -> Measured:
    found = {size: batches(f"data.batch_size={size}") for size in (2, 16, 32)}
    expected = {2: [2] * 45, 16: [16] * 5 + [10], 32: [32, 32, 26]}
    counts = ", ".join(f"{size}: {len(rows)} batches" for size, rows in found.items())
    return f"{counts}; the last of 32: {found[32][-1]} rows", found == expected


@proof(
    "data.sampler",
    "",
    "balanced: an epoch draws each class as often as any other, each of its rows alike",
    "share of the rarer class in 20 epochs, without; balanced; rows of an epoch;"
    " of the validation rows",
)
def sampler() -> Measured:
    found, sizes, judged = [], [], []
    for words in ((), ("data.sampler=balanced",)):
        parts = prepared("data=breast_cancer", *words)
        loader, epochs = parts.data.loader("train", shuffle_seed=0), []
        for epoch in range(20):
            loader.set_epoch(epoch)
            epochs += [y for item in loader for _, y in item.split()]
        drawn = torch.cat(epochs).flatten()
        found.append(float((drawn == 0).float().mean()))
        sizes.append(len(drawn) // 20)
        judged.append(float((parts.data.tensors["val"][1] == 0).float().mean()))
    return (
        f"{found[0]:.2f}; {found[1]:.2f}; {sizes[1]}, as without; {judged[1]:.2f}",
        abs(found[0] - 0.37) < 0.01
        and abs(found[1] - 0.5) < 0.02
        and sizes[0] == sizes[1]
        and judged[0] == judged[1],
    )


def batches(*words: str) -> list[int]:
    """Rows of each forward pass in training."""
    parts, seen = prepared(*words), []
    parts.module.network.register_forward_hook(
        lambda network, inputs, output: seen.append(len(output)) if network.training else None
    )
    train(parts=parts)
    return seen


def counts(*words: str) -> dict[str, int]:
    return {stage: len(x) for stage, (x, _) in prepared(*words).data.tensors.items()}


@proof(
    "data.val_fraction", "G9", "share of all rows that judges the epochs", "rows by stage of 150"
)
def val_fraction() -> Measured:
    found = (
        counts("data.val_fraction=0.1"),
        counts("data.val_fraction=0", "objective.metric=train/loss"),
    )
    return (
        f"0.1: {found[0]['val']} rows; 0: {found[1].get('val', 0)} rows, {found[1]['train']} to"
        " train on",
        found == ({"train": 105, "test": 30, "val": 15}, {"train": 120, "test": 30}),
    )


@proof(
    "data.test_fraction",
    "",
    "share of all rows that is seen once, at the end",
    "rows by stage of 150",
)
def test_fraction() -> Measured:
    found = counts("data.test_fraction=0.3"), counts("data.test_fraction=0")
    return (
        f"0.3: {found[0]['test']} rows; 0: {found[1].get('test', 0)} rows",
        found == ({"train": 75, "test": 45, "val": 30}, {"train": 120, "val": 30}),
    )


@proof(
    "data.seed",
    "",
    "draws another split, with the classes' shares kept",
    "training rows and classes, seeds 0 0 1",
)
def split_seed() -> Measured:
    rows = [
        prepared(f"data.seed={seed}", "data.scaling=none").data.tensors["train"]
        for seed in (0, 0, 1)
    ]
    again, other = (torch.equal(rows[0][0], rows[number][0]) for number in (1, 2))
    shares = [torch.bincount(y).tolist() for _, y in rows]
    return (
        f"same seed: {'same' if again else 'other'} rows; another: {'same' if other else 'other'}"
        " rows;"
        f" {'-'.join(map(str, shares[0]))} of the classes",
        again and not other and shares == [[30, 30, 30]] * 3,
    )


@proof(
    "data.folds",
    "",
    "trains a network for each part of the rows, judged on it; the result has means and spread",
    "times that each row of iris validates, with 3; the folds' test rows; result minus the folds'"
    " mean, deviation",
)
def folds() -> Measured:
    rows = [prepared("data.folds=3", f"data.fold={fold}").data.row_numbers for fold in range(3)]
    times = np.bincount(np.concatenate([of["val"] for of in rows]), minlength=150)
    test = rows[0]["test"]
    same = all(set(of["test"]) == set(test) for of in rows)
    once = np.array_equal(np.flatnonzero(times == 0), np.sort(test)) and times.max() == 1
    with finished("data.folds=3") as (folder, result):
        losses = [read_result(folder / f"fold_{fold}")["metrics"]["val/loss"] for fold in range(3)]
    mean, spread = np.mean(losses), np.std(losses, ddof=1)
    errors = (
        abs(result["metrics"]["val/loss"] / mean - 1),
        abs(result["spread"]["val/loss"] / spread - 1),
    )
    return (
        f"{times.min()} or {times.max()}, 0 those of the test; {'the same' if same else 'others'};"
        f" {within(errors[0], 1e-9)} of it, {within(errors[1], 1e-9)} of it",
        same and once and max(errors) < 1e-9,
    )


@proof(
    "data.fold",
    "",
    "trains for this fold only",
    "val/loss of fold 1 of 3, alone and among all; folders it makes",
)
def fold() -> Measured:
    with finished("data.folds=3") as (folder, _):
        among = read_result(folder / "fold_1")["metrics"]["val/loss"]
    with finished("data.folds=3", "data.fold=1") as (folder, result):
        alone, made = result["metrics"]["val/loss"], len(list(folder.glob("fold_*")))
    return f"{alone:.4f} and {among:.4f}; {made}", alone == among and made == 0


# --- scaling --------------------------------------------------------------------------------------


def raw_and_scaled(scaling: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The wines' features by stage: unscaled, and as the network gets them."""
    raw, scaled = (
        prepared("data=wine", f"data.scaling={name}").data.tensors for name in ("none", scaling)
    )
    return tuple(
        {stage: x.double().numpy() for stage, (x, _) in tensors.items()}
        for tensors in (raw, scaled)
    )  # type: ignore[return-value]


@proof(
    "data.scaling=standard",
    "G10",
    "mean 0, variance 1 on the training rows",
    "columns; other rows by those numbers",
)
def standard() -> Measured:
    raw, scaled = raw_and_scaled("standard")
    mean, spread = np.abs(scaled["train"].mean(0)).max(), np.abs(scaled["train"].std(0) - 1).max()
    by_train = np.abs(
        scaled["test"] - (raw["test"] - raw["train"].mean(0)) / raw["train"].std(0)
    ).max()
    off = np.abs(scaled["test"].mean(0)).max()
    return (
        f"train: mean {within(mean, 1e-4)}, deviation from variance 1 {within(spread, 1e-4)}; test"
        " by train's numbers:"
        f" error {within(by_train, 1e-4)} (its own mean is up to {off:.1f})",
        max(mean, spread, by_train) < 1e-4 and off > 0.05,
    )


@proof(
    "data.scaling=minmax",
    "G10",
    "from 0 to 1 on the training rows",
    "columns; other rows by those numbers",
)
def minmax() -> Measured:
    raw, scaled = raw_and_scaled("minmax")
    low, high = raw["train"].min(0), raw["train"].max(0)
    ends = scaled["train"].min(0), scaled["train"].max(0)
    by_train = np.abs(scaled["test"] - (raw["test"] - low) / (high - low)).max()
    return (
        f"train: {np.mean(ends[0]):.2f} to {np.mean(ends[1]):.2f}; test by train's: error"
        f" {within(by_train, 1e-4)}",
        by_train < 1e-4 and np.abs(ends[0]).max() < 1e-6 and np.abs(ends[1] - 1).max() < 1e-6,
    )


@proof(
    "data.scaling=robust",
    "G10",
    "z = (x - median) / inter-quartile range, then z / sqrt(1 + (z / 3)^2), by the training rows",
    "columns of the training and the test rows minus the formula; largest value",
)
def robust() -> Measured:
    raw, scaled = raw_and_scaled("robust")
    low, middle, high = np.quantile(raw["train"], [0.25, 0.5, 0.75], axis=0)
    z = {stage: (raw[stage] - middle) / (high - low) for stage in ("train", "test")}
    error = max(
        np.abs(scaled[stage] - z[stage] / np.sqrt(1 + (z[stage] / 3) ** 2)).max() for stage in z
    )
    largest = max(np.abs(values).max() for values in scaled.values())
    return (
        f"{within(error, 1e-4)}; {largest:.2f}, of {np.abs(z['train']).max():.2f}",
        error < 1e-4 and largest < 3,
    )


@proof(
    "data.scaling=auto",
    "G10",
    "robust for features with values more than 10 inter-quartile ranges from the median, else"
    " standard",
    "features of 1,000 normal numbers and of their exponentials squared, minus either formula",
)
def auto_scaling() -> Measured:
    from goldilocks.data.scaling import apply_scaler, fit_scaler

    even = np.random.default_rng(0).normal(size=1000)
    raw = np.stack([even, np.exp(2 * even)], axis=1)
    scaled = apply_scaler(raw, fit_scaler(raw, "auto"))
    low, middle, high = np.quantile(raw[:, 1], [0.25, 0.5, 0.75])
    z = (raw[:, 1] - middle) / (high - low)
    errors = (
        np.abs(scaled[:, 0] - (even - even.mean()) / even.std()).max(),
        np.abs(scaled[:, 1] - z / np.sqrt(1 + (z / 3) ** 2)).max(),
    )
    return ", ".join(within(float(error), 1e-5) for error in errors), max(errors) < 1e-5


@proof(
    "data.scaling=quantile",
    "G10",
    "to a normal distribution by the training rows' quantiles",
    "training values that occur once, minus the normal distribution's value of their rank; spread"
    " of all",
)
def quantile() -> Measured:
    raw, scaled = raw_and_scaled("quantile")
    before, after = raw["train"], scaled["train"]
    rank = (stats.rankdata(before, axis=0) - 1) / (len(before) - 1)
    expected = stats.norm.ppf(rank.clip(1e-7, 1 - 1e-7))
    once = np.stack([np.isin(column, single(column)) for column in before.T], axis=1)
    error = np.abs(after - expected)[once].max()
    inside = np.sort(after, axis=0)[5:-5]  # the ends stand for infinity
    spread = inside.std(0).mean() / stats.norm.ppf(np.linspace(0, 1, len(after))[5:-5]).std()
    return f"{within(error, 1e-3)}, {once.sum()} values; {spread:.2f} of a normal one's", (
        error < 1e-3 and once.sum() > 100 and abs(spread - 1) < 0.03
    )


def single(column: np.ndarray) -> np.ndarray:
    """Values that occur once."""
    values, counts = np.unique(column, return_counts=True)
    return values[counts == 1]


@proof("data.scaling=none", "G10", "as they are", "largest difference from scikit-learn's numbers")
def unscaled() -> Measured:
    raw, _ = raw_and_scaled("none")
    ours, theirs = np.concatenate(list(raw.values())), datasets.load_wine().data
    error = np.abs(np.sort(ours, axis=0) - np.sort(theirs, axis=0)).max()
    return (
        f"difference {within(error, 1e-3)}; values up to {ours.max():,.0f}",
        error < 1e-3 < 1000 < ours.max(),
    )


# --- the target of a regression -------------------------------------------------------------------


def target_row(scaling: str, claim: str) -> None:
    observable = (
        "targets of the training rows: mean, spread, least, most; val/rmse minus that of the"
        " predictions"
    )

    @proof(f"data.target_scaling={scaling}", "G10", claim, observable)
    def scaled() -> Measured:
        fit = train("data=diabetes", f"data.target_scaling={scaling}", "model.output_scale=1")
        y = fit.parts.data.tensors["train"][1].double().numpy()
        raw = prepared("data=diabetes", "data.target_scaling=none").data.tensors
        x = fit.parts.data.tensors["val"][0]
        predicted = fit.parts.module.eval()(x).detach().double().numpy()
        rmse = np.sqrt(((predicted - raw["val"][1].double().numpy()) ** 2).mean())
        error = abs(fit.metrics[-1]["val/rmse"] / rmse - 1)
        target = raw["train"][1].double().numpy()
        shift, scale = SHIFTS[scaling](target)
        holds = (
            np.allclose(y, (target - shift) / scale, atol=1e-5)
            and error < 1e-5
            and target.max() > 300
        )
        numbers = " ".join(
            f"{round(value, 2) + 0.0:.2f}" for value in (y.mean(), y.std(), y.min(), y.max())
        )
        return f"{numbers}; {within(error, 1e-5)} of it", bool(holds)


SHIFTS: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {
    "standard": lambda y: (y.mean(), y.std()),
    "minmax": lambda y: (y.min(), y.max() - y.min()),
    "none": lambda y: (0.0, 1.0),
}
target_row("standard", "mean 0, variance 1; predictions and metrics in the target's own units")
target_row("minmax", "from 0 to 1; predictions and metrics in the target's own units")
target_row("none", "as it is")


# --- task -----------------------------------------------------------------------------------------


def task_row(task: str, data: str, outputs: int) -> None:
    claim = {
        "auto": "read from the target",
        "regression": "one output, squared error, though digits are classes",
    }
    claim |= {
        "binary": "one output",
        "multiclass": "one output a class, for a target of two values too",
    }

    @proof(f"data.task={task}", "G2", claim[task], f"outputs of the network for {data}")
    def outputs_of() -> Measured:
        _, _, found, name = network_of(f"data={data}", f"data.task={task}")
        return f"{name}, {found} output{'s' if found > 1 else ''}", found == outputs and task in (
            "auto",
            name,
        )


for row in (
    ("auto", "wine", 3),
    ("regression", "digits", 1),
    ("binary", "breast_cancer", 1),
    ("multiclass", "breast_cancer", 2),
):
    task_row(*row)
