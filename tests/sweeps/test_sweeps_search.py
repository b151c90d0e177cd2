"""What a sweep searches, how it learns from its trials, and what it is refused for."""

import csv
import itertools
from pathlib import Path

import pytest

from conftest import SMALL, read_result
from goldilocks.machine import progress
from goldilocks.sweeps.search.space import Dimension, Space

QUICK = [
    "-m",
    "data=iris",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "callbacks=none",
    "logger=none",
    "name=s",
]
RATE = "optimizer.lr=tag(log,interval(1e-3,1))"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs/sweeps/s/trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- the space ------------------------------------------------------------------------------------


SPACE = Space(
    ["seed=1"],
    [
        Dimension("optimizer", "optimizer", choices=("sgd", "adam")),
        Dimension(
            "optimizer.lr@sgd",
            "optimizer.lr",
            low=0.01,
            high=1.0,
            log=True,
            when=("optimizer", "sgd"),
        ),
        Dimension(
            "optimizer.lr@adam",
            "optimizer.lr",
            low=1e-4,
            high=1e-2,
            log=True,
            when=("optimizer", "adam"),
        ),
        Dimension("model.depth", "model.depth", low=1, high=4, whole=True),
    ],
)


@pytest.mark.parametrize("sampler", ["qmc", "random"])
def test_a_range_holds_only_with_its_option(sampler):
    for chosen in itertools.islice(SPACE.points(sampler, seed=0), 64):
        words, varied = SPACE.trial(chosen)
        low, high = {"sgd": (0.01, 1.0), "adam": (1e-4, 1e-2)}[varied["optimizer"]]
        assert low <= float(varied["optimizer.lr"]) <= high
        assert varied["model.depth"] in "1234"
        assert list(varied) == ["optimizer", "optimizer.lr", "model.depth"]
        assert words == ["seed=1", *(f"{key}={value}" for key, value in varied.items())]


def test_sobols_points_fall_into_every_part():
    points = list(itertools.islice(SPACE.points("qmc", seed=0), 32))
    pairs = {(point["optimizer"], point["model.depth"]) for point in points}
    assert len(pairs) == 8
    counts = [sum(point["model.depth"] == depth for point in points) for depth in "1234"]
    assert counts == [8, 8, 8, 8]


def test_whole_ranges_reach_both_ends_evenly():
    dimension = Dimension("n", "n", low=2, high=5, whole=True)
    assert [dimension.at(share) for share in (0, 0.249, 0.25, 0.5, 0.75, 0.9999)] == [
        "2",
        "2",
        "3",
        "4",
        "5",
        "5",
    ]
    wide = Dimension("n", "n", low=16, high=512, whole=True, log=True)
    assert (wide.at(0), wide.at(1 - 1e-9)) == ("16", "512")


# --- on the command line --------------------------------------------------------------------------


def test_each_optimizer_is_searched_over_its_own_ranges(command, tmp_path):
    words = [
        "sweep.search=[optimizer]",
        "optimizer=momentum,adam",
        "sweep.sampler=qmc",
        "sweep.n_trials=8",
    ]
    done = command(*QUICK, *words)
    assert done.code == 0, done.err
    found = rows(tmp_path)
    assert {row["optimizer"] for row in found} == {"momentum", "adam"}
    for row in found:
        assert bool(row["optimizer.momentum"]) == (row["optimizer"] == "momentum")
        assert bool(row["optimizer.betas"]) == (row["optimizer"] == "adam")
        assert bool(row["optimizer.lr"])


def test_the_command_line_wins_over_what_an_option_states(command, tmp_path):
    words = ["sweep=learning_rate", "optimizer.lr=0.5,0.6", "sweep.n_trials=2"]
    assert command(*QUICK, *words).code == 0
    assert {row["optimizer.lr"] for row in rows(tmp_path)} == {"0.5", "0.6"}


def test_what_cannot_be_trained_is_drawn_again(command, tmp_path):
    words = [
        "model=deep",
        "model.depth=-1,1",
        "model.width=interval(2,40)",
        "sweep.sampler=random",
        "sweep.n_trials=4",
    ]
    done = command(*QUICK, *words)
    assert done.code == 0
    assert [row["model.depth"] for row in rows(tmp_path)] == ["1"] * 4
    assert "drawn again, since they cannot be trained: model.depth=-1" in done.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sweep.sampler=qmc", RATE], "sweep.n_trials=20"),
        (["sweep.n_trials=3", "seed=0,1"], "a grid has all its combinations"),
        ([RATE], "a range without steps"),
        (["sweep.sampler=qmc", "sweep.n_trials=3"], "there is nothing to search"),
        (["sweep.sampler=tep", "seed=0,1"], "sweep.sampler=tep"),
        (
            ["sweep.search=[optimiser]", "sweep.sampler=qmc", "sweep.n_trials=3"],
            "did you mean optimizer?",
        ),
        (["sweep.search=[optimizer.rl]", "sweep.sampler=qmc", "sweep.n_trials=3"], "optimizer.rl"),
        (["sweep.timeout=soon", "seed=0,1"], "sweep.timeout=soon: a time above zero is expected"),
        (["sweep.objectives=[val/los]", "seed=0,1"], "val/los"),
        (["sweep.scientific=[model]", "seed=0,1"], "sweep.scientific=[model]: is not searched"),
        (["sweep.seeds=2", "seed=0,1"], "seed: is what sweep.seeds sets"),
        (
            ["sweep.pruner=asha", "sweep.objectives=[val/loss,val/f1]", "seed=0,1"],
            "there are several objectives",
        ),
        (["sweep=optimiser"], "did you mean optimizer?"),
        (
            ["optimizer.lr=tag(log,interval(0,1))", "sweep.sampler=qmc", "sweep.n_trials=3"],
            "a number above 0",
        ),
    ],
)
def test_a_wrong_search_is_refused(command, tmp_path, words, line):
    ended = command(*QUICK, *words)
    assert ended.code == 2, ended.err
    assert line in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not list(tmp_path.rglob("*"))


def test_words_for_sweeps_need_m(command, tmp_path):
    ended = command("data=iris", "sweep.n_trials=3")
    assert (ended.code, list(tmp_path.rglob("*"))) == (2, [])
    assert ended.err == (
        "error: sweep.n_trials=3: is for sweeps; write python train.py -m data=iris"
        " sweep.n_trials=3\n"
    )


# --- learning -------------------------------------------------------------------------------------


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(command, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    from goldilocks.sweeps.execution import trials

    words = [*QUICK, RATE, "sweep.sampler=tpe", "sweep.n_trials=14", "hydra/launcher=basic"]
    assert command(*words).code == 0
    whole = [row["optimizer.lr"] for row in rows(tmp_path)]
    (tmp_path / "logs").rename(tmp_path / "undisturbed")

    count, run = itertools.count(), trials.run

    def interrupted(*args, **kwargs):
        if next(count) == 11:  # the first ten are drawn at random
            raise KeyboardInterrupt
        return run(*args, **kwargs)

    monkeypatch.setattr(trials, "run", interrupted)
    assert command(*words).code == 130
    assert command(*words).code == 0
    assert [row["optimizer.lr"] for row in rows(tmp_path)] == whole
    assert [row["status"] for row in rows(tmp_path)] == ["done"] * 14


def test_more_trials_are_added_by_the_same_command(command, tmp_path):
    pytest.importorskip("optuna")
    for count in (3, 5, 5):
        ended = command(*QUICK, RATE, "sweep.sampler=tpe", f"sweep.n_trials={count}")
        assert ended.code == 0, ended.err
        assert len(rows(tmp_path)) == count
    assert "5 of 5 trials are done already" in ended.err


def test_a_study_of_another_kind_is_not_mixed(command, tmp_path):
    assert command(*QUICK, "optimizer.lr=0.1,0.2").code == 0
    ended = command(*QUICK, RATE, "sweep.sampler=tpe", "sweep.n_trials=3")
    assert (ended.code, "was started with grid; choose another name" in ended.err) == (2, True)


def test_seeds_are_told_as_their_mean(command, tmp_path):
    optuna = pytest.importorskip("optuna")
    from goldilocks.sweeps.search.study import open_study

    words = [RATE, "sweep.sampler=tpe", "sweep.n_trials=2", "sweep.seeds=2"]
    assert command(*QUICK, *words).code == 0
    found = rows(tmp_path)
    assert [row["seed"] for row in found] == ["0", "1", "0", "1"]
    assert found[0]["optimizer.lr"] == found[1]["optimizer.lr"]
    told = open_study(tmp_path / "logs/sweeps/s").study.get_trials()
    means = [
        (float(found[at]["objective"]) + float(found[at + 1]["objective"])) / 2 for at in (0, 2)
    ]
    assert [trial.value for trial in told] == pytest.approx(means)
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in told)


@pytest.mark.slow
def test_asha_trains_half_the_epochs_and_finds_as_good_a_trial(command, tmp_path):
    """27 trials of at most 27 epochs;
    what is given up at 3 or 9 epochs would not have been best.
    """
    pytest.importorskip("optuna")
    words = [
        "-m",
        "data=wine",
        "trainer=cpu",
        "callbacks=none",
        "logger=none",
        "trainer.max_epochs=27",
    ]
    rates = "optimizer.lr=tag(log,interval(1e-4,0.1))"
    best, epochs = {}, {}
    for pruner in ("none", "asha"):
        sweep = ["sweep.sampler=qmc", "sweep.n_trials=27", f"sweep.pruner={pruner}"]
        ended = command(*words, rates, *sweep, f"name={pruner}")
        assert ended.code == 0, ended.err
        found = results(tmp_path / "logs/sweeps" / pruner)
        assert len(found) == 27
        best[pruner] = min(
            result["objective"]["value"] for result in found if result["status"] == "done"
        )
        epochs[pruner] = sum(result["epochs"] for result in found)
    assert epochs["asha"] <= epochs["none"] / 2
    assert command(*words, "optimizer.lr=0.01", "seed=range(5)", "name=noise").code == 0
    noise = [result["objective"]["value"] for result in results(tmp_path / "logs/sweeps/noise")]
    assert best["asha"] <= best["none"] + (max(noise) - min(noise))


def results(folder: Path) -> list[dict]:
    return [read_result(path.parent) for path in folder.glob("*/result.json")]


@pytest.mark.parametrize(
    "words",
    [
        ["seed=range(0,1000000000)"],
        ["sweep.seeds=1000000000", "model.width=1,2"],
        ["seed=range(0,1000)", "model.width=range(1,1001)"],
        ["sweep.sampler=qmc", "sweep.n_trials=1000000000", "model.width=1,2"],
    ],
)
def test_a_huge_sweep_is_refused_before_anything_is_listed(command, tmp_path, words):
    ended = command("-m", "data=iris", "name=s", *words)
    assert ended.code == 2 and "20,000 are the most; write fewer" in ended.err
    assert len(ended.err.splitlines()) == 1 and not (tmp_path / "logs").exists()


def test_what_takes_long_is_told_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    assert list(progress.shown_progress("abc", 3, "planning trials")) == ["a", "b", "c"]
    assert "planning trials: 1 of 3\n" in capsys.readouterr().err


def test_what_is_done_is_neither_composed_nor_checked_again(command, tmp_path, monkeypatch):
    words = ["-m", *SMALL, "name=s", "logger=none", "optimizer.lr=1e-2,0.1"]
    assert command(*words).code == 0
    monkeypatch.setattr("goldilocks.sweeps.execution.planning.check", None)
    ended = command(*words)
    assert ended.code == 0 and "2 of 2 trials are done already" in ended.err
