"""Predicts the rows of a file with a finished run:
`python scripts/predict.py RUN new.csv --output predictions.csv`."""

import sys

from goldilocks.cli.verbs.predict import main

if __name__ == "__main__":
    sys.exit(main())
