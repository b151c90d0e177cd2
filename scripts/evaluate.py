"""Tests a finished run's best checkpoint: `python scripts/evaluate.py RUN`, a run folder or `last`.

Prints the metrics and adds them to the run's result.json. A run tests itself at its end; this is
for runs that could not (trials of a sweep, interrupted runs) or to check the numbers again.
"""

import sys

from goldilocks.cli.main import refusals
from goldilocks.cli.script import ScriptParser


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("run", help="a run folder, or last")
    parser.add_argument("--log-dir", default="logs", help="where `last` looks (default: logs)")
    given = parser.parse_args()
    with refusals() as outcome:
        from goldilocks.runs.evaluate import evaluate_run
        from goldilocks.runs.folder import find_run
        from goldilocks.runs.printing import print_result

        folder = find_run(given.run, given.log_dir)
        print_result(folder, evaluate_run(folder))
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
