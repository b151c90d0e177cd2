"""Baselines of a sweep: fitted once, the numbers of a run's, beside the best trial and ensemble."""

import json
import re

import pytest

from conftest import read_result
from goldilocks.sweeps import baselines
from goldilocks.training.outcome import read_outcome

QUICK = [
    *("data=wine", "trainer=cpu", "trainer.max_epochs=3", "logger=none"),
    *("callbacks.progress_bar=null", "callbacks.evaluation=null", "callbacks.importance=null"),
]
SWEEP = ["-m", *QUICK, "name=s", "model.width=8,16"]
ALONE = r"[\d.]+( ± [\d.]+)?"
SENTENCE = (
    rf"Was a network worth it\? val/loss of the same \d+ validation rows: the best trial {ALONE},"
    rf" the ensemble {ALONE}, boosted trees {ALONE}, linear {ALONE}, constant {ALONE}\. The best"
    r" trial: a linear model and boosted trees are better; the ensemble: .* are better\."
)


@pytest.mark.parametrize("folds", ["null", "3"])
def test_the_models_are_those_of_a_run_on_the_same_rows(folds, command, tmp_path):
    ended = command(*SWEEP, f"data.folds={folds}")
    assert ended.code == 0, ended.err
    assert re.search(SENTENCE, ended.out), ended.out
    folder = tmp_path / "logs/sweeps/s"
    known = json.loads((folder / "report.json").read_text())["baselines"]
    assert known["rows"] == len(read_outcome(folder / "0/predictions/val.npz").rows)
    alone = command(*QUICK, "model.width=8", f"data.folds={folds}")
    expected = read_result(alone.folder)["baselines"]
    for name in ("constant", "linear", "trees"):
        for what in ("best", "ensemble"):
            found = known[what][name]["metrics"]["val/loss"]
            assert found == pytest.approx(expected[name]["metrics"]["val/loss"], rel=1e-4), name
        assert not any(key.startswith("test/") for key in known["best"][name]["metrics"])
    best = json.loads((folder / "report.json").read_text())["best"]
    own = read_result(folder / str(best))
    value = known["best"]["network"]["metrics"]["val/loss"]
    if folds == "null":
        assert value == pytest.approx(own["metrics"]["val/loss"], rel=1e-4)


def test_they_are_fitted_once_for_the_same_rows(command, tmp_path, monkeypatch):
    fitted = []

    def counted(*given):
        fitted.append(given)
        return original(*given)

    original = baselines.fitted_models
    monkeypatch.setattr(baselines, "fitted_models", counted)
    command(*SWEEP)
    command(*SWEEP)
    again = command(*SWEEP[:-1], "model.width=8,16,4")
    assert "Was a network worth it?" in again.out
    assert len(fitted) == 1 and fitted[0][-1] == baselines.LEAST_SECONDS


@pytest.mark.parametrize(
    "words", [["callbacks.baselines=null"], ["data=digits", "model=cnn"], ["kept_predictions=0"]]
)
def test_where_there_are_none_nothing_is_said(words, command, tmp_path):
    ended = command(*SWEEP[:-1], "seed=0,1", *words, "trainer.max_epochs=1")
    assert ended.code == 0, ended.err
    assert "worth" not in ended.out and "baselines were" not in ended.err
    assert not (tmp_path / "logs/sweeps/s/baselines").exists()
    assert json.loads((tmp_path / "logs/sweeps/s/report.json").read_text())["baselines"] is None


def test_data_that_are_gone_fail_no_sweep(command, tmp_path, monkeypatch):
    def gone(*given):
        raise OSError("no space left")

    monkeypatch.setattr(baselines, "fitted_models", gone)
    ended = command(*SWEEP)
    assert ended.code == 0 and "report" in ended.out
    assert "warning: no baselines were fitted (OSError: no space left)" in ended.err
