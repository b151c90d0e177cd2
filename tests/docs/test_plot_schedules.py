"""The picture of all schedules is drawn;
what it draws is compared with formulas in test_schedulers.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from conftest import ROOT
from goldilocks.config.compose import prepare_hydra
from goldilocks.config.options import options

SCRIPT = ROOT / "scripts" / "plot_schedules.py"


def start(folder: Path, *words: str) -> subprocess.CompletedProcess:
    path = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(
        path, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_every_schedule_is_drawn_and_nothing_is_trained(tmp_path: Path) -> None:
    done = start(tmp_path, "--output", "figures/all.png", "trainer.max_epochs=20")
    assert (done.returncode, done.stdout.strip()) == (0, "figures/all.png"), done.stderr
    assert (tmp_path / "figures" / "all.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]


def test_a_wrong_key_is_refused_in_one_line(tmp_path: Path) -> None:
    done = start(tmp_path, "scheduler=wsd", "scheduler.decay=log")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert done.stderr == "error: scheduler.decay=log: one of sqrt, linear, cosine is expected\n"


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    prepare_hydra()
    from plot_schedules import rates

    yield rates
    GlobalHydra.instance().clear()


@pytest.mark.parametrize("name", options("scheduler"))
def test_the_rates_drawn_are_those_of_a_run(rates, name: str) -> None:
    places, found = rates(name, ["trainer.max_epochs=20", "optimizer.lr=0.5", "scheduler=ignored"])
    assert (len(places), len(found)) == (400, 400)
    assert (places[0], places[-1]) == (0, 19.95)
    assert 0 <= min(found) <= max(found) == pytest.approx(0.5, rel=0.02)


def test_plateau_is_shown_a_metric_that_stops_improving(rates) -> None:
    found = rates("plateau", ["trainer.max_epochs=40", "optimizer.lr=0.5"])[1]
    assert sorted(set(found)) == [0.0625, 0.125, 0.25, 0.5]
