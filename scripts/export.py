"""Writes a finished run's network for other programs:
`python scripts/export.py RUN --format onnx` or `torch_export`."""

import sys

from goldilocks.cli.verbs.export import main

if __name__ == "__main__":
    sys.exit(main())
