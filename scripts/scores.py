"""Test scores over several splits: `python scripts/scores.py [--seeds 5] [overrides ...]`.

Trains one run for each seed of the split (data.seed=0, 1, ...); prints mean and standard deviation
of the test metrics. Choose nothing by these numbers: they are the test set's.
"""

import math
import statistics
import sys

from goldilocks.cli.main import refusals
from goldilocks.cli.script import ScriptParser, positive


def main() -> int:
    parser = ScriptParser(__doc__).takes_overrides()
    parser.add_argument("--seeds", type=positive, default=5, help="how many splits (default: 5)")
    given = parser.parse_args()
    with refusals() as outcome:
        from rich.console import Console
        from rich.table import Table

        from goldilocks.runs.evaluate import scores_by_split

        scores, failed = scores_by_split(given.overrides, given.seeds)
        table = Table("metric", "mean", "sd", "by seed of the split", box=None, pad_edge=False)
        for name, values in scores.items():
            spread = statistics.stdev(values) if len(values) > 1 else math.nan
            listed = " ".join(f"{value:.3f}" for value in values)
            table.add_row(name, f"{statistics.mean(values):.4f}", f"{spread:.4f}", listed)
        Console(highlight=False, soft_wrap=True).print(table)
        for seed, status in failed.items():
            print(f"data.seed={seed}: {status}", file=sys.stderr)
            outcome.code = 1
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
