"""A finished sweep's networks predict together: `ensemble/` in its folder."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from goldilocks.errors import Refused, one_line
from goldilocks.runs.ensembles import is_ensemble
from goldilocks.runs.ensembling import in_words, make_ensemble
from goldilocks.runs.folder import read_result
from goldilocks.runs.selection import MOST_CANDIDATES
from goldilocks.sweeps.execution.trials import Trial
from goldilocks.sweeps.objectives import objectives_of

FOLDER = "ensemble"


def try_ensemble(
    folder: Path, trials: Sequence[Trial], modes: Mapping[str, str], members: int
) -> None:
    """Makes the ensemble at the end of a sweep, which does not fail because of it.

    Args:
        folder: Of the sweep.
        trials: With their results.
        modes: Min or max by objective, of which the first chooses.
        members: Of the ensemble at most. 0: none is made.
    """
    best = best_runs(folder, trials, modes)
    if not members or len(best) < 2:
        return
    try:
        result = make_ensemble(best, folder / FOLDER, members)
    except Refused as refusal:
        print(f"no ensemble: {refusal}", file=sys.stderr)
    except Exception as error:  # a full disk
        print(
            f"warning: no ensemble was made ({type(error).__name__}: {one_line(error)});"
            f" python scripts/ensemble.py {folder}",
            file=sys.stderr,
        )
    else:
        print(f"Ensemble: {in_words(result)}.")
        print(f"python scripts/evaluate.py {folder / FOLDER}   (tests it; no trial has been)")


def best_runs(folder: Path, trials: Sequence[Trial], modes: Mapping[str, str]) -> list[Path]:
    """The folders of the trials that are done, the best first, no more than can be chosen from."""
    sign = 1 if next(iter(modes.values())) == "min" else -1
    values = {
        trial.number: objectives_of(trial.result or {}, list(modes))[0]
        for trial in trials
        if trial.status == "done"
    }
    known = {number: value for number, value in values.items() if value is not None}
    ranked = sorted(known, key=lambda number: sign * float(known[number] or math.inf))
    return [folder / str(number) for number in ranked[: 2 * MOST_CANDIDATES]]


def ensemble_of(folder: Path) -> dict[str, Any] | None:
    """The result of a sweep's ensemble, if it has one."""
    own = folder / FOLDER
    if not is_ensemble(own):
        return None
    try:
        return read_result(own)
    except Refused:
        return None


def ensemble_sentences(folder: Path) -> Iterator[str]:
    """What the report says of it."""
    if (result := ensemble_of(folder)) is not None and "ensemble" in result:
        members = result["ensemble"]["members"]
        named = ", ".join(f"{member['run']} ({member['weight']:.3g})" for member in members)
        yield (
            f"Ensemble: {in_words(result)}. Trials and weights: {named}."
            f" `python scripts/evaluate.py {folder / FOLDER}` tests it,"
            f' `goldilocks.load("{folder}")` predicts with it.'
        )
