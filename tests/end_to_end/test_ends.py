"""A run that is killed or interrupted at any moment ends, resumed, as one that was left alone:
to the bit, once.
"""

import math
import os
import random
import re
import shutil
import signal
import time

import pytest
import torch
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from conftest import SMALL, read_result
from goldilocks.callbacks import EvaluationFigures, LastCheckpoint, NetworkHealth
from goldilocks.callbacks.checkpoint import read_history, write_history
from goldilocks.errors import Refused
from goldilocks.runs import run
from goldilocks.sweeps.search.study import Study
from goldilocks.training.checkpoints import load_checkpoint

SAVED = [*SMALL, "callbacks.last_checkpoint.min_seconds=0", "trainer.threads=1"]
QUIET = ["callbacks.evaluation=null", "callbacks.importance=null", "logger=csv"]
# Of iris, an epoch has 4 steps.
ENDINGS = {
    "epochs": ["trainer.max_epochs=3"],
    "patience": [
        "optimizer.lr=1e-9",
        "callbacks.early_stopping.patience=0",
        "trainer.max_epochs=9",
    ],
    "steps": ["trainer.max_steps=8", "trainer.max_epochs=9"],
    "steps within an epoch": ["trainer.max_steps=6", "trainer.max_epochs=9"],
    "divergence": ["optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=9"],
}
# What follows training: the figures of its end, the diagnosis, the test.
AFTER = {
    "figures": (EvaluationFigures, "draw"),
    "diagnosis": (run, "examine"),
    "test": (run, "evaluate"),
}


class Moment:
    """Does something where a function is called, before or after it,
    and remembers how often it was.
    """

    def __init__(self, monkeypatch, owner, name, act, after=False):
        function = getattr(owner, name)
        self.calls = 0

        def wrapped(*args, **options):
            self.calls += 1
            if not after:
                act(self.calls)
            returned = function(*args, **options)
            if after:
                act(self.calls)
            return returned

        monkeypatch.setattr(owner, name, wrapped)


def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)


def copies_of(tmp_path, copies):
    """Copies the run's folder as it is now, which is what a kill leaves of it."""

    def copy(_):
        (folder,) = (tmp_path / "logs" / "runs").iterdir()
        copies.append(tmp_path / "killed" / str(len(copies)))
        shutil.copytree(folder, copies[-1])

    return copy


def state_of(folder, name="last.ckpt"):
    """What a checkpoint says of the network, optimizer, schedule and progress;
    without how long it took.
    """
    path = folder / "checkpoints" / name
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    for callback in state.get("callbacks", {}).values():
        for key in ("train_seconds", "total_seconds", "compile_seconds"):
            callback.pop(key, None)
    return plain(state)


def plain(value):
    """Something that can be compared: tensors as lists, NaN as a word."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return "nan" if value != value else value


def shown(folder):
    """What TensorBoard shows: by tag, the step and content of each event that is not hidden."""
    events = EventAccumulator(str(folder), tensor_size_guidance={}).Reload()
    return {
        tag: [(event.step, event.tensor_proto.SerializeToString()) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if not tag.startswith("_hparams_")
    }


def left(folder):
    """All that a run leaves, without times and paths."""
    result = read_result(folder)
    del result["seconds"], result["examples_per_second"]
    texts = ["metrics.csv", "diagnosis.md", "figures/most_wrong.txt", "checkpoints/history.jsonl"]
    return {
        "result": result,
        "last": state_of(folder),
        "best": state_of(folder, "best.ckpt"),
        "events": shown(folder),
        "files": sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and "tfevents" not in path.name
        ),
        "texts": {
            name: re.sub(r" log_dir=\S+", "", (folder / name).read_text())
            for name in texts
            if (folder / name).exists()
        },
    }


def assert_left_the_same(folder, whole):
    """Part by part, so that a difference can be read."""
    found = left(folder)
    for part, expected in whole.items():
        assert found[part] == expected, part


@pytest.fixture
def killed_after(command, tmp_path, monkeypatch):
    """Trains once and copies the run folder at a moment's calls;
    returns what the run left, and the copies.
    """

    def train(owner, name, words, after=False):
        copies = []
        with monkeypatch.context() as patch:
            Moment(patch, owner, name, copies_of(tmp_path, copies), after)
            done = command(*SAVED, *words)
        whole = left(done.folder)
        shutil.rmtree(done.folder)
        return whole, copies

    return train


# --- training is over -----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_killed_after_training_is_not_trained_again(ending, killed_after, command):
    whole, (copy,) = killed_after(run, "examine", [*ENDINGS[ending], *QUIET])
    command(f"resume={copy}")
    assert_left_the_same(copy, whole)
    assert whole["result"]["epochs"] < 9


def test_a_run_interrupted_after_training_ends_as_if_it_was_not(command, monkeypatch):
    """In its figures, its diagnosis and its test, one after the other."""
    words = [*SAVED, *ENDINGS["patience"]]
    whole = left(command(*words).folder)
    folder = None
    for owner, name in AFTER.values():
        with monkeypatch.context() as patch:
            Moment(patch, owner, name, interrupt)
            done = command(*words) if folder is None else command(f"resume={folder}")
        folder = folder or done.folder
        assert done.code == 130
    assert command(f"resume={folder}").code == 0
    assert_left_the_same(folder, whole)


def test_a_fold_that_is_over_is_not_trained_again(command, monkeypatch):
    words = [*SAVED, *QUIET, *ENDINGS["patience"], "data.folds=2"]
    whole = command(*words).folder
    with monkeypatch.context() as patch:
        Moment(patch, run, "evaluate", lambda calls: calls == 2 and interrupt())
        done = command(*words)
    assert done.code == 130
    assert command(f"resume={done.folder}").code == 0
    for fold in ("fold_0", "fold_1"):
        assert_left_the_same(done.folder / fold, left(whole / fold))


def test_a_trial_that_is_given_up_or_over_is_not_trained_again(command, monkeypatch, tmp_path):
    """The first one's pruner decides in its third epoch;
    both are interrupted in their diagnosis.
    """
    words = ["-m", *SAVED, *QUIET, "sweep.pruner=median", "trainer.max_epochs=5", "name=given_up"]
    words += ["seed=1,2", "callbacks.early_stopping=null"]
    monkeypatch.setattr(Study, "report", lambda self, number, epochs, value: epochs == 3)
    statuses = []
    for _ in range(3):
        with monkeypatch.context() as patch:
            if len(statuses) < 2:
                Moment(patch, run, "examine", lambda calls: interrupt())
            command(*words)
        folders = [tmp_path / "logs/sweeps/given_up" / number for number in "01"]
        statuses.append([read_result(folder)["status"] for folder in folders if folder.exists()])
    assert statuses[-1] == ["pruned", "pruned"]
    for folder in folders:
        assert read_result(folder)["epochs"] == 3
        assert state_of(folder)["epoch"] == 2


# --- within training ------------------------------------------------------------------------------


def test_a_run_with_a_limit_of_steps_resumes_from_every_epoch(killed_after, command):
    words = ["trainer.max_steps=5", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=9"]
    whole, copies = killed_after(LastCheckpoint, "on_train_epoch_end", [*words, *QUIET], after=True)
    assert len(copies) == whole["result"]["epochs"] == 3
    for copy in copies:
        assert command(f"resume={copy}").code == 0
        assert_left_the_same(copy, whole)


def test_a_run_gets_more_steps_and_ends_as_one_that_had_them_from_the_start(command):
    words = [*SAVED, *QUIET, "trainer.max_epochs=9"]
    whole = left(command(*words, "trainer.max_steps=9").folder)
    done = command(*words, "trainer.max_steps=6")  # two epochs of three steps
    assert command(f"resume={done.folder}", "trainer.max_steps=9").code == 0
    assert_left_the_same(done.folder, whole)
    assert "trainer.max_steps=9" in (done.folder / "overrides.yaml").read_text()


def test_an_epoch_that_the_limit_has_cut_stays_as_it_is(command):
    done = command(*SAVED, *QUIET, "trainer.max_epochs=9", "trainer.max_steps=4")
    assert command(f"resume={done.folder}", "trainer.max_steps=8").code == 0
    result = read_result(done.folder)
    assert (result["steps"], result["epochs"]) == (8, 4)  # of 3, 1, 3 and 1 steps


REFUSED = {
    "less": ([], "trainer.max_steps=2", "this run has done 4 steps already"),
    "schedule": (
        ["scheduler=onecycle"],
        "trainer.max_steps=9",
        "schedule is drawn over 9 epochs or",
    ),
    "swa": (
        ["regularization=swa"],
        "trainer.max_steps=9",
        "mean of the weights (swa) is drawn over",
    ),
    "none": ([], "trainer.max_steps=0", "trainer.max_steps=0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_length_that_cannot_be_given_is_refused_in_a_line(case, command):
    options, word, expected = REFUSED[case]
    words = [*SAVED, *QUIET, "trainer.max_epochs=9", "trainer.max_steps=4", *options]
    done = command(*words, "callbacks.early_stopping=null")
    before = left(done.folder)
    refused = command(f"resume={done.folder}", word)
    assert refused.code == 2 and expected in refused.err and refused.err.count("\n") == 1
    assert_left_the_same(done.folder, before)


def test_what_another_limit_has_ended_says_so(command):
    done = command(*SAVED, *QUIET, "trainer.max_epochs=9", "trainer.max_steps=4")
    again = command(f"resume={done.folder}", "trainer.max_epochs=20")
    assert again.code == 0 and "done at trainer.max_steps=4: nothing to resume" in again.err


# --- signals at random moments --------------------------------------------------------------------

LONG = ["trainer.max_epochs=999", "trainer.max_steps=200", "callbacks.early_stopping=null"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sign"),
    [(ENDINGS["epochs"], "figures"), (LONG, "result.json")],
    ids=["figures", "steps"],
)
def test_twenty_signals_at_random_moments(words, sign, command, tmp_path):
    """A run of its own process gets a signal between the sign of a phase and its end;
    then it is resumed here.
    """
    whole, chance, broken = left(command(*SAVED, *words).folder), random.Random(0), 0
    began, _ = ended_by(command, words, tmp_path / "timed", sign, None)
    for number in range(20):
        home, kind = (
            tmp_path / str(number),
            (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % 3],
        )
        _, code = ended_by(command, words, home, sign, (kind, chance.uniform(0, began)))
        (folder,) = (home / "runs").iterdir()
        broken += code != 0
        assert command(f"resume={folder}").code == 0
        assert_left_the_same(folder, whole)
    assert broken > 10


def ended_by(command, words, home, sign, blow):
    """Trains in a forked process, to which a signal is sent some time after a file has appeared.

    Returns:
        Seconds from the file to the end, and how the process ended.
    """
    child = os.fork()
    if child == 0:
        code = 130  # of a signal that comes before the command waits for it
        try:
            code = command(*SAVED, *words, f"log_dir={home}").code
        finally:
            os._exit(code)
    while not any(home.glob(f"runs/*/{sign}")):
        time.sleep(0.001)
    began = time.monotonic()
    if blow:
        time.sleep(blow[1])
        os.kill(child, blow[0])
    _, status = os.waitpid(child, 0)
    return time.monotonic() - began, os.waitstatus_to_exitcode(status)


# --- before the first checkpoint, and what checkpoints hold ---------------------------------------


def test_a_run_killed_before_its_first_checkpoint_begins_again(killed_after, command):
    """It may have a best.ckpt, and rows and events of many epochs."""
    words = ["callbacks.last_checkpoint.min_seconds=1000", "callbacks.evaluation=null"]
    whole, copies = killed_after(NetworkHealth, "on_train_epoch_end", words)
    for copy in copies:
        (copy / "metrics.csv").write_text("step,val/loss\n99,1.0\n")
        torch.save({}, copy / "checkpoints" / "best.ckpt")
        assert command(f"resume={copy}").code == 0
        assert_left_the_same(copy, whole)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_no_flipped_bit_of_a_checkpoint_is_taken_for_its_content(name, command):
    folder = command(*SAVED, *QUIET).folder
    path = folder / "checkpoints" / name
    content, expected = path.read_bytes(), plain(load_checkpoint(path))
    refused = 0
    for place in range(0, len(content), len(content) // 150):
        path.write_bytes(flipped(content, place, place % 8))
        try:
            assert plain(load_checkpoint(path)) == expected
        except Refused:
            refused += 1
    assert refused > 100
    path.write_bytes(flipped(content, len(content) // 2, 3))
    words = [f"resume={folder}", "trainer.max_epochs=9"]
    if name == "last.ckpt":
        refused = command(*words)
        assert refused.code == 2 and refused.err.count("\n") == 1
        assert "truncated or damaged" in refused.err


def flipped(content, place, bit):
    """Bytes of which one bit is the other."""
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_a_checkpoint_does_not_grow_with_the_run(command):
    short = command(*SAVED, *QUIET).folder / "checkpoints"
    long = command(*SAVED, *QUIET, "trainer.max_epochs=40").folder / "checkpoints"
    short_size, long_size = ((of / "last.ckpt").stat().st_size for of in (short, long))
    assert long_size < short_size + 200
    assert len((long / "history.jsonl").read_text().splitlines()) == 40


def test_a_history_is_taken_up_to_the_checkpoint_and_what_it_lacks_is_said(tmp_path, capsys):
    path = tmp_path / "history.jsonl"
    epochs = [{"val/loss": 0.1 * epoch, "train/loss": math.nan} for epoch in range(4)]
    write_history(path, epochs)
    with path.open("a") as file:
        file.write('{"val/lo')
    assert repr(read_history(path, 3)) == repr(epochs[:3])
    assert not capsys.readouterr().err
    assert repr(read_history(path, 6)) == repr([*epochs, {}, {}])
    assert "lacks epochs" in capsys.readouterr().err
