"""sweep.folds=auto."""

import pytest

from conftest import SMALL, read_result
from goldilocks.sweeps import folds as own_folds
from goldilocks.sweeps.execution import forecast

SWEEP = ["-m", *SMALL, "name=s", "logger=none", "callbacks.evaluation=null"]


def test_trials_of_few_rows_are_judged_by_folds(command, tmp_path):
    words = [*SWEEP, "model.width=4,8", "sweep.folds=auto", "trainer.max_epochs=1"]
    ended = command(*words)
    assert ended.code == 0, ended.err
    assert "sweep.folds=auto: 30 validation rows are too few to tell trials apart" in ended.err
    for number in range(2):
        assert read_result(tmp_path / "logs/sweeps/s" / str(number))["folds"] == 5
    again = command(*words)
    assert "2 of 2 trials are done already" in again.err


@pytest.mark.parametrize(
    ("override", "rows"), [("data.folds=2", 1), ("data.val_fraction=0.2", 30), ("seed=0", 1)]
)
def test_folds_that_are_given_and_many_rows_stay(override, rows, command, tmp_path, monkeypatch):
    monkeypatch.setattr(own_folds, "FEW_ROWS", rows)
    words = [*SWEEP, override, "model.width=4,8", "sweep.folds=auto", "trainer.max_epochs=1"]
    ended = command(*words)
    assert ended.code == 0, ended.err
    assert "sweep.folds" not in ended.err
    found = read_result(tmp_path / "logs/sweeps/s/0").get("folds")
    assert found == (2 if override == "data.folds=2" else None)


def test_data_that_say_which_rows_validate_have_no_folds(command, tmp_path):
    lines = [f"{n % 7},{n % 3},{'val' if n % 5 == 0 else 'train'}" for n in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["a,y,part", *lines]))
    data = ["data=table", "data.path=rows.csv", "data.target=y", "data.split_column=part"]
    words = [*SWEEP, *data, "model.width=4,8", "sweep.folds=auto", "trainer.max_epochs=1"]
    ended = command(*words)
    assert ended.code == 0, ended.err
    assert "sweep.folds=auto: no folds here (" in ended.err


def test_the_dry_run_counts_all_networks(command, monkeypatch):
    monkeypatch.setattr(forecast, "probe", lambda trial, rows: (0.1, 0.0))
    for more, told in ((), "1 trials, 1 at a time: 20 s"), (("sweep.folds=auto",), ": 2 min"):
        words = [*SWEEP, "model.width=4", "trainer.max_epochs=200", "sweep.dry_run=true", *more]
        ended = command(*words)
        assert ended.code == 0, ended.err
        assert told in ended.out
