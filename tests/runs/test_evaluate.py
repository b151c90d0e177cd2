"""The default options reach what plain good defaults reach, as means over five splits."""

import statistics

import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from goldilocks.config.compose import compose, prepare_hydra
from goldilocks.runs.evaluate import scores_by_split
from goldilocks.training.components import prepare


def mean_score(words: list[str], metric: str) -> float:
    prepare_hydra()
    scores, failed = scores_by_split(words, seeds=5)
    assert not failed
    assert len(scores[metric]) == 5
    return statistics.mean(scores[metric])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "bar"),
    [
        ("data=digits", 0.96),
        ("data=breast_cancer", 0.96),
        ("data=wine", 0.95),
        ("data=iris", 0.92),
        ("experiment=digits", 0.975),
        ("experiment=realmlp", 0.96),
    ],
)
def test_classes_are_told_apart(word: str, bar: float, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert mean_score([word], "test/accuracy") >= bar


@pytest.mark.slow
@pytest.mark.parametrize("words", [["data=diabetes"], ["experiment=diabetes"]])
def test_diabetes_is_predicted_as_well_as_by_ridge_regression(
    words: list[str], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = mean_score(words, "test/r2")
    theirs = []
    for seed in range(5):
        tensors = prepare(compose([*words, f"data.seed={seed}"])[0]).data.tensors
        (x, y), (x_test, y_test) = tensors["train"], tensors["test"]
        theirs.append(r2_score(y_test, Ridge().fit(x, y).predict(x_test)))
    assert ours >= statistics.mean(theirs) - 0.03
