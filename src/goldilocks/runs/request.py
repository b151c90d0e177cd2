"""What is asked of one training, settled before it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from goldilocks.callbacks.pruning import Report, go_on
from goldilocks.config.search_ranges import is_of_run
from goldilocks.machine.clock import BEGAN
from goldilocks.training.checks import resolved
from goldilocks.training.fused.turns import Partner


@dataclass(frozen=True)
class RunRequest:
    """A run, or one fold of it, from the door to its folder. Nothing changes it on the way.

    Attributes:
        cfg: The composed configuration, of a run only (`of_run`).
        folder: The run folder, which exists.
        overrides: Of the command line that chose the configuration.
        choices: Option by group.
        test: Whether the test set is touched, once, at the end. Never in a trial of a sweep.
        resumed: Whether the folder holds an interrupted run to continue.
        report: Called with the objective after each epoch, or its mean after each fold; says
            whether to give up; of a sweep with a pruner.
        rows: The fingerprint that the rows must have; None: any, or of a resumed run, its own.
        partner: Asks for the steps of training, where several runs take them together.
        until: When training ends with the epoch, in seconds since 1970; None: not by the clock.
        began: When it was asked for, by `time.perf_counter`.
    """

    cfg: DictConfig
    folder: Path
    overrides: Sequence[str] = ()
    choices: Mapping[str, Any] = field(default_factory=dict)
    test: bool = True
    resumed: bool = False
    report: Report | None = None
    rows: str | None = None
    partner: Partner | None = None
    until: float | None = None
    began: float = BEGAN

    def __post_init__(self) -> None:
        assert is_of_run(self.cfg), "the configuration has what is a sweep's"

    @cached_property
    def values(self) -> dict[str, Any]:
        """The configuration, resolved, as plain values."""
        return resolved(self.cfg)

    def for_other_process(self) -> "RunRequest":
        """The same for the process of another device, which reports to nobody."""
        cfg = OmegaConf.create(self.values)
        report = go_on if self.report is not None else None
        return replace(self, cfg=cfg, report=report)
