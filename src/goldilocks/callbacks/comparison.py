"""A network beside its baselines: numbers for result.json, and the line that a reader gets."""

import math
from collections.abc import Mapping
from typing import Any

from goldilocks.tasks.task import Task
from goldilocks.training.outcome import Outcome, metrics_of
from goldilocks.training.standard_errors import error_of, paired

Entries = dict[str, dict[str, Any]]  # of the network and of each baseline, by name

SHOWN = 2.0  # standard errors from which on a difference counts as shown
NETWORK, CONSTANT = "network", "constant"
WORDS = {
    NETWORK: "your network",
    "trees": "boosted trees",
    "forest": "random forest",
    "linear": "linear",
    CONSTANT: CONSTANT,
}
RIVALS = {"trees": "boosted trees", "forest": "a random forest", "linear": "a linear model"}


def compare(
    task: Task, objective: Mapping[str, Any], stage: str, outcomes: Mapping[str, Outcome]
) -> Entries:
    """What each comes to on the rows of a stage.

    Args:
        task: Whose metrics count.
        objective: Its `metric` is compared, of this stage; its `mode`, `min` or `max`, is better.
        stage: `val` or `test`.
        outcomes: Of the network, and of baselines by name, for the same rows.

    Returns:
        By name: the `metrics`; of the objective's metric its standard `error`, and of a baseline by
        how much it is `ahead` of the network, with the error of that, `ahead_error`, row by row.
    """
    name = objective["metric"].partition("/")[2]
    key, sign = f"{stage}/{name}", 1.0 if objective["mode"] == "max" else -1.0
    own = outcomes[NETWORK]
    found: Entries = {}
    for model, outcome in outcomes.items():
        entry = {
            "metrics": metrics_of(task, outcome, stage),
            "error": {key: finite(error_of(task, name, outcome))},
        }
        if model != NETWORK:
            above, error = paired(task, name, outcome, own)
            entry |= {"ahead": {key: sign * above}, "ahead_error": {key: finite(error)}}
        found[model] = entry
    return found


def finite(error: float) -> float | None:
    """A standard error; None where it is not known."""
    return error if math.isfinite(error) else None


def merged(entries: Entries, others: Entries) -> Entries:
    """Entries of several stages together."""
    for model, other in others.items():
        entry = entries.setdefault(model, {})
        for what, values in other.items():
            entry[what] = {**entry.get(what, {}), **values} if isinstance(values, dict) else values
    return entries


# --- in words -------------------------------------------------------------------------------------


def lines(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for the validation rows, and one for the test rows where the run was tested."""
    own = entries.get(NETWORK) or {"error": {}}
    return [in_words(entries, key) for key in own["error"]]


def in_words(entries: Mapping[str, Mapping[str, Any]], key: str) -> str:
    """The network beside its baselines.

    Args:
        entries: As in result.json.
        key: The metric, with its stage.

    >>> def entry(value, ahead, error, note=""):
    ...     numbers = {"val/loss": value}, {"val/loss": ahead}, {"val/loss": error}
    ...     return dict(zip(("metrics", "ahead", "ahead_error"), numbers), note=note)
    >>> network = {"metrics": {"val/loss": 0.482}, "error": {"val/loss": 0.02}}
    >>> entries = {"network": network, "linear": entry(0.491, -0.009, 0.01)}
    >>> print(in_words({**entries, "trees": entry(0.475, 0.007, 0.01)}, "val/loss")[:64])
    val/loss: your network 0.482 ± 0.02, boosted trees 0.475, linear
    """
    named = [model for model in WORDS if key in entries.get(model, {}).get("metrics", {})]
    values = [f"{WORDS[model]} {number(entries[model]['metrics'][key])}" for model in named]
    error = entries[NETWORK]["error"][key]
    values[0] += "" if error is None else f" ± {error:.2g}"
    notes = [
        f" ({WORDS[model]}: {entries[model]['note']})"
        for model in named
        if entries[model].get("note")
    ]
    rivals = {model: entries[model] for model in named if model in RIVALS}
    return f"{key}: {', '.join(values)}: {verdict(rivals, key)}{''.join(notes)}"


def number(value: float | None) -> str:
    """A metric in figures; one that is not finite is null in a file."""
    return "nan" if value is None else f"{value:.4g}"


def verdict(rivals: Mapping[str, Mapping[str, Any]], key: str) -> str:
    """What the differences say, where they are more than two standard errors."""
    if better := [model for model, entry in rivals.items() if is_shown(entry, key, 1)]:
        one = len(better) == 1 and better != ["trees"]
        names = " and ".join(RIVALS[model] for model in better)
        return f"{names} {'is' if one else 'are'} better"
    tied = [WORDS[model] for model, entry in rivals.items() if not is_shown(entry, key, -1)]
    if not tied:
        return "your network is better"
    which = f" from {' and '.join(tied)}" if len(tied) < len(rivals) else ""
    return f"no difference{which} that these rows can show"


def is_shown(entry: Mapping[str, Any], key: str, sign: int) -> bool:
    """Whether a baseline is ahead of the network (1), or behind it (-1), by more than chance."""
    ahead, error = entry["ahead"][key], entry["ahead_error"][key]
    return ahead is not None and error is not None and sign * ahead > SHOWN * error
