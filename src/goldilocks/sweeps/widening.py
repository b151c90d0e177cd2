"""A sweep that learns goes on in another space:
with more choices, a range of another kind, or less to search.

Optuna fixes the choices of a parameter, and the kind of its range, with the first trial. So another
space is another study, which gets the sweep's trials under the numbers that they had: those that
are in the space with their results, the others as trials of which nothing can be learnt.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from goldilocks.config.choices import config_hash
from goldilocks.config.signatures import shown
from goldilocks.machine.files import write_json
from goldilocks.sweeps.execution.trials import ENDED, Trial, trial_result
from goldilocks.sweeps.search.compose import Composer
from goldilocks.sweeps.search.space import Dimension, Space
from goldilocks.sweeps.search.study import FILE, Study, new_name, open_study, study_in


def follow(
    folder: Path, study: Study, space: Space, composer: Composer, trials: Sequence[Trial]
) -> Study:
    """The study of a space, made again if the sweep's own is of another one.

    Args:
        folder: Of the sweep, whose lock is held.
        study: That the sweep has.
        space: That this command searches.
        composer: Of the sweep.
        trials: Of the sweep.
    """
    if study.known["space"] == space.as_plain():
        return study
    known = {**study.known, "name": new_name(folder), "space": space.as_plain()}
    fresh = study_in(folder.resolve(), json.dumps(known), new=True)
    proposed = {trial.study_number: trial for trial in reversed(trials)}  # the first of siblings
    count = 0
    for old in study.study.get_trials(deepcopy=False):
        trial = proposed.get(old.number)
        chosen = place_in(space, trial, composer) if trial is not None else None
        outcomes = outcomes_of(folder, trial) if trial is not None else []
        fresh.add(space, chosen, outcomes, old.intermediate_values)
        count += chosen is not None
    write_json(folder / FILE, known)
    if trials:
        print(
            f"{folder}: another space than before, in which {count} of {len(proposed)} trials lie;"
            " the others are not learnt from",
            file=sys.stderr,
        )
    return open_study(folder)


def place_in(space: Space, trial: Trial, composer: Composer) -> dict[str, str] | None:
    """The values, by name, of a trial in a space; None if the space does not hold it."""
    chosen: dict[str, str] = {}
    for dimension in space.active(chosen):
        value = value_of(trial, dimension)
        if not dimension.holds(value):
            return None
        chosen[dimension.name] = value
    overrides, _ = space.trial(chosen)
    overrides += [f"seed={trial.varied['seed']}"] if len(trial.siblings) > 1 else []
    same = config_hash(composer.compose(overrides)[0]) == trial.config_hash
    return chosen if same else None


def value_of(trial: Trial, dimension: Dimension) -> str:
    """What a trial has for something that is searched, whether it was searched for it or not."""
    key = dimension.key
    if key in trial.varied:
        return trial.varied[key]
    return shown(trial.choices.get(key, OmegaConf.select(trial.config, key)))


def outcomes_of(folder: Path, trial: Trial) -> list[Mapping[str, Any]]:
    """The results of a proposal's trials; none while any of them has not ended."""
    found = [trial_result(folder, number) for number in trial.siblings or [trial.number]]
    ended: list[Mapping[str, Any]] = [
        result for result in found if result is not None and result["status"] in ENDED
    ]
    return ended if len(ended) == len(found) else []
