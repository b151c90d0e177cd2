"""How a finished network's probabilities are read: options of `task` that no training needs."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from goldilocks.data.spec import Spec
from goldilocks.errors import Refused

Calibration = Literal["none", "temperature", "auto"]
Rule = Literal["f1", "balanced_accuracy", "cost"]
Threshold = Rule | Annotated[float, Field(gt=0, lt=1)]
Cost = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Decisions:
    """What is decided by kept predictions once a network is trained.

    Attributes:
        calibration: Whether a temperature is fitted: `auto` where it is shown to gain.
        threshold: Of two classes: the probability above which a row is of the second one, or by
            what it is chosen.
        costs: Of a row that is wrongly taken for the second class, and of one of it that is missed.
    """

    calibration: Calibration = "none"
    threshold: Threshold = 0.5
    costs: tuple[float, float] = (1.0, 1.0)

    @property
    def needs_rows(self) -> str:
        """The option that cannot do without kept predictions; empty if none is chosen."""
        if isinstance(self.threshold, str):
            return f"task.threshold={self.threshold}"
        return "task.calibration=temperature" if self.calibration == "temperature" else ""

    def check(self, spec: Spec) -> None:
        """Refuses what the data have not: classes, two classes, validation rows."""
        if self.calibration != "none" and spec.task == "regression":
            raise Refused(
                f"task.calibration={self.calibration}: is for probabilities, and these data are a"
                " regression; leave it out"
            )
        if self.threshold != 0.5 and spec.task != "binary":
            raise Refused(
                f"task.threshold={self.threshold}: is for two classes, and these data are"
                f" {'a regression' if spec.task == 'regression' else 'of more'}; leave it out"
            )
        if self.threshold != "cost" and self.costs != (1.0, 1.0):
            name, cost = next(
                (name, cost)
                for name, cost in zip(("false_positive", "false_negative"), self.costs, strict=True)
                if cost != 1
            )
            raise Refused(
                f"task.{name}_cost={cost:g}: counts with task.threshold=cost only; write that too"
            )
        if self.needs_rows and spec.num_rows.get("val") == 0:
            raise Refused(
                f"{self.needs_rows}: needs validation rows, and data.val_fraction=0 leaves none"
            )
