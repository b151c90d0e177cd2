"""Kept predictions, cross-validations and ensembles that predict as one, from their folders."""

import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, root_mean_squared_error

import goldilocks
from conftest import read_result
from finished import finished
from goldilocks.errors import Refused
from goldilocks.runs.ensembles import kept, members_of
from goldilocks.runs.ensembling import make_ensemble
from goldilocks.runs.evaluate import evaluate_run
from goldilocks.runs.folder import read_config
from goldilocks.training.outcome import read_outcome
from tables import cars, write

OF_KIND = {
    "regression": ["data=diabetes"],
    "two classes": ["data=breast_cancer"],
    "classes": ["data=iris", "model=tabm", "model.k=4"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of each kind, three runs of other seeds."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        kind: [finished(folder, *overrides, f"seed={seed}") for seed in range(3)]
        for kind, overrides in OF_KIND.items()
    }


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A cross-validation of a table whose folds differ in their categories."""
    folder = tmp_path_factory.mktemp("folds")
    lines = cars(90)
    path = write(folder / "cars.csv", lines)
    own = [f"data.path={path}", "data.target=price", "data.min_category_rows=1"]
    return finished(folder, "data=table", *own, "data.folds=3")


@pytest.mark.parametrize("kind", OF_KIND)
@pytest.mark.parametrize("stage", ["val", "test"])
def test_what_is_kept_gives_the_metrics_of_the_result(kind, stage, runs):
    run = runs[kind][0]
    outcome = kept(run, stage)
    metrics = read_result(run)["metrics"]
    assert outcome.predicted.dtype == np.float32
    if kind == "regression":
        rmse = root_mean_squared_error(outcome.true, outcome.predicted)
        assert rmse == pytest.approx(metrics[f"{stage}/rmse"], rel=1e-5)
    else:
        probabilities = outcome.predicted.astype(float)
        probabilities /= probabilities.sum(1, keepdims=True)  # in single precision they are not 1
        loss = log_loss(outcome.true, probabilities, labels=range(probabilities.shape[1]))
        assert loss == pytest.approx(metrics[f"{stage}/loss"], rel=1e-5)
        accuracy = accuracy_score(outcome.true, outcome.predicted.argmax(1))
        assert accuracy == pytest.approx(metrics[f"{stage}/accuracy"])
    assert outcome.losses.mean() == pytest.approx(metrics[f"{stage}/loss"], rel=1e-5)


def test_the_rows_are_numbered_as_the_source_has_them(runs):
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    outcome = kept(runs["regression"][0])
    assert np.allclose(outcome.true[:, 0], y[outcome.rows])
    predicted = goldilocks.load(runs["regression"][0]).predict(x[outcome.rows])
    assert np.allclose(predicted, outcome.predicted[:, 0], rtol=1e-5)


def test_of_many_rows_some_are_kept_and_of_none_none(tmp_path):
    run = finished(tmp_path, "data=iris", "kept_predictions=7")
    assert len(kept(run).rows) == 7
    run = finished(tmp_path, "data=iris", "kept_predictions=0")
    assert not (run / "predictions").exists()
    with pytest.raises(Refused, match="there are no predictions; kept_predictions=0"):
        kept(run)


@pytest.mark.parametrize("content", [b"", b"PK nonsense", None])
def test_damaged_predictions_are_one_line(content, runs, tmp_path):
    path = tmp_path / "val.npz"
    path.write_bytes(content or b"")
    if content is None:  # an array of objects is a pickle
        np.savez(path, rows=np.array([print], dtype=object))
    with pytest.raises(Refused, match="cannot be read"):
        read_outcome(path)


# --- cross-validation -----------------------------------------------------------------------------


def test_every_row_is_predicted_by_the_network_that_was_not_trained_on_it(folds):
    outcome = kept(folds)
    own = [kept(folds / f"fold_{number}") for number in range(3)]
    assert sorted(outcome.rows) == sorted(np.concatenate([one.rows for one in own]))
    assert len(set(outcome.rows)) == len(outcome.rows) == 72
    for one in own:
        places = np.searchsorted(outcome.rows, one.rows)
        assert np.array_equal(outcome.predicted[places], one.predicted)


def test_the_networks_of_a_cross_validation_predict_and_are_tested_as_one(folds):
    import pandas as pd

    rows = pd.read_csv(folds.parents[1] / "cars.csv")
    predictor = goldilocks.load(folds)
    own = [goldilocks.load(folds / f"fold_{number}").outputs(rows)[:, 0] for number in range(3)]
    assert np.allclose(predictor.outputs(rows)[:, 0], np.mean(own, axis=0), rtol=1e-5)
    tested = kept(folds, "test")
    there = rows.iloc[tested.rows]
    rmse = root_mean_squared_error(there["price"], predictor.outputs(there)[:, 0])
    result = read_result(folds)
    assert rmse == pytest.approx(result["metrics"]["test/rmse"], rel=1e-4)
    alone = [read_result(folds / f"fold_{n}")["metrics"]["test/rmse"] for n in range(3)]
    assert result["alone"]["metrics"]["test/rmse"] == pytest.approx(np.mean(alone), rel=1e-4)
    assert "test/rmse" not in result["spread"]
    again = evaluate_run(folds)["metrics"]
    assert again["test/rmse"] == pytest.approx(rmse, rel=1e-4)


# --- ensembles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OF_KIND)
def test_an_ensemble_is_a_run_that_predicts_the_weighted_mean(kind, runs, tmp_path):
    into = tmp_path / "ensemble"
    result = make_ensemble(runs[kind], into, members=2)
    assert result["status"] == "done"
    assert read_result(into)["metrics"] == result["metrics"]
    members = members_of(into)
    assert 1 <= len(members) <= 2
    expected = sum(weight * kept(own).predicted.astype(float) for own, weight in members)
    assert np.allclose(kept(into).predicted, expected, atol=1e-4, rtol=1e-5)
    x = inputs_of(kind)
    predictor = goldilocks.load(into)
    outputs = sum(weight * goldilocks.load(own).outputs(x) for own, weight in members)
    assert np.allclose(predictor.outputs(x), outputs, atol=1e-4, rtol=1e-5)
    tested = evaluate_run(into)["metrics"]
    assert f"test/{'rmse' if kind == 'regression' else 'accuracy'}" in tested
    assert (into / "figures").is_dir()
    assert list(into.glob("metrics.csv")) == []  # the runs have no loggers


def inputs_of(kind):
    from sklearn import datasets

    load = {"regression": "diabetes", "two classes": "breast_cancer", "classes": "iris"}[kind]
    return getattr(datasets, f"load_{load}")(return_X_y=True)[0][:20]


def test_an_ensemble_moves_with_its_runs_and_a_copied_one_alone(runs, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    own = [shutil.copytree(run, there / run.name) for run in runs["two classes"]]
    make_ensemble(own, there / "ensemble", members=2)
    make_ensemble(own, there / "copied", members=2, copy=True)
    x = inputs_of("two classes")
    expected = goldilocks.load(there / "ensemble").outputs(x)
    moved = there.rename(tmp_path / "moved")
    assert np.array_equal(goldilocks.load(moved / "ensemble").outputs(x), expected)
    alone = (moved / "copied").rename(tmp_path / "alone")
    shutil.rmtree(moved)
    assert np.allclose(goldilocks.load(alone).outputs(x), expected)


def test_a_member_that_is_gone_is_one_line(runs, tmp_path):
    own = [shutil.copytree(run, tmp_path / run.name) for run in runs["classes"]]
    make_ensemble(own, tmp_path / "ensemble", members=3)
    gone = members_of(tmp_path / "ensemble")[0][0]
    shutil.rmtree(gone)
    with pytest.raises(Refused, match=f"its member {gone} is gone; .* --copy"):
        goldilocks.load(tmp_path / "ensemble")


def test_an_ensemble_of_cross_validations_has_all_their_networks(folds, tmp_path):
    own = [shutil.copytree(folds, tmp_path / name) for name in ("a", "b")]
    make_ensemble(own, tmp_path / "ensemble", members=2)
    assert len(members_of(tmp_path / "ensemble")) in (3, 6)
    make_ensemble(own, tmp_path / "copied", members=2, copy=True)
    assert all((tmp_path / "copied") in path.parents for path, _ in members_of(tmp_path / "copied"))


def test_runs_of_other_rows_are_left_out(runs, tmp_path, capsys):
    other = finished(tmp_path, *OF_KIND["two classes"], "data.seed=1")
    make_ensemble([*runs["two classes"], other], tmp_path / "ensemble")
    assert "1 runs have predictions of other validation rows" in capsys.readouterr().err
    with pytest.raises(Refused, match="needs two finished runs"):
        make_ensemble([runs["two classes"][0], other], tmp_path / "ensemble")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "cannot be read"),
        ('{"how": "mean", "members": []}', "are not 1 together"),
        ('{"how": "mean", "members": [{"run": "../a", "weight": 2}]}', "cannot be read"),
        ('{"how": "mean", "members": [{"run": "/etc", "weight": 1}]}', "seen from its folder"),
        ('{"how": "mean", "members": [{"run": ".", "weight": 1}]}', "leads from ensemble to"),
        ("[", "cannot be read"),
    ],
)
def test_a_damaged_ensemble_is_one_line(content, said, runs, tmp_path):
    into = tmp_path / "ensemble"
    make_ensemble(runs["classes"], into)
    json.loads((into / "ensemble.json").read_text())
    (into / "ensemble.json").write_text(content)
    with pytest.raises(Refused, match=said):
        goldilocks.load(into)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["loss=quantile", "loss.q=0.9", "objective.metric=val/rmse"],
            r"gives 0.9 quantiles, and .* values in the middle; choose runs that have the same$",
        ),
        (
            ["loss=asymmetric", "objective.metric=val/rmse"],
            r"gives project.loss.AsymmetricError\(too_low=2.0\), and",
        ),
        (["loss=mae"], "is judged by mae with .*, and .* mse with .*objective.metric=val/rmse"),
        (["data.target_scaling=none"], "is judged by mse with data.target_scaling=none, and"),
        (["data.target_scaling=none", "objective.metric=val/rmse"], None),
        (["loss=huber", "objective.metric=val/rmse"], None),
    ],
)
def test_runs_whose_outputs_mean_something_else_are_refused(words, said, tmp_path):
    metric = [word for word in words if word.startswith("objective")]
    one = finished(tmp_path, "data=diabetes", *metric)
    own = [one, finished(tmp_path, "data=diabetes", *words)]
    into = tmp_path / "ensemble"
    if said is not None:
        with pytest.raises(Refused, match=said):
            make_ensemble(own, into)
        assert not into.exists()
        return
    result = make_ensemble(own, into, members=2)
    joined = kept(into)
    error = np.sqrt(((joined.predicted - joined.true) ** 2).mean())
    assert result["metrics"]["val/rmse"] == pytest.approx(error, rel=1e-4)


def test_the_configuration_is_that_of_the_heaviest_member(tmp_path):
    """And so are its metrics: of two thresholds one is used, and the folder says which."""
    one = finished(tmp_path, *OF_KIND["two classes"], "task.threshold=0.3")
    other = finished(tmp_path, *OF_KIND["two classes"], "task.threshold=0.6", "seed=1")
    for own in ([one, other], [other, one]):
        result = make_ensemble(own, tmp_path / "ensemble", members=2)
        lead = members_of(tmp_path / "ensemble")[0][0]
        threshold = read_config(lead).task.threshold
        assert read_config(tmp_path / "ensemble").task.threshold == threshold
        assert result["threshold"]["threshold"] == threshold
