"""The guide's questions, answered from pairs of networks that differ in one thing.

Both sides of a pair are the best of as many rates, so the rate does not decide. Their difference is
that of the losses of the same rows, and its error that of the rows and, where finalists were
trained with several seeds, of the seed.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goldilocks.sweeps.execution.trials import Trial
from goldilocks.sweeps.guide.configurations import SEED
from goldilocks.sweeps.guide.record import Batch, Story
from goldilocks.sweeps.report.paired import Paired
from goldilocks.sweeps.report.wording import shown

# Standard errors from which on a difference counts as shown: about thirty are looked at, of which
# at two standard errors one or two would be chance.
SHOWN = 3.0
# The guide's questions, in its order, each as it is asked.
QUESTIONS = {
    "depth": "Layers",
    "width": "Neurons in each",
    "activation": "Activation",
    "init": "Initial weights",
    "norm": "Normalization",
    "batch size": "Batch size",
    "rate": "Learning rate",
    "momentum": "Momentum",
    "optimizer": "Optimizer",
    "clipping": "Gradient clipping",
    "dropout": "Dropout",
    "penalty": "Penalty on the weights' square",
    "weight decay": "Weight decay",
    "averaged weights": "Averaged weights",
    "augmentation": "Augmentation",
    "schedule": "Schedule",
    "scaling": "Scaling of the inputs",
    "embedding": "A vector for each number",
}


@dataclass(frozen=True)
class Pair:
    """A network with one change, beside the one without it.

    Attributes:
        question: Of the guide.
        before: What it was, in words.
        after: What it was changed to.
        gain: By how much the change is better.
        error: Of the gain; None where it is not known.
    """

    question: str
    before: str
    after: str
    gain: float
    error: float | None

    @property
    def is_shown(self) -> bool:
        """Whether the difference is more than chance, in either direction."""
        return self.error is not None and abs(self.gain) > SHOWN * self.error


def pairs_of(
    story: Story, trials: Mapping[int, Trial], paired: Paired, objective: str, sign: int
) -> list[Pair]:
    """All pairs of a search, in their order."""
    noise = noise_of_seeds(list(trials.values()), objective)
    found = []
    for batch in story.of("refine"):
        one, other = (best_of(numbers, trials, objective, sign) for numbers in sides(batch))
        if one is None or other is None or one[1] == other[1]:
            continue
        rows = paired.error([(one[1].number, other[1].number)])
        error = None if rows is None else math.hypot(rows, math.sqrt(2) * noise)
        gain = sign * (one[0] - other[0])
        before, after = in_words(batch.before), in_words(batch.change)
        found.append(Pair(batch.question, before, after, gain, error))
    return found


def sides(batch: Batch) -> tuple[Sequence[int], Sequence[int]]:
    return batch.against, batch.trials


def best_of(
    numbers: Sequence[int], trials: Mapping[int, Trial], objective: str, sign: int
) -> tuple[float, Trial] | None:
    """The best value of some trials, and which has it."""
    known = [
        (value, trials[number])
        for number in numbers
        if number in trials
        and trials[number].status == "done"
        and (value := trials[number].values([objective])[0]) is not None
    ]
    return min(known, key=lambda pair: sign * pair[0]) if known else None


def noise_of_seeds(trials: Sequence[Trial], objective: str) -> float:
    """The standard deviation of a value by the seed alone, over the finalists; 0 if not known."""
    by_words: dict[str, list[float]] = {}
    for trial in trials:
        value = trial.values([objective])[0]
        if trial.status == "done" and value is not None:
            words = {key: word for key, word in trial.varied.items() if key != SEED}
            by_words.setdefault(str(sorted(words.items())), []).append(value)
    spreads = [statistics.variance(of) for of in by_words.values() if len(of) > 1]
    return math.sqrt(statistics.fmean(spreads)) if spreads else 0.0


def in_words(words: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in words.items())


# --- sentences ------------------------------------------------------------------------------------


def answers(pairs: Sequence[Pair], rates: str) -> list[dict[str, Any]]:
    """A sentence for each question of the guide.

    Args:
        pairs: Of the search.
        rates: What is said of the learning rate.
    """
    found = []
    for question, asked in QUESTIONS.items():
        own = [pair for pair in pairs if pair.question == question]
        if question == "rate":
            text = rates
        elif not own:
            text = "not asked; more time asks it."
        else:
            text = "; ".join(map(sentence, own)) + f": {verdict(own)}."
        found.append({"question": question, "answer": f"{asked}: {text}", "shown": told(own)})
    return found


def sentence(pair: Pair) -> str:
    """A pair in words."""
    error = "" if pair.error is None else f" ± {pair.error:.2g}"
    side = "better" if pair.gain >= 0 else "worse"
    return f"`{pair.after}` in place of `{pair.before}` is {shown(abs(pair.gain))}{error} {side}"


def verdict(pairs: Sequence[Pair]) -> str:
    """What follows from the pairs of a question."""
    better = [pair.after for pair in pairs if pair.is_shown and pair.gain > 0]
    worse = [pair.after for pair in pairs if pair.is_shown and pair.gain < 0]
    parts = []
    if better:
        parts.append(f"{' and '.join(f'`{one}`' for one in better)} helps, which is shown")
    if worse:
        parts.append(f"{' and '.join(f'`{one}`' for one in worse)} harms, which is shown")
    if not parts:
        return "these rows cannot tell"
    return "; ".join(parts)


def told(pairs: Sequence[Pair]) -> bool:
    return any(pair.is_shown for pair in pairs)
