"""The figures and tables of docs/guide.md: `python scripts/studies/guide_figures.py`.

Trains what guide/experiments.yaml lists, ten seeds each, and writes the measured values into
docs/figures/guide.json, the figures beside it and the tables and verdicts into the marked blocks of
docs/guide.md. What the JSON file already holds is not trained again: an interrupted measurement
goes on, and `--draw` only draws.
"""

import argparse
import shutil
import sys
from pathlib import Path

from goldilocks.cli.main import refusals
from goldilocks.machine.progress import shown_progress

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `studies` is
from studies.guide.experiments import load
from studies.guide.measure import Store, jobs_of, measure

DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> int:
    table = load()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="of every run, as of train.py: for trying")
    parser.add_argument(
        "--only", action="append", default=[], help="an experiment; may be given several times"
    )
    parser.add_argument("--seeds", type=int, help="instead of the experiments' own number")
    parser.add_argument("--processes", type=int, default=1, help="side by side (default: 1)")
    parser.add_argument("--draw", action="store_true", help="train nothing")
    parser.add_argument(
        "--to", type=Path, default=DOCS, help="folder of guide.md and figures/ (default: docs)"
    )
    given = parser.parse_args()
    if unknown := set(given.only) - table.keys():
        parser.error(f"--only {min(unknown)}: no such experiment; write some of: {' '.join(table)}")
    store = Store(given.to / "figures" / "guide.json")
    with refusals() as outcome:
        if not given.draw:
            train([table[name] for name in given.only or table], store, given)
        from studies.guide.draw import draw_all
        from studies.guide.page import blocks, renewed

        page = given.to / "guide.md"
        if not page.exists():
            shutil.copy(DOCS / "guide.md", page)
        page.write_text(
            renewed(page.read_text(encoding="utf-8"), blocks(table, store)), encoding="utf-8"
        )
        draw_all(table, store, given.to / "figures")
    return outcome.code


def train(experiments: list, store: Store, given: argparse.Namespace) -> None:
    """Trains what is missing; a line for each hundred runs."""
    from goldilocks.runs.environment import environment

    found = environment()
    packages = ", ".join(
        f"{name} {found['packages'][name]}"
        for name in ("torch", "pytorch-lightning", "scikit-learn")
    )
    store.about = {
        "versions": f"Python {found['python']}, {packages}",
        "commit": str(found["git"]["commit"])[:12],
    }
    jobs = jobs_of(experiments, given.seeds, store)
    runs = measure(jobs, store, given.overrides, given.processes)
    for _ in shown_progress(runs, len(jobs), "runs"):
        pass
    if jobs:
        print(f"{len(jobs)} of {len(jobs)} runs")


if __name__ == "__main__":
    sys.exit(main())
