"""Checks a configuration before it is trained.

Looks at the options, the data and the network's first steps, in under a minute, and writes nothing.
Each line is ok, a warning or failed, with what was measured, and below it what to write instead.
Exit code 1 if anything failed.
"""

import time

from goldilocks.cli.main import refusals
from goldilocks.cli.script import ScriptParser


def main() -> int:
    parser = ScriptParser(__doc__).takes_overrides()
    given = parser.parse_args()
    began = time.perf_counter()
    with refusals() as outcome:
        from goldilocks.config.compose import compose
        from goldilocks.data.verdict import lines_of, summary
        from goldilocks.diagnosis.before import examine

        verdicts = []
        for verdict in examine(compose(given.overrides)[0]):
            verdicts.append(verdict)
            print("\n".join(lines_of(verdict)), flush=True)
        print(summary(verdicts, time.perf_counter() - began))
        outcome.code = int(any(verdict.status == "failed" for verdict in verdicts))
    return outcome.code
