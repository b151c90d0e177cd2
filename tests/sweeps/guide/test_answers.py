"""What a guided search says of made data whose truth is known."""

import json

import numpy as np
import pytest

from goldilocks.sweeps.guide.answers import Pair, answers, noise_of_seeds, verdict
from goldilocks.sweeps.guide.conclusion import is_better
from tables import write

QUIET = [
    *("trainer=cpu", "logger=none", "callbacks.progress_bar=null", "callbacks.health=null"),
    *("callbacks.evaluation=null", "callbacks.importance=null", "sweep.folds=null"),
]


def made(case: str, rows: int = 900) -> list[str]:
    """Lines of a CSV file."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 6))
    if case == "noise":
        y = random.normal(size=rows)
    elif case == "linear":
        y = x @ np.array([3, -2, 1, 0.5, 0, 0]) + random.normal(size=rows)
    elif case == "interaction":
        y = 3 * x[:, 0] * x[:, 1] + 0.3 * random.normal(size=rows)
    elif case == "useless columns":
        y = 2 * x[:, 0] + random.normal(size=rows)
        x = np.hstack([x[:, :1], random.normal(size=(rows, 40))])
    elif case == "scale trap":
        y = np.sin(2 * x[:, 0]) + 0.2 * random.normal(size=rows)
        x[:, 0] = np.sign(x[:, 0]) * np.expm1(4 * np.abs(x[:, 0]))
    names = [f"x{number}" for number in range(x.shape[1])]
    lines = [",".join([*names, "y"])]
    return lines + [
        ",".join(f"{v:.5g}" for v in [*row, value]) for row, value in zip(x, y, strict=True)
    ]


@pytest.mark.parametrize(
    ("case", "trials", "said", "not_said"),
    [
        ("noise", 16, "Nothing here predicts the target better than a constant", "is shown"),
        ("linear", 16, "A linear model reaches", "A linear model reaches.*better, which is shown"),
        pytest.param(
            "interaction", 40, "the predictor is better, which is shown", "Nothing",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "useless columns", 40, "these rows show no difference", "Nothing",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "scale trap", 100, "`data.scaling=quantile` helps", "Nothing", marks=pytest.mark.slow
        ),
    ],
)  # fmt: skip
def test_the_first_sentences_are_true(case, trials, said, not_said, command, tmp_path):
    path = write(tmp_path / "made.csv", made(case))
    words = ["data=table", f"data.path={path}", "data.target=y", "trainer.max_epochs=12"]
    ended = command("-m", "sweep=guide", *QUIET, *words, f"sweep.n_trials={trials}", "name=s")
    assert ended.code == 0, ended.err
    told = json.loads((tmp_path / "logs/sweeps/s/guide.json").read_text())["told"]
    text = " ".join([*told["sentences"][:5], *[one["answer"] for one in told["answers"]]])
    assert said in text, text
    if case == "linear":
        own = next(one for one in told["sentences"] if one.startswith("A linear model"))
        assert "the predictor is better" not in own, own
    else:
        assert not_said not in told["sentences"][0], text


def pair(gain: float, error: float | None) -> Pair:
    return Pair("depth", "model.depth=2", "model.depth=3", gain, error)


def test_a_difference_counts_from_three_standard_errors_on():
    assert verdict([pair(0.2, 0.1), pair(-0.2, 0.1), pair(1.0, None)]) == "these rows cannot tell"
    assert verdict([pair(0.4, 0.1)]) == "`model.depth=3` helps, which is shown"
    assert verdict([pair(-0.4, 0.1)]) == "`model.depth=3` harms, which is shown"


def test_every_question_of_the_guide_has_an_answer():
    found = {one["question"]: one for one in answers([pair(0.4, 0.1)], "not asked.")}
    assert len(found) == 18
    assert found["depth"]["shown"] and "0.4 ± 0.1 better" in found["depth"]["answer"]
    assert found["dropout"]["answer"] == "Dropout: not asked; more time asks it."


def test_the_noise_of_the_seed_is_that_of_the_same_words():
    class One:
        status = "done"

        def __init__(self, rate: str, seed: str, value: float) -> None:
            self.varied = {"optimizer.lr": rate, "seed": seed}
            self.value = value

        def values(self, objectives):
            return [self.value]

    trials = [One("0.1", "0", 1.0), One("0.1", "1", 3.0), One("0.2", "0", 100.0)]
    assert noise_of_seeds(trials, "val/loss") == pytest.approx(2**0.5)
    assert noise_of_seeds(trials[1:], "val/loss") == 0


@pytest.mark.parametrize(
    ("val", "test", "better"),
    [(-4, -3, True), (-4, -1.5, True), (-4, 1, False), (-1, -2.5, True), (-1, -1, False)],
)
def test_better_needs_test_rows_that_agree(val, test, better):
    ahead = {"val/loss": val, "test/loss": test}
    entries = {
        "network": {"error": {"val/loss": 1.0, "test/loss": 1.0}},
        "linear": {"ahead": ahead, "ahead_error": {"val/loss": 1.0, "test/loss": 1.0}},
    }
    assert is_better(entries, "linear") is better
    assert not is_better(entries, "linear", sign=-1)
