"""What a sweep's numbers say, in sentences:
what is best and whether that is sure, what to widen, what went wrong.

Words between backticks are to be written or are names; nothing else is marked.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from goldilocks.diagnosis.findings import JUDGED, SEEN
from goldilocks.machine.clock import duration
from goldilocks.sweeps.ensemble import ensemble_sentences
from goldilocks.sweeps.execution.trials import ENDED
from goldilocks.sweeps.report.comparison import certainty_sentences
from goldilocks.sweeps.report.edges import Allowed, edge_sentences, range_text
from goldilocks.sweeps.report.summary import (
    Configuration,
    Parameter,
    Summary,
    number_of,
    reasons_of,
)
from goldilocks.sweeps.report.wording import called, plural, shown, with_deviation
from goldilocks.sweeps.report.worth import worth_sentences
from goldilocks.sweeps.search.settings import LEARNING

IMPROVING, LENGTH = "still improving", "trainer.max_epochs"  # the finding, and what ends a run


def conclusions(summary: Summary, allowed: Allowed = lambda key, value: True) -> list[str]:
    """All that there is to say, the most important first."""
    return [
        *best_sentences(summary),
        *front_sentences(summary),
        *ensemble_sentences(summary.folder),
        *worth_sentences(summary),
        *certainty_sentences(summary),
        *edge_sentences(summary, allowed),
        *late_sentences(summary),
        *length_sentences(summary),
        *advice_sentences(summary),
        *failure_sentences(summary),
        *divergence_sentences(summary),
        *open_sentences(summary),
        *cost_sentences(summary),
    ]


# --- the best -------------------------------------------------------------------------------------


def best_sentences(summary: Summary) -> Iterator[str]:
    """Which configuration is best, and its value."""
    best = summary.best
    if best is None:
        yield "No trial has ended with a value: there is no best one."
        return
    way = "less" if summary.signs[0] == 1 else "more"
    chosen = "It was chosen by the validation rows, so others will be a little worse."
    text = f"{called(best)}: `{summary.objective}` {with_deviation(best.value(), best.deviation())}"
    if len(summary.alike) > 1:
        yield f"No winner: {alike_in_words(summary)}; {way} is better."
        yield f"Taken as the best, as {summary.why_best}: {text}{origin(summary, best)}. {chosen}"
    else:
        yield f"Best: {text}{origin(summary, best)}; {way} is better. {chosen}"
    if best.status != "done":
        yield f"No configuration is done yet: this one is {best.status}."


def alike_in_words(summary: Summary) -> str:
    """How many configurations cannot be told apart, between which values,
    and by how much these may be off.
    """
    values = sorted(one.value() or 0.0 for one in summary.alike)
    count = f"{len(summary.alike)} of {plural(len(summary.ranked), 'configuration')}"
    text = f"{count} cannot be told apart. Their `{summary.objective}` is"
    if values[0] == values[-1]:
        return f"{text} {shown(values[0])}"
    if summary.is_paired:
        return (
            f"{text} {shown(values[0])} to {shown(values[-1])}; compared row by row, the best value"
            " is no more than a standard error of the difference ahead of any"
        )
    error = summary.noise(summary.alike[0], summary.alike[-1])
    return (
        f"{text} {shown(values[0])} to {shown(values[-1])}, which is within a standard error,"
        f" {error:.2g}, of the best value"
    )


def origin(summary: Summary, one: Configuration) -> str:
    """What a configuration's value is the mean of, how far it may be off,
    and how large its network is.
    """
    result = one.trials[0].outcome
    text = ""
    if one.deviation() is not None:
        text = f", mean ± standard deviation over {plural(len(one.by_seed), 'seed')}"
    elif folds := result.get("folds"):
        spread = (result.get("spread") or {}).get(summary.objective)
        deviation = f" with a standard deviation of {shown(spread)}" if spread else ""
        text = f", mean of {folds} folds{deviation}"
    elif one.error is not None:
        text = f" ± {one.error:.2g}, the standard error of so many validation rows"
    size = one.figure("num_parameters") if len(summary.alike) > 1 else None
    return text + (f", {plural(int(size), 'parameter')}" if size else "")


def front_sentences(summary: Summary) -> Iterator[str]:
    """Of several objectives: what no other configuration beats."""
    if not summary.front:
        return
    names = ", ".join(f"`{name}`" for name in summary.modes)
    count = len(summary.front)
    yield (
        f"Of {plural(len(summary.ranked), 'configuration')}, {count}"
        f" {'are' if count > 1 else 'is'} best in"
        f" {'their' if count > 1 else 'its'} way: no other one is as good in all of {names} and"
        " better in one."
    )
    for place, name in list(enumerate(summary.modes))[1:]:
        end = min(summary.front, key=lambda one: summary.signs[place] * (one.value(place) or 0.0))
        values = ", ".join(
            f"`{other}` {shown(end.value(i))}" for i, other in enumerate(summary.modes)
        )
        yield f"Best in `{name}`: {called(end)}, {values}."


# --- what to do next ------------------------------------------------------------------------------


def late_sentences(summary: Summary) -> Iterator[str]:
    """Whether a sampler that learns was still finding better ones when it ended."""
    done = [one for one in summary.configurations if one.status in ENDED]
    if summary.best is None or summary.settings["sampler"] not in LEARNING or len(done) < 10:
        return
    place = min((done.index(one) + 1 for one in summary.alike if one in done), default=0)
    if place > 0.9 * len(done):
        more = 2 * len(done)
        yield (
            f"The best came as number {place} of {len(done)}: the search was still getting"
            " somewhere. The same command"
            f" with `sweep.n_trials={more}` goes on."
        )


def length_sentences(summary: Summary) -> Iterator[str]:
    """Whether the best trial, or all of them, were still improving when their epochs were over."""
    if summary.best is None or LENGTH in summary.best.varied:
        return
    best = summary.best.trials[0].result or {}
    done = [trial.result or {} for trial in summary.trials if trial.status == "done"]
    if len(done) > 1 and all(map(is_cut_short, done)):
        who, them = f"All {plural(len(done), 'trial')} that are done were", "them"
    elif is_cut_short(best):
        who, them = "The best was", "it"
    else:
        return
    words = (finding_of(best) or {}).get("overrides") or [f"{LENGTH}={3 * best.get('epochs', 0)}"]
    yield (
        f"{who} still improving in the last epoch: write `{' '.join(words)}` and another `name` to"
        f" train {them} to the end."
    )


def is_cut_short(result: Mapping[str, Any]) -> bool:
    """Whether a run was still improving at its end: by its diagnosis, of a short one by its best
    epoch.
    """
    epochs = result.get("epochs") or 0
    if epochs < SEEN or result.get("steps", JUDGED) < JUDGED:
        return epochs > 1 and result.get("best_epoch") == epochs - 1
    return finding_of(result) is not None


def finding_of(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the diagnosis of a run says about its length."""
    findings = (result.get("diagnosis") or {}).get("findings", [])
    return next((finding for finding in findings if finding["name"] == IMPROVING), None)


def advice_sentences(summary: Summary) -> Iterator[str]:
    """What the diagnosis of the best trial found, beside that it was too short."""
    if summary.best is None:
        return
    diagnosis = summary.best.trials[0].outcome.get("diagnosis") or {}
    for finding in diagnosis.get("findings", []):
        if finding["name"] == IMPROVING and LENGTH not in summary.best.varied:
            continue
        overrides = f": `{' '.join(finding['overrides'])}`" if finding["overrides"] else ""
        yield (
            f"Diagnosis of the best, {finding['name']}: {finding['measured']};"
            f" {finding['advice']}{overrides}."
        )


# --- what went wrong, and what it cost ------------------------------------------------------------


def failure_sentences(summary: Summary) -> Iterator[str]:
    """Shares of what did not end well, and the reasons of failures, alike ones together."""
    total = len(summary.trials)
    meanings = {"failed": "failed", "diverged": "diverged (the loss was no longer finite)"}
    for status, meaning in meanings.items():
        if count := summary.count(status):
            yield f"{count} of {plural(total, 'trial')} {meaning}, {100 * count / total:.0f} %."
    reasons = reasons_of(summary.trials)
    for reason, numbers in reasons.items():
        where = f"trial {numbers[0]}" + (
            f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
        )
        yield f"Failed with {reason} ({where}; `traceback.txt` in its folder has more)."
    if reasons:
        yield "The same command with `sweep.retry_failed=true` trains failed trials once more."


def divergence_sentences(summary: Summary) -> Iterator[str]:
    """Values beyond which every trial diverged, and none before."""
    for parameter in summary.parameters:
        if not parameter.numeric:
            continue
        numbers: dict[bool, list[float]] = {True: [], False: []}
        for one in summary.configurations:
            if one.status in ENDED and parameter.key in one.varied:
                numbers[one.status == "diverged"].append(
                    number_of(one.varied[parameter.key]) or 0.0
                )
        bad, good = numbers[True], numbers[False]
        if len(bad) < 2 or len(good) < 2:
            continue
        narrow = (
            len(bad) > (len(bad) + len(good)) / 4
            and len(parameter.spaces) == 1
            and parameter.ranged
        )
        low, high = parameter.ends
        if min(bad) > max(good):
            advice = narrower(parameter, low, max(good)) if narrow else ""
            where = f"of {min(bad):g} or more diverged, none up to {max(good):g}"
        elif max(bad) < min(good):
            advice = narrower(parameter, min(good), high) if narrow else ""
            where = f"of {max(bad):g} or less diverged, none from {min(good):g}"
        else:
            continue
        yield f"All trials with `{parameter.key}` {where}.{advice}"


def narrower(parameter: Parameter, low: float, high: float) -> str:
    """A range that leaves out where trials diverged."""
    return f" Narrow the range: `{parameter.key}={range_text(low, high, parameter.log)}`."


def open_sentences(summary: Summary) -> Iterator[str]:
    """What has not been trained to its end."""
    states = Counter(trial.status for trial in summary.trials if trial.status not in ENDED)
    if states:
        counts = ", ".join(f"{count} {status}" for status, count in states.items())
        yield (
            f"{plural(states.total(), 'trial')} of {len(summary.trials)} have not ended ({counts}):"
            " the same command goes on with them, and this report is of the others."
        )
    planned = (summary.settings.get("n_trials") or 0) * summary.settings["seeds"]
    if planned > len(summary.trials):
        yield f"{len(summary.trials)} of {planned} trials were started: the same command goes on."


def cost_sentences(summary: Summary) -> Iterator[str]:
    """Time, and what pruning saved."""
    ended = summary.count(*ENDED)
    if not ended:
        return
    wall = summary.wall_time
    apart = f", {duration(wall)} on the clock" if wall is not None else ""
    yield f"{plural(ended, 'trial')} took {duration(summary.seconds)} together{apart}."
    pruned = summary.count("pruned")
    if not pruned:
        return
    saved, without = summary.epochs_saved
    text = (
        f"{pruned} of {plural(len(summary.trials), 'trial')} were pruned: given up early, since"
        " they lagged behind."
    )
    if saved:
        text += (
            f" That saved about {saved:,} of {without:,} epochs ({100 * saved / without:.0f} %),"
            " if each had taken as"
            " many as the median of those that are done."
        )
    yield text


def command_overrides(overrides: Sequence[str]) -> str:
    """Overrides of a trial as a command line that trains it alone."""
    kept = [
        override
        for override in overrides
        if override.partition("=")[0].lstrip("+") not in ("name", "log_dir", "resume")
    ]
    return shlex.join(["python", "train.py", *kept])
