"""A sweep folder as the report reads it: its summary, and the curves of its trials."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from goldilocks.config.metric_directions import board_tag
from goldilocks.config.strangers import sealed
from goldilocks.errors import Refused
from goldilocks.loggers.table import numbers_in
from goldilocks.sweeps.execution.folder import all_trials, read_sweep
from goldilocks.sweeps.execution.trials import Trial
from goldilocks.sweeps.report.summary import Summary, summarize


def find_sweep(sweep: str, log_dir: str | Path) -> Path:
    """The folder of a sweep, given as a path or as `last`: that of `log_dir/sweeps` which was
    started or resumed last.

    Raises:
        Refused: if there is no such folder, or it is not a sweep's.
    """
    sweeps = Path(log_dir) / "sweeps"
    if sweep == "last":
        known = list(sweeps.glob("*/sweep.yaml"))
        if not known:
            raise Refused(f"last: there is no sweep in {sweeps}; run one with: python train.py -m")
        return sealed(max(known, key=lambda path: path.stat().st_mtime_ns).parent)
    folder = Path(sweep)
    if not sweep or not folder.is_dir():
        raise Refused(
            f"{sweep or 'the sweep is empty'}: no such folder; write a folder of {sweeps}, or last"
        )
    if not (folder / "sweep.yaml").is_file():
        raise Refused(
            f"{sweep}: is not a sweep, it has no sweep.yaml; write a folder of {sweeps}, or last"
        )
    return sealed(folder)


def read_summary(folder: Path, trials: Sequence[Trial] | None = None) -> Summary:
    """The summary of a sweep folder.

    Args:
        folder: Of a sweep.
        trials: Of the sweep, if they are known already.

    Raises:
        Refused: if the folder is not a sweep's or cannot be read.
    """
    try:
        stored = read_sweep(folder)
    except Refused as refusal:
        raise Refused(f"{refusal}; the command of the sweep writes it again") from refusal
    own = stored["objective"]
    modes = stored["settings"]["modes"] or {own["metric"]: own["mode"]}
    if not set(modes.values()) <= {"min", "max"}:  # somebody else may have written the file
        raise Refused(f"{folder}: its sweep.yaml says neither min nor max of an objective")
    paths = {trial: folder / str(trial) / "result.json" for trial in map(int, stored["trials"])}
    ended = {number: path.stat().st_mtime for number, path in paths.items() if path.exists()}
    return summarize(
        folder, stored, modes, all_trials(folder, []) if trials is None else trials, ended
    )


def validation_curve(folder: Path, metric: str) -> dict[int, float]:
    """A metric by epoch, of a run folder: from metrics.csv, else TensorBoard's events;
    the mean over folds.
    """
    folds = sorted(folder.glob("fold_*"))
    if folds:
        return mean_curve([validation_curve(fold, metric) for fold in folds])
    table = folder / "metrics.csv"
    if not table.exists():
        return curve_of_events(folder, metric)
    return {
        int(row["epoch"]): row[metric]
        for row in numbers_in(table)
        if metric in row and "epoch" in row
    }


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The mean of curves, over the epochs that all of them have.

    >>> mean_curve([{0: 1.0, 1: 2.0}, {0: 3.0}])
    {0: 2.0}
    """
    shared = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    return {epoch: statistics.fmean(curve[epoch] for curve in curves) for epoch in sorted(shared)}


def curve_of_events(folder: Path, metric: str) -> dict[int, float]:
    """A metric by epoch from TensorBoard's events; empty if there are none."""
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tag = board_tag(metric)
    if not {tag, "epoch"} <= set(events.Tags()["scalars"]):
        return {}
    epochs = {event.step: int(event.value) for event in events.Scalars("epoch")}
    return {
        epochs[event.step]: event.value for event in events.Scalars(tag) if event.step in epochs
    }
