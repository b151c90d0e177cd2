"""The course of a guided search: its time, its story, and what is left of it when it is stopped."""

import csv
import json
import time

import pytest

from goldilocks.sweeps.execution import launching
from goldilocks.sweeps.guide import allowance
from goldilocks.sweeps.guide.record import read_story

QUICK = [
    *("data=wine", "trainer=cpu", "trainer.max_epochs=2", "logger=none", "sweep.folds=null"),
    *("callbacks.progress_bar=null", "callbacks.evaluation=null", "callbacks.importance=null"),
    "callbacks.health=null",
]
GUIDE = ["-m", "sweep=guide", *QUICK]
STEPS = ["look", "portfolio", "explore", "refine", "finalists"]


def story_of(folder):
    """What was trained and what came of it, in the order of the trials."""
    with (folder / "trials.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    batches = read_story(folder).batches
    return rows, [(one.step, one.key, one.trials, one.question) for one in batches]


def test_trials_in_place_of_time_give_the_same_story_twice(command, tmp_path):
    found = []
    for name in ("a", "b"):
        ended = command(*GUIDE, "sweep.n_trials=24", f"name={name}")
        assert ended.code == 0, ended.err
        found.append(story_of(tmp_path / "logs/sweeps" / name))
    assert found[0] == found[1]
    rows, batches = found[0]
    assert list(dict.fromkeys(step for step, *_ in batches)) == STEPS
    assert len(rows) == 24 and {row["status"] for row in rows} == {"done"}
    told = json.loads((tmp_path / "logs/sweeps/a/guide.json").read_text())["told"]
    names = [row[0] for row in told["table"]]
    assert names[:3] == ["constant", "linear", "trees"] and names[-1] == "this search"
    assert all(value is not None for row in told["table"] for value in row)
    assert len(told["answers"]) == 18
    ensemble = json.loads((tmp_path / "logs/sweeps/a/ensemble/result.json").read_text())
    assert ensemble["metrics"]["test/loss"] == pytest.approx(told["table"][-1][3])
    assert "The verdict" in (tmp_path / "logs/sweeps/a/report.md").read_text()


@pytest.mark.parametrize(
    "step", [pytest.param(one, marks=pytest.mark.slow if one != "explore" else ()) for one in STEPS]
)
def test_it_goes_on_where_it_was_stopped(step, command, tmp_path, monkeypatch):
    whole = command(*GUIDE, "sweep.n_trials=16", "name=whole")
    assert whole.code == 0, whole.err

    original, calls = launching.Launch.run, []

    def run(self, waiting, proposals):
        calls.append(waiting)
        if read_story(self.folder).batches[-1].step == step:
            raise KeyboardInterrupt
        original(self, waiting, proposals)

    with monkeypatch.context() as patched:
        patched.setattr(launching.Launch, "run", run)
        ended = command(*GUIDE, "sweep.n_trials=16", "name=s")
    assert ended.code == 130 and calls
    folder = tmp_path / "logs/sweeps/s"
    if step != "look":
        assert (folder / "report.md").exists()
        assert "The verdict" in (folder / "report.md").read_text()
    again = command(*GUIDE, "sweep.n_trials=16", "name=s")
    assert again.code == 0, again.err
    assert story_of(folder) == story_of(tmp_path / "logs/sweeps/whole")


def test_more_trials_go_on(command, tmp_path):
    assert command(*GUIDE, "sweep.n_trials=4", "name=s").code == 0
    before = story_of(tmp_path / "logs/sweeps/s")[0]
    ended = command(*GUIDE, "sweep.n_trials=12", "name=s")
    assert ended.code == 0, ended.err
    after = story_of(tmp_path / "logs/sweeps/s")[0]
    assert len(after) == 12
    assert [row["objective"] for row in after[:4]] == [row["objective"] for row in before]


@pytest.mark.parametrize("budget", [60, 600])
def test_the_course_keeps_to_its_time(budget, command, tmp_path, monkeypatch):
    """Trials take the time that their epochs say, until the deadline, by a clock that is ours."""
    clock = [time.time()]
    monkeypatch.setattr(allowance.Allowance, "__post_init__", lambda self: start(self, clock))
    monkeypatch.setattr(launching.Launch, "run", lambda self, *given: pretend(self, *given, clock))
    began = clock[0]
    ended = command(*GUIDE, f"sweep.budget={budget}s", "name=s", "trainer.max_epochs=60")
    assert ended.code == 0, ended.err
    assert 0.75 * budget < clock[0] - began < budget
    steps = {batch.step for batch in read_story(tmp_path / "logs/sweeps/s").batches if batch.trials}
    assert steps == set(STEPS)


def start(self, clock):
    self.now = lambda: clock[0]
    self.began = clock[0]


def pretend(launch, waiting, proposals, clock):
    """Writes results in place of training; an epoch takes a 3000th of the budget."""
    each = launch.settings.budget / 3000
    from goldilocks.sweeps.execution.trials import deadline_of

    for trial in waiting:
        epochs = trial.config.trainer.max_epochs
        left = (deadline_of(launch.folder) or clock[0]) - clock[0]
        taken = max(min(epochs, int(left / each) + 1), 1)
        clock[0] += each * taken
        own = launch.folder / str(trial.number)
        own.mkdir(exist_ok=True)
        value = 1 - 0.001 * (int(trial.config_hash, 16) % 100) - 0.001 * taken
        result = {
            "status": "done",
            "objective": {"metric": "val/loss", "mode": "min", "value": value},
            "metrics": {"val/loss": value},
            "epochs": taken,
            "steps": taken,
            "seconds": {"total": each * taken, "train": each * taken},
            "best_epoch": 0,
            "num_parameters": 10,
            "learning_rate": 0.1,
            "error": None,
        }
        (own / "result.json").write_text(json.dumps(result))
        trial.result = result


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep=guide"], "sweep=guide: needs a time"),
        (["sweep=guide", "sweep.budget=abc"], "sweep.budget=abc: a time above zero is expected"),
        (["sweep=guide", "sweep.budget=5s"], "sweep.budget=5s: is too short"),
        (["sweep=guide", "sweep.budget=1m", "sweep.n_trials=9"], "sweep.n_trials=9: sweep.budget"),
        (["sweep.budget=1m", "model=deep,shallow"], "sweep.budget=60s: is of sweep=guide"),
        (["sweep=guide", "sweep.budget=1m", "sweep.seeds=2"], "sweep.seeds: is what sweep=guide"),
        (["sweep=guide", "sweep.budget=1m", "seed=1,2"], "seed=1,2: sweep=guide searches by"),
    ],
)
def test_wrong_input_is_one_line(words, said, command, tmp_path):
    ended = command("-m", *QUICK, *words, "name=s")
    assert ended.code == 2
    assert said in ended.err and ended.err.count("\n") == 1, ended.err
    assert not (tmp_path / "logs").exists()


def test_what_the_command_says_is_kept(command, tmp_path):
    words = ["model=shallow", "optimizer.lr=0.02", "sweep.n_trials=10", "name=s"]
    ended = command(*GUIDE, *words)
    assert ended.code == 0, ended.err
    for path in (tmp_path / "logs/sweeps/s/trials").glob("[0-9]*.json"):
        known = json.loads(path.read_text())
        assert known["choices"]["model"] == "shallow"
        assert known["config"]["optimizer"]["lr"] == 0.02
