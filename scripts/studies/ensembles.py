"""What averaging and choosing are worth: `python scripts/studies/ensembles.py [--splits 3]`.

On eight tables, for each split: the default run, a sweep of 32 trials with its ensemble, and the
default with data.folds=5. Prints the error of the test rows (log-loss, or RMSE), and how often
which is better. `--write` puts the tables into docs/ensembles.md. Runs are kept in
logs/ensembles_study: the same command goes on where it was interrupted.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goldilocks.cli.main import refusals

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ensembles.md"
HEADING = "## What it is worth"
# By name: its options; the large ones with larger batches, for the sake of time.
TABLES = {
    "iris": ["data=iris"],
    "wine": ["data=wine"],
    "breast_cancer": ["data=breast_cancer"],
    "digits": ["data=digits", "data.batch_size=128"],
    "diabetes": ["data=diabetes"],
    "german": ["data=table", "data.path={tables}/german.csv", "data.target=credit_risk"],
    "phoneme": [
        "data=table",
        "data.path={tables}/phoneme.csv",
        "data.target=nasal",
        "data.batch_size=128",
    ],
    "auto_imports": ["data=table", "data.path={tables}/auto_imports.csv", "data.target=price"],
}
COMMON = [
    *("trainer.accelerator=cpu", "trainer.threads=1", "trainer.max_epochs=100", "logger=none"),
    *("callbacks.progress_bar=null", "callbacks.evaluation=null", "callbacks.importance=null"),
]
SPACE = [
    *("model=deep", "sweep.sampler=qmc", "sweep.n_trials=32"),
    *("optimizer.lr=tag(log,interval(3e-4,1e-2))", "model.depth=range(1,5)"),
    *("model.width=tag(log,interval(16,256))", "regularization.dropout=interval(0,0.5)"),
]
COLUMNS = {
    "default": "default",
    "best": "best trial",
    "simplest": "chosen trial",
    "ensemble": "ensemble",
    "folds": "five folds",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--splits", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--tables", default="tables", help="folder of german.csv and the others")
    parser.add_argument("--keep", type=Path, default=ROOT / "logs" / "ensembles_study")
    parser.add_argument("--only", choices=TABLES, action="append", help="some of the tables")
    parser.add_argument("--folds", action="store_true", help="sweeps with sweep.folds=auto")
    parser.add_argument("--write", action="store_true", help="into docs/ensembles.md")
    given = parser.parse_args()
    with refusals() as outcome:
        found: dict[tuple[str, int], dict[str, float]] = {}
        for split in range(given.splits):
            for name in given.only or TABLES:
                options = [option.format(tables=given.tables) for option in TABLES[name]]
                place = given.keep / f"{name}_{split}"
                found[name, split] = measured(place, options, split, given.folds)
                print(name, split, found[name, split], flush=True)
        text = "\n".join([*table(found), "", *counts(found)])
        print(text)
        if given.write:
            before = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
            PAGE.write_text(f"{before}{HEADING}\n\n{text}\n", encoding="utf-8")
    return outcome.code


def measured(folder: Path, options: Sequence[str], split: int, by_folds: bool) -> dict[str, float]:
    """The test error of each way on one split; trained as far as it is not kept."""
    words = [*options, *COMMON, f"data.seed={split}"]
    default = trained(folder / "default", words)
    folds = trained(folder / "folds", [*words, "data.folds=5"])
    name, more = ("folds", ["sweep.folds=auto"]) if by_folds else ("study", [])
    sweep = folder / "sweeps" / name
    if not (sweep / "ensemble").exists():
        run(["-m", *words, *SPACE, *more, f"name={name}", f"log_dir={folder}"])
    best, simplest = chosen(sweep)
    return {
        "default": error_of(default),
        "best": error_of(tested(best)),
        "simplest": error_of(tested(simplest)),
        "ensemble": error_of(tested(sweep / "ensemble")),
        "folds": error_of(folds),
    }


def trained(folder: Path, words: Sequence[str]) -> Path:
    """The folder of a single run, which is trained if it is not there."""
    if not list(folder.glob("runs/*/result.json")):
        run([*words, f"log_dir={folder}"])
    (own,) = folder.glob("runs/*")
    return own


def run(words: Sequence[str]) -> None:
    """Starts train.py."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"train.py {' '.join(words)}: {done.stderr[-2000:]}")


def chosen(sweep: Path) -> tuple[Path, Path]:
    """The trial with the best value, and the one that the report takes."""
    from goldilocks.sweeps.report.reading import read_summary

    summary = read_summary(sweep)
    assert summary.best is not None
    return sweep / str(summary.ranked[0].number), sweep / str(summary.best.number)


def tested(folder: Path) -> Path:
    """A run whose test rows have been looked at."""
    from goldilocks.runs.evaluate import evaluate_run
    from goldilocks.runs.folder import read_result

    if not any(name.startswith("test/") for name in read_result(folder)["metrics"]):
        evaluate_run(folder)
    return folder


def error_of(folder: Path) -> float:
    """RMSE, or log-loss, of the test rows."""
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    return metrics.get("test/rmse", metrics["test/loss"])


# --- tables ---------------------------------------------------------------------------------------


def means(found: Mapping[tuple[str, int], Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """By table and way, over the splits."""
    names = dict.fromkeys(name for name, _ in found)
    return {
        name: {
            way: statistics.fmean(of[way] for (own, _), of in found.items() if own == name)
            for way in COLUMNS
        }
        for name in names
    }


def table(found: Mapping[tuple[str, int], Any]) -> list[str]:
    """The errors, a row a table."""
    splits = len({split for _, split in found})
    lines = [
        f"`python scripts/studies/ensembles.py --splits {splits} --tables FOLDER --write`, with a"
        " folder of german.csv, phoneme.csv and auto_imports.csv: error of the test rows,"
        " RMSE of diabetes and auto_imports, log-loss of the others, mean over the splits. *Best"
        " trial*: lowest validation loss of 32; *chosen trial*: what the report takes.",
        "",
        f"| | {' | '.join(COLUMNS.values())} |",
        f"| --- |{' --- |' * len(COLUMNS)}",
    ]
    for name, row in means(found).items():
        least = min(row.values())
        cells = [f"**{v:.4g}**" if v == least else f"{v:.4g}" for v in row.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def counts(found: Mapping[tuple[str, int], Any]) -> list[str]:
    """How often one way is better than another."""
    pairs = [
        ("ensemble", "best"),
        ("ensemble", "default"),
        ("folds", "default"),
        ("simplest", "best"),
    ]
    rows = means(found)
    lines = ["| | tables | splits |", "| --- | --- | --- |"]
    for one, other in pairs:
        sign = "no worse" if one == "simplest" else "better"
        wins = sum(better(row, one, other) for row in rows.values())
        each = sum(better(row, one, other) for row in found.values())
        lines.append(
            f"| {COLUMNS[one]} {sign} than {COLUMNS[other]} | {wins} of {len(rows)} |"
            f" {each} of {len(found)} |"
        )
    return lines


def better(row: Mapping[str, float], one: str, other: str) -> bool:
    """Whether an error is lower; a chosen trial may be the same one."""
    same = abs(row[one] - row[other]) <= 1e-6 * row[other]
    return one == "simplest" if same else row[one] < row[other]


if __name__ == "__main__":
    sys.exit(main())
