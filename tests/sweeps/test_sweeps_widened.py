"""A sweep that learns goes on in another space with the trials that are in it."""

import json

import pytest

from goldilocks.sweeps.search.study import open_study

optuna = pytest.importorskip("optuna")
from optuna.trial import TrialState  # noqa: E402

QUICK = ["-m", "data=iris", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none", "logger=none"]
LOG = "optimizer.lr=tag(log,interval(1e-3,1))"


@pytest.fixture
def learn(command, tmp_path):
    """Trains as many trials in all over some words;
    returns the study and what it was told, by the trial's number.
    """
    folder = tmp_path / "logs/sweeps/s"
    left = {}

    def run(total, *words, sampler="tpe"):
        given = [f"sweep.sampler={sampler}", f"sweep.n_trials={total}", "name=s"]
        ended = command(*QUICK, *given, *words)
        assert ended.code == 0, ended.err
        known = {}
        for number in range(total):
            own = folder / str(number) / "result.json"
            assert left.setdefault(number, own.stat().st_mtime_ns) == own.stat().st_mtime_ns
            frozen = json.loads((folder / "trials" / f"{number}.json").read_text())
            told = open_study(folder).study.trials[frozen["study_number"]]
            known[number] = told
            if told.state == TrialState.COMPLETE:
                assert told.values == [json.loads(own.read_text())["objective"]["value"]]
                for name, value in told.params.items():
                    word = frozen["varied"].get(name)
                    assert (
                        word is None
                        or str(value) == word
                        or float(word) == pytest.approx(value, rel=1e-3)
                    )
        assert not open_study(folder).running()
        return known, ended

    return run


def in_space(known):
    return [number for number, told in known.items() if told.state == TrialState.COMPLETE]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_more_choices_and_other_kinds_of_range_go_on_with_what_there_is(sampler, learn):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    learn(3, "optimizer=sgd,adam", LOG, "model.width=interval(4,16)", sampler=sampler)
    words = ["optimizer=sgd,adam,nadam", "optimizer.lr=interval(1e-4,2)"]
    known, ended = learn(5, *words, "model.width=interval(4,64)", sampler=sampler)
    assert in_space(known) == [0, 1, 2, 3, 4]
    assert "in which 3 of 3 trials lie" in ended.err
    known, ended = learn(6, *words, "model.width=tag(log,interval(4,64))", sampler=sampler)
    assert in_space(known) == [0, 1, 2, 3, 4, 5]
    _, ended = learn(7, *words, "model.width=tag(log,interval(4,64))", sampler=sampler)
    assert "another space" not in ended.err


def test_what_does_not_lie_in_the_space_is_not_learnt_from_until_it_does_again(learn):
    known, _ = learn(4, "optimizer=sgd,adam", LOG)
    families = {number: told.params["optimizer"] for number, told in known.items()}
    assert len(set(families.values())) == 2
    sgd = [number for number, family in families.items() if family == "sgd"]
    known, ended = learn(5, "optimizer=sgd", LOG)
    assert in_space(known) == [*sgd, 4]
    assert all(set(known[number].params) == {"optimizer.lr"} for number in in_space(known))
    assert f"in which {len(sgd)} of 4 trials lie" in ended.err
    known, _ = learn(6, "optimizer=sgd,adam", LOG, "trainer.max_epochs=2")
    assert in_space(known) == [5]
    known, _ = learn(7, "optimizer=sgd,adam", LOG, "trainer.max_epochs=1,2")
    assert in_space(known) == [0, 1, 2, 3, 4, 5, 6]


def test_a_proposal_that_cannot_be_made_does_not_stay_running(learn, tmp_path, monkeypatch):
    learn(2, LOG)
    study = open_study(tmp_path / "logs/sweeps/s")

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "suggested", broken)
    with pytest.raises(KeyboardInterrupt):
        study.ask(None)
    assert study.running() == []
    assert len(study.study.trials) == 3


def test_with_several_seeds_a_proposal_keeps_all_of_its_trials(command, tmp_path):
    words = [*QUICK, "name=s", "sweep.sampler=tpe", "sweep.seeds=2"]
    assert command(*words, "sweep.n_trials=2", "model.width=4,8").code == 0
    ended = command(*words, "sweep.n_trials=3", "model.width=4,8,16")
    assert ended.code == 0, ended.err
    assert "in which 2 of 2 trials lie" in ended.err
    states = [told.state for told in open_study(tmp_path / "logs/sweeps/s").study.trials]
    assert states.count(TrialState.COMPLETE) >= 3
    assert TrialState.RUNNING not in states
