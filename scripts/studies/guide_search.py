"""What a guided search finds: `python scripts/studies/guide_search.py --budget 3m --splits 2`.

On the tables of `scripts/studies/ensembles.py`, each split: the predictor of `sweep=guide` with a
time, the default run, histogram gradient boosting, and with `--rivals` sweeps with the same time by
random search and by tpe over the same space, with their ensembles. `--write` puts the numbers into
docs/search.md. What was measured is kept in logs/guide_study, a file for each part: run it in parts
with `--only` and `--split`, the same command measures only what is missing.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from ensembles import ROOT, TABLES, error_of, run, tested, trained

from goldilocks.cli.main import refusals
from goldilocks.machine.clock import seconds

PAGE, HEADING = ROOT / "docs" / "search.md", "## What it finds"
QUIET = ["callbacks.progress_bar=null", "callbacks.evaluation=null", "callbacks.importance=null"]
WAYS = {
    "guide": "guided search",
    "default": "default",
    "trees": "boosted trees",
    "random": "random search",
    "tpe": "tpe",
}
# Of the rivals: the space of conf/sweep/guide.yaml, as far as a sweep without a course has it.
SPACE = [
    *("model=deep,resnet,realmlp", "optimizer=adamw,nadam", "sweep.search=[model]"),
    *("regularization.dropout=0,0.05,0.15,0.3", "scheduler=constant,cosine"),
    *("regularization.mixup=0,0.1,0.3", "regularization.ema=0,0.97,0.99"),
    *("optimizer.lr=tag(log,interval(3e-4,1e-2))", "trainer.max_epochs=100"),
    *("sweep.n_trials=5000", "sweep.folds=auto", "sweep.ensemble=12"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--budget", default="3m", help="of a search (default: 3m)")
    parser.add_argument("--splits", type=int, default=2, help="how many (default: 2)")
    parser.add_argument("--tables", default="tables", help="folder of german.csv and the others")
    parser.add_argument("--keep", type=Path, default=ROOT / "logs" / "guide_study")
    parser.add_argument("--only", choices=TABLES, action="append", help="some of the tables")
    parser.add_argument("--rivals", action="store_true", help="random search and tpe too")
    parser.add_argument("--write", action="store_true", help="into docs/search.md")
    given = parser.parse_args()
    ways = [way for way in WAYS if given.rivals or way not in ("random", "tpe")]
    with refusals() as outcome:
        found: dict[tuple[str, int], dict[str, float]] = {}
        for split in range(given.splits):
            for name in given.only or TABLES:
                options = [option.format(tables=given.tables) for option in TABLES[name]]
                options = [one for one in options if not one.startswith("data.batch_size")]
                place = given.keep / given.budget / f"{name}_{split}"
                found[name, split] = measured(place, options, split, ways, given.budget)
                print(name, split, found[name, split], flush=True)
        text = "\n".join([*table(found, given), "", *counts(found)])
        print(text)
        if given.write:
            before = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
            PAGE.write_text(f"{before}{HEADING}\n\n{text}\n", encoding="utf-8")
    return outcome.code


def measured(
    folder: Path, options: Sequence[str], split: int, ways: Sequence[str], budget: str
) -> dict[str, float]:
    """The test error of each way on one split, and the seconds of the search; measured as far as it
    is not kept in `numbers.json`.
    """
    path = folder / "numbers.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    words = [*options, *QUIET, f"data.seed={split}"]
    for way in ways:
        if way not in known:
            known |= of_way(folder, way, words, budget)
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(known, indent=1))
    return known


def of_way(folder: Path, way: str, words: Sequence[str], budget: str) -> dict[str, float]:
    """What one way comes to."""
    if way in ("default", "trees"):
        own = trained(folder / "default", words)
        result = json.loads((own / "result.json").read_text())
        trees = result["baselines"]["trees"]["metrics"]
        return {"default": error_of(own), "trees": trees.get("test/rmse", trees["test/loss"])}
    began = time.monotonic()
    own_words = [*words, f"name={way}", f"log_dir={folder}"]
    if way == "guide":
        run(["-m", "sweep=guide", f"sweep.budget={budget}", *own_words])
    else:
        limits = [f"sweep.sampler={way}", f"sweep.timeout={budget}"]
        run(["-m", *SPACE, *limits, *own_words])
    took = time.monotonic() - began
    return {way: error_of(tested(folder / "sweeps" / way / "ensemble")), f"{way}_seconds": took}


# --- tables ---------------------------------------------------------------------------------------


def table(found: Mapping[tuple[str, int], Mapping[str, float]], given: Any) -> list[str]:
    """The errors, a row a table and split."""
    ways = [way for way in WAYS if any(way in row for row in found.values())]
    lines = [
        f"`python scripts/studies/guide_search.py --budget {given.budget} --splits {given.splits}"
        f"{' --rivals' if given.rivals else ''} --tables FOLDER --write`: error of the test rows,"
        " RMSE of numbers, log-loss of classes. The time is that of the whole command.",
        "",
        f"| | split | {' | '.join(WAYS[way] for way in ways)} | took |",
        f"| --- | --- |{' --- |' * (len(ways) + 1)}",
    ]
    for (name, split), row in found.items():
        least = min(row[way] for way in ways if way in row)
        cells = [bold(row[way], least) if way in row else "" for way in ways]
        took = f"{row['guide_seconds']:.0f} s (of {seconds(given.budget, 'budget'):.0f})"
        lines.append(f"| {name} | {split} | {' | '.join(cells)} | {took} |")
    return lines


def bold(value: float, least: float) -> str:
    return f"**{value:.4g}**" if value == least else f"{value:.4g}"


def counts(found: Mapping[tuple[str, int], Mapping[str, float]]) -> list[str]:
    """How often the search is better than each of the others."""
    lines = []
    for way, words in WAYS.items():
        both = [row for row in found.values() if way in row and way != "guide"]
        if both:
            wins = sum(row["guide"] < row[way] for row in both)
            lines.append(f"- better than {words}: {wins} of {len(both)}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
