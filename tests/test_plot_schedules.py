import sys

import pytest

from conftest import ROOT
from goldilocks.cli import options

sys.path.insert(0, str(ROOT / "scripts"))
import plot_schedules

sys.path.pop(0)


def plot(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["plot_schedules.py", *map(str, words)])
    return plot_schedules.main()


@pytest.fixture
def drawn(monkeypatch):
    """The curves that are drawn, beside the file."""
    found = {}
    draw = plot_schedules.draw
    monkeypatch.setattr(plot_schedules, "draw", lambda curves, path: (found.update(curves), draw(curves, path)))
    return found


def test_every_option_is_drawn(monkeypatch, drawn, tmp_path, capsys):
    path = tmp_path / "new" / "all.png"
    assert plot(monkeypatch, "--output", path, "optimizer=sgd", "trainer.max_epochs=100") == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(drawn) == options("scheduler")
    assert {len(rates) for rates in drawn.values()} == {100 * plot_schedules.STEPS_PER_EPOCH}
    assert set(drawn["constant"]) == {0.03}
    assert all(min(rates) >= 0 and max(rates) <= 0.0300001 for rates in drawn.values())
    assert len(set(drawn["plateau"])) > 3  # the made-up metric comes to rest


def test_chosen_ones_take_their_keys(monkeypatch, drawn, tmp_path):
    words = ["--output", tmp_path / "a.png", "scheduler=step,exponential", "scheduler.gamma=0.25"]
    assert plot(monkeypatch, *words, "optimizer.lr=1", "trainer.max_epochs=30") == 0
    assert list(drawn) == ["step", "exponential"]
    assert [drawn["step"][20 * epoch] for epoch in (0, 19, 20)] == [1, 1, 0.25]
    assert drawn["exponential"][20] == 0.25


def test_plateau_follows_a_metric_that_is_maximised_too(monkeypatch, drawn, tmp_path):
    words = ["--output", tmp_path / "a.png", "scheduler=plateau", "objective.metric=val/accuracy"]
    assert plot(monkeypatch, *words, "trainer.max_epochs=100") == 0
    maximised = dict(drawn)
    assert plot(monkeypatch, *words[:3], "trainer.max_epochs=100") == 0
    assert maximised == drawn


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("scheduler=plateu", "error: scheduler=plateu: no such option; did you mean plateau?"),
        ("scheduler.gamma=0.5", "error: scheduler.gamma: no such key in scheduler"),
        ("trainer.max_epochs=0", "error: trainer.max_epochs=0: "),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_written(word, message, monkeypatch, tmp_path, capsys):
    assert plot(monkeypatch, "--output", tmp_path / "a.png", word) == 2
    assert capsys.readouterr().err.startswith(message)
    assert list(tmp_path.iterdir()) == []
