"""Networks of a sweep, or of several runs, that predict together.

Chooses among the finished trials by their predictions of the validation rows, and leaves a run
folder that evaluate, predict, export and goldilocks.load take like
any other. A sweep does so itself at its end.
"""

from pathlib import Path

from goldilocks.cli.main import refusals
from goldilocks.cli.script import ScriptParser, positive


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("runs", nargs="+", help="a sweep folder, or last; or several run folders")
    parser.add_argument(
        "--members", type=positive, default=8, help="networks to choose at most (default: 8)"
    )
    parser.add_argument("--copy", action="store_true", help="keep copies of the members in it")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="default: `ensemble` in the sweep's folder"
    )
    parser.add_argument("--log-dir", default="logs", help="where `last` looks (default: logs)")
    given = parser.parse_args()
    with refusals() as outcome:
        from goldilocks.cli.ensemble import candidates
        from goldilocks.runs.ensembling import in_words, make_ensemble
        from goldilocks.runs.printing import print_result

        runs, into = candidates(given.runs, given.output, given.log_dir)
        result = make_ensemble(runs, into, given.members, copy=given.copy)
        print_result(into, result)
        print(f"{in_words(result)}.")
    return outcome.code
