"""Are probabilities and intervals worth their names?
`python scripts/studies/uncertainty.py --tables FOLDER [--splits 20]`.

For each split of each table one network is trained, and judged on its test rows by its kept
predictions. Regressions: what intervals of 90 % cover, of one network and of `data.folds=5`.
Classes: what sets of 90 % cover, and the log-loss as trained, with a temperature, and with
`task.calibration=auto`. `--only bands`: intervals of one width beside those of
`loss=quantile loss.q=[0.05,0.5,0.95]`, where the noise is known. `--write` puts the tables into
docs/uncertainty.md.
"""

import argparse
import statistics
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from goldilocks.cli.main import refusals

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `studies` is
from studies.ensembles import TABLES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "uncertainty.md"
HEADING = "## What was measured"
CLASSES = {
    name: TABLES[name] for name in ("iris", "wine", "breast_cancer", "digits", "german", "phoneme")
}
VALUES = {
    "diabetes": TABLES["diabetes"],
    "auto_imports": TABLES["auto_imports"],
    "made": ["data=table", "data.path={made}", "data.target=y"],
}
COMMON = [
    *("trainer.accelerator=cpu", "trainer.threads=1", "logger=none"),
    *("callbacks.progress_bar=null", "callbacks.evaluation=null", "callbacks.importance=null"),
]
MADE_ROWS, MORE_ROWS = 600, 1500
BANDS = "bands"
WAYS = {
    "one width": [],
    "one width, five folds": ["data.folds=5"],
    "quantiles": ["loss=quantile", "loss.q=[0.05,0.5,0.95]"],
    "quantiles, five folds": ["loss=quantile", "loss.q=[0.05,0.5,0.95]", "data.folds=5"],
}
PARTS = ("all rows", "quietest third", "noisiest third")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--splits", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--epochs", type=int, default=50, help="at most (default: 50)")
    parser.add_argument("--tables", default="tables", help="folder of german.csv and the others")
    parser.add_argument("--only", choices=[*CLASSES, *VALUES, BANDS], action="append")
    parser.add_argument("--write", action="store_true", help="into docs/uncertainty.md")
    given = parser.parse_args()
    with refusals() as outcome, TemporaryDirectory() as scratch:
        made = Path(scratch) / "made.csv"
        write_made(made)
        words = [*COMMON, f"trainer.max_epochs={given.epochs}"]
        found: dict[str, list[dict[str, float]]] = {}
        for name, options in {**VALUES, **CLASSES}.items():
            if given.only and name not in given.only:
                continue
            own = [option.format(tables=given.tables, made=made) for option in options]
            judge = judged_values if name in VALUES else judged_classes
            found[name] = [
                judge([*words, *own, f"data.seed={split}"]) for split in range(given.splits)
            ]
            print(name, {key: round(mean(found[name], key), 4) for key in found[name][0]})
        bands: list[dict[str, float]] = []
        if not given.only or BANDS in given.only:
            larger = Path(scratch) / "larger.csv"
            write_made(larger, MORE_ROWS)
            own = [*(option.format(made=larger) for option in VALUES["made"]), "optimizer.lr=0.01"]
            bands = [
                judged_bands([*words, *own, f"data.seed={split}"], larger)
                for split in range(given.splits)
            ]
        command = (
            f"`python scripts/studies/uncertainty.py --splits {given.splits} --epochs"
            f" {given.epochs} --write`"
        )
        parts = table_of_values(found, command), table_of_bands(bands), table_of_classes(found)
        text = "\n\n".join("\n".join(part) for part in parts if part)
        print(text)
        if given.write:
            before = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
            PAGE.write_text(f"{before}{HEADING}\n\n{text}\n", encoding="utf-8")
    return outcome.code


def write_made(path: Path, rows: int = MADE_ROWS) -> None:
    """Rows whose noise grows with |a|, up to twelve times."""
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, size=(rows, 3))
    noise = random.normal(size=rows) * (0.1 + 0.55 * np.abs(x[:, 0]))
    y = np.sin(2 * x[:, 0]) + x[:, 1] + noise
    lines = [
        ",".join(f"{value:.6f}" for value in (*row, own)) for row, own in zip(x, y, strict=True)
    ]
    path.write_text("\n".join(["a,b,c,y", *lines]) + "\n", encoding="utf-8")


def trained(words: Sequence[str]) -> tuple[dict[str, Any], Any, Any]:
    """A run's result, and its kept predictions of validation and test rows."""
    from goldilocks.runs.ensembles import kept

    with run_of(words) as (folder, result):
        return result, kept(folder), kept(folder, "test")


@contextmanager
def run_of(words: Sequence[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A run's folder, for a while, and its result."""
    from goldilocks.config.compose import compose, prepare_hydra
    from goldilocks.runs.run import start

    prepare_hydra()
    with TemporaryDirectory() as logs:
        own = [*words, f"log_dir='{Path(logs).as_posix()}'"]
        cfg, choices = compose(own)
        folder, result = start(cfg, own, choices)
        assert result["status"] == "done", result
        yield folder, result


def judged_values(words: Sequence[str]) -> dict[str, float]:
    """What intervals cover, and how wide they are."""
    found: dict[str, float] = {}
    for name, more in (("one", []), ("folds", ["data.folds=5"])):
        coverage = trained([*words, *more])[0]["coverage"]
        (target,) = coverage["targets"].values()
        found |= {name: target["reached"], f"{name} width": target["width"]}
    return found


def judged_bands(words: Sequence[str], made: Path) -> dict[str, float]:
    """What intervals cover and how wide they are, by way and by third of the noise."""
    import pandas as pd

    from goldilocks.inference.predict import Regressor, load
    from goldilocks.runs.ensembles import kept

    found: dict[str, float] = {}
    for way, more in WAYS.items():
        with run_of([*words, *more]) as (folder, _):
            rows = pd.read_csv(made).iloc[kept(folder, "test").rows]
            model = load(folder)
            assert isinstance(model, Regressor)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # rows out of the training rows' range
                values, lower, upper = model.predict(rows, interval=0.9)
        y, order = rows["y"].to_numpy(), rows["a"].abs().to_numpy().argsort()
        third = len(order) // 3
        places = dict(zip(PARTS, (order, order[:third], order[-third:]), strict=True))
        for part, at in places.items():
            inside = (lower[at] <= y[at]) & (y[at] <= upper[at])
            found[f"{way} {part} covered"] = float(inside.mean())
            found[f"{way} {part} width"] = float((upper - lower)[at].mean())
        found[f"{way} error"] = float(np.sqrt(((values - y) ** 2).mean()))
    return found


def judged_classes(words: Sequence[str]) -> dict[str, float]:
    """What sets cover, and the log-loss of the test rows with and without a temperature."""
    from goldilocks.runs.calibration import calibrate, fitted_temperature, measured, tempered

    result, val, test = trained(words)
    auto = calibrate("auto", val.predicted, val.true)["temperature"]
    ways = {"none": 1.0, "temperature": fitted_temperature(val.predicted, val.true), "auto": auto}
    scores = {
        way: measured(tempered(test.predicted, temperature), test.true)
        for way, temperature in ways.items()
    }
    coverage = result["coverage"]
    return {
        "covered": coverage["reached"],
        "size": coverage["size"],
        **{way: of["log_loss"] for way, of in scores.items()},
        **{f"{way} ece": of["ece"] for way, of in scores.items()},
        "applied": float(auto != 1),
    }


# --- tables ---------------------------------------------------------------------------------------


def mean(rows: Sequence[Mapping[str, float]], key: str) -> float:
    """Of a figure, over the splits."""
    return statistics.fmean(row[key] for row in rows)


def table_of_values(found: Mapping[str, Any], command: str) -> list[str]:
    """What intervals cover, a row a table."""
    if not set(found) & set(VALUES):
        return []
    lines = [
        f"{command}: intervals of 90 %, means over the splits. *Covered*: share of the test rows;"
        " *width*: in the target's units.",
        "",
        "| | one network: covered | width | five folds: covered | width |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in (name for name in found if name in VALUES):
        cells = [mean(found[name], key) for key in ("one", "one width", "folds", "folds width")]
        shown = [f"{cells[0]:.3f}", f"{cells[1]:.4g}", f"{cells[2]:.3f}", f"{cells[3]:.4g}"]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def table_of_bands(bands: Sequence[Mapping[str, float]]) -> list[str]:
    """What intervals of one width and those of quantiles come to, a row a way."""
    if not bands:
        return []
    lines = [
        f"`--only bands`: {MORE_ROWS:,} rows as in `made`, `optimizer.lr=0.01`, by the third of the"
        " test rows with the least and the most noise, and the RMSE of what is predicted;"
        " *quantiles*: `loss=quantile loss.q=[0.05,0.5,0.95]`.",
        "",
        f"| | {' | '.join(f'{part}: covered | width' for part in PARTS)} | RMSE |",
        f"|{' --- |' * (2 * len(PARTS) + 2)}",
    ]
    for way in WAYS:
        cells = []
        for part in PARTS:
            cells.append(f"{mean(bands, f'{way} {part} covered'):.3f}")
            cells.append(f"{mean(bands, f'{way} {part} width'):.4g}")
        cells.append(f"{mean(bands, f'{way} error'):.4g}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def table_of_classes(found: Mapping[str, Any]) -> list[str]:
    """What sets cover, and what a temperature gains, a row a table."""
    if not set(found) & set(CLASSES):
        return []
    lines = [
        "The same of classes: sets of 90 %, and the log-loss and ECE of the test rows as trained,"
        " with a temperature, and with `auto`, which applied one in so many of the splits.",
        "",
        "| | covered | classes in a set | log-loss: none | temperature | auto | ECE: none |"
        " temperature | auto | applied |",
        f"|{' --- |' * 10}",
    ]
    for name in (name for name in found if name in CLASSES):
        rows = found[name]
        keys = ("none", "temperature", "auto", "none ece", "temperature ece", "auto ece")
        cells = [f"{mean(rows, 'covered'):.3f}", f"{mean(rows, 'size'):.2f}"]
        cells += [f"{mean(rows, key):.4f}" for key in keys]
        cells.append(f"{sum(row['applied'] for row in rows):.0f} of {len(rows)}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
