"""What a guided search has done: `guide.json` in its folder.

A batch of trials is written down before it is trained. The same command finds it there, trains what
is missing, and decides as before, since each decision follows from the results.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from goldilocks.errors import Refused
from goldilocks.machine.files import read_json, write_json
from goldilocks.sweeps.report.guided import FILE


@dataclass
class Batch:
    """Trials that were handed over together.

    Attributes:
        step: Of the course.
        key: By which the step knows it.
        trials: Their numbers.
        at: Seconds of the search when it had ended; None while it has not.
        question: Of the guide, that it answers.
        change: What differs from the network that it is compared with, as overrides.
        against: Trials of this network, at as many rates.
    """

    step: str
    key: str
    trials: list[int]
    at: float | None = None
    question: str = ""
    change: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    against: list[int] = field(default_factory=list)


@dataclass
class Story:
    """All batches of a search, in their order, and what it came to.

    Attributes:
        spent: Seconds, of all commands.
        batches: In their order.
        notes: What was left out, in words.
        told: What the report says; empty while nothing has been concluded.
    """

    spent: float = 0.0
    batches: list[Batch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)

    def batch(self, step: str, key: str) -> Batch | None:
        """A batch that was planned before."""
        return next((one for one in self.batches if (one.step, one.key) == (step, key)), None)

    def of(self, step: str) -> Sequence[Batch]:
        return [batch for batch in self.batches if batch.step == step]


def read_story(folder: Path) -> Story:
    """What a folder knows of its search; of a new one, nothing.

    Raises:
        Refused: if the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return Story()
    found = read_json(path, str(path))
    try:
        batches = [Batch(**one) for one in found.pop("batches")]
        return Story(**found, batches=batches)
    except (KeyError, TypeError) as error:
        raise Refused(f"{path} cannot be read ({error}); choose another name") from error


def write_story(folder: Path, story: Story) -> None:
    write_json(folder / FILE, asdict(story))
