"""Tests a finished run's best checkpoint: `python scripts/evaluate.py RUN`, a folder or `last`."""

import sys

from goldilocks.cli.verbs.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
