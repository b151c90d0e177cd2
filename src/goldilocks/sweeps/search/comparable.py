"""Whether trials can be ranked: whether their objective means the same for all of them.

A regression's loss is of a kind, and in the units of the scaled target: neither is the same
everywhere in a sweep over losses or scalings. Metrics in the target's own units are. What is
predicted is the same where all rows together have the same targets, however they are split and
whatever their features are.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from goldilocks.config.signatures import shown
from goldilocks.data.base import TableData
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused
from goldilocks.sweeps.search.settings import SweepSettings
from goldilocks.sweeps.search.space import Dimension, Space
from goldilocks.tasks.losses import loss_in_words
from goldilocks.tasks.metrics import metric_makers
from goldilocks.training.settings import Settings

DATA, METRIC, FOLDS, LOSS = "data", "objective.metric", "data.folds", "loss"
MATTERS = ("data", "loss", "task", "objective", "regularization")  # groups of whose keys some do
MIXED = ("regularization.mixup", "regularization.cutmix")  # change targets in training
WEIGHTED = ("regularization.label_smoothing", "task.class_weight", *MIXED)


def problem_of(data: TableData) -> str:
    """A word for what is predicted, the same for the same targets in their own units,
    in any order and split.
    """
    values = np.sort(data.unscaled, axis=0).tobytes()
    names = (data.spec.task, data.spec.class_names, data.unscaled.shape)
    return hashlib.sha256(values + repr(names).encode()).hexdigest()


class Meaning(NamedTuple):
    """What a ranking of a trial depends on: two trials compare if it is the same for both.

    Attributes:
        facts: By metric and key; the metric is empty where all depend on it.
        spec: Of the trial's data.
        metrics: The names of the trial's, the loss aside.
    """

    facts: dict[tuple[str, str], Any]
    spec: Spec
    metrics: Sequence[str]


def meaning(settings: Settings, spec: Spec, problem: str, sweep: SweepSettings) -> Meaning:
    """What a trial with these settings and data is ranked by."""
    own, pruned = settings.objective["metric"], sweep.pruner != "none"
    facts: dict[tuple[str, str], Any] = {("", DATA): problem}
    followed = pruned or not sweep.objectives
    if followed:
        facts["", METRIC] = own
    for metric in dict.fromkeys([*sweep.objectives, *([own] if followed else [])]):
        facts |= {(metric, key): of for key, of in depends_on(metric, settings, spec).items()}
    if pruned:  # goes by epochs, or by folds
        one = settings.data.get("fold") is not None
        facts["", FOLDS] = None if one else settings.data.get("folds")
    return Meaning(facts, spec, list(metric_makers(settings.metrics, spec, settings.packages)))


def depends_on(metric: str, settings: Settings, spec: Spec) -> dict[str, Any]:
    """What decides on the meaning of a metric, beside what is predicted, by key."""
    stage, _, name = metric.partition("/")
    keys = [*(WEIGHTED if name == "loss" else MIXED)] if stage == "train" else []
    found = {key: getattr(settings, key.partition(".")[0])[key.partition(".")[2]] for key in keys}
    if name == "loss":
        found[LOSS] = loss_in_words(settings.loss, spec.task)
    if name == "loss" and spec.task == "regression":
        found["data.target_scaling"] = settings.data.get("target_scaling")
        found["data.target_log"] = any(spec.target_log)
    return found


# --- what is searched -----------------------------------------------------------------------------


def check_comparable(composer: Any, space: Space, sweep: SweepSettings, checker: Any) -> None:
    """Refuses a sweep over something that changes what its trials are ranked by.

    Args:
        composer: Of the sweep.
        space: Each thing that is searched is looked at by itself.
        sweep: Its settings.
        checker: Of the sweep, which loads the data.

    Raises:
        Refused: with what to write instead.
    """
    for dimension in space.dimensions:
        if not may_matter(dimension):
            continue
        found: list[Meaning] = []
        for value in dimension.choices or (dimension.at(0), dimension.at(1 - 1e-9)):
            overrides, _ = space.trial(point(space, dimension, value))
            try:
                found.append(checker.meaning(composer.compose(overrides)[0], sweep))
            except Refused:  # planning tells of it
                continue
        for about in found[0].facts if found else ():
            values = list(dict.fromkeys(of.facts.get(about) for of in found))
            if len(values) > 1:
                raise Refused(refusal(dimension, *about, values, sweep, found[0]))


def may_matter(dimension: Dimension) -> bool:
    """Whether what is searched may change the objective's meaning:
    any option may, of single keys a few groups'.
    """
    group, _, key = dimension.key.lstrip("+").partition(".")
    return group in MATTERS if key else dimension.key != "seed"


def point(space: Space, dimension: Dimension, value: str) -> dict[str, str]:
    """A point of the space where one dimension has a value, and all others what comes first."""
    wanted = {dimension.name: value, **dict([dimension.when] if dimension.when else [])}
    chosen: dict[str, str] = {}
    for other in space.active(chosen):
        chosen[other.name] = wanted.get(other.name, other.at(0))
    return chosen


def refusal(
    dimension: Dimension,
    metric: str,
    key: str,
    values: Sequence[Any],
    sweep: SweepSettings,
    first: Meaning,
) -> str:
    """Why trials would not compare, and what to write instead.

    Args:
        dimension: That is searched.
        metric: Whose meaning changes; empty for that of all.
        key: On which it depends.
        values: That the key has.
        sweep: Its settings.
        first: What the first trial is ranked by.
    """
    said = ",".join(dimension.choices) or f"{dimension.low:g} to {dimension.high:g}"
    said = f"{dimension.key}={said}"
    if key == DATA:
        return f"{said}: other targets, whose figures do not compare; write a sweep for each"
    if key == METRIC:
        by_one = f"{said}: trials are compared by one metric; write {METRIC}={values[0]}"
        free = sweep.pruner == "none"
        return by_one + (f", or sweep.objectives=[{values[0]}] to rank by it" if free else "")
    if key == FOLDS:
        return f"{said}: a pruner compares after as many epochs, or folds; write sweep.pruner=none"
    why = "" if dimension.key == key else f", by {key}={','.join(map(shown, values))}"
    other, reason = instead(metric, key, first)
    write = f"{METRIC}={other}"
    if metric in sweep.objectives:
        listed = [other if one == metric else one for one in sweep.objectives]
        write = f"sweep.objectives=[{','.join(listed)}]"
    return f"{said}: changes what {metric} measures{why}; write {write}, which is {reason}"


def instead(metric: str, key: str, first: Meaning) -> tuple[str, str]:
    """The metric to rank by in place of one, and what it is; for the arguments see `refusal`."""
    spec = first.spec
    stage = "val" if spec.num_rows.get("val") else metric.partition("/")[0]
    if key != LOSS and (spec.task != "regression" or key in WEIGHTED):
        return "val/loss", "of the rows as they are"
    if spec.task != "regression":
        return f"{stage}/{one_of(first.metrics, 'accuracy')}", "the same for any loss"
    if spec.num_outputs > 1 and stage == "val":
        return f"val/{one_of(first.metrics, 'r2')}", "the same in any units"
    return f"{stage}/{one_of(first.metrics, 'rmse')}", "in the target's own units"


def one_of(names: Sequence[str], usual: str) -> str:
    """A metric's name, if a configuration has it; else the first that it has."""
    return usual if usual in names or not names else names[0]
