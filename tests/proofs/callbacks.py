"""Callbacks: when training stops, which weights are kept, what is shown."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch

from goldilocks.callbacks import ProgressBar
from goldilocks.runs import assembly
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.components import prepare
from proofs.drive import composed, finished
from proofs.table import Measured, proof
from proofs.task import with_curve

# Improves until epoch 2, by a little in epoch 4.
CURVE = [1.0, 0.8, 0.5, 0.6, 0.49, *[0.7] * 30]
LEFT = ("callbacks=default", "callbacks.progress_bar=null", "callbacks.baselines=null")


@proof(
    "callbacks.early_stopping",
    "G9",
    "ends a run whose objective no longer improves",
    "epochs of 35 on a curve that is best in epoch 4, patience 20; without it",
)
def early_stopping() -> Measured:
    with_it, without = (stopped_after(*words) for words in ((), ("callbacks.early_stopping=null",)))
    return f"{with_it}; {without}", (with_it, without) == (5 + 20, 35)


def stopped_after(*words: str) -> int:
    """Epochs of a run whose val/loss follows the curve."""
    keep_stopping = (
        "callbacks=default",
        "callbacks.progress_bar=null",
        "callbacks.baselines=null",
        "callbacks.best_checkpoint=null",
    )
    return len(
        with_curve(
            "val/loss", CURVE, *keep_stopping, "callbacks.last_checkpoint=null", *words
        ).metrics
    )


@proof(
    "callbacks.early_stopping.patience",
    "G9",
    "epochs without improvement before the end",
    "epochs with 0, 1, 5",
)
def patience() -> Measured:
    found = [stopped_after(f"callbacks.early_stopping.patience={number}") for number in (0, 1, 5)]
    return " ".join(map(str, found)), found == [4, 4, 10]


@proof(
    "callbacks.early_stopping.patience_starts_at",
    "G9",
    "epochs at the start that are not counted",
    "epochs with 10 and patience 0, 1, 5",
)
def patience_starts_at() -> Measured:
    start = "callbacks.early_stopping.patience_starts_at=10"
    found = [
        stopped_after(start, f"callbacks.early_stopping.patience={number}") for number in (0, 1, 5)
    ]
    return " ".join(map(str, found)), found == [11, 11, 15]


@proof(
    "callbacks.early_stopping.min_delta",
    "G9",
    "less change is no improvement",
    "epochs with 0 and 0.05, patience 5; epoch 4 gains 0.01",
)
def min_delta() -> Measured:
    words = [
        ("callbacks.early_stopping.patience=5", f"callbacks.early_stopping.min_delta={least}")
        for least in (0, 0.05)
    ]
    found = [stopped_after(*pair) for pair in words]
    return " ".join(map(str, found)), found == [10, 8]


# --- checkpoints ----------------------------------------------------------------------------------


def folder_with_curve(folder: Path, *words: str, curve: list[float]) -> list[torch.Tensor]:
    """A whole run whose val/loss follows a curve; the output layer's bias after each epoch."""
    parts = prepare(
        composed(
            "data=iris",
            "trainer=cpu",
            "logger=none",
            f"trainer.max_epochs={len(curve)}",
            *LEFT,
            *words,
        ),
        warn=False,
    )
    report, biases = parts.module.publish_metrics, []

    def made_up(metrics: dict[str, float]) -> None:
        if "val/loss" in metrics:
            biases.append(list(parts.module.network.parameters())[-1].detach().clone())
            metrics = {**metrics, "val/loss": curve[len(biases) - 1]}
        report(metrics)

    parts.module.publish_metrics = made_up  # type: ignore[method-assign]
    cfg = composed(
        "data=iris", "trainer=cpu", "logger=none", f"trainer.max_epochs={len(curve)}", *LEFT, *words
    )
    run(RunRequest(cfg, folder), parts)
    return biases


def kept(folder: Path, name: str, biases: list[torch.Tensor]) -> int | None:
    """The epoch whose weights a checkpoint holds."""
    path = folder / "checkpoints" / name
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)["state_dict"]
    bias = [value for key, value in state.items() if key.startswith("network.")][-1]
    return next(epoch for epoch, value in enumerate(biases) if torch.equal(bias, value))


def checkpoints(*words: str) -> tuple[int | None, int | None]:
    """The epochs that best.ckpt and last.ckpt hold after a run that was best in epoch 3,
    tied with 1.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        biases = folder_with_curve(Path(folder), *words, curve=[3.0, 1.0, 2.0, 1.0, 2.0, 4.0])
        return kept(Path(folder), "best.ckpt", biases), kept(Path(folder), "last.ckpt", biases)


@proof(
    "callbacks.best_checkpoint",
    "G19",
    "keeps the weights of the best epoch, on a tie the later",
    "epoch whose weights best.ckpt holds, of val/loss 3 1 2 1 2 4; without it",
)
def best() -> Measured:
    found = checkpoints()[0], checkpoints("callbacks.best_checkpoint=null")[0]
    return (
        f"epoch {found[0]} (counted from 0); {'none' if found[1] is None else found[1]}",
        found == (3, None),
    )


@proof(
    "callbacks.last_checkpoint",
    "",
    "keeps the end of training, to go on from",
    "epoch whose weights last.ckpt holds, of 6; without it",
)
def last() -> Measured:
    found = checkpoints()[1], checkpoints("callbacks.last_checkpoint=null")[1]
    return (
        f"epoch {found[0]} (counted from 0); {'none' if found[1] is None else found[1]}",
        found == (5, None),
    )


@proof(
    "callbacks.last_checkpoint.min_seconds",
    "",
    "least time between two saves",
    "times that last.ckpt is written in 6 epochs with 0 and with 60",
)
def min_seconds() -> Measured:
    found = [written(f"callbacks.last_checkpoint.min_seconds={number}") for number in (0, 60)]
    return " and ".join(map(str, found)), found == [6, 1]


def written(*words: str) -> int:
    """How often last.ckpt is saved in six epochs."""
    import tempfile
    from unittest import mock

    from goldilocks.training.trainer import Trainer

    save = Trainer.save_checkpoint
    with (
        mock.patch.object(Trainer, "save_checkpoint", autospec=True, side_effect=save) as saved,
        tempfile.TemporaryDirectory() as folder,
    ):
        folder_with_curve(Path(folder), *words, curve=[1.0] * 6)
        return sum(Path(call.args[1]).name == "last.ckpt" for call in saved.call_args_list)


# --- figures --------------------------------------------------------------------------------------


def figures_of(*words: str) -> list[str]:
    """Names in `figures/` of a run of iris."""
    with finished(*LEFT, *words) as (folder, _):
        return sorted(path.name for path in (folder / "figures").glob("*"))


@proof(
    "callbacks.evaluation",
    "G29",
    "figures of the best weights on the validation rows",
    "files of a run on iris; on diabetes; without it; sum of the confusion matrix, 30 rows to"
    " validate",
)
def evaluation() -> Measured:
    from unittest import mock

    from goldilocks.figures import charts

    with mock.patch.object(charts, "draw_confusion", side_effect=charts.draw_confusion) as drawn:
        classes = figures_of()
    values, without = figures_of("data=diabetes"), figures_of("callbacks.evaluation=null")
    rows, wrong = int(drawn.call_args.args[0].sum()), "most_wrong.txt"
    return (
        f"{' '.join(classes)}; {' '.join(values)}; {len(without)}; {rows}",
        classes == f"calibration.png confusion.png curves.png {wrong} precision_recall.png".split()
        and values == ["curves.png", wrong, "predicted.png", "residuals.png"]
        and (len(without), rows) == (0, 30),
    )


@proof(
    "callbacks.evaluation.trials",
    "",
    "whether the trials of a sweep draw too",
    "figures of a run; of a trial; of a trial with true",
)
def trials() -> Measured:
    from unittest import mock

    found = [len(figures_of())]
    with mock.patch.object(assembly, "is_trial", return_value=True):
        found += [len(figures_of(*words)) for words in ((), ("callbacks.evaluation.trials=true",))]
    return " ".join(map(str, found)), found == [5, 0, 5]


def importance_of(*words: str) -> tuple[list[str], dict[str, float]]:
    """The columns of importance.csv, the most important first, and their importance;
    of a run on diabetes.
    """
    with finished("data=diabetes", "trainer.max_epochs=20", "optimizer.lr=0.01", *LEFT, *words) as (
        folder,
        _,
    ):
        path = folder / "figures" / "importance.csv"
        lines = (
            [line.split(",") for line in path.read_text().splitlines()[1:]] if path.exists() else []
        )
    return [line[0] for line in lines], {line[0]: float(line[1]) for line in lines}


@proof(
    "callbacks.importance",
    "",
    "tells how much worse the network does where a column is shuffled",
    "first three of the 10 columns of diabetes, bmi and s5 among them; columns without it",
)
def importance() -> Measured:
    first, without = (
        importance_of("model=linear", "data.seed=0")[0][:3],
        importance_of("callbacks.importance=null")[0],
    )
    return f"{' '.join(first)}; {len(without)}", {"bmi", "s5"} <= set(first) and not without


@proof(
    "callbacks.importance.repeats",
    "",
    "times that each column is shuffled",
    "columns in importance.csv with 0 and 2; forward passes of 88 rows by 2 and 4, without the"
    " first",
)
def importance_repeats() -> Measured:
    from unittest import mock

    from goldilocks.callbacks import importance as module

    rows = []
    for number in (2, 4):
        with mock.patch.object(module, "forward", side_effect=module.forward) as passed:
            found = importance_of(f"callbacks.importance.repeats={number}")[0]
        rows.append(sum(len(call.args[1]) for call in passed.call_args_list[1:]))
    none = importance_of("callbacks.importance.repeats=0")[0]
    passes = [count / 88 for count in rows]
    return f"{len(none)} and {len(found)}; {passes[0]:g} and {passes[1]:g}", passes == [
        20,
        40,
    ] and not none


@proof(
    "callbacks.importance.trials",
    "",
    "whether in the trials of a sweep too",
    "columns in importance.csv of a run; of a trial; of a trial with true",
)
def importance_trials() -> Measured:
    from unittest import mock

    found = [len(importance_of()[0])]
    with mock.patch.object(assembly, "is_trial", return_value=True):
        found += [
            len(importance_of(*words)[0]) for words in ((), ("callbacks.importance.trials=true",))
        ]
    return " ".join(map(str, found)), found == [10, 0, 10]


def baselines_of(*words: str) -> dict[str, dict[str, Any]]:
    """What the network of a run on diabetes was compared with."""
    short = ("callbacks=default", "callbacks.progress_bar=null", "callbacks.evaluation=null")
    with finished("data=diabetes", *short, *words) as (_, result):
        return result["baselines"] or {}


@proof(
    "callbacks.baselines",
    "",
    "compares the network of a table with plain models on the same rows",
    "R2 on the validation rows of diabetes of a constant, a linear model and boosted trees; models"
    " without it",
)
def baselines() -> Measured:
    found, without = baselines_of(), baselines_of("callbacks.baselines=null")
    names = ("constant", "linear", "trees")
    values = [found[name]["metrics"]["val/r2"] for name in names]
    shown = " ".join(f"{value:.2f}" for value in values)
    holds = abs(values[0]) < 0.05 and min(values[1:]) > 0.3 and not without
    return f"{shown}; {len(without)}", holds


@proof(
    "callbacks.baselines.models",
    "",
    "which models: all has a random forest too",
    "the models by name, default; all",
)
def baselines_models() -> Measured:
    words = ("default", "all")
    found = [list(baselines_of(f"callbacks.baselines.models={word}")) for word in words]
    assert all(names.pop() == "network" for names in found)
    return "; ".join(map(" ".join, found)), found == [
        ["constant", "linear", "trees"],
        ["constant", "linear", "trees", "forest"],
    ]


@proof(
    "callbacks.baselines.max_rows",
    "",
    "training rows that they are fitted on at most",
    "what a result says of the linear model with 50 of the 266 training rows of diabetes; with 266",
)
def baselines_max_rows() -> Measured:
    found = [
        baselines_of(f"callbacks.baselines.max_rows={rows}")["linear"]["note"] for rows in (50, 266)
    ]
    return f"{found[0]}; {found[1] or 'nothing'}", found == [
        "fitted on 50 of 266 training rows",
        "",
    ]


# --- what is shown --------------------------------------------------------------------------------


@proof(
    "callbacks.learning_rate",
    "G26 G29",
    "logs the rate under one name for every optimizer, and its momentum",
    "learning_rate in metrics.csv, exponential with gamma 0.5; momentum, SGD with 0.8; without it",
)
def learning_rate() -> Measured:
    words = (
        "logger=csv",
        "scheduler=exponential",
        "scheduler.gamma=0.5",
        "optimizer.lr=0.01",
        "trainer.max_epochs=3",
        "optimizer=momentum",
        "optimizer.momentum=0.8",
        *LEFT,
    )
    found = []
    for more in ((), ("callbacks.learning_rate=null",)):
        with finished(*words, *more) as (folder, _):
            header, *lines = [
                line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()
            ]
        columns = [header.index(name) for name in ("learning_rate", "momentum") if name in header]
        found.append(
            [[float(line[column]) for line in lines if line[column]] for column in columns]
        )
    shown = "; ".join(" ".join(f"{value:g}" for value in column) for column in found[0])
    return f"{shown}; {len(found[1])} columns", found == [[[0.01, 0.005, 0.0025], [0.8] * 3], []]


@proof(
    "callbacks.progress_bar",
    "",
    "a bar, or where there is no terminal a line now and then",
    "lines on stderr of 3 epochs, with no wait between them; without it",
)
def progress_bar() -> Measured:
    from unittest import mock

    found = []
    for words in ((), ("callbacks.progress_bar=null",)):
        shown = io.StringIO()
        always = mock.patch.object(ProgressBar, "LOG_SECONDS", -1.0)
        run = finished("callbacks=default", "trainer.max_epochs=3", *words)
        with always, contextlib.redirect_stderr(shown), run:
            pass
        found.append([line for line in shown.getvalue().splitlines() if line.startswith("epoch ")])
    first = found[0][0].split(" val/loss")[0] if found[0] else "nothing"
    return f"{len(found[0])} lines, the first `{first} ...`; {len(found[1])} lines", len(
        found[0]
    ) == 3 and not found[1] and first == "epoch 1/3"


@proof(
    "callbacks=default",
    "G9 G19",
    "early stopping, best and last checkpoint, rate, figures, progress, what explains the network"
    " and what it is compared with",
    "checkpoints left by a run; epochs of 200 allowed",
)
def default() -> Measured:
    with finished(
        "callbacks=default",
        "callbacks.progress_bar=null",
        "callbacks.baselines=null",
        "optimizer.lr=0.1",
        "trainer.max_epochs=200",
    ) as (
        folder,
        result,
    ):
        files = sorted(path.name for path in (folder / "checkpoints").iterdir())
    early = result["epochs"] == result["best_epoch"] + 21 < 200
    return (
        f"{' '.join(files)}; {'20 epochs after the best' if early else result['epochs']}",
        files == ["best.ckpt", "history.jsonl", "last.ckpt"] and early,
    )


@proof(
    "callbacks=none",
    "",
    "no checkpoints, no early stopping",
    "checkpoints left by a run; epochs of 60",
)
def none() -> Measured:
    with finished("callbacks=none", "optimizer.lr=0.1", "trainer.max_epochs=60") as (
        folder,
        result,
    ):
        files = list((folder / "checkpoints").glob("*"))
    return f"{len(files)} checkpoints; {result['epochs']} epochs", (
        len(files),
        result["epochs"],
    ) == (0, 60)
