"""Writes the report of a sweep again.

Writes report.html and report.md into the folder, and its best trial as experiment/best.yaml. A
sweep does so itself at its end; this is for one that was killed, or is still running.
"""

from goldilocks.cli.main import refusals
from goldilocks.cli.script import ScriptParser


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument(
        "sweep", help="a sweep folder, or last: the sweep that was started or resumed last"
    )
    parser.add_argument("--log-dir", default="logs", help="where `last` looks (default: logs)")
    given = parser.parse_args()
    with refusals() as outcome:
        from goldilocks.sweeps.report.page import write_report
        from goldilocks.sweeps.report.reading import find_sweep

        print(write_report(find_sweep(given.sweep, given.log_dir)))
    return outcome.code
