"""What a run that has ended suffered from, with the numbers that say so.

The limits were set on runs made to have each illness and on healthy ones, and hold on others:
tests/diagnosis/test_diagnosis.py.
"""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from goldilocks.callbacks.comparison import CONSTANT, NETWORK, is_shown
from goldilocks.diagnosis.evidence import Evidence, Rows
from goldilocks.training.layer_health import Health, relative_gradients

JUDGED = 20  # steps of the optimizer, before which little can be said
SEEN = 3  # epochs without which curves say nothing
CERTAIN = 2.0  # standard errors by which a mean differs from zero
EXPLODING, VANISHING = (
    1e3,
    1e-3,
)  # a hidden layer's gradient by its weights, and the smallest of them by the largest
UNITS = 0.5  # share of a layer's units that are dead, or of its outputs that are saturated
PEAK = 1.3  # train/loss by chance level, the loss of a constant guess
ROSE, OFTEN = 0.1, 0.2  # of chance level by which train/loss rises, of the epochs
CLIPPED, CUT = 0.9, 2.0  # share of the steps that are clipped, and the norm by the limit
EARLY, SLOW, HARDLY = (
    1 / 3,
    0.57,
    0.6,
)  # of the way (the sum of the rates), of the fall by then, of the loss fallen
LATE = 0.2  # of the epochs, the last ones: at least one
GAINED = 0.03  # by which the best val/loss fell in them, of all from chance level down to it
WORTH = 0.005  # by which it fell in them, of chance level
LEFT, LITTLE = (
    0.2,
    0.6,
)  # of chance level, left on the training rows: perhaps too much, too much
MATTERS = 0.1  # share of chance level by which another network does better
WORSE, ERRORS, LEARNT = (
    0.03,
    1.5,
    0.75,
)  # rise of val/loss: of all it gained, in standard errors; train/loss by then
MEMORIZED, UNKNOWN = 0.1, 0.3  # train/loss by val/loss, and val/loss by chance level
NO_LOSS = 1e-9  # of a constant guess: it is always right
NOISE = 0.3  # a standard error by all that was gained
BEHIND, FAR = (
    0.03,
    0.1,
)  # by which a linear model is ahead, and trees, of all they gained over a constant
RARE, MISSED, FEW = (
    5.0,
    0.1,
    5,
)  # the commonest class by a rare one, its recall, its rows to tell by


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        name: Of the section in docs/diagnosis.md: `overfitting`.
        measured: The numbers.
    """

    name: str
    measured: str


def diagnose(evidence: Evidence) -> list[Finding]:
    """What is wrong, the cause before its effects; what another finding explains is left out."""
    found: list[Finding] = []
    for name, (look, explained_by) in RULES.items():
        if evidence.steps < JUDGED and name not in AT_ONCE:
            continue
        if any(finding.name in explained_by for finding in found):
            continue
        if measured := look(evidence):
            found.append(Finding(name, measured))
    return found


def summary(evidence: Evidence) -> str:
    """How far a run came, in a line."""
    if evidence.status == "diverged" or evidence.best_epoch is None:
        return f"no finite loss to speak of in {counted(len(evidence.history), 'epoch')}"
    rows, stage = (evidence.val, "validation") if evidence.val else (evidence.train, "training")
    if rows is None:
        return "the best weights give no finite loss"
    share = percent(rows.loss / rows.chance) if rows.chance > 0 else "?"
    text = (
        f"epoch {evidence.best_epoch} of {len(evidence.history)} has a {stage} loss of"
        f" {rows.loss:.4g}"
    )
    text += f" ± {rows.error:.2g}, {share} of chance level ({rows.chance:.4g})"
    if evidence.val and evidence.train:
        text += f"; on the training rows it is {evidence.train.loss:.4g}"
    if evidence.steps < JUDGED:
        verb = "is" if evidence.steps == 1 else "are"
        text += f"; {counted(evidence.steps, 'step')} {verb} too few to judge"
    return text


# --- the steps ------------------------------------------------------------------------------------


def diverged(evidence: Evidence) -> str | None:
    if evidence.status != "diverged":
        return None
    rate = "" if evidence.rate is None else f" at a rate of {evidence.rate:.3g}"
    return f"the loss was no longer finite after {counted(len(evidence.history), 'epoch')}{rate}"


def nothing_to_learn(evidence: Evidence) -> str | None:
    """The network is no better than a guess, and nor is anything else."""
    rows = evidence.val or evidence.train
    if rows is None:
        return None
    if rows.chance < NO_LOSS:
        return "the target is a single value"
    if evidence.val is None or rows.chance - rows.loss > CERTAIN * rows.gain_error:
        return None
    found = evidence.signal()
    if found is None or found.status == "ok":
        return None
    text = f"val/loss is {rows.loss:.4g} at best, where chance level is {rows.chance:.4g}"
    return f"{text}, and a forest and a ridge regression find nothing either: {found.measured}"


def exploding_gradients(evidence: Evidence) -> str | None:
    sizes = hidden_gradients(evidence.health)
    if not sizes or max(sizes.values()) < EXPLODING:
        return None
    name = max(sizes, key=sizes.__getitem__)
    times = f"{sizes[name]:.1g} times its weights" if math.isfinite(sizes[name]) else "infinite"
    return f"in layer {name} the gradient is {times}"


def vanishing_gradients(evidence: Evidence) -> str | None:
    sizes = hidden_gradients(evidence.health)
    if len(sizes) < 2 or not max(sizes.values()) or is_blocked(evidence.health):
        return None
    least, most = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    share = sizes[least] / sizes[most]
    if share >= VANISHING:
        return None
    share_text = f"{share:.1g}" if share else "0"
    return f"by its weights, the gradient of layer {least} is {share_text} of that of layer {most}"


def rate_too_high(evidence: Evidence) -> str | None:
    _, losses = evidence.curve("train/loss")
    if evidence.train is None or len(losses) < SEEN:
        return None
    chance, peak = evidence.guess, max(losses)
    much = max(ROSE * chance, CERTAIN * evidence.train.error)  # few rows, or rare ones, jump about
    rises = sum(later - earlier > much for earlier, later in pairwise(losses))
    at = "" if evidence.rate is None else f"at a rate of {evidence.rate:.3g} "
    if peak > PEAK * chance:
        known = f"where chance level is {chance:.3g}"
        return f"{at}train/loss was {peak:.3g} in epoch {losses.index(peak)}, {known}"
    if rises > OFTEN * len(losses):
        share = percent(much / chance)
        return (
            f"{at}train/loss rose by more than {share} of chance level in {rises} of {len(losses)}"
            " epochs"
        )
    return None


def dead_units(evidence: Evidence) -> str | None:
    return worst_layer(
        evidence.health, "dead", "of the units of {} are zero on every training row looked at"
    )


def saturated_units(evidence: Evidence) -> str | None:
    return worst_layer(evidence.health, "saturated", "of the outputs of {} are on its flat sides")


def clipped(evidence: Evidence) -> str | None:
    (_, shares), (_, norms) = evidence.curve("clipped_share"), evidence.curve("gradient_norm")
    if evidence.clip is None or not shares:
        return None
    (_, after), share = evidence.curve("gradient_norm_clipped"), statistics.mean(shares)
    cut = statistics.median(norms) / max(statistics.median(after), 1e-12)
    if share < CLIPPED or cut < CUT:
        return None
    typical = (
        f"the gradient's norm is {statistics.median(norms):.3g}, and"
        f" {statistics.median(after):.3g} after clipping"
    )
    return f"{percent(share)} of the steps were clipped; typically {typical}"


# --- the curves -----------------------------------------------------------------------------------


def rate_too_low(evidence: Evidence) -> str | None:
    """The loss falls in almost every epoch, and as fast at the end of
    the way as at its beginning.
    """
    epochs, losses = evidence.curve("train/loss")
    if evidence.train is None or evidence.rate is None or len(losses) < 10 or not evidence.ran_out:
        return None
    first, fall = evidence.guess, evidence.guess - min(losses)
    falls = sum(later < earlier for earlier, later in pairwise(losses))
    if not 0 < fall < HARDLY * first or falls < 0.95 * (len(losses) - 1):
        return None
    rates = [evidence.history[epoch].get("learning_rate", 1.0) for epoch in epochs]
    way = 0.0
    for rate, loss in zip(rates, losses, strict=True):
        way += rate / sum(rates)
        if way >= EARLY:
            early = (first - loss) / fall
            break
    if early > SLOW:
        return None
    done = f"{percent(max(early, 0.0))} of the fall were done after a third of the way"
    return f"train/loss fell by only {percent(fall / first)} of chance level; {done}"


def still_improving(evidence: Evidence) -> str | None:
    _, losses = evidence.curve("val/loss")
    if evidence.val is None or len(losses) < SEEN or not evidence.ran_out:
        return None
    count = len(losses) - max(round(LATE * len(losses)), 1)
    before, best = min(losses[:count]), min(losses)
    chance = evidence.val.chance
    gained = (min(before, chance) - best) / max(chance - best, 1e-12)
    if best >= chance or gained < GAINED or losses.index(best) < count:
        return None
    if before - best < WORTH * chance:
        return None
    late = counted(len(losses) - count, "epoch")
    text = (
        f"the best val/loss fell from {before:.4g} to {best:.4g} in the last {late} of"
        f" {len(losses)}"
    )
    way = f"{percent(gained)} of the way from chance level, {chance:.4g}"
    return f"{text}, {way}; from {percent(GAINED)} on it is told"


def underfitting(evidence: Evidence) -> str | None:
    """Another network does better on rows that it has not seen than
    this one on rows that it has.
    """
    train = evidence.train
    if train is None or train.loss < LEFT * train.chance or has_capacity(evidence):
        return None
    text = f"the training rows themselves have a loss of {train.loss:.4g}"
    text += f", {percent(train.loss / train.chance)} of chance level ({train.chance:.4g})"
    other = evidence.compare()
    if other is None:
        return text if train.loss > LITTLE * train.chance else None
    least = MATTERS * (evidence.guess if evidence.weighted else train.chance)
    if min(other.lead, train.loss - other.loss) < least or other.lead < CERTAIN * other.error:
        return None
    return f"{text}; a plain network has {other.loss:.4g} on rows that it has not seen"


def has_capacity(evidence: Evidence) -> bool:
    """Whether the training loss has fallen far below that of the best weights:
    then those are best for another reason.
    """
    epochs, losses = evidence.curve("train/loss")
    if evidence.train is None or not losses:
        return False
    curve = dict(zip(epochs, losses, strict=True))
    best = curve.get(evidence.best_epoch, 0.0) if evidence.best_epoch is not None else 0.0
    return min(losses) < LEARNT * max(evidence.train.loss, best)


def overfitting(evidence: Evidence) -> str | None:
    epochs, losses = evidence.curve("val/loss")
    if evidence.val is None or len(losses) < 2 * SEEN:
        return None
    if evidence.train and memorized(evidence.train, evidence.val):
        text = f"the training rows are memorized, with a loss of {evidence.train.loss:.3g}"
        return f"{text}; on the validation rows it is {evidence.val.loss:.4g}"
    best = min(range(len(losses)), key=losses.__getitem__)
    end = statistics.mean(losses[-SEEN:])
    rise, gained = end - losses[best], max(evidence.val.chance - losses[best], 1e-12)
    known, last = (
        max(evidence.history[epoch]["train/loss"], 1e-12) for epoch in (epochs[best], epochs[-1])
    )
    if not (rise > WORSE * gained and rise > ERRORS * evidence.val.error and last < LEARNT * known):
        return None
    text = f"since epoch {epochs[best]} val/loss rose from {losses[best]:.4g} to {end:.4g}"
    return f"{text}, while train/loss fell from {known:.3g} to {last:.3g}"


def below_linear(evidence: Evidence) -> str | None:
    return behind(evidence, "linear", "a linear model", BEHIND)


def trees_far_ahead(evidence: Evidence) -> str | None:
    return behind(evidence, "trees", "boosted trees", FAR)


def behind(evidence: Evidence, name: str, words: str, least: float) -> str | None:
    """How far a baseline is ahead of the network on the validation rows, by more than chance and
    than a share of what it gained over a constant.

    Where classes are weighted, the loss of the rows as they are is not what was learnt.
    """
    if evidence.weighted or name not in evidence.baselines or CONSTANT not in evidence.baselines:
        return None
    own, entry = evidence.baselines[NETWORK], evidence.baselines[name]
    key = next(iter(own["error"]))
    theirs, constant = (evidence.baselines[of]["metrics"][key] for of in (name, CONSTANT))
    ahead, error = entry["ahead"][key], entry["ahead_error"][key]
    if not is_shown(entry, key, 1) or ahead < least * abs(constant - theirs):
        return None
    text = f"{key} is {own['metrics'][key]:.4g}, and {theirs:.4g} of {words} on the same rows"
    return f"{text}: {ahead:.2g} ± {error:.1g} better, row by row"


def memorized(train: Rows, val: Rows) -> bool:
    """Whether a network knows the rows that it was trained on, and little of others."""
    return train.loss < MEMORIZED * val.loss and val.loss > UNKNOWN * val.chance


def rare_class_missed(evidence: Evidence) -> str | None:
    missed = [
        rows
        for rows in evidence.classes
        if rows.times >= RARE and rows.count >= FEW and rows.recall <= MISSED
    ]
    if not missed:
        return None
    worst = max(missed, key=lambda rows: rows.times)
    found = f"{round(worst.recall * worst.count)} of {counted(worst.count, 'row')} of {worst.name}"
    text = (
        f"only {found} are taken for it; the commonest class has {worst.times:.3g} times its rows"
    )
    return f"{text}; so it is with {counted(len(missed), 'class')}" if len(missed) > 1 else text


def noise(evidence: Evidence) -> str | None:
    val = evidence.val
    if val is None or val.loss >= val.chance or val.gain_error < NOISE * (val.chance - val.loss):
        return None
    text = f"val/loss is {val.chance - val.loss:.2g} ± {val.gain_error:.2g} below chance level"
    return f"{text}: {counted(val.count, 'validation row')} tell no more"


# --- what they share ------------------------------------------------------------------------------


def hidden_gradients(health: Health | None) -> dict[str, float]:
    """By hidden layer, the gradient by the weights, where all of them are numbers;
    too large a one is infinite.
    """
    sizes = relative_gradients(health) if health is not None else {}
    return {} if any(map(math.isnan, sizes.values())) else sizes


def is_blocked(health: Health | None) -> bool:
    """Whether a layer has no unit that is alive:
    then no gradient reaches the layers below, however many there are.
    """
    return health is not None and any(part.dead == 1 for part in health.activations)


def worst_layer(health: Health | None, what: str, text: str) -> str | None:
    """The layer with the largest share of something, where that is more than half."""
    parts = (
        [part for part in health.activations if getattr(part, what) is not None]
        if health is not None
        else []
    )
    worst = max(parts, key=lambda part: getattr(part, what), default=None)
    if worst is None or getattr(worst, what) <= UNITS:
        return None
    return f"{percent(getattr(worst, what))} {text.format(f'layer {worst.name} ({worst.kind})')}"


def percent(share: float) -> str:
    """A share in words that no rounding makes wrong.

    >>> percent(0.0412), percent(0.004), percent(0.996)
    ('4 %', 'under 1 %', '99 %')
    """
    if 0 < share < 0.01:
        return "under 1 %"
    if share > 10:
        return "over 1000 %"
    return f"{math.floor(100 * share) if 0.99 < share < 1 else round(100 * share)} %"


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "epoch"), counted(3, "epoch")
    ('1 epoch', '3 epochs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


Look = Callable[[Evidence], str | None]
AT_ONCE = ("diverged", "exploding gradients")  # found in a few steps too
NOTHING = ("diverged", "nothing to learn")
STEPS = (*NOTHING, "exploding gradients", "vanishing gradients", "rate too high")
UNFINISHED = ("rate too low", "still improving")
# In the order in which they are reported: each with the findings that would be its cause.
RULES: dict[str, tuple[Look, Iterable[str]]] = {
    "diverged": (diverged, ()),
    "nothing to learn": (nothing_to_learn, ("diverged",)),
    "exploding gradients": (exploding_gradients, NOTHING),
    "vanishing gradients": (vanishing_gradients, STEPS[:3]),
    "rate too high": (rate_too_high, STEPS[:3]),
    "dead units": (dead_units, STEPS[:3]),
    "saturated units": (saturated_units, STEPS[:4]),
    "clipped": (clipped, STEPS[:3]),
    "rate too low": (rate_too_low, (*STEPS, "dead units", "clipped")),
    "still improving": (still_improving, (*STEPS, "rate too low", "clipped")),
    "underfitting": (
        underfitting,
        (*STEPS, "dead units", "saturated units", "clipped", "rate too low", "still improving"),
    ),
    "overfitting": (overfitting, (*STEPS, "underfitting")),
    "below linear": (
        below_linear,
        (*STEPS, "dead units", "saturated units", "clipped", *UNFINISHED, "underfitting"),
    ),
    "trees far ahead": (
        trees_far_ahead,
        (
            *(*STEPS, "dead units", "saturated units", "clipped", *UNFINISHED),
            *("underfitting", "below linear"),
        ),
    ),
    "rare class missed": (
        rare_class_missed,
        (*STEPS, "dead units", "clipped", "rate too low", "still improving", "underfitting"),
    ),
    "noise": (
        noise,
        (*STEPS, "dead units", "clipped", "rate too low", "still improving", "underfitting"),
    ),
}
