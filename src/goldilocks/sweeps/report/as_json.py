"""The report of a sweep for programs: what report.html says, as plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

from goldilocks.sweeps.ensemble import ensemble_of
from goldilocks.sweeps.execution.folder import trial_row
from goldilocks.sweeps.report.summary import Configuration, Summary
from goldilocks.sweeps.report.worth import compared


def as_plain(
    summary: Summary, sentences: Sequence[str], importances: Mapping[str, float]
) -> dict[str, Any]:
    """What report.json holds; docs/sweeps.md explains the keys.

    Args:
        summary: Of the sweep.
        sentences: What came out.
        importances: By key; empty where nothing can be said.
    """
    return {
        "objectives": summary.modes,
        "settings": dict(summary.settings),
        "commands": summary.commands,
        "searched": [parameter.key for parameter in summary.parameters],
        "conclusions": list(sentences),
        "best": summary.best.number if summary.best is not None else None,
        "alike": [one.number for one in summary.alike],
        "front": [one.number for one in summary.front],
        "ensemble": (ensemble_of(summary.folder) or {}).get("ensemble"),
        "baselines": compared(summary),
        "importances": dict(importances),
        "seconds": summary.seconds,
        "wall_time": summary.wall_time,
        "configurations": [
            configuration(one, summary) for one in [*summary.best_first, *without_value(summary)]
        ],
        "trials": [dict(trial_row(trial, summary.modes)) for trial in summary.trials],
    }


def without_value(summary: Summary) -> list[Configuration]:
    ranked = {one.number for one in summary.ranked}
    return [one for one in summary.configurations if one.number not in ranked]


def configuration(one: Configuration, summary: Summary) -> dict[str, Any]:
    """A configuration: mean and standard deviation over its seeds are by objective,
    None where there are none.
    """
    names = list(summary.modes)
    return {
        "number": one.number,
        "trials": [trial.number for trial in one.trials],
        "status": one.status,
        "varied": one.varied,
        "mean": {name: one.value(place) for place, name in enumerate(names)},
        "deviation": {name: one.deviation(place) for place, name in enumerate(names)},
        "standard_error": one.error,
    }
