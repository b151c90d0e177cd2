"""Whether a network was worth it: the best trial and the ensemble beside plain models, on the same
validation rows.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from goldilocks.callbacks.comparison import (
    NETWORK,
    RIVALS,
    WORDS,
    Entries,
    compare,
    number,
    verdict,
)
from goldilocks.errors import Refused
from goldilocks.runs.calibration import read_calibration
from goldilocks.runs.ensembles import kept, members_of
from goldilocks.runs.trained import task_of
from goldilocks.runs.uncertainty import given_out
from goldilocks.sweeps.baselines import baselines_of
from goldilocks.sweeps.ensemble import FOLDER as ENSEMBLE
from goldilocks.sweeps.report.summary import Summary
from goldilocks.tasks.task import Task
from goldilocks.training.outcome import Outcome, with_losses


def compared(summary: Summary) -> dict[str, Any] | None:
    """What report.json says: the best trial and the ensemble, each beside the models; None where
    there are none of the same rows.
    """
    baselines = baselines_of(summary.folder)
    best = summary.best
    if not baselines or best is None or not summary.objective.startswith("val/"):
        return None
    objective = {"metric": summary.objective, "mode": next(iter(summary.modes.values()))}
    try:
        task = task_of(members_of(summary.folder / str(best.number))[0][0])
        found = {}
        for what, place in (("best", str(best.number)), (ENSEMBLE, ENSEMBLE)):
            own = own_of(summary.folder / place, task)
            if own is not None and all(same_rows(own, one) for one, _ in baselines.values()):
                others = {name: as_of(task, one) for name, (one, _) in baselines.items()}
                found[what] = compare(task, objective, "val", {NETWORK: own, **others})
    except (Refused, OSError):
        return None
    notes = {name: note for name, (_, note) in baselines.items()}
    rows = len(next(iter(baselines.values()))[0].rows)
    return {"metric": summary.objective, "rows": rows, "notes": notes, **found} if found else None


def own_of(folder: Path, task: Task) -> Outcome | None:
    """What a run gives out for the rows that it has kept, in row order; None without any."""
    try:
        outcome = given_out(task, kept(folder), read_calibration(folder), "val")
    except Refused:
        return None
    return as_of(task, outcome.take(np.argsort(outcome.rows, kind="stable")))


def as_of(task: Task, outcome: Outcome) -> Outcome:
    """The same predictions with the losses of a task."""
    return with_losses(task, outcome.rows, outcome.true, outcome.predicted)


def same_rows(one: Outcome, other: Outcome) -> bool:
    """Whether two Outcomes are of the same rows."""
    return np.array_equal(one.rows, other.rows)


def worth_sentences(summary: Summary) -> Iterator[str]:
    """What the report says of it."""
    if (known := compared(summary)) is None:
        return
    key = known["metric"]
    names = {"best": "the best trial", ENSEMBLE: "the ensemble"}
    own = {words: known[what] for what, words in names.items() if what in known}
    first: Entries = next(iter(own.values()))
    values = [f"{words} {value(entries[NETWORK], key)}" for words, entries in own.items()]
    listed = [name for name in WORDS if name in known["notes"]]
    values += [f"{WORDS[name]} {value(first[name], key)}" for name in listed]
    verdicts = "; ".join(f"{words}: {said(entries, key)}" for words, entries in own.items())
    notes = [f"{WORDS[name]}: {note}" for name, note in known["notes"].items() if note]
    cut_short = f" ({'; '.join(notes)})" if notes else ""
    yield (
        f"Was a network worth it? `{key}` of the same {known['rows']:,} validation rows:"
        f" {', '.join(values)}. {verdicts[0].upper()}{verdicts[1:]}. These rows have chosen among"
        f" the networks, which flatters them{cut_short}."
    )


def value(entry: Mapping[str, Any], key: str) -> str:
    """A metric with its standard error."""
    error = entry["error"][key]
    return number(entry["metrics"][key]) + ("" if error is None else f" ± {error:.2g}")


def said(entries: Entries, key: str) -> str:
    """The verdict of a run beside the models."""
    rivals = {name: entry for name, entry in entries.items() if name in RIVALS}
    return verdict(rivals, key).replace("your network is better", "better than each of them")
