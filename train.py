"""Trains one network, or with -m a sweep of them: `python train.py model=deep optimizer=nadam`."""

import sys

from goldilocks.cli.verbs.train import main

if __name__ == "__main__":
    sys.exit(main())
