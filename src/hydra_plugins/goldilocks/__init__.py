"""Shells for Hydra, which finds plugins nowhere else and imports this at every start:
so nothing heavy here.
"""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

AUTO = "auto"
DEVICE = r"(?:\d+|(?:GPU|MIG)-[\w/-]+)"
DEVICES = re.compile(rf"{DEVICE}(?:,{DEVICE})*")


class ProjectOptions(SearchPathPlugin):
    """Options of the project in use come before goldilocks' own; see goldilocks.config.places."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from goldilocks.config.places import project

        if folder := project():
            search_path.prepend("project", f"file://{folder / 'conf'}", anchor="main")


class StudySweeper(Sweeper):
    """Runs what a command line searches; see goldilocks.sweeps.sweep."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config, self.hydra_context = (
            config,
            hydra_context,
        )  # a trial is not Hydra's task: it is frozen beforehand

    def sweep(self, arguments: list[str]) -> Any:
        from goldilocks.config.strangers import said_to_processes
        from goldilocks.data.shared import sharing
        from goldilocks.sweeps.sweep import run_study

        assert self.config is not None
        with said_to_processes(self.config.packages, self.config.sweep.storage), sharing():
            return run_study(self, arguments)


class FusedLauncher(Launcher):
    """Trials of the same layers trained as one network; the sweeper drives it, see
    goldilocks.sweeps.execution.fusing.
    """

    def __init__(self, always: bool, batch: int) -> None:
        self.always, self.batch = always, batch

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from goldilocks.errors import Refused

        if not isinstance(self.batch, int) or isinstance(self.batch, bool) or self.batch < 1:
            raise Refused(
                f"hydra.launcher.batch={self.batch}: must be a whole number of at least 1"
            )
        if not isinstance(self.always, bool):
            raise Refused(f"hydra.launcher.always={self.always}: true or false is expected")

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        raise NotImplementedError("hydra/launcher=fused needs hydra/sweeper=study")


class ProcessLauncher(Launcher):
    """A fresh process for each trial; the sweeper drives it, see
    goldilocks.sweeps.execution.processes.
    """

    def __init__(self, slots: int, devices: Any, trials_per_device: int) -> None:
        self.slots, self.devices, self.trials_per_device = slots, devices, trials_per_device

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from goldilocks.errors import Refused

        for name in ("slots", "trials_per_device"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise Refused(
                    f"hydra.launcher.{name}={value}: must be a whole number of at least 1"
                )
        named = self.devices if isinstance(self.devices, Sequence) and self.devices != AUTO else []
        wrong = [
            device
            for device in named
            if isinstance(named, str) or not DEVICES.fullmatch(str(device))
        ]
        if wrong or (self.devices not in (None, AUTO) and not named):
            raise Refused(
                f"hydra.launcher.devices={self.devices}: write {AUTO}, null or a list of what"
                " CUDA_VISIBLE_DEVICES may"
                " be, such as [0,1], or ['0,1','2,3'] for two GPUs a trial"
            )

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        raise NotImplementedError("hydra/launcher=process needs hydra/sweeper=study")
