"""A sweep ranks its trials by one thing that means the same for all of them, or is refused."""

import pytest

from conftest import SMALL
from goldilocks.errors import Refused
from goldilocks.sweeps import sweep
from tables import cars, write

REFUSED = [
    ("data=diabetes loss=mse,mae,huber", "write objective.metric=val/rmse, which is in the"),
    ("loss=auto,focal", "write objective.metric=val/accuracy, which is the same for any loss"),
    ("loss=focal loss.gamma=1,2", "changes what val/loss measures, by loss=focal(gamma=1"),
    ("data=diabetes loss=auto,mae", "changes what val/loss measures; write objective.metric"),
    ("data=diabetes data.target_scaling=standard,none", "write objective.metric=val/rmse"),
    ("{table} data.target_log=false,true", "write objective.metric=val/rmse"),
    ("{table} data.target=[price,size] loss=mse,mae", "write objective.metric=val/r2"),
    (
        "data=diabetes data.val_fraction=0 objective.metric=train/loss loss=mse,mae",
        "train/rmse",
    ),
    ("data=iris,wine", "data=iris,wine: other targets, whose figures do not compare"),
    ("data.name=iris,wine", "write a sweep for each"),
    ("{table} data.target=price,size", "write a sweep for each"),
    ("experiment=digits,diabetes", "trials are compared by one metric"),
    ("data=synthetic data.rows=100 data.noise=0,0.1", "write a sweep for each"),
    ("data=synthetic data.rows=100 data.classes=2,3", "write a sweep for each"),
    ("data=digits data.task=multiclass,regression", "write a sweep for each"),
    (
        "objective.metric=val/loss,val/accuracy",
        "write objective.metric=val/loss, or sweep.objectives",
    ),
    (
        "regularization.label_smoothing=0,0.1 objective.metric=train/loss",
        "write objective.metric=val/loss, which is of the rows as they are",
    ),
    ("task.class_weight=none,balanced objective.metric=train/loss", "objective.metric=val/loss"),
    ("regularization=none,mixup objective.metric=train/accuracy", "by regularization.mixup=0"),
    (
        "data=diabetes loss=mse,mae sweep.objectives=[val/loss,num_parameters]",
        "write sweep.objectives=[val/rmse,num_parameters]",
    ),
    (
        "objective.metric=val/loss,val/f1 sweep.objectives=[val/loss] sweep.pruner=asha",
        "trials are compared by one metric",
    ),
    ("data.folds=2,3 sweep.pruner=asha", "write sweep.pruner=none"),
    ("data=diabetes loss=mse,mae sweep.sampler=tpe sweep.n_trials=2", "val/rmse"),
    ("data=diabetes loss=mse,mae sweep.sampler=qmc sweep.n_trials=2", "val/rmse"),
]
ALLOWED = [
    "data=diabetes loss=mse,mae,huber objective.metric=val/rmse",
    "data=diabetes loss=auto,mse",
    "data=diabetes data.target_scaling=standard,none objective.metric=val/r2",
    "{table} data.target_log=false,true objective.metric=val/mae",
    "data=diabetes data.target_scaling=minmax task.output=identity,sigmoid",
    "data=diabetes loss=mse,mae sweep.objectives=[val/rmse,num_parameters]",
    "objective.metric=val/loss,val/accuracy sweep.objectives=[val/accuracy]",
    "regularization.label_smoothing=0,0.1",
    "regularization=none,mixup,cutmix,dropout",
    "task.class_weight=none,balanced",
    "data.seed=0,1 data.val_fraction=0.1,0.2",
    "data.folds=2,3",
    "data.scaling=standard,none optimizer=sgd,adam seed=0,1",
    "{table} data.columns.size=numeric,drop",
]


@pytest.fixture
def swept(command, monkeypatch, tmp_path):
    """What a sweep with some words is refused for;
    `planned` where nothing is wrong with what it ranks by.
    """
    write(tmp_path / "cars.csv", cars(60))

    def planned(*_):
        raise Refused("planned")

    monkeypatch.setattr(sweep, "plan", planned)

    def run(words):
        words = words.format(table="data=table data.path=cars.csv data.target=price")
        given = dict(word.split("=", 1) for word in [*SMALL, *words.split()])
        ended = command("-m", *(f"{key}={value}" for key, value in given.items()))
        assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
        assert not (tmp_path / "logs").exists()
        return ended.err.removeprefix("error: ").strip()

    return run


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[words for words, _ in REFUSED])
def test_what_changes_the_meaning_of_the_objective_is_refused(words, said, swept):
    assert said in swept(words)


@pytest.mark.parametrize("words", ALLOWED)
def test_what_does_not_is_left_alone(words, swept):
    assert swept(words) == "planned"


def test_a_later_command_of_the_same_name_is_held_to_it_too(command):
    words = ["-m", *SMALL, "data=diabetes", "trainer.max_epochs=1", "logger=none", "name=s"]
    assert command(*words, "seed=0,1").code == 0
    ended = command(*words, "seed=2,3", "loss=mae")
    assert ended.code == 2
    assert "loss=mae: logs/sweeps/s was started with mse; choose another name" in ended.err
    ended = command(*words, "seed=2,3", "data=wine")
    assert ended.code == 2
    assert "data.name=wine: logs/sweeps/s was started with diabetes" in ended.err
