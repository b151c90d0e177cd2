"""The tables of a sweep's report: all trials, and the best for each value of a parameter."""

from collections.abc import Sequence

from goldilocks.runs.printing import rounded
from goldilocks.sweeps.execution.trials import ENDED, Trial
from goldilocks.sweeps.report.rendering import Cell, Table
from goldilocks.sweeps.report.summary import INFEASIBLE, SEED, Configuration, Summary
from goldilocks.sweeps.report.wording import with_deviation


def trials_table(summary: Summary) -> Table:
    """All trials, those of the best configuration first."""
    names = list(summary.modes)
    keys = [parameter.key for parameter in summary.parameters]
    keys += [SEED] * any(SEED in trial.varied for trial in summary.trials)
    order = {
        id(trial): place for place, one in enumerate(summary.best_first) for trial in one.trials
    }
    failed = any(trial.error for trial in summary.trials)

    def place(trial: Trial) -> tuple[float, ...]:
        value = trial.values(names)[0]
        given_up = value is None, summary.signs[0] * (value or 0.0)
        return order.get(id(trial), len(order)), trial.status not in ENDED, *given_up, trial.number

    figures = [key for key in ("best_epoch", "epochs", "num_parameters") if key not in names]
    rows = [
        trial_row(trial, names, keys, figures, failed)
        for trial in sorted(summary.trials, key=place)
    ]
    head = ["trial", "status", *names, *keys, *figures, "seconds", *["error"] * failed]
    return Table(head, rows, sortable=True)


def trial_row(
    trial: Trial, names: Sequence[str], keys: Sequence[str], figures: Sequence[str], failed: bool
) -> list[str | float | Cell | None]:
    """What the table says of a trial."""
    return [
        Cell(str(trial.number), trial.number, f"{trial.number}/" if trial.result else ""),
        Cell(trial.status, kind=trial.status),
        *trial.values(names),
        *(value_cell(trial.varied.get(key)) for key in keys),
        *(trial.outcome.get(key) for key in figures),
        trial.seconds,
        *[Cell(trial.error or "", kind="wide")] * failed,
    ]


def value_cell(value: str | None) -> Cell | str | None:
    """What a parameter was, to be read; it sorts by all its digits."""
    if value is None or rounded(value) == value:
        return value
    return Cell(rounded(value), float(value), kind="number")


def best_per_value(summary: Summary, keys: Sequence[str]) -> Table:
    """For each combination of values of some parameters the best configuration that has it:
    of the others, the best.
    """
    groups: dict[tuple[str, ...], list[Configuration]] = {}
    for one in summary.configurations:
        if all(key in one.varied for key in keys):
            groups.setdefault(tuple(one.varied[key] for key in keys), []).append(one)
    place = {one.number: index for index, one in enumerate(summary.ranked)}
    rows: list[tuple[int, list[str | float | Cell | None]]] = []
    for cells, group in groups.items():
        ranked = sorted(
            (one for one in group if one.number in place), key=lambda one: place[one.number]
        )
        bad = sum(one.status in INFEASIBLE for one in group)
        if not ranked:
            rows.append((len(place), [*cells, None, None, len(group), bad, ""]))
            continue
        best = ranked[0]
        rest = " ".join(
            f"{key}={rounded(value)}" for key, value in best.varied.items() if key not in keys
        )
        value = Cell(with_deviation(best.value(), best.deviation()), best.value(), kind="number")
        link = Cell(str(best.number), best.number, f"{best.number}/")
        rows.append(
            (place[best.number], [*cells, value, link, len(group), bad, Cell(rest, kind="wide")])
        )
    head = [
        *keys,
        f"best {summary.objective}",
        "trial",
        "configurations",
        "failed or diverged",
        "with",
    ]
    return Table(
        head,
        [row for _, row in sorted(rows, key=lambda pair: pair[0])],
        sortable=True,
        title=", ".join(keys),
    )
