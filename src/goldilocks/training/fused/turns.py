"""Runs that take turns: each in a thread of its own, of which one is awake at a time.

What is asked for together (the steps of an epoch) is asked by each run where it needs it, and the
run sleeps until the answer is there. So a run is the same code, alone or with others, and nothing
of it happens while another one is awake: generators, files and printing need no locks.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class Ended(SystemExit):
    """What a run is woken with when it must not go on, as after Ctrl-C."""


@dataclass
class Works:
    """What a run asks for whose parts take turns with all others, as the folds of several trials
    do: that they are run to their ends.
    """

    works: Sequence[Callable[["Partner"], None]]


class Partner:
    """A run that takes turns with others.

    Args:
        work: The whole run. It is given this partner, and asks it.
    """

    def __init__(self, work: Callable[["Partner"], None]) -> None:
        self._work = work
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._awake = False
        self._answer: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.question: Any = None
        self.ended = False
        self.error: BaseException | None = None  # what ended its work
        self.asleep = 0.0  # seconds, less its share of what was done together meanwhile
        self.share = 0.0  # of the seconds that the last answers took

    def turn(self, answer: Any = None) -> None:
        """Lets the run go on with an answer to what it asked, until it asks again or has ended.

        Args:
            answer: An exception is raised where the run has asked.

        Raises:
            KeyboardInterrupt: if that came meanwhile, when the run sleeps again.
        """
        interrupt = None
        self._answer = answer
        self.question = None
        self._awake = True
        self._go.release()
        while self._awake:  # and not "has been released": an interrupt may come just after that
            try:
                self._back.acquire(timeout=1)
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def ask(self, question: Any) -> Any:
        """Called by the run: sleeps until the question is answered."""
        self.question = question
        began = time.perf_counter()
        self._sleep()
        self.asleep += time.perf_counter() - began - self.share
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def clock(self) -> float:
        """Seconds that the run itself has taken, from any moment on."""
        return time.perf_counter() - self.asleep

    def _sleep(self) -> None:
        self._awake = False
        self._back.release()
        self._go.acquire()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._work(self)
        except BaseException as error:
            self.error = error
        self.ended = True
        self._awake = False
        self._back.release()


def answer_all(partners: list[Partner], answers: Callable[[list[Partner]], list[Any]]) -> None:
    """Runs all partners to their ends.

    Args:
        partners: None of which has had a turn.
        answers: To the questions of those that have asked, in their order.

    Raises:
        KeyboardInterrupt: after all partners have ended, if that came meanwhile.
    """
    interrupt: BaseException | None = None
    waiting: list[tuple[Partner, Any]] = [(partner, None) for partner in partners]
    whole: list[tuple[Partner, list[Partner]]] = []  # that sleep until their parts have ended
    while waiting:
        for partner, answer in waiting:
            try:
                partner.turn(answer if interrupt is None else Ended())
            except KeyboardInterrupt as error:
                interrupt = error
        asking = [partner for partner, _ in waiting if not partner.ended]
        begun = [(one, parts_of(one)) for one in asking if isinstance(one.question, Works)]
        whole += begun
        asking = [partner for partner in asking if not isinstance(partner.question, Works)]
        waiting = [(part, None) for _, parts in begun for part in parts]
        if asking:
            began = time.perf_counter()
            try:
                found = answers(asking) if interrupt is None else [Ended()] * len(asking)
            except KeyboardInterrupt as error:
                interrupt = error
                found = [Ended()] * len(asking)
            except Exception as error:  # of the step: each run says so
                found = [error] * len(asking)
            for partner in asking:
                partner.share = (time.perf_counter() - began) / len(asking)
            waiting += zip(asking, found, strict=True)
        ready = [(one, parts) for one, parts in whole if all(part.ended for part in parts)]
        whole = [pair for pair in whole if pair not in ready]
        waiting += ready
    if interrupt is not None:
        raise interrupt


def parts_of(partner: Partner) -> list[Partner]:
    """The parts that a run has asked for, as partners."""
    return [Partner(work) for work in partner.question.works]
