"""What scripts/ensemble.py chooses from."""

from collections.abc import Sequence
from pathlib import Path

from goldilocks.errors import Refused
from goldilocks.runs.folder import find_run
from goldilocks.sweeps.ensemble import FOLDER, best_runs
from goldilocks.sweeps.report.reading import find_sweep, read_summary


def candidates(named: Sequence[str], output: Path | None, log_dir: str) -> tuple[list[Path], Path]:
    """What scripts/ensemble.py is asked for: the runs to choose from, and the folder to write.

    Args:
        named: A sweep, or several runs.
        output: The folder; None: a sweep's own.
        log_dir: Where `last` looks.

    Raises:
        Refused: if there is no such sweep or run, or a single run is named.
    """
    if len(named) == 1 and is_single_run(named[0]):
        raise Refused(
            f"{named[0]}: is a single run; write a sweep, or several runs."
            " The networks of a cross-validation predict together already"
        )
    if len(named) > 1:
        runs = [find_run(name, log_dir) for name in named]
        return runs, output or runs[0].parent / FOLDER
    folder = find_sweep(named[0], log_dir)
    summary = read_summary(folder)
    return best_runs(folder, summary.trials, summary.modes), output or folder / FOLDER


def is_single_run(name: str) -> bool:
    """Whether a folder is a run's."""
    return (Path(name) / "result.json").exists()
