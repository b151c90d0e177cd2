"""Shells for Hydra, which finds plugins nowhere else and imports this at every start: so nothing heavy here."""

from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """Runs what a command line searches; see goldilocks.sweeps.study."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context  # a trial is not Hydra's task: it is frozen beforehand

    def sweep(self, arguments: list[str]) -> Any:
        from goldilocks.sweeps.study import run_study

        return run_study(self, arguments)


class ProcessLauncher(Launcher):
    """A fresh process for each trial; the sweeper drives it, see goldilocks.sweeps.processes."""

    def __init__(self, slots: int, devices: list[str] | None) -> None:
        self.slots, self.devices = slots, devices

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from goldilocks.errors import Refused

        if not isinstance(self.slots, int) or self.slots < 1:
            raise Refused(f"hydra.launcher.slots={self.slots}: must be a whole number of at least 1")

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        raise NotImplementedError("hydra/launcher=process needs hydra/sweeper=study")
