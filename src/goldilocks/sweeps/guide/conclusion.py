"""The end of a guided search: table, verdict and answers, in `guide.json` and on the screen."""

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from goldilocks.callbacks.comparison import CONSTANT, NETWORK, Entries, number
from goldilocks.errors import one_line
from goldilocks.machine.clock import duration
from goldilocks.sweeps.execution.trials import ENDED, Trial
from goldilocks.sweeps.guide.allowance import STEPS
from goldilocks.sweeps.guide.answers import Pair, answers, best_of, noise_of_seeds, pairs_of
from goldilocks.sweeps.guide.configurations import RATE
from goldilocks.sweeps.guide.record import Story, read_story, write_story
from goldilocks.sweeps.guide.table import DEFAULT, SINGLE, end_table, keys_of, rows_of
from goldilocks.sweeps.report.reading import read_summary
from goldilocks.sweeps.report.summary import Summary
from goldilocks.sweeps.report.wording import plural, shown

# Standard errors from which on a model counts as better: on test rows, or on validation rows, which
# have chosen among many networks, where the test rows do not speak against it.
ON_TEST, ON_VALIDATION = 2.0, 3.0
WORDS = {CONSTANT: "the constant", "linear": "a linear model", "trees": "boosted trees"}


def try_conclusion(folder: Path, trials: Sequence[Trial]) -> None:
    """Concludes at the end of a search, which does not fail because of it."""
    try:
        told = conclude(folder, trials)
        print(*(text.replace("`", "") for text in told.get("sentences", [])), sep="\n")
    except Exception as error:  # data that are gone, a full disk
        print(
            f"warning: the search was not concluded ({type(error).__name__}: {one_line(error)})",
            file=sys.stderr,
        )


def conclude(folder: Path, trials: Sequence[Trial]) -> dict[str, Any]:
    """What the report says: written into guide.json."""
    story, summary = read_story(folder), read_summary(folder, trials)
    if summary.best is None:
        return {}
    look = story.batch("look", "default")
    default = look.trials[0] if look is not None and look.trials else 0
    entries = end_table(summary, default, with_test=True)
    sign, by_number = summary.signs[0], {trial.number: trial for trial in trials}
    pairs = pairs_of(story, by_number, summary.paired, summary.objective, sign)
    curve = best_by_time(story, by_number, summary.objective, sign)
    sentences = [
        *verdicts(entries),
        *of_the_single(summary, entries),
        *what_mattered(pairs),
        *what_more_time_brings(curve, summary),
    ]
    told = {
        "metric": next(iter(keys_of(entries).values()), summary.objective),
        "sentences": sentences,
        "answers": answers(pairs, about_rates(story, by_number, summary)),
        "table": rows_of(entries),
        "entries": entries,
        "steps": steps_of(story, by_number, summary.objective, sign),
        "curve": curve,
        "left_out": story.notes,
    }
    story.told = told
    write_story(folder, story)
    return told


# --- the verdict ----------------------------------------------------------------------------------


def verdicts(entries: Entries) -> Iterator[str]:
    """The predictor beside the constant, the other plain models, and on test rows."""
    if NETWORK not in entries:
        return
    keys = keys_of(entries)
    key = keys.get("test", keys["val"])
    rows = "test rows, which nothing has chosen by" if key.startswith("test") else "validation rows"
    own = value(entries, NETWORK, key)
    if CONSTANT in entries and not is_better(entries, CONSTANT):
        yield (
            f"Nothing here predicts the target better than a constant does: `{key}` {own} against"
            f" {value(entries, CONSTANT, key)} of the {rows}. Other columns are needed, or more"
            " rows; no network will change that."
        )
        return
    yield f"The predictor of this search: `{key}` {own} of the {rows}."
    for name in ("linear", "trees"):
        if name in entries:
            yield f"{compared(entries, name, key)}."
    if DEFAULT in entries:
        yield f"{compared(entries, DEFAULT, key)}."


def compared(entries: Entries, name: str, key: str) -> str:
    """One of the others beside the predictor, in words."""
    words = WORDS.get(name, f"the {name}")
    text = f"{words[0].upper()}{words[1:]} reaches {value(entries, name, key)}"
    if words.endswith("s"):
        text = text.replace("reaches", "reach")
    if is_better(entries, name):
        return f"{text}: the predictor is better, which is shown"
    if is_better(entries, name, sign=-1):
        return f"{text}: better than the predictor, which is shown; use that instead"
    simpler = "; it is the simpler choice" if name == "linear" else ""
    return f"{text}: these rows show no difference{simpler}"


def value(entries: Entries, name: str, key: str) -> str:
    """A metric with its standard error."""
    error = entries[name]["error"].get(key)
    return number(entries[name]["metrics"].get(key)) + ("" if error is None else f" ± {error:.2g}")


def is_better(entries: Entries, name: str, sign: int = 1) -> bool:
    """Whether the predictor is better than another one (1), or worse (-1), by more than chance."""
    entry = entries[name]

    def away(key: str) -> float:
        ahead, error = entry["ahead"].get(key), entry["ahead_error"].get(key)
        known = ahead is not None and error is not None and error > 0
        return -sign * ahead / error if known else 0.0

    keys = keys_of(entries)
    val = away(keys["val"])
    if "test" not in keys:
        return val > ON_VALIDATION
    test = away(keys["test"])
    return (test > ON_TEST and val > 0) or (val > ON_VALIDATION and test > 1)


# --- the rest -------------------------------------------------------------------------------------


def of_the_single(summary: Summary, entries: Entries) -> Iterator[str]:
    """The network that is just right, and what it costs to have one alone."""
    best = summary.best
    assert best is not None
    size = best.figure("num_parameters")
    words = " ".join(f"{key}={word}" for key, word in best.varied.items()) or "the default"
    text = f"The one network that is just right is trial {best.number}"
    count = f", {plural(int(size), 'parameter')}" if size else ""
    text += f" (`{words}`{count})"
    if len(summary.alike) > 1:
        count = f"{len(summary.alike)} of {plural(len(summary.ranked), 'configuration')}"
        text += f": {count} cannot be told apart, and it is {summary.why_best}"
    if SINGLE in entries:
        key = keys_of(entries)["val"]
        text += f"; `{key}` {value(entries, SINGLE, key)}"
    yield f"{text}. `experiment/best.yaml` has it."


def what_mattered(pairs: Sequence[Pair]) -> Iterator[str]:
    """What was shown to help or to harm most."""
    told = sorted((pair for pair in pairs if pair.is_shown), key=lambda pair: -abs(pair.gain))
    if not pairs:
        return
    if not told:
        yield (
            f"None of the {plural(len(pairs), 'change')} of the network that were tried is shown to"
            " matter: settings are not what limits it."
        )
        return
    words = [
        f"`{one.after}` in place of `{one.before}` {'helps' if one.gain > 0 else 'harms'} by"
        f" {shown(abs(one.gain))} ± {one.error:.2g}"
        for one in told[:3]
    ]
    count = plural(len(pairs), "change")
    yield f"Of {count} that were tried these matter most: {'; '.join(words)}."


def best_by_time(
    story: Story, trials: dict[int, Trial], objective: str, sign: int
) -> list[list[float]]:
    """The best value against the seconds of the search, after each batch."""
    found: list[list[float]] = []
    seen: list[int] = []
    for batch in sorted((b for b in story.batches if b.at is not None), key=lambda b: b.at or 0):
        seen += batch.trials
        best = best_of(seen, trials, objective, sign)
        if best is not None:
            found.append([batch.at or 0.0, best[0]])
    return found


def what_more_time_brings(curve: Sequence[Sequence[float]], summary: Summary) -> Iterator[str]:
    """What the last doubling of the time has brought, and ten times the time probably will."""
    if len(curve) < 3:
        return
    last, best = curve[-1]
    before = [value for at, value in curve if at <= last / 2]
    if not before:
        return
    gain = abs(before[-1] - best)
    more = gain * (1 - 0.5 ** math.log2(10))  # each doubling brings half of the one before
    base = summary.paired.error([]) or summary.best.error if summary.best else None
    known = f", where the rows tell ± {base:.2g}" if base else ""
    if gain == 0:
        yield (
            f"The second half of the {duration(last)} brought nothing: ten times the time would"
            " probably bring little more, and more rows or columns would."
        )
    else:
        yield (
            f"The second half of the {duration(last)} brought {shown(gain)}; ten times the time"
            f" would probably bring about {shown(more)}{known}."
        )


def about_rates(story: Story, trials: dict[int, Trial], summary: Summary) -> str:
    """What the trials say of the learning rate: of how much use it is to choose it."""
    gains = []
    for batch in story.batches:
        values = {
            trials[n].varied.get(RATE): trials[n].values([summary.objective])[0]
            for n in batch.trials
            if n in trials and trials[n].status == "done"
        }
        known = [one for one in values.values() if one is not None]
        if batch.step in ("portfolio", "refine") and len(known) > 1:
            gains.append(max(known) - min(known))
    noise = noise_of_seeds(list(trials.values()), summary.objective)
    best = summary.best.trials[0].outcome.get("learning_rate") if summary.best else None
    if not gains:
        return "not asked; more time asks it."
    middle = sorted(gains)[len(gains) // 2]
    text = f"between the best and the worst of three rates 6 times apart lie {shown(middle)}"
    text += f" (median of {plural(len(gains), 'network')}"
    text += f"; a seed alone moves a value by {shown(noise)})" if noise else ")"
    return f"{text}; the best network has {best:.3g}." if best else f"{text}."


def steps_of(
    story: Story, trials: dict[int, Trial], objective: str, sign: int
) -> list[dict[str, Any]]:
    """What each step tried, what it cost, and the best value after it."""
    found: list[dict[str, Any]] = []
    seen: list[int] = []
    for step in STEPS:
        numbers = [number for batch in story.of(step) for number in batch.trials]
        known = [trials[number] for number in numbers if number in trials]
        seen += numbers
        best = best_of(seen, trials, objective, sign)
        if known:
            ended = [trial for trial in known if trial.status in ENDED]
            seconds = round(sum(trial.seconds or 0.0 for trial in ended), 1)
            entry = {"step": step, "trials": len(ended), "seconds": seconds}
            found.append({**entry, "best": best[0] if best else None})
    return found
