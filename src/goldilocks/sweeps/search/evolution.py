"""CMA-ES without pickles: made again, for each proposal, from the trials that the study knows."""

from typing import Any, cast

from optuna import Study
from optuna._transform import _SearchSpaceTransform
from optuna.samplers import CmaEsSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial


class ReplayedCmaEs(CmaEsSampler):
    """Optuna's, which keeps its state as a pickle in the study and loads what it finds there.

    Private names of Optuna; tests/config/test_strangers.py watches them.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        self._asked = study.direction, search_space
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        direction, space = self._asked
        trans = _SearchSpaceTransform(space, transform_step=True, transform_0_1=True)
        optimizer = self._init_optimizer(trans, direction)
        sign = 1 if direction == StudyDirection.MINIMIZE else -1
        size = optimizer.population_size
        while (
            len(known := self._get_solution_trials(completed_trials, optimizer.generation)) >= size
        ):
            points = [trans.transform(of.params) for of in known[:size]]
            values = [sign * cast("float", of.value) for of in known[:size]]
            optimizer.tell(list(zip(points, values, strict=True)))
        return optimizer
