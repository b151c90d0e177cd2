"""Checks a configuration before it is trained: `python scripts/doctor.py [overrides ...]`."""

import sys

from goldilocks.cli.verbs.doctor import main

if __name__ == "__main__":
    sys.exit(main())
