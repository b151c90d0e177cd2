"""Leaks, repeated rows and constant targets: what is looked at before any network is."""

import numpy as np
import pytest
import yaml
from sklearn import datasets

from conftest import read_result
from goldilocks.config.compose import compose, prepare_hydra
from goldilocks.data.checks import check_signal, check_single_features
from goldilocks.training.components import prepare
from tables import cars, write

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((300, 4)).astype(np.float32)
FOUR = RANDOM.integers(4, size=300)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.full((300, 1), 2.5, np.float32), "regression"),
        (np.zeros((300, 2), np.float32), "regression"),
        (np.zeros((300, 1), np.float32), "binary"),
        (np.full(300, 3), "multiclass"),
    ],
)
def test_a_constant_target_is_no_leak_and_nothing_to_learn(y, task):
    assert check_single_features(X, y, task).status == "ok"
    found = check_signal(X, y, task)
    assert (found.status, found.advice) == ("failed", "there is nothing to learn from it")
    assert found.measured == "a single value in all training rows"


def test_a_constant_target_among_others_is_no_leak():
    y = np.stack([X[:, 0] + RANDOM.standard_normal(300), np.full(300, 7.0)], axis=1)
    assert check_single_features(X, y, "regression").status == "ok"


@pytest.mark.parametrize("leaked", range(4))
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_leak_of_one_class_is_named_with_its_class_and_column(leaked, noise):
    leak = (leaked == FOUR) + noise * RANDOM.standard_normal(300)
    x = np.column_stack([X, leak]).astype(np.float32)
    names = [*"abcd", "leak"]
    found = check_single_features(x, FOUR, "multiclass", names, ["w", "x", "y", "z"], names)
    assert found.status == "warning"
    assert f"leak alone tells the rows of {'wxyz'[leaked]} from all others" in found.measured
    assert found.overrides == ("data.columns.leak=drop",)


@pytest.mark.parametrize("name", ["iris", "wine", "digits"])
def test_a_class_that_is_easy_to_tell_is_no_leak(name):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    assert check_single_features(x[:, :20].astype(np.float32), y, "multiclass").status == "ok"


def test_no_class_and_a_class_of_few_rows_are_no_leak():
    assert check_single_features(X, FOUR, "multiclass").status == "ok"
    y = np.where(np.arange(300) < 5, 2, FOUR % 2)
    x = np.column_stack([X, y == 2]).astype(np.float32)
    assert check_single_features(x, y, "multiclass").status == "ok"


def test_a_column_that_the_command_line_does_not_take_is_not_advised_to_be_dropped_by_it():
    x = np.column_stack([X, FOUR == 1]).astype(np.float32)
    found = check_single_features(x, FOUR, "multiclass", owners=[*"abcd", "Price (EUR)"])
    assert (found.status, found.overrides) == ("warning", ())


# --- repeated rows --------------------------------------------------------------------------------


def data_of(*words):
    prepare_hydra()
    return prepare(compose(["data=table", *words])[0], warn=False).data


def test_rows_that_are_there_again_are_left_out_where_that_is_asked_for(tmp_path):
    """Though each has a row number of its own.
    Rows of the same features and another target stay.
    """
    head, *rows = cars(120)
    other = [f"{row.rpartition(',')[0]},99" for row in rows[:3]]
    again = [f"{1000 + place},{row.partition(',')[2]}" for place, row in enumerate(rows + other)]
    path = write(tmp_path / "cars.csv", [head, *rows, *again])
    words = [f"data.path={path}", "data.target=price"]
    twice, once = data_of(*words), data_of(*words, "data.drop_duplicates=true")
    assert sum(twice.spec.num_rows.values()) == 243
    assert sum(once.spec.num_rows.values()) == 123
    assert "120 rows that equal another one are left out" in once.notes
    kept = np.concatenate(list(once.row_numbers.values()))
    assert kept.min() == 120 and len(set(kept.tolist())) == 123  # as the file counts them
    check = twice.card()["checks"][0]
    assert (check["status"], check["overrides"]) == ("failed", ["data.drop_duplicates=true"])
    assert once.card()["checks"][0]["overrides"] == []


def test_test_rows_of_a_file_of_their_own_stay(tmp_path):
    head, *rows = cars(100)
    path, test = (
        write(tmp_path / "a.csv", [head, *rows]),
        write(tmp_path / "b.csv", [head, *rows[:30]]),
    )
    words = [f"data.path={path}", f"data.test_path={test}", "data.target=price"]
    assert data_of(*words, "data.drop_duplicates=true").spec.num_rows["test"] == 30


def test_a_constant_target_is_told_of_once_and_of_nothing_else(command, tmp_path):
    head, *rows = cars(90)
    rows = [f"{row.rpartition(',')[0]},2.5" for row in rows]
    path = write(tmp_path / "cars.csv", [head, *rows])
    done = command(
        "data=table",
        f"data.path={path}",
        "data.target=price",
        "trainer=cpu",
        "logger=none",
        "trainer.max_epochs=12",
    )
    findings = read_result(done.folder)["diagnosis"]["findings"]
    assert [finding["name"] for finding in findings] == ["target"]
    card = yaml.safe_load((done.folder / "data_card.yaml").read_text())
    assert [check["status"] for check in card["checks"]] == ["ok", "ok", "failed"]
