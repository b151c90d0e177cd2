import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import read_result
from goldilocks.callbacks import Recorder
from goldilocks.callbacks.recorder import save_logs
from goldilocks.machine.interrupts import killed_as_by_ctrl_c, passed_on, uninterrupted
from goldilocks.runs import evaluate as evaluate_module
from goldilocks.runs import run
from goldilocks.runs.evaluate import scores_by_split
from goldilocks.tasks.objective import Objective


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_block(number):
    done = []

    def block():
        with uninterrupted():
            os.kill(os.getpid(), number)
            done.append("the rest of the block")
        done.append("what follows")

    with pytest.raises(KeyboardInterrupt), killed_as_by_ctrl_c():
        block()
    assert done == ["the rest of the block"]


def test_a_second_kill_does_not_disturb_what_the_first_has_begun():
    before, ended = signal.getsignal(signal.SIGTERM), []

    def block():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt), killed_as_by_ctrl_c():
        block()
    assert ended == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_handler_is_the_one_that_was_there_before():
    before = signal.getsignal(signal.SIGINT)
    with uninterrupted():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ValueError, match="own"), uninterrupted():
        raise ValueError("own")
    assert signal.getsignal(signal.SIGINT) is before


def test_what_ignores_interrupts_goes_on_ignoring_them():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_is_left_alone():
    seen = []

    def work():
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


class Interrupted:
    """A logger that is interrupted in the middle of each call."""

    def __init__(self):
        self.finished = []

    def log_metrics(self, metrics, step):
        os.kill(os.getpid(), signal.SIGINT)
        self.finished.append("log_metrics")

    def save(self):
        os.kill(os.getpid(), signal.SIGINT)
        self.finished.append("save")


def test_a_logger_that_is_interrupted_finishes_first():
    logger = Interrupted()
    trainer = SimpleNamespace(loggers=[logger], global_step=3, current_epoch=0)
    module = SimpleNamespace(rows_in_epoch=24, epoch_metrics={"val/loss": 1.0})
    recorder = Recorder(Objective("val/loss", "min"))
    recorder.on_train_epoch_start(trainer, module)
    with pytest.raises(KeyboardInterrupt):
        recorder.on_train_epoch_end(trainer, module)
    with pytest.raises(KeyboardInterrupt):
        save_logs(trainer)
    assert logger.finished == ["log_metrics", "save"]


def test_what_trains_several_runs_ends_with_the_one_that_is_interrupted(monkeypatch):
    seen = []
    monkeypatch.setattr(
        evaluate_module,
        "start",
        lambda *words: seen.append(words) or (None, {"status": "interrupted"}),
    )
    with pytest.raises(KeyboardInterrupt):
        scores_by_split(["data=iris"], 5)
    assert len(seen) == 1
    assert passed_on({"status": "done"}) == {"status": "done"}


@pytest.mark.parametrize("words", [[], ["data.folds=3"]])
def test_what_is_interrupted_before_it_begins_leaves_nothing_but_what_can_be_resumed(
    words, command, monkeypatch
):
    def interrupt(parts):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "threads_for", interrupt)
    monkeypatch.setattr(run.cross_validation, "are_together", lambda *_: False)
    done = command("data=iris", *words)
    assert done.code == 130
    folders = list(Path("logs/runs").iterdir())
    assert [read_result(folder)["status"] for folder in folders] == ["interrupted" for _ in words]
