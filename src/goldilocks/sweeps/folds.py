"""`sweep.folds=auto`: trials of small data are judged by cross-validation."""

import copy
import sys
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from goldilocks.errors import Refused
from goldilocks.sweeps.execution.planning import Checker

FOLDS = 5
# Validation rows, with fewer of which the value of a trial is not known to a tenth of the spread of
# the trials: trials differ by about a fifth of what the rows of one differ by (docs/sweeps.md).
FEW_ROWS = 2500


def folds_of(asked: str | None, first: DictConfig, checker: Checker) -> Sequence[str]:
    """The overrides that each trial gets in addition.

    Args:
        asked: `sweep.folds`.
        first: The configuration of the first trial.
        checker: Loads its data.
    """
    if asked is None or first.data.get("folds") is not None:
        return []
    rows = checker.num_rows(first)["val"]
    if not rows or rows >= FEW_ROWS:
        return []
    folded = copy.deepcopy(first)
    OmegaConf.update(folded, "data.folds", FOLDS)
    try:
        checker.num_rows(folded)
    except Refused as refusal:  # the data say themselves which rows validate
        print(f"sweep.folds=auto: no folds here ({refusal})", file=sys.stderr)
        return []
    print(
        f"sweep.folds=auto: {rows:,} validation rows are too few to tell trials apart; each trial"
        f" trains {FOLDS} networks (data.folds={FOLDS}), and is judged by all rows but the test's",
        file=sys.stderr,
    )
    return [f"data.folds={FOLDS}"]
