"""Baselines: scikit-learn run by hand on the same rows has the same numbers; what a run makes of
them.
"""

import time

import numpy as np
import pytest
import torch
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, mean_squared_error
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import read_result
from goldilocks.callbacks import baseline_models, baselines
from goldilocks.callbacks.comparison import in_words, lines, verdict
from goldilocks.runs import assembly
from goldilocks.runs.calibration import read_calibration
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import resume, run
from goldilocks.training.components import prepare
from goldilocks.training.outcome import read_outcome
from goldilocks.training.standard_errors import GROUPS, jackknife
from tables import cars, write

QUIET = [
    *("trainer=cpu", "trainer.max_epochs=3", "callbacks.progress_bar=null", "logger=none"),
    *("callbacks.evaluation=null", "callbacks.importance=null"),
]


@pytest.fixture
def train(compose, tmp_path):
    """Trains in a folder; returns the parts, the result and the folder."""

    def trained(*words, test=True):
        folder = tmp_path / f"run_{len(list(tmp_path.glob('run_*')))}"
        folder.mkdir()
        cfg = compose(*QUIET, *words)
        parts = prepare(cfg)
        result = run(RunRequest(cfg, folder, test=test), parts)
        assert result["status"] == "done", result
        return parts, result, folder

    return trained


@pytest.fixture
def table(tmp_path):
    """Words of a table of cars."""
    path = write(tmp_path / "cars.csv", cars(400))
    return lambda *words: ["data=table", f"data.path={path}", "data.columns.id=drop", *words]


def by_stage(parts):
    """Inputs and targets by stage as arrays."""
    return {
        stage: (x.double().numpy(), y.numpy().squeeze())
        for stage, (x, y) in parts.data.tensors.items()
    }


# --- as scikit-learn has them ---------------------------------------------------------------------


@pytest.mark.parametrize("data", ["breast_cancer", "wine"])
def test_classes_are_judged_as_scikit_learn_judges_them(data, train):
    parts, result, _ = train(f"data={data}", "callbacks.baselines.models=all")
    rows = by_stage(parts)
    x, y = rows["train"]
    splits = StratifiedKFold(3, shuffle=True, random_state=0)
    linear = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
        {"logisticregression__C": [0.01, 0.1, 1, 10]},
        cv=splits,
        scoring="neg_log_loss",
    ).fit(x, y)
    forest = RandomForestClassifier(random_state=0).fit(x, y)
    trees = HistGradientBoostingClassifier(
        max_iter=300, early_stopping=True, validation_fraction=0.1, random_state=0
    ).fit(x, y)
    classes = len(np.unique(y))
    shares = (np.bincount(y.astype(int)) + 1) / (len(y) + classes)
    for stage in ("val", "test"):
        x, y = rows[stage]
        by_hand = {
            "constant": np.tile(shares, (len(x), 1)),
            "linear": linear.predict_proba(x),
            "trees": trees.predict_proba(x),
            "forest": (100 * forest.predict_proba(x) + 1 / classes) / 101,
        }
        for name, said in by_hand.items():
            found = result["baselines"][name]["metrics"]
            assert found[f"{stage}/loss"] == pytest.approx(log_loss(y, said), rel=1e-3), name
            right = accuracy_score(y, said.argmax(1))
            assert found[f"{stage}/accuracy"] == pytest.approx(right), name


@pytest.mark.parametrize("folds", ["null", "2"])
def test_a_temperature_is_in_what_is_compared(folds, train):
    _, result, folder = train("data=wine", "task.calibration=temperature", f"data.folds={folds}")
    temperature = read_calibration(folder).temperature
    assert temperature != 1
    tested = read_outcome(folder / "predictions/test.npz")
    logs = np.log(tested.predicted.astype(float)) / temperature
    said = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)
    own = result["baselines"]["network"]["metrics"]
    assert own["test/loss"] == pytest.approx(log_loss(tested.true, said), rel=1e-3)
    assert own["test/loss"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-4)
    assert own["val/loss"] == pytest.approx(result["calibration"]["after"]["log_loss"], rel=1e-3)
    ahead = result["baselines"]["linear"]["ahead"]["val/loss"]
    linear = result["baselines"]["linear"]["metrics"]["val/loss"]
    assert ahead == pytest.approx(own["val/loss"] - linear, rel=1e-3, abs=1e-4)


def test_a_regression_too(train):
    parts, result, _ = train("data=diabetes", "callbacks.baselines.models=all")
    rows, task = by_stage(parts), parts.module.task
    x, y = rows["train"]
    alphas = [0.01, 0.1, 1, 10, 100, 1e3, 1e4]
    trees = HistGradientBoostingRegressor(
        max_iter=300, early_stopping=True, validation_fraction=0.1, random_state=0
    )
    models = {
        "linear": make_pipeline(StandardScaler(), RidgeCV(alphas)),
        "trees": trees,
        "forest": RandomForestRegressor(random_state=0),
    }
    fitted = {name: model.fit(x, y) for name, model in models.items()}
    scale = task.target_scale.item()
    for stage in ("val", "test"):
        x, y = rows[stage]
        for name, model in fitted.items():
            said, found = model.predict(x), result["baselines"][name]["metrics"]
            squared = mean_squared_error(y, said)
            assert found[f"{stage}/loss"] == pytest.approx(squared, rel=1e-4), name
            assert found[f"{stage}/rmse"] == pytest.approx(scale * squared**0.5, rel=1e-4)
            absolute = scale * mean_absolute_error(y, said)
            assert found[f"{stage}/mae"] == pytest.approx(absolute, rel=1e-4)
        mean = rows["train"][1].mean()
        assert result["baselines"]["constant"]["metrics"][f"{stage}/loss"] == pytest.approx(
            mean_squared_error(y, np.full(len(y), mean)), rel=1e-4
        )


def test_of_several_targets_each_has_a_model_and_categories_are_categories(train, table):
    parts, result, _ = train(*table("data.target=[price,size]", "data.max_one_hot=2"))
    spec, rows = parts.data.spec, by_stage(parts)
    assert spec.category_counts and spec.num_outputs == 2
    (x, y), (judged, true) = rows["train"], rows["val"]
    first = x.shape[1] - len(spec.category_counts)
    places = np.arange(x.shape[1])
    said = []
    for target in y.T:
        trees = HistGradientBoostingRegressor(
            max_iter=300,
            early_stopping=True,
            validation_fraction=0.1,
            random_state=0,
            categorical_features=places >= first,
        )
        said.append(trees.fit(x, target).predict(judged))
    squared = mean_squared_error(true, np.stack(said, 1))
    assert result["baselines"]["trees"]["metrics"]["val/loss"] == pytest.approx(squared, rel=1e-4)
    assert result["baselines"]["linear"]["metrics"]["val/loss"] == pytest.approx(
        mean_squared_error(true, ridge_by_hand(x, y, judged, first)), rel=1e-4
    )


def ridge_by_hand(x, y, judged, first):
    """Ridge regression of each target on standardized numbers and an input for each category."""
    scaler = StandardScaler().fit(x[:, :first])

    def wide(rows):
        columns = [scaler.transform(rows[:, :first])]
        for place in range(first, x.shape[1]):
            columns.append(rows[:, [place]] == np.unique(x[:, place]))
        return np.hstack(columns).astype(float)

    said = [RidgeCV(baseline_models.RIDGES).fit(wide(x), one).predict(wide(judged)) for one in y.T]
    return np.stack(said, 1)


def test_a_target_that_is_learnt_as_a_logarithm_is_judged_in_its_own_units(train, tmp_path):
    lines = [line.replace(",-", ",") for line in cars(300)]
    path = write(tmp_path / "positive.csv", lines)
    words = ["data=table", f"data.path={path}", "data.target=price", "data.target_log=true"]
    parts, result, _ = train(*words)
    rows, task = by_stage(parts), parts.module.task
    (x, y), (judged, true) = rows["train"], rows["val"]
    ridge = make_pipeline(StandardScaler(), RidgeCV(baseline_models.RIDGES)).fit(x, y)
    said, true = (
        task.unscale(torch.from_numpy(values)[:, None]) for values in (ridge.predict(judged), true)
    )
    assert result["baselines"]["linear"]["metrics"]["val/rmse"] == pytest.approx(
        mean_squared_error(true, said) ** 0.5, rel=1e-4
    )


def test_where_classes_count_alike_they_do_for_all(train):
    parts, result, _ = train("data=breast_cancer", "task.class_weight=balanced")
    (x, y), (judged, true) = by_stage(parts)["train"], by_stage(parts)["val"]
    trees = HistGradientBoostingClassifier(
        max_iter=300,
        early_stopping=True,
        validation_fraction=0.1,
        random_state=0,
    ).fit(x, y)
    alike = trees.predict_proba(judged) / np.bincount(y.astype(int))
    loss = log_loss(true, alike / alike.sum(1, keepdims=True))
    assert result["baselines"]["trees"]["metrics"]["val/loss"] == pytest.approx(loss, rel=1e-3)


# --- compared -------------------------------------------------------------------------------------


def test_the_network_is_compared_row_by_row(train):
    parts, result, folder = train("data=wine")
    kept = read_outcome(folder / "predictions" / "val.npz")
    entries = result["baselines"]
    own = entries["network"]
    assert own["metrics"]["val/loss"] == pytest.approx(result["metrics"]["val/loss"], rel=1e-5)
    error = kept.losses.std(ddof=1) / len(kept.losses) ** 0.5
    assert own["error"]["val/loss"] == pytest.approx(error, rel=1e-4)
    ahead = own["metrics"]["val/loss"] - entries["linear"]["metrics"]["val/loss"]
    assert entries["linear"]["ahead"]["val/loss"] == pytest.approx(ahead, rel=1e-4)
    counts = np.array(parts.data.spec.class_counts) + 1
    apart = -np.log(counts / counts.sum())[kept.true] - kept.losses
    paired = apart.std(ddof=1) / len(apart) ** 0.5
    assert entries["constant"]["ahead_error"]["val/loss"] == pytest.approx(paired, rel=1e-3)


def test_a_jackknife_of_a_mean_is_near_its_standard_error():
    values = np.random.default_rng(1).normal(size=50 * GROUPS)
    found = jackknife(lambda places: float(values[places].mean()), len(values))
    assert found == pytest.approx(values.std() / len(values) ** 0.5, rel=0.4)
    assert jackknife(lambda places: 1.0, 1) == np.inf


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_more_can_be_better(metric, train):
    _, result, _ = train("data=breast_cancer", f"objective.metric=val/{metric}")
    entries, key = result["baselines"], f"val/{metric}"
    for name in ("constant", "linear", "trees"):
        apart = entries[name]["metrics"][key] - entries["network"]["metrics"][key]
        assert entries[name]["ahead"][key] == pytest.approx(apart, abs=1e-6)
    assert entries["constant"]["ahead"][key] < 0
    assert [line.partition(":")[0] for line in lines(entries)] == [key, f"test/{metric}"]


def rival(ahead, error=0.1, note=""):
    return {
        "metrics": {"val/loss": 0.5},
        "ahead": {"val/loss": ahead},
        "ahead_error": {"val/loss": error},
        "note": note,
    }


@pytest.mark.parametrize(
    ("trees", "linear", "said"),
    [
        (0.1, -0.1, "no difference that these rows can show"),
        (0.1, -0.3, "no difference from boosted trees that these rows can show"),
        (0.3, -0.3, "boosted trees are better"),
        (0.0, 0.3, "a linear model is better"),
        (0.3, 0.3, "boosted trees and a linear model are better"),
        (-0.3, -0.3, "your network is better"),
    ],
)
def test_what_is_shown_is_more_than_two_standard_errors(trees, linear, said):
    assert verdict({"trees": rival(trees), "linear": rival(linear)}, "val/loss") == said


def test_an_error_that_is_not_known_shows_nothing_and_notes_are_told():
    network = {"metrics": {"val/loss": 0.4}, "error": {"val/loss": None}}
    entries = {"network": network, "trees": rival(9.0, None, "cut short")}
    assert in_words(entries, "val/loss") == (
        "val/loss: your network 0.4, boosted trees 0.5: no difference that these rows can show"
        " (boosted trees: cut short)"
    )


# --- in a run -------------------------------------------------------------------------------------


def test_the_line_is_on_the_screen_in_the_diagnosis_and_in_the_result(command):
    ended = command("data=wine", *QUIET)
    assert ended.code == 0
    said = lines(read_result(ended.folder)["baselines"])
    assert [line[:9] for line in said] == ["val/loss:", "test/loss"]
    assert all(line in ended.out for line in said)
    page = (ended.folder / "diagnosis.md").read_text(encoding="utf-8")
    assert said[0] in page and said[1] not in page


def test_loggers_get_the_lines(train):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, result, folder = train("data=wine", "logger=tensorboard")
    events = EventAccumulator(str(folder)).Reload()
    (tag,) = [tag for tag in events.Tags()["tensors"] if "baselines" in tag]
    (text,) = events.Tensors(tag)[0].tensor_proto.string_val
    assert all(line in text.decode() for line in lines(result["baselines"]))


def test_untested_runs_have_no_numbers_of_the_test_rows(train):
    _, result, _ = train("data=wine", test=False)
    assert {key[:4] for key in result["baselines"]["trees"]["metrics"]} == {"val/"}


def test_trials_have_none(train, monkeypatch):
    monkeypatch.setattr(assembly, "is_trial", lambda folder: True)
    monkeypatch.setattr(baselines, "MODELS", None)  # nothing is fitted
    assert train("data=wine", test=False)[1]["baselines"] is None


@pytest.mark.parametrize(
    "words",
    [
        ["data=digits"],  # images
        ["data=wine", "callbacks.baselines=null"],
        ["data=wine", "data.val_fraction=0", "objective.metric=train/loss"],
    ],
    ids=["images", "off", "no validation rows"],
)
def test_without_what_they_need_there_are_none(words, train, capsys):
    assert train(*words)[1]["baselines"] is None
    assert "not compared" not in capsys.readouterr().err


def test_neither_weights_nor_random_numbers_are_touched(train):
    found = [
        (list(parts.module.network.parameters()), result["metrics"])
        for parts, result, _ in (
            train("data=wine", *more) for more in ((), ("callbacks.baselines=null",))
        )
    ]
    assert found[0][1] == found[1][1]
    assert all(torch.equal(*pair) for pair in zip(found[0][0], found[1][0], strict=True))


def test_a_run_that_goes_on_is_compared_again(train, compose):
    _, before, folder = train("data=wine")
    cfg = compose(f"resume={folder}", "trainer.max_epochs=30")
    _, after = resume(cfg, [f"resume={folder}", "trainer.max_epochs=30"])
    assert after["epochs"] == 30
    assert after["baselines"]["trees"]["metrics"] == before["baselines"]["trees"]["metrics"]
    own = [result["baselines"]["network"]["metrics"]["val/loss"] for result in (before, after)]
    assert own[1] < own[0]
    assert own[1] == pytest.approx(after["metrics"]["val/loss"], rel=1e-4)


def test_when_the_time_is_over_no_more_trees_are_grown(train, monkeypatch):
    monkeypatch.setattr(baselines, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(baselines, "SHARE", 0.0)
    parts, result, _ = train("data=diabetes", "callbacks.baselines.models=all")
    entries = result["baselines"]
    assert entries["trees"]["note"] == "its time was over after 1 of 300 trees"
    assert entries["forest"]["note"] == "its time was over after 1 of 100 trees"
    assert "(boosted trees: its time was over after 1 of 300 trees)" in lines(entries)[0]
    (x, y), (judged, true) = by_stage(parts)["train"], by_stage(parts)["val"]
    tree = HistGradientBoostingRegressor(
        max_iter=1, early_stopping=True, validation_fraction=0.1, random_state=0
    )
    squared = mean_squared_error(true, tree.fit(x, y).predict(judged))
    assert entries["trees"]["metrics"]["val/loss"] == pytest.approx(squared, rel=1e-4)


def test_they_take_a_tenth_of_a_long_run(train, monkeypatch):
    given = []

    def fit(rows):
        given.append(rows.ends - time.monotonic())
        return baseline_models.fit_constant(rows)

    monkeypatch.setattr(baselines, "MODELS", {"constant": fit, "linear": fit, "trees": fit})
    train("data=wine")
    monkeypatch.setattr(baselines, "SHARE", 1e6)
    train("data=wine")
    assert given[:3] == pytest.approx([5 / 3, 5 / 2, 5], rel=0.1)
    assert min(given[3:]) > 1e3


def test_of_many_rows_some_are_taken_and_it_is_said(train, monkeypatch):
    parts, result, _ = train("data=diabetes", "callbacks.baselines.max_rows=50")
    x, y = by_stage(parts)["train"]
    note = f"fitted on 50 of {len(x)} training rows"
    assert [result["baselines"][name]["note"] for name in ("linear", "trees")] == [note, note]
    places = np.linspace(0, len(x) - 1, 50).round().astype(int)
    judged, true = by_stage(parts)["val"]
    ridge = make_pipeline(StandardScaler(), RidgeCV(baseline_models.RIDGES))
    squared = mean_squared_error(true, ridge.fit(x[places], y[places]).predict(judged))
    loss = result["baselines"]["linear"]["metrics"]["val/loss"]
    assert loss == pytest.approx(squared, rel=1e-4)
    monkeypatch.setattr(baselines, "MOST_NUMBERS", 300)  # 30 rows of 10
    again = train("data=diabetes")[1]["baselines"]
    assert again["linear"]["note"] == f"fitted on 30 of {len(x)} training rows"


def test_of_large_tables_the_penalty_is_not_chosen(train, monkeypatch):
    monkeypatch.setattr(baseline_models, "CHOSEN", 10)
    parts, result, _ = train("data=diabetes")
    (x, y), (judged, true) = by_stage(parts)["train"], by_stage(parts)["val"]
    ridge = make_pipeline(StandardScaler(), Ridge()).fit(x, y)
    squared = mean_squared_error(true, ridge.predict(judged))
    loss = result["baselines"]["linear"]["metrics"]["val/loss"]
    assert loss == pytest.approx(squared, rel=1e-4)


def test_a_run_does_not_fail_by_them(train, monkeypatch, capsys):
    def broken(rows):
        raise RuntimeError("no")

    monkeypatch.setattr(baselines, "MODELS", dict.fromkeys(baselines.MODELS, broken))
    assert train("data=wine")[1]["baselines"] is None
    assert "warning: the network was not compared: RuntimeError: no" in capsys.readouterr().err


# --- folds ----------------------------------------------------------------------------------------


def test_folds_are_compared_together_too(train):
    _, result, folder = train("data=wine", "data.folds=3")
    each = [read_result(folder / f"fold_{fold}")["baselines"] for fold in range(3)]
    entries = result["baselines"]
    assert [list(of) for of in each] == [["constant", "linear", "trees", "network"]] * 3
    names = [f"fold_{fold}/predictions/baselines/linear_val.npz" for fold in range(3)]
    parts = [read_outcome(folder / name) for name in names]
    losses = np.concatenate([part.losses for part in parts])
    linear = entries["linear"]["metrics"]
    assert linear["val/loss"] == pytest.approx(losses.mean(), rel=1e-5)
    joined = [
        read_outcome(folder / f"fold_{fold}/predictions/baselines/linear_test.npz")
        for fold in range(3)
    ]
    said, true = np.mean([one.predicted for one in joined], 0), joined[0].true
    assert linear["test/loss"] == pytest.approx(log_loss(true, said), rel=1e-3)
    own = entries["network"]["metrics"]
    assert own["test/loss"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-5)
    kept = read_outcome(folder / "predictions" / "val.npz")
    assert own["val/loss"] == pytest.approx(kept.losses.mean(), rel=1e-5)
    assert entries["trees"]["seconds"] == pytest.approx(
        sum(of["trees"]["seconds"] for of in each), abs=0.01
    )


def test_folds_whose_predictions_are_not_kept_are_compared_one_by_one(train):
    _, result, folder = train("data=wine", "data.folds=2", "kept_predictions=0")
    assert result["baselines"] is None
    assert read_result(folder / "fold_1")["baselines"]["trees"]["metrics"]
