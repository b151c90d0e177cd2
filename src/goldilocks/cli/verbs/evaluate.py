"""Tests a finished run's best checkpoint.

Prints the metrics and adds them to the run's result.json. A run tests itself at its end; this is
for runs that could not (trials of a sweep, interrupted runs) or to check the numbers again.
"""

import sys
from collections.abc import Mapping

from goldilocks.cli.main import refusals
from goldilocks.cli.script import RUN, ScriptParser

TWICE = "to choose go by the validation rows, for test rows that decide something no longer test it"


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("run", help=RUN)
    parser.add_argument("--log-dir", default="logs", help="where `last` looks (default: logs)")
    given = parser.parse_args()
    with refusals() as outcome:
        from goldilocks.runs.evaluate import evaluate_run
        from goldilocks.runs.folder import find_run, read_result
        from goldilocks.runs.printing import print_result

        folder = find_run(given.run, given.log_dir, ensembles=True)
        before = tested_before(read_result(folder)["metrics"] or {})
        result = evaluate_run(folder)
        if before:
            print(f"tested before, with {before}: {TWICE}", file=sys.stderr)
        print_result(folder, result)
    return outcome.code


def tested_before(metrics: Mapping[str, float | None]) -> str:
    """The test metrics that a run has already, in words."""
    known = {name: value for name, value in metrics.items() if name.startswith("test/")}
    return ", ".join(f"{name} {value:.4g}" for name, value in known.items() if value is not None)
