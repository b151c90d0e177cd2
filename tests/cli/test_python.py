"""`goldilocks.train`, and what scikit-learn asks of a network that is loaded."""

import asyncio
import random
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import cross_val_score
from sklearn.utils.validation import check_is_fitted

import goldilocks
from conftest import read_result
from goldilocks.cli.python import kept_frame, override_of
from goldilocks.errors import Refused

QUICK = {
    "trainer": "cpu",
    "trainer__max_epochs": 2,
    "callbacks__progress_bar": None,
    "callbacks__evaluation": None,
    "callbacks__baselines": None,
    "logger": "none",
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows():
    draws = np.random.default_rng(0)
    frame = pd.DataFrame(draws.normal(size=(80, 2)), columns=["size", "old age"])
    frame["colour"] = np.where(frame["size"] > 0, "red", "blue")
    frame["price"] = 3 * frame["size"] + frame["old age"] + 0.1 * draws.normal(size=80)
    return frame


def test_the_numbers_are_those_of_the_command(command):
    words = ["data=iris", "trainer=cpu", "trainer.max_epochs=2", "callbacks.progress_bar=null"]
    ended = command(*words)
    run = goldilocks.train(words, quiet=True)
    assert run.metrics == read_result(ended.folder)["metrics"]
    assert (run.status, run.folder.parent) == ("done", Path("logs/runs").absolute())
    assert list(run.curves["val/loss"]) and len(run.curves) == 2


def test_a_frame_is_learnt_resumed_and_predicted():
    frame = rows()
    run = goldilocks.train(model="shallow", frame=frame, target="price", quiet=True, **QUICK)
    seen = frame[frame["size"].between(-1, 1) & frame["old age"].between(-1, 1)]
    assert run.predict(seen).shape == (len(seen),)
    longer = goldilocks.train(resume=str(run.folder), trainer__max_epochs=3, quiet=True)
    assert longer.folder == run.folder
    assert longer.result["epochs"] == 3
    assert len(list(Path("logs/frames").glob("*.csv"))) == 1
    with pytest.raises(Refused, match="write predict"):
        run.predict_proba(frame)


def test_the_curves_of_folds_are_told_by_a_column():
    run = goldilocks.train(["data=iris", "data.folds=3"], quiet=True, **QUICK)
    curves = run.curves
    assert curves["fold"].tolist() == [0, 0, 1, 1, 2, 2]
    assert curves.index.tolist() == [0, 1] * 3 and curves.index.name == "epoch"
    best = curves.groupby("fold")["val/loss"].min()
    assert best.mean() == pytest.approx(run.metrics["val/loss"])


def test_the_start_is_counted_from_the_call():
    for words in (["data=iris"], ["data=iris", "data.folds=2"]):
        before = time.perf_counter()
        run = goldilocks.train(words, quiet=True, **QUICK)
        taken = time.perf_counter() - before
        folders = [run.folder / "fold_1"] if "data.folds=2" in words else [run.folder]
        spent = read_result(folders[0])["seconds"]
        assert 0 < spent["start"] < taken / len(words)


def test_frames_that_differ_in_kind_have_files_of_their_own(tmp_path):
    paths = set()
    for values in ([True, False], [1, 0]):
        paths.add(kept_frame(pd.DataFrame({"a": values}), tmp_path))
    assert len(paths) == 2
    frame = pd.DataFrame({7: np.random.default_rng(0).normal(size=20), 2024: np.arange(20) % 2})
    with pytest.raises(Refused, match="the frame has no such column; it has: 7, 2024"):
        goldilocks.train(frame=frame, target=8)
    run = goldilocks.train("data.test_fraction=0", frame=frame, target=2024, quiet=True, **QUICK)
    assert run.load().feature_names_in_.tolist() == ["7"]


def test_text_of_a_frame_that_marks_missing_values_elsewhere_stays_text():
    frame = rows()
    places = np.arange(len(frame)) % 4
    frame["land"] = np.array(["NA", "DE", "n/a", None], dtype=object)[places]
    frame["price"] += 5 * (places == 0)
    run = goldilocks.train(
        "data.val_fraction=0.2", frame=frame, target="price", quiet=True, **QUICK
    )
    model = run.load()
    land = next(column for column in model.preparation.columns if column.name == "land")
    assert {*land.categories} == {"NA", "DE", "n/a", "(missing)"}
    one = frame.head(8).copy()
    said = [model.predict(one.assign(land=word))[0] for word in ("NA", None, "n/a")]
    assert len({*said}) == 3
    one.assign(land="NA").to_csv("new.csv", index=False)
    again = model.predict(pd.read_csv("new.csv", keep_default_na=False))
    assert np.allclose(again, model.predict(one.assign(land="NA")))
    classes = frame.assign(answer=np.where(np.arange(80) % 27 == 0, "NA", frame["colour"]))
    found = goldilocks.train(frame=classes, target="answer", quiet=True, **QUICK)
    assert "NA" in found.load().classes_


def test_text_with_a_comma_is_one_value():
    assert override_of("name", "a, b") == "name='a, b'"
    assert override_of("regularization", "[l2,dropout]") == "regularization=[l2,dropout]"


def test_another_thread_is_refused():
    found = []

    def call():
        try:
            goldilocks.train("data=iris")
        except ValueError as error:
            found.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert found == ["train: Ctrl-C reaches only the main thread of Python; call it there"]


def test_the_result_reads_as_the_end_of_a_run(capfd):
    run = goldilocks.train(["data=iris"], **QUICK)
    assert "val" in capfd.readouterr().out
    assert "done" in repr(run) and str(run.folder) in repr(run)
    goldilocks.train(["data=iris"], quiet=True, **QUICK)
    assert capfd.readouterr() == ("", "")


def test_what_is_drawn_elsewhere_goes_on_as_before():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    threads = torch.get_num_threads()
    goldilocks.train(["data=iris"], quiet=True, **QUICK)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert torch.get_num_threads() == threads


def test_it_runs_within_an_event_loop():
    async def cell():
        return goldilocks.train(["data=iris"], quiet=True, **QUICK)

    assert asyncio.run(cell()).status == "done"


@pytest.mark.slow
def test_a_search_ends_in_time_with_what_predicts():
    began = time.perf_counter()
    run = goldilocks.train(frame=rows(), target="price", search="20s", name="s", **QUICK)
    assert time.perf_counter() - began < 40
    assert run.folder.name == "ensemble" and run.status == "done"
    assert run.metrics["test/loss"] > 0
    assert run.predict(rows().head(3)).shape == (3,)
    assert (run.folder.parent / "report.html").exists()


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (["-m"], {}, "a sweep is started with python train.py -m"),
        (["modle=deep"], {}, "modle"),
        ([], {"optimizer__lrr": 1}, "optimizer.lrr"),
        ([], {"optimizer__lr": -1}, "optimizer.lr=-1"),
        ([], {"frame": [[1]], "target": "y"}, "a pandas DataFrame is expected, not list"),
        ([], {"frame": pd.DataFrame({"a": [1]})}, "write target=COLUMN"),
        ([], {"frame": pd.DataFrame({"a": [1]}), "target": "y"}, "no such column; it has: a"),
        (["resume=nowhere"], {}, "no such run folder"),
        (["sweep.n_trials=3"], {}, "is for sweeps"),
        ([], {"target": "y"}, "write data.target=y"),
        (["data=iris"], {"search": "abc"}, "sweep.budget=abc: a time above zero"),
        (["sweep.budget=9m"], {"search": "1m"}, "search=1m says it"),
    ],
)
def test_a_mistake_is_a_value_error_in_one_line(given, options, said):
    with pytest.raises(ValueError, match=said) as caught:
        goldilocks.train(given, **options)
    assert isinstance(caught.value, Refused) and "\n" not in str(caught.value)
    assert not Path("logs/runs").exists()


# --- scikit-learn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["breast_cancer", "diabetes"])
def test_scikit_learn_takes_a_network_that_is_loaded(data):
    load = load_breast_cancer if data == "breast_cancer" else load_diabetes
    x, y = load(return_X_y=True)
    model = goldilocks.train(data=data, quiet=True, **QUICK).load()
    assert (is_classifier(model), is_regressor(model)) == (data != "diabetes", data == "diabetes")
    check_is_fitted(model)
    predicted = model.predict(x)
    if data == "diabetes":
        expected = 1 - ((y - predicted) ** 2).mean() / y.var()
    else:
        expected = (predicted == y.astype(predicted.dtype)).mean()
    y = y if data == "diabetes" else y.astype(predicted.dtype)
    assert model.score(x, y) == pytest.approx(expected, rel=1e-5)
    found = permutation_importance(model, x, y, n_repeats=1, random_state=0)
    assert found.importances_mean.shape == (x.shape[1],)
    assert partial_dependence(model, x, [0], grid_resolution=3)["average"].shape == (1, 3)
    assert np.array_equal(clone(model).predict(x), predicted)
    with pytest.raises(Refused, match="this network is trained"):
        cross_val_score(clone(model), x, y, cv=2, error_score="raise")
