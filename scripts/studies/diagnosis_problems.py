"""Made problems whose right diagnosis is known, because each was made to have it:
see diagnosis_table.py.

Legend: N rows, F features.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Columns = dict[str, Array]

SINGLE, REPEATED, TARGET = "single features", "rows in two splits", "target"
NOTHING, RARE = "nothing to learn", "rare class missed"
LINEAR, TREES = "below linear", "trees far ahead"
LONG = "callbacks.early_stopping=null trainer.max_epochs=60 data.batch_size=32"


@dataclass(frozen=True)
class Problem:
    """A table, a command, and what is wrong with them.

    Attributes:
        name: In a few words, with the size of what is wrong.
        make: The table: its columns by name, the target last.
        words: Of the command line, beside the table.
        right: The findings that a diagnosis must have.
        open: Findings that are true or not as chance has it, and count neither way.
    """

    name: str
    make: Callable[[], Columns]
    words: str = ""
    right: frozenset[str] = field(default_factory=frozenset)
    open: frozenset[str] = field(default_factory=frozenset)


def problems() -> list[Problem]:
    """All of them."""
    return [
        *noisy(),
        *too_small(),
        *too_large(),
        *bad_rates(),
        *short(),
        *bad_data(),
        *rare_classes(),
        *bad_layers(),
        *behind(),
        *healthy(),
    ]


# --- noise of known size --------------------------------------------------------------------------


def noisy() -> list[Problem]:
    """A target of which a known share is noise:
    what is left on the training rows is no underfitting.
    """
    made = [
        problem(
            f"regression, noise {share:.0%} of the variance",
            partial(curve, 800, share),
            open=["overfitting", TREES, *["noise"] * (share > 0.8)],
        )
        for share in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    made += [
        problem(
            f"two classes, {share:.0%} of the labels at random",
            partial(labelled, 800, share),
            open=["overfitting", "still improving", *["noise"] * (share > 0.3)],
        )
        for share in (0.2, 0.4, 0.6, 0.8)
    ]
    return [
        *made,
        problem(
            "four classes, 60% of the labels at random",
            lambda: labelled(1000, 0.6, 4),
            open=["overfitting", "noise"],
        ),
        problem(
            "line, noise 90% of the variance, 3,000 rows, linear model",
            lambda: line(3000, 0.9),
            "model=linear",
        ),
        problem(
            "curve, noise 80% of the variance, 3,000 rows, three layers",
            lambda: curve(3000, 0.8),
            "model=deep data.batch_size=128",
            open=["overfitting"],
        ),
        problem(
            "line, noise 70% of the variance, dropout",
            lambda: line(1000, 0.7),
            "regularization=dropout",
            open=["overfitting"],
        ),
        problem(
            "regression, nothing but noise",
            lambda: curve(800, 1.0),
            right=[NOTHING],
        ),
        problem(
            "two classes, nothing but noise",
            lambda: labelled(800, 1.0),
            right=[NOTHING],
        ),
        problem(
            "four classes, nothing but noise",
            lambda: labelled(800, 1.0, 4),
            right=[NOTHING],
        ),
        problem(
            "10 validation rows, noise 80% of the variance",
            lambda: line(200, 0.8),
            "data.val_fraction=0.05",
            right=["noise"],
            open=["overfitting"],
        ),
        problem(
            "12 validation rows, 60% of the labels at random",
            lambda: labelled(240, 0.6),
            "data.val_fraction=0.05",
            right=["noise"],
            open=["overfitting"],
        ),
    ]


# --- too small, too large -------------------------------------------------------------------------


def too_small() -> list[Problem]:
    """Networks that cannot bend as the target does, or are held back."""
    right = ["underfitting"]
    return [
        problem("product of two numbers, linear model", product, "model=linear", right),
        problem("circle, linear model", circle, "model=linear", right),
        problem("chessboard of four classes, linear model", board, "model=linear", right),
        problem(
            "product, noise 40% of the variance, linear model",
            lambda: product(noise=0.4),
            "model=linear",
            right,
        ),
        problem("waves, linear model", waves, "model=linear", right),
        problem(
            "circle, dropout of 0.9",
            circle,
            "model=deep model.width=16 regularization.dropout=0.9",
            right,
        ),
        problem(
            "four classes, L2 of 0.3",
            lambda: labelled(800, 0.0, 4),
            "optimizer=sgd regularization.l2=0.3",
            right,
        ),
        problem(
            "curve, weights of norm 0.3 at most",
            lambda: curve(800, 0.1),
            "regularization.max_norm=0.3",
            right,
        ),
    ]


def too_large() -> list[Problem]:
    """Far more weights than few noisy rows can hold, trained on long after the best epoch."""
    right = ["overfitting"]
    return [
        problem(
            "100 rows, noise 50% of the variance, 512 units twice",
            lambda: line(100, 0.5, features=20),
            f"model=wide {LONG} data.val_fraction=0.4",
            right,
            ["noise"],
        ),
        problem(
            "300 rows, 40% of the labels at random, three layers",
            lambda: labelled(300, 0.4),
            f"model=deep {LONG} data.val_fraction=0.4",
            right,
            ["noise"],
        ),
        problem(
            "300 rows of four classes, 50% at random, 512 units twice",
            lambda: labelled(300, 0.5, 4),
            f"model=wide {LONG} data.val_fraction=0.4",
            right,
            ["noise"],
        ),
        problem(
            "noise 80% of the variance, 512 units twice",
            lambda: curve(600, 0.8),
            f"model=wide {LONG}",
            right,
            ["noise"],
        ),
        problem(
            "noise 60% of the variance, residual network",
            lambda: curve(500, 0.6),
            f"model=resnet {LONG}",
            right,
            ["noise"],
        ),
    ]


# --- rates and length -----------------------------------------------------------------------------


def bad_rates() -> list[Problem]:
    """Steps that are far too long or too short."""
    high, low = ["rate too high"], ["rate too low"]
    clean = lambda: line(600, 0.05)  # noqa: E731
    return [
        problem("sgd at a rate of 30, linear model", classes, "model=linear optimizer=sgd optimizer.lr=30", high),
        problem("nadam at a rate of 1", clean, "model.activation=silu optimizer.lr=1 trainer.max_epochs=20", high),
        problem("momentum at a rate of 3, classes", classes, "model=linear optimizer=momentum optimizer.lr=10", high),
        problem("sgd at a rate of 10, three layers", clean, "model=deep optimizer=sgd optimizer.lr=10", ["diverged"]),
        problem("momentum at a rate of 30, three layers", clean, "model=deep optimizer=momentum optimizer.lr=30", ["diverged"]),
        problem("sgd at a rate of 3e-5", clean, "model=deep optimizer=sgd optimizer.lr=3e-5 trainer.max_epochs=30", low),
        problem("nadam at a rate of 3e-6", clean, "model=deep optimizer.lr=3e-6 trainer.max_epochs=40", low),
        problem("nadam at a rate of 1e-6, classes", classes, "model=deep optimizer.lr=1e-6 trainer.max_epochs=30", low),
    ]  # fmt: skip


def short() -> list[Problem]:
    """Runs that end before they are done, and those that are too short to be judged."""
    return [
        problem("3 epochs of classes", classes, "trainer.max_epochs=3", ["still improving"]),
        problem("6 epochs of waves", waves, "trainer.max_epochs=6", ["still improving"]),
        problem("line, 4 epochs", line, "trainer.max_epochs=4", ["still improving"]),
        problem(
            "1cycle of 180 steps",
            lambda: labelled(1000, 0.1, 3),
            "scheduler=onecycle trainer.max_epochs=15",
            ["underfitting"],
        ),
        problem("six steps of classes", classes, "trainer=smoke trainer.max_epochs=2"),
        problem(
            "six steps of a noisy curve",
            lambda: curve(800, 0.8),
            "trainer=smoke trainer.max_epochs=2",
        ),
        problem(
            "six steps of nothing but noise",
            lambda: curve(800, 1.0),
            "trainer=smoke trainer.max_epochs=2",
        ),
        problem(
            "six steps of rare rows",
            lambda: rare(1000, 0.03, 1.5),
            "trainer=smoke trainer.max_epochs=2",
        ),
    ]


# --- data that mislead ----------------------------------------------------------------------------


def bad_data() -> list[Problem]:
    """Leaks, repeated rows, and targets that say nothing or too much."""
    leak, calm = [SINGLE], ["overfitting", "still improving", "noise"]
    return [
        problem("the target in another unit", lambda: leaking(line(600, 0.3), "copy"), "", leak, calm),
        problem("the target with 1% noise", lambda: leaking(line(600, 0.5), "close"), "", leak, calm),
        problem("a word for each class", lambda: leaking(labelled(600, 0.4, 3), "class"), "", leak, calm),
        problem("a flag of one class of four", lambda: leaking(labelled(800, 0.4, 4), "flag"), "", leak, calm),
        problem("a number that one class of five has", lambda: leaking(labelled(800, 0.4, 5), "number"), "", leak, calm),
        problem("every row three times", lambda: repeated(line(300, 0.5), 3), "", [REPEATED], calm),
        problem("a fifth of the rows twice, with a row number", lambda: numbered(repeated(labelled(600, 0.3), 1.2)), "", [REPEATED], calm),
        problem("a constant target", lambda: {**line(400), "y": np.full(400, 2.5)}, "", [TARGET]),
        problem("a constant target and a constant feature", lambda: {"k": np.ones(400), **line(400), "y": np.full(400, -1.5)}, "", [TARGET]),
        problem("a target with two wild values", wild, "", [TARGET], [*calm, "nothing to learn", "rate too high"]),
        problem("one class that is easy to tell", easy_class, open=["still improving"]),
    ]  # fmt: skip


def rare_classes() -> list[Problem]:
    """Classes of few rows: those that are missed, and those that are not."""
    return [
        problem("3% positives, hard to tell", lambda: rare(2000, 0.03, 1.0), "", [RARE], ["overfitting", "noise"]),
        problem("5% positives, hard to tell", lambda: rare(1500, 0.05, 1.2), "", [RARE], ["overfitting", "noise", LINEAR]),
        problem("8% positives, linear model", lambda: rare(1500, 0.08, 1.0), "model=linear optimizer.lr=0.01", [RARE], ["noise"]),
        problem("one rare class of four", lambda: rare(1500, 0.04, 0.8, 4), "", [RARE], ["overfitting"]),
        problem("3% positives, easy to tell", lambda: rare(2000, 0.03, 6.0), "", open=["still improving"]),
        problem("5% positives, weighted", lambda: rare(1500, 0.05, 1.5), "task.class_weight=balanced", open=["overfitting", "noise"]),
    ]  # fmt: skip


def bad_layers() -> list[Problem]:
    """Networks through which no gradient passes, or too much of one."""
    return [
        problem("ten layers of sigmoid", classes, "model=deep model.depth=10 model.activation=sigmoid optimizer=sgd trainer.max_epochs=10", ["vanishing gradients"]),
        problem("twenty layers of weights of variance 1", classes, "model=deep model.depth=20 model.init=normal optimizer.lr=1e-5 trainer.max_epochs=5", ["exploding gradients"]),
        problem("features on scales of their own", lambda: scaled(classes(), 300), "model.activation=tanh data.scaling=none data.pieces=0 model.init=normal trainer.max_epochs=30", ["saturated units"], ["still improving"]),
        problem("twelve layers of sigmoid, a line", lambda: line(600, 0.1), "model=deep model.depth=12 model.activation=sigmoid trainer.max_epochs=10", ["vanishing gradients"]),
        problem("fifteen layers of weights of variance 1, a line", lambda: line(600, 0.1), "model=deep model.depth=15 model.init=normal optimizer.lr=1e-6 trainer.max_epochs=5", ["exploding gradients"]),
        problem("sigmoid, features on scales of their own", lambda: scaled(line(600, 0.1), 300), "model.activation=sigmoid data.scaling=none data.pieces=0 trainer.max_epochs=30", ["saturated units"], ["still improving"]),
        problem("four layers of two units", classes, "model=deep model.width=2 model.depth=4 model.activation=relu trainer.max_epochs=20", ["dead units"]),
        problem("features far from zero, large steps", lambda: shifted(line(600, 0.1)), "data.scaling=none model=shallow model.activation=relu optimizer=adam optimizer.lr=0.1 trainer.max_epochs=20", ["rate too high", "dead units"]),
        problem("features far from zero, sgd", lambda: shifted(classes()), "data.scaling=none model=deep model.activation=relu optimizer=sgd optimizer.lr=0.03 trainer.max_epochs=20", ["rate too high", "dead units"]),
        problem("a gradient that is cut to 0.01", classes, "model=linear trainer.gradient_clip_val=0.01 trainer.max_epochs=20", ["clipped"]),
        problem("a gradient that is cut to 0.003", lambda: line(600, 0.1), "model=deep optimizer=sgd trainer.gradient_clip_val=0.003 trainer.max_epochs=20", ["clipped"]),
    ]  # fmt: skip


def behind() -> list[Problem]:
    """Tables that suit a linear model, or trees, better than the network."""
    short = "callbacks.early_stopping.patience=2"
    return [
        problem("line of 80 numbers, 512 units", lambda: line(400, 0.1, 80), f"model=wide {short}", [LINEAR], ["overfitting"]),
        problem("line of 100 numbers, three layers", lambda: line(500, 0.1, 100), f"model=deep {short}", [LINEAR], ["overfitting"]),
        problem("stairs of two numbers among 20", lambda: stairs(2000, 20), "callbacks.early_stopping.patience=4", [TREES], ["overfitting"]),
        problem("stairs of two numbers among 10, three layers", lambda: stairs(1500, 10), "model=deep callbacks.early_stopping.patience=4", [TREES], ["overfitting"]),
    ]  # fmt: skip


def healthy() -> list[Problem]:
    """Nothing is wrong."""
    return [
        problem("three classes far apart", classes, open=["still improving"]),
        problem("line without noise", lambda: line(600, 0.01), open=["still improving"]),
        problem("line, linear model", lambda: line(800, 0.2), "model=linear"),
        problem("circle, three layers", circle, "model=deep", open=["still improving"]),
        problem("product, noise 20% of the variance", lambda: product(noise=0.2), open=["overfitting"]),
        problem("waves, residual network", waves, "model=resnet optimizer=adamw", open=["overfitting"]),
        problem("classes, dropout", lambda: labelled(1000, 0.1, 3), "model=deep regularization=dropout", open=["overfitting"]),
        problem("classes, 1cycle", lambda: labelled(1000, 0.1, 3), "scheduler=onecycle optimizer.lr=0.01 trainer.max_epochs=40 data.batch_size=32", open=["overfitting"]),
    ]  # fmt: skip


# --- tables ---------------------------------------------------------------------------------------


def problem(
    name: str, make: Callable[[], Columns], words: str = "", right: Any = (), open: Any = ()
) -> Problem:
    return Problem(name, make, words, frozenset(right), frozenset(open))


def normal(rows: int, features: int, seed: int = 0) -> Array:
    """Independent features, [N, F]."""
    return np.random.default_rng(seed).standard_normal((rows, features)).round(4)


def table(x: Array, y: Array) -> Columns:
    return {**{f"x{place}": column for place, column in enumerate(x.T)}, "y": y}


def with_noise(signal: Array, share: float, seed: int = 1) -> Array:
    """A signal, [N], brought to variance 1 with a share of it that is noise."""
    signal = (signal - signal.mean()) / signal.std()
    drawn = np.random.default_rng(seed).standard_normal(len(signal))
    return np.sqrt(1 - share) * signal + np.sqrt(share) * drawn


def bend(x: Array) -> Array:
    """A smooth function of four features, [N]."""
    return np.sin(1.5 * x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.7 * x[:, 3]


def curve(rows: int = 800, noise: float = 0.0) -> Columns:
    x = normal(rows, 6)
    return table(x, with_noise(bend(x), noise))


def line(rows: int = 600, noise: float = 0.0, features: int = 6) -> Columns:
    x = normal(rows, features)
    return table(x, with_noise(x @ np.linspace(1, 2, features), noise))


def product(rows: int = 800, noise: float = 0.0) -> Columns:
    x = normal(rows, 4)
    return table(x, with_noise(x[:, 0] * x[:, 1], noise))


def waves(rows: int = 800) -> Columns:
    x = normal(rows, 2)
    return table(x, np.sin(3 * x[:, 0]) + np.cos(3 * x[:, 1]))


def named(labels: Array) -> Array:
    """Numbers of classes as words."""
    return np.array([f"class {number}" for number in range(labels.max() + 1)])[labels]


def labelled(rows: int, at_random: float, classes: int = 2) -> Columns:
    """Classes of equally many rows by a smooth function,
    a share of whose labels is drawn at random.
    """
    x, random = normal(rows, 6), np.random.default_rng(2)
    labels = (bend(x).argsort().argsort() * classes) // rows
    drawn = random.random(rows) < at_random
    labels[drawn] = random.integers(classes, size=drawn.sum())
    return table(x, named(labels))


def circle(rows: int = 800) -> Columns:
    x = normal(rows, 2)
    return table(x, named(((x**2).sum(1) > 1.4).astype(int)))


def board(rows: int = 1000) -> Columns:
    """Four classes by the signs of two products, which no line tells."""
    x = normal(rows, 4)
    return table(x, named(2 * (x[:, 0] * x[:, 1] > 0) + (x[:, 2] * x[:, 3] > 0)))


def classes(rows: int = 600) -> Columns:
    """Three classes around centres that are far apart."""
    labels = np.arange(rows) % 3
    centres = 2.5 * np.eye(3, 5)
    return table(normal(rows, 5) + centres[labels], named(labels))


def easy_class(rows: int = 600) -> Columns:
    """One class that two features tell as iris' petals do, and two that lie across each other."""
    labels = np.arange(rows) % 3
    x = normal(rows, 4)
    x[:, :2] += np.array([-8.0, 0.0, 2.0])[labels][:, None]
    x[:, 2] += np.array([-1.5, 0.0, 1.0])[labels]
    return table(x, named(labels))


def rare(rows: int, share: float, distance: float, classes: int = 2) -> Columns:
    """A class of few rows, whose centre is so many standard deviations from the others'."""
    random = np.random.default_rng(3)
    labels = random.integers(classes - 1, size=rows)
    labels[random.random(rows) < share] = classes - 1
    centres = 3.0 * np.eye(classes, 6)
    centres[-1] = centres[0] + np.eye(6)[3:].sum(0) * distance / 3**0.5
    return table(normal(rows, 6) + centres[labels], named(labels))


def leaking(columns: Columns, how: str) -> Columns:
    """A table with a feature that was made from the target."""
    y, random = columns["y"], np.random.default_rng(4)
    last: Any = y == np.sort(y)[-1]
    leak = {
        "copy": lambda: 1.19 * y + 3,
        "close": lambda: y + 0.1 * y.std() * random.standard_normal(len(y)),
        "class": lambda: np.char.replace(y, "class", "kind"),
        "flag": lambda: np.where(last, "yes", "no"),
        "number": lambda: np.where(last, 50, 0) + random.standard_normal(len(y)).round(3),
    }[how]()
    return {"leak": leak, **columns}


def repeated(columns: Columns, times: float) -> Columns:
    """A table with rows that are there again, in another order."""
    rows = len(columns["y"])
    places = np.random.default_rng(5).permutation(np.arange(int(times * rows)) % rows)
    return {name: values[places] for name, values in columns.items()}


def numbered(columns: Columns) -> Columns:
    return {"id": np.arange(1, len(columns["y"]) + 1), **columns}


def scaled(columns: Columns, most: float) -> Columns:
    """A table whose features are on scales from 1 to `most`."""
    names = [name for name in columns if name != "y"]
    scales = dict(zip(names, np.geomspace(1, most, len(names)), strict=True))
    return {name: values * scales[name] if name in scales else values for name, values in columns.items()}  # fmt: skip


def shifted(columns: Columns, by: float = 20.0) -> Columns:
    """A table whose features are far from zero."""
    return {name: values if name == "y" else values + by for name, values in columns.items()}


def wild(rows: int = 600) -> Columns:
    """A line with two values that drown all others."""
    columns = line(rows, 0.2)
    columns["y"][[3, 50]] = [300.0, -250.0]
    return columns


def stairs(rows: int, features: int) -> Columns:
    """A target that jumps along two of the numbers."""
    x = normal(rows, features)
    return table(x, with_noise(np.floor(3 * x[:, 0]) % 2 + 2 * (x[:, 1] > 0.5), 0.01))
