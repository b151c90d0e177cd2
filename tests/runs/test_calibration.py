"""Temperatures and thresholds: their formulas, and what runs and ensembles do with them."""

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, log_loss

import goldilocks
from conftest import read_result
from finished import finished
from goldilocks.errors import Refused
from goldilocks.runs.calibration import (
    PRIOR,
    Calibration,
    calibrate,
    fitted_temperature,
    read_calibration,
    tempered,
)
from goldilocks.runs.ensembles import kept
from goldilocks.runs.ensembling import make_ensemble
from goldilocks.runs.evaluate import evaluate_run
from goldilocks.runs.thresholds import chosen_threshold, counts, judged, scores


def loss_of(predicted, true):
    """The log-loss by its definition."""
    return -np.log(predicted.astype(float)[np.arange(len(true)), true]).mean()


def softmax(logits):
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def rows_of(sharpness, rows=2000, classes=3, seed=0):
    """Probabilities that are too sharp by a factor, and classes drawn by the right ones."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, classes)) * 1.5
    right = softmax(logits)
    true = (right.cumsum(1) < random.random((rows, 1))).sum(1)
    return softmax(sharpness * logits).astype(np.float32), true


# --- temperature ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_temperature_divides_the_logits(temperature):
    logits = np.array([[2.0, -1.0, 0.5], [30.0, -30.0, 0.0]])
    found = tempered(softmax(logits).astype(np.float32), temperature)
    assert np.allclose(found, softmax(logits / temperature), rtol=1e-4)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_that_by_which_probabilities_are_too_sharp(sharpness):
    predicted, true = rows_of(sharpness)
    found = fitted_temperature(predicted, true)
    assert found == pytest.approx(sharpness, rel=0.1)
    logs = np.log(predicted.astype(float))
    grid = np.exp(np.linspace(-2, 2, 4001))
    sums = [
        log_loss(true, softmax(logs / one), normalize=False) + np.log(one) ** 2 / 2 / PRIOR**2
        for one in grid[::40]
    ]
    assert found == pytest.approx(grid[::40][np.argmin(sums)], rel=0.03)


def test_rows_that_are_all_right_do_not_make_every_probability_one():
    predicted = np.full((30, 2), 0.1, np.float32)
    predicted[:, 1] = 0.9
    found = fitted_temperature(predicted, np.ones(30, int))
    assert 0.3 < found < 1  # without the prior it would be the least there is, 0.1


def test_what_a_temperature_gains_is_told_of_rows_that_it_was_not_fitted_on():
    predicted, true = rows_of(3.0)
    entry = calibrate("auto", predicted, true)
    assert entry["reason"] == "" and entry["temperature"] == pytest.approx(3.0, rel=0.1)
    assert entry["before"]["log_loss"] == pytest.approx(loss_of(predicted, true), rel=1e-5)
    assert entry["after"]["log_loss"] < entry["before"]["log_loss"]
    assert entry["after"]["ece"] < 0.05 < entry["before"]["ece"]
    assert entry["gain"] == pytest.approx(
        entry["before"]["log_loss"] - entry["after"]["log_loss"], rel=1e-4
    )


@pytest.mark.parametrize(
    ("sharpness", "rows", "said"),
    [
        (1.0, 2000, "no gain of more than a standard error"),
        (3.0, 19, "fewer than 20 validation rows"),
    ],
)
def test_auto_leaves_probabilities_as_they_are_without_a_reason(sharpness, rows, said):
    predicted, true = rows_of(sharpness, rows)
    assert calibrate("auto", predicted, true)["reason"] == said
    assert calibrate("auto", predicted, true)["temperature"] == 1
    assert calibrate("temperature", predicted, true)["temperature"] != 1


def test_auto_sharpens_only_where_enough_rows_are_wrong():
    predicted, true = rows_of(0.5)
    assert calibrate("auto", predicted, true)["temperature"] == pytest.approx(0.5, rel=0.1)
    right = predicted.argmax(1) == true
    known = calibrate("auto", predicted[right], true[right])
    assert known["temperature"] == 1 and known["reason"].startswith("fewer than 10 wrong rows")


# --- threshold ------------------------------------------------------------------------------------


def two_classes(rows=300, seed=0):
    random = np.random.default_rng(seed)
    positive = random.random(rows) < 0.2
    probability = 1 / (1 + np.exp(-(random.normal(size=rows) + 1.5 * positive - 1.5)))
    return probability.astype(np.float32), positive


@pytest.mark.parametrize("rule", ["f1", "balanced_accuracy", "cost"])
def test_a_threshold_is_the_best_that_there_is(rule):
    probability, positive = two_classes()
    costs = (1.0, 5.0)

    def score(threshold):
        said = probability > threshold
        if rule == "f1":
            return f1_score(positive, said)
        if rule == "balanced_accuracy":
            return balanced_accuracy_score(positive, said)
        return -np.mean(costs[0] * (said & ~positive) + costs[1] * (~said & positive))

    found = chosen_threshold(rule, probability, positive, costs)
    assert found != 0.5
    assert score(found) == pytest.approx(max(map(score, np.linspace(0, 1, 5001))), abs=1e-9)
    table = counts(np.array([found]), probability, positive)
    assert table[0].tolist() == confusion_matrix(positive, probability > found).tolist()
    assert scores(rule, table, costs)[0] == pytest.approx(score(found))
    entry = judged(rule, found, probability, positive, costs)
    sign = -1 if rule == "cost" else 1
    assert sign * entry["value_at_half"] == pytest.approx(score(0.5))


def test_as_good_as_the_best_is_a_half():
    probability = np.array([0.1, 0.2, 0.8, 0.9], np.float32)
    positive = np.array([False, False, True, True])
    assert chosen_threshold("f1", probability, positive, (1, 1)) == 0.5


def test_dear_misses_lower_the_threshold():
    probability, positive = two_classes()
    found = [chosen_threshold("cost", probability, positive, (1, cost)) for cost in (0.2, 1, 20)]
    assert found[0] > found[1] > found[2]


# --- runs -----------------------------------------------------------------------------------------

OPTIONS = [
    "task.calibration=temperature",
    "task.threshold=cost",
    "task.false_negative_cost=30",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three of two classes, with a temperature and a threshold each."""
    folder = tmp_path_factory.mktemp("runs")
    return [finished(folder, "data=breast_cancer", *OPTIONS, f"seed={seed}") for seed in range(3)]


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    return finished(folder, "data=breast_cancer", *OPTIONS, "data.folds=3")


def check_calibrated(folder):
    """The temperature is fitted on the kept rows, and in every number and prediction."""
    from sklearn.datasets import load_breast_cancer

    result = read_result(folder)
    val, test = kept(folder), kept(folder, "test")
    temperature = fitted_temperature(val.predicted, val.true)
    known = json.loads((folder / "calibration.json").read_text())
    assert known["temperature"] == pytest.approx(temperature, rel=1e-4)
    assert known["temperature"] == result["calibration"]["temperature"] != 1
    expected = tempered(test.predicted, temperature)
    loss = loss_of(expected, test.true)
    assert result["metrics"]["test/loss"] == pytest.approx(loss, rel=1e-4)
    assert result["metrics"]["test/loss"] != pytest.approx(test.losses.mean(), rel=1e-3)
    x = load_breast_cancer(return_X_y=True)[0][test.rows]
    model = goldilocks.load(folder)
    assert np.allclose(model.predict_proba(x), expected, atol=1e-5)
    threshold = result["threshold"]["threshold"]
    assert known["threshold"] == threshold < 0.5
    assert (model.predict(x) == model.classes_[(expected[:, 1] > threshold).astype(int)]).all()
    confusion = confusion_matrix(test.true, expected[:, 1] > threshold)
    assert result["threshold"]["test"]["confusion"] == confusion.tolist()
    return result


def test_a_run_is_calibrated_everywhere(runs):
    result = check_calibrated(runs[0])
    val = kept(runs[0])
    assert result["metrics"]["val/loss"] == pytest.approx(val.losses.mean(), rel=1e-5)
    again = evaluate_run(runs[0])
    assert again["metrics"] == pytest.approx(result["metrics"])
    for name in ("calibration", "threshold"):
        assert again[name] == result[name]


def test_folds_are_calibrated_together(folds):
    result = check_calibrated(folds)
    assert result["calibration"]["rows"] == len(kept(folds).rows) == 455
    own = [read_calibration(folds / f"fold_{number}").temperature for number in range(3)]
    assert read_calibration(folds).temperature not in own
    alone = [read_result(folds / f"fold_{n}")["metrics"]["test/loss"] for n in range(3)]
    assert result["alone"]["metrics"]["test/loss"] == pytest.approx(np.mean(alone), rel=1e-4)


def test_an_ensemble_is_calibrated_together(runs, tmp_path):
    into = tmp_path / "ensemble"
    made = make_ensemble(runs, into, copy=True)
    assert made["calibration"]["temperature"] != 1
    evaluate_run(into)
    check_calibrated(into)


def test_nothing_is_calibrated_unless_it_is_asked_for(tmp_path):
    run = finished(tmp_path, "data=breast_cancer")
    result = read_result(run)
    assert result["calibration"] is result["threshold"] is None
    assert not (run / "calibration.json").exists()
    assert read_calibration(run) == Calibration()


def test_the_end_of_a_run_says_what_was_decided(command):
    done = command(
        "data=breast_cancer",
        "trainer=cpu",
        "trainer.max_epochs=2",
        "callbacks=none",
        "logger=none",
        *OPTIONS,
    )
    assert done.code == 0
    lines = done.out.splitlines()
    (calibrated,) = [line for line in lines if line.startswith("calibrated: temperature ")]
    assert "log-loss" in calibrated and "ece" in calibrated
    place = next(at for at, line in enumerate(lines) if line.startswith("threshold 0."))
    assert "benign is predicted above that probability, which is best by cost" in lines[place]
    assert " of 43 rows of malignant right, " in lines[place + 1]
    assert " of 42 rows of malignant right, " in lines[place + 2]
    assert any(line.startswith("sets of 90 %: ") for line in lines)


@pytest.mark.parametrize(
    "content", ["[", "[]", '{"temperature": 0}', '{"heat": 2}', '{"threshold": "high"}']
)
def test_a_damaged_calibration_is_one_line(content, tmp_path):
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(Refused, match=r"calibration\.json"):
        read_calibration(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=iris", "task.threshold=f1"], "task.threshold=f1: is for two classes"),
        (["data=diabetes", "task.threshold=0.3"], "task.threshold=0.3: is for two classes"),
        (["data=diabetes", "task.calibration=auto"], "task.calibration=auto: is for probabilities"),
        (["data=breast_cancer", "task.threshold=1.5"], "must be less than 1"),
        (["data=breast_cancer", "task.false_negative_cost=5"], "counts with task.threshold=cost"),
        (
            ["data=breast_cancer", "task.threshold=f1", "kept_predictions=0"],
            "task.threshold=f1: needs kept predictions, and kept_predictions=0 keeps none",
        ),
        (
            [
                *("data=breast_cancer", "task.calibration=temperature", "data.val_fraction=0"),
                "objective.metric=train/loss",
            ],
            "task.calibration=temperature: needs validation rows, and data.val_fraction=0",
        ),
    ],
)
def test_what_cannot_take_effect_is_refused(words, said, compose):
    from goldilocks.training.components import prepare

    with pytest.raises(Refused, match=said):
        prepare(compose(*words), warn=False)
