"""A check that was passed is not made again, as long as all that it depends on is the same."""

import sys
import types

import pytest

from goldilocks.config import passed
from goldilocks.config.passed import once
from goldilocks.errors import Refused


@pytest.fixture(autouse=True)
def none_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passed, "passed", {})


def counted(*abouts: tuple) -> int:
    made: list[tuple] = []
    for about in abouts:
        once(lambda about=about: made.append(about), *about)
    return len(made)


def test_the_same_check_is_made_once() -> None:
    assert counted(("a", {"lr": 0.1}), ("a", {"lr": 0.1})) == 1


@pytest.mark.parametrize("other", [("b", {"lr": 1}), ("a", {"lr": 1.0}), ("a", {"lr": True})])
def test_whatever_differs_is_checked(other: tuple) -> None:
    assert counted(("a", {"lr": 1}), other) == 2


def test_a_class_that_was_written_again_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("rewritten")
    monkeypatch.setitem(sys.modules, "rewritten", module)
    node = {"inner": [{"_target_": "rewritten.Own"}]}
    module.Own = type("Own", (), {})
    assert counted(("a", node)) == 1
    module.Own = type("Own", (), {})
    assert counted(("a", node)) == 1


def test_what_is_refused_is_refused_each_time() -> None:
    def refuse() -> None:
        raise Refused("no")

    for _ in range(2):
        with pytest.raises(Refused):
            once(refuse, "a")


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passed, "MOST", 2)
    assert counted(("a",), ("b",), ("c",), ("a",)) == 4
    assert len(passed.passed) == 2
