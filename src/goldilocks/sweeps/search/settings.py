"""What is said of a sweep: the group `sweep`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from goldilocks.config.build import check_arguments
from goldilocks.config.metric_directions import direction
from goldilocks.config.privacy import without_passwords
from goldilocks.errors import Refused
from goldilocks.machine.clock import seconds

LEARNING = ("tpe", "cmaes", "gp")  # samplers that learn from the trials before
LEAST_BUDGET = 20  # seconds
COUNTS = ("num_parameters",)  # of result.json, beside the metrics; fewer are better


class SweepSettings:
    """The signature is the schema of conf/sweep."""

    called = "sweep"

    def __init__(
        self,
        *,
        sampler: Literal["grid", "random", "qmc", "tpe", "cmaes", "gp", "guide"],
        n_trials: Annotated[int, Field(ge=1)] | None,
        budget: str | float | None,
        portfolio: list[str],
        search: list[str],
        params: dict[str, Any],
        scientific: list[str],
        objectives: list[str],
        seeds: Annotated[int, Field(ge=1)],
        pruner: Literal["none", "asha", "hyperband", "median"],
        min_epochs: Annotated[int, Field(ge=1)],
        reduction_factor: Annotated[int, Field(ge=2)],
        timeout: str | float | None,
        max_failures: Annotated[int, Field(ge=1)] | None,
        retry_failed: bool,
        skip_refused: bool,
        dry_run: bool,
        folds: Literal["auto"] | None,
        ensemble: Annotated[int, Field(ge=0)],
        seed: Annotated[int, Field(ge=0, lt=2**32)],
        storage: str | None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        self.sampler, self.n_trials, self.seed = sampler, n_trials, seed
        self.budget = None if budget is None else seconds(budget, "sweep.budget")
        self.portfolio = portfolio
        self.search, self.params, self.scientific = search, params, scientific
        self.objectives, self.seeds = objectives, seeds
        self.pruner, self.min_epochs, self.reduction_factor = pruner, min_epochs, reduction_factor
        self.timeout = None if timeout is None else seconds(timeout, "sweep.timeout")
        self.max_failures, self.retry_failed, self.dry_run = max_failures, retry_failed, dry_run
        self.ensemble, self.folds = ensemble, folds
        self.storage, self.skip_refused = storage, skip_refused
        self.modes = {metric: better(metric, "sweep.objectives", metrics) for metric in objectives}
        self.check()

    def check(self) -> None:
        """Refuses what does not go together."""
        for metric in self.objectives:
            if self.objectives.count(metric) > 1:
                raise Refused(f"sweep.objectives: {metric} is named twice; write each once")
        if self.guides:
            self.check_guide()
        elif self.budget is not None:
            raise Refused(
                f"sweep.budget={self.budget:g}s: is of sweep=guide; write sweep=guide, or"
                f" sweep.timeout={self.budget:g}s, which ends any sweep"
            )
        if self.sampler == "grid" and self.n_trials is not None:
            raise Refused(
                f"sweep.n_trials={self.n_trials}: a grid has all its combinations; add"
                " sweep.sampler=qmc"
            )
        if self.sampler not in ("grid", "guide") and self.n_trials is None:
            raise Refused(
                f"sweep.sampler={self.sampler}: needs a number of trials; write sweep.n_trials=20"
            )
        if self.sampler != "grid" and self.skip_refused:
            raise Refused(
                f"sweep.skip_refused=true: is for a grid; {self.sampler} takes others in place of"
                " trials that cannot be trained; leave it out"
            )
        if len(self.objectives) > 1 and self.pruner != "none":
            raise Refused(
                f"sweep.pruner={self.pruner}: goes by one metric, and there are several"
                " objectives; leave it out"
            )
        if len(self.objectives) > 1 and self.sampler in ("cmaes", "gp"):
            raise Refused(
                f"sweep.sampler={self.sampler}: takes one objective; write sweep.sampler=tpe"
            )
        if self.seeds > 1 and self.pruner != "none" and self.learns:
            raise Refused(
                f"sweep.seeds={self.seeds}: sampler={self.sampler} learns from their mean, which a"
                " pruner would cut;"
                " write sweep.pruner=none, or sweep.sampler=qmc"
            )

    def check_guide(self) -> None:
        """Refuses what a guided search decides itself."""
        if self.budget is None and self.n_trials is None:
            raise Refused(
                "sweep=guide: needs a time, or a number of trials; write sweep.budget=10m"
            )
        if self.budget is not None and self.n_trials is not None:
            raise Refused(
                f"sweep.n_trials={self.n_trials}: sweep.budget={self.budget:g}s is given too; write"
                " one of them"
            )
        if self.budget is not None and self.budget < LEAST_BUDGET:
            raise Refused(
                f"sweep.budget={self.budget:g}s: is too short to train, choose and test; write"
                f" {LEAST_BUDGET}s or more"
            )
        decided = {"seeds": self.seeds > 1, "pruner": self.pruner != "none"}
        decided |= {"objectives": bool(self.objectives), "timeout": self.timeout is not None}
        if own := next((key for key, given in decided.items() if given), None):
            raise Refused(f"sweep.{own}: is what sweep=guide decides itself; leave it out")

    @property
    def guides(self) -> bool:
        """Whether it is a guided search."""
        return self.sampler == "guide"

    @property
    def learns(self) -> bool:
        """Whether each trial depends on those before."""
        return self.sampler in LEARNING

    @property
    def needs_study(self) -> bool:
        """Whether Optuna keeps a study."""
        return self.learns or self.pruner != "none"

    def as_plain(self) -> dict[str, Any]:
        """What sweep.yaml keeps of it."""
        kept = (
            "sampler",
            "n_trials",
            "budget",
            "scientific",
            "objectives",
            "modes",
            "seeds",
            "pruner",
            "min_epochs",
            "reduction_factor",
        )
        storage = self.storage and without_passwords(self.storage)
        return {key: getattr(self, key) for key in (*kept, "seed")} | {"storage": storage}


def sweep_settings(cfg: DictConfig) -> SweepSettings:
    """Reads them off a composed configuration.

    Raises:
        Refused: for a key or value that the schema does not have.
    """
    node = cast("dict[str, Any]", OmegaConf.to_container(cfg.sweep, resolve=True))
    checked = check_arguments(SweepSettings, node, "sweep", given=("metrics",))
    return SweepSettings(**checked, metrics=cfg.get("metrics"))


def better(metric: str, where: str, metrics: Mapping[str, Any] | None) -> str:
    """Whether less or more of an objective is better: min or max.

    Raises:
        Refused: if there is no such objective.
    """
    if metric in COUNTS:
        return "min"
    try:
        return direction(metric, metrics)
    except Refused as refusal:
        hint = str(refusal).partition(": ")[2]
        raise Refused(f"{where}=[{metric}]: {hint}; or {', '.join(COUNTS)}") from refusal
