"""A metric that the validation rows do not define: refused before training;
what turns up later is no divergence.
"""

import math

import numpy as np
import pytest

from conftest import read_result
from fitting import Rows, ready
from goldilocks.errors import Refused
from goldilocks.tasks.losses import AUTO
from goldilocks.tasks.objective import check_defined, is_defined
from goldilocks.tasks.task import Task

RANDOM = np.random.default_rng(0)
QUICK = ["trainer=cpu", "trainer.max_epochs=1", "callbacks=none", "logger=none"]


@pytest.mark.parametrize(
    ("metric", "validated"),
    [
        ("auroc", ["yes"] * 10),
        ("r2", [2.5] * 10),
        ("r2", [2.5]),
    ],
    ids=["one class", "one value", "one row"],
)
def test_what_the_validation_rows_do_not_define_is_refused(metric, validated):
    words = metric == "auroc"
    target = np.array(["yes", "no"] * 30) if words else RANDOM.normal(size=60)
    target[30 : 30 + len(validated)] = validated
    data = Rows(RANDOM.normal(size=(60, 2)), target, test_rows=np.arange(40, 60))
    data.table = data.table._replace(val_rows=np.arange(30, 30 + len(validated)))
    data.setup()
    followed = {"objective.metric": f"val/{metric}"}
    with pytest.raises(
        Refused, match=rf"objective\.metric=val/{metric}: is not defined where"
    ) as no:
        check_defined(followed, Task(data.spec), data.judged)
    assert "single" in str(no.value) if len(validated) == 1 else "all 10" in str(no.value)
    check_defined({"objective.metric": "val/loss"}, Task(data.spec), data.judged)


@pytest.mark.parametrize("task", AUTO)
def test_every_metric_of_a_task_is_defined_on_ordinary_rows(task):
    target = {"regression": RANDOM.normal(size=60), "binary": np.arange(60) % 2}
    data = ready(Rows(RANDOM.normal(size=(60, 2)), target.get(task, np.arange(60) % 3), task=task))
    known = Task(data.spec)
    for name in ("loss", *known.names()):
        assert is_defined(name, known, data.judged[0])


def test_each_fold_is_looked_at_unless_one_is_chosen():
    target = np.array([0] * 50 + [1] * 3)
    features = RANDOM.normal(size=(53, 2))
    options = {"test_fraction": 0.0, "folds": 5}
    followed = {"callbacks.early_stopping.monitor": "val/auroc"}
    data = ready(Rows(features, target, **options))
    assert len(data.judged) == 5
    with pytest.raises(Refused, match=r"early_stopping\.monitor=val/auroc: .* of fold \d .*fewer"):
        check_defined(followed, Task(data.spec), data.judged)
    whole = [ready(Rows(features, target, fold=fold, **options)) for fold in range(5)]
    assert [len(data.judged) for data in whole] == [1] * 5
    good = [len(set(of.judged[0].flatten().tolist())) == 2 for of in whole]
    assert sum(good) == 3
    for fine, of in zip(good, whole, strict=True):
        if fine:
            check_defined(followed, Task(of.spec), of.judged)


def one_class(tmp_path):
    """A file whose validation rows are all of one class."""
    path = tmp_path / "rows.csv"
    stages = ["train"] * 30 + ["val"] * 6 + ["test"] * 6
    lines = [
        f"{RANDOM.normal():.3f},{'yes' if stage == 'val' or row % 2 else 'no'},{stage}"
        for row, stage in enumerate(stages)
    ]
    path.write_text("\n".join(["a,y,part", *lines]) + "\n")
    return ["data=table", f"data.path={path}", "data.target=y", "data.split_column=part"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["objective.metric=val/auroc"], "objective.metric"),
        (["-m", "objective.metric=val/auroc", "seed=0,1"], "objective.metric"),
        (["-m", "sweep.objectives=[val/auroc]", "seed=0,1"], "sweep.objectives"),
        (["-m", "sweep.objectives=[val/loss,val/rmse]", "seed=0,1"], "sweep.objectives"),
        (["-m", "sweep.objectives=[test/accuracy]", "seed=0,1"], "sweep.objectives"),
    ],
)
def test_it_is_refused_in_one_line_and_leaves_nothing(command, tmp_path, words, key):
    ended = command(*words, *one_class(tmp_path), *QUICK)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {key}=")
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "logs").exists()


def test_a_metric_that_turns_out_not_to_be_a_number_is_told_and_is_no_divergence(command):
    part = ["data.val_fraction=0.5", "data.batch_size=1", "trainer.limit_val_batches=1"]
    ended = command("data=iris", *part, *QUICK, "objective.metric=val/auroc")
    result = read_result(ended.folder)
    assert (ended.code, result["status"]) == (1, "failed")
    assert "val/auroc: was NaN in every epoch" in result["error"]["message"]
    assert "the loss is no longer finite" not in ended.out
    assert math.isfinite(result["seconds"]["total"])
