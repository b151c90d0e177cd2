"""The made problems of docs/diagnosis.md: some of them are diagnosed; all, with `make test-all`."""

import sys
from types import SimpleNamespace

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from goldilocks.config.compose import prepare_hydra
from goldilocks.diagnosis.findings import RULES
from studies import diagnosis_table
from studies.diagnosis_problems import problems
from studies.diagnosis_table import Followed, Kept, Outcome, diagnosed, follow, scores, what_came

PROBLEMS = {problem.name: problem for problem in problems()}
SOME = [
    "regression, nothing but noise",
    "line, noise 70% of the variance, dropout",
    "chessboard of four classes, linear model",
    "six steps of a noisy curve",
    "a constant target",
]


@pytest.mark.parametrize("name", SOME)
def test_a_problem_is_told_what_is_wrong_with_it(name):
    prepare_hydra()
    outcome = diagnosed(PROBLEMS[name])
    assert (outcome.missing, outcome.wrong) == (set(), set()), outcome.findings


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in SOME])
def test_the_others_too(name):
    test_a_problem_is_told_what_is_wrong_with_it(name)


def test_the_problems_are_many_and_each_finding_has_some():
    assert len(PROBLEMS) == len(problems()) >= 40
    named = {name for problem in PROBLEMS.values() for name in problem.right}
    assert named == {*RULES, "single features", "rows in two splits", "target"}
    assert sum(not problem.right for problem in PROBLEMS.values()) >= 10
    assert not any(problem.right & problem.open for problem in PROBLEMS.values())


def outcome(name: str, *found: str, loss: float = 0.0, error: float = 0.1, words=()) -> Outcome:
    findings = [{"name": each, "overrides": list(words)} for each in found]
    return Outcome(PROBLEMS[name], loss, error, findings)


def test_precision_and_recall_are_counted_as_they_are_defined():
    outcomes = [
        outcome("a constant target"),
        outcome("line, linear model", "target"),
        outcome("3 epochs of classes", "still improving"),
        outcome("three classes far apart", "still improving"),
    ]
    assert list(scores(outcomes))[2:] == [
        "| still improving | 1 | 1 | 0 | 1 | 1.00 | 0.50 | 1.00 |",
        "| target | 1 | 0 | 1 | 0 | 0.00 | 0.00 | 0.00 |",
    ]


def test_an_interrupted_table_goes_on(tmp_path, monkeypatch):
    trained = []

    def train(problem, words=()):
        trained.append((problem.name, *words))
        return outcome(problem.name, "target")

    monkeypatch.setattr(diagnosis_table, "diagnosed", train)
    path, problem = tmp_path / "logs" / "kept.jsonl", PROBLEMS["a constant target"]
    first = Kept(path).outcome(problem)
    with path.open("a", encoding="utf-8") as file:
        file.write('\n{"key": "ab')
    again = Kept(path)
    assert again.outcome(problem) == first
    again.outcome(problem, ["seed=1"])
    assert Kept(path).outcome(problem, ["seed=1"]) == first
    assert trained == [(problem.name,), (problem.name, "seed=1")]
    monkeypatch.setattr(diagnosis_table, "RULES", [path])  # other rules
    again.outcome(problem)
    assert len(trained) == 3


def test_an_advice_is_followed_until_it_helps():
    first, second, third = (
        outcome(name, "underfitting", loss=1.0, words=["model=deep"])
        for name in (
            "circle, linear model",
            "waves, linear model",
            "product of two numbers, linear model",
        )
    )
    after = {"circle, linear model": 2.0, "waves, linear model": 0.5}
    kept = SimpleNamespace(
        outcome=lambda problem, words: outcome(problem.name, loss=after[problem.name])
    )
    told = list(follow([first, second, third], kept))
    assert [(each.before, each.helped) for each in told] == [(first, False), (second, True)]
    assert what_came(told[0]) == "`val/loss` 1, then 2; finds nothing: no help"


@pytest.mark.parametrize(
    ("name", "loss", "error", "found", "helped"),
    [
        ("underfitting", 0.9, 0.1, [], True),
        ("underfitting", 1.1, 0.1, [], False),  # another loss that is worse is no help
        ("noise", 1.1, 0.05, ["noise"], True),
        ("noise", 0.9, 0.2, [], False),
        ("single features", 1.1, 0.1, [], True),
        ("single features", 0.9, 0.1, ["single features"], False),
    ],
)
def test_what_helps(name, loss, error, found, helped):
    before = outcome("circle, linear model", name, loss=1.0)
    after = outcome("circle, linear model", *found, loss=loss, error=error)
    assert Followed(name, before, [], after).helped == helped
