"""Networks that predict together: `python scripts/ensemble.py SWEEP`, a sweep folder or `last`, or
several runs."""

import sys

from goldilocks.cli.verbs.ensemble import main

if __name__ == "__main__":
    sys.exit(main())
