"""`python -m goldilocks VERB ...`."""

import sys

from goldilocks.cli.dispatch import main

if __name__ == "__main__":
    sys.exit(main())
