"""The report of a sweep: `python scripts/report.py SWEEP`, a sweep folder or `last`."""

import sys

from goldilocks.cli.verbs.report import main

if __name__ == "__main__":
    sys.exit(main())
