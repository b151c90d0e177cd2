"""Trains a run again from its own configuration and says whether the numbers are the same.

`python scripts/rerun.py RUN [overrides]`, RUN a run folder or `last`. The new run has a folder of
its own. Exit code 0 if the numbers are identical or equal within the tolerance, 1 if they differ.
"""

import sys

from goldilocks.cli.main import refusals
from goldilocks.cli.script import RUN, ScriptParser


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("run", help=RUN)
    parser.add_argument(
        "overrides", nargs="*", help="as of train.py: the run is composed again with them"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="relative difference that counts as equal (default: 0.001)",
    )
    parser.add_argument(
        "--log-dir", default="logs", help="where `last` looks, and the new run is (default: logs)"
    )
    given = parser.parse_args()
    with refusals() as outcome:
        from goldilocks.runs.evaluate import rerun
        from goldilocks.runs.folder import find_run
        from goldilocks.runs.printing import print_comparison, print_result

        before = find_run(given.run, given.log_dir)
        after, result = rerun(before, given.overrides, given.log_dir)
        print_result(after, result)
        verdict = print_comparison(before, after, given.tolerance)
        outcome.code = 1 if verdict == "different" else 0
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
