"""A sweep's table of trials in the terminal."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from goldilocks.runs.printing import rounded
from goldilocks.sweeps.execution.trials import Trial
from goldilocks.sweeps.objectives import pareto_front

MOST_COLUMNS = 5  # of what varies in a sweep; more do not fit on a screen
MOST_ROWS = 50  # that are printed


def trials_table(folder: Path, trials: Sequence[Trial], modes: Mapping[str, str]) -> Table:
    """The trials of a sweep, best first;
    those without a value last, and those that were given up after the others.

    Of more than MOST_ROWS trials the first are shown; trials.csv and the report have all.

    Args:
        folder: Of the sweep.
        trials: In any order.
        modes: Min or max by objective; the first one sorts.
            With several, a star marks what no other trial beats.
    """
    names, signs = list(modes), [1 if mode == "min" else -1 for mode in modes.values()]
    values = {trial.number: trial.values(names) for trial in trials}
    front = pareto_front(values, signs) if len(names) > 1 else set()
    columns = varied_columns(trials)
    table = Table(
        "trial", *names, *columns, "status", "epochs", "seconds", box=None, pad_edge=False
    )
    table.title = escape(f"{folder} (best value first{'; * is best in its way' if front else ''})")

    def place(trial: Trial) -> tuple[bool, bool, float]:
        value = values[trial.number][0]
        return (
            value is None,
            trial.status != "done",
            signs[0] * (value or 0.0),
        )

    if len(trials) > MOST_ROWS:
        table.caption = f"the other {len(trials) - MOST_ROWS:,} trials are in trials.csv"
    for trial in sorted(trials, key=place)[:MOST_ROWS]:
        table.add_row(
            f"{trial.number}{'*' * (trial.number in front)}",
            *("" if value is None else f"{value:.4g}" for value in values[trial.number]),
            *(escape(cell(trial.varied)) for cell in columns.values()),
            trial.status,
            str(trial.outcome.get("epochs", "")),
            "" if trial.seconds is None else f"{trial.seconds:.1f}",
        )
    return table


def varied_columns(trials: Sequence[Trial]) -> dict[str, Callable[[Mapping[str, str]], str]]:
    """The columns that show what varies between trials:
    one for each key, or one for all where they are many.
    """
    keys = list(dict.fromkeys(key for trial in trials for key in trial.varied))
    if len(keys) > MOST_COLUMNS:
        return {
            "varied": lambda varied: " ".join(
                f"{key}={rounded(value)}" for key, value in varied.items()
            )
        }
    return {key: lambda varied, key=key: rounded(varied.get(key, "")) for key in keys}  # type: ignore[misc]
