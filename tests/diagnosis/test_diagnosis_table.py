"""The made problems of docs/diagnosis.md: some of them are told what is wrong with them; all, with `make test-all`."""

import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from goldilocks.config.compose import register_resolvers
from goldilocks.diagnosis.findings import RULES
from studies.diagnosis_problems import problems
from studies.diagnosis_table import Outcome, diagnosed, scores

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
    register_resolvers()
    outcome = diagnosed(PROBLEMS[name])
    assert (outcome.missing, outcome.wrong) == (set(), set()), outcome.findings


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in SOME])
def test_the_others_too(name):
    test_a_problem_is_told_what_is_wrong_with_it(name)


def test_the_problems_are_many_and_of_known_findings():
    assert len(PROBLEMS) == len(problems()) >= 40
    named = {name for problem in PROBLEMS.values() for name in problem.right}
    assert named <= {*RULES, "single features", "rows in two splits", "target"}
    assert sum(not problem.right for problem in PROBLEMS.values()) >= 10


def test_precision_and_recall_are_counted_as_they_are_defined():
    told = [("a constant target", []), ("line, linear model", ["target"]), ("3 epochs of classes", ["still improving"])]  # fmt: skip
    outcomes = [
        Outcome(PROBLEMS[name], 0.0, [{"name": found} for found in names]) for name, names in told
    ]
    rows = list(scores(outcomes))[2:]
    assert rows == [
        "| still improving | 1 | 1 | 0 | 1.00 | 1.00 |",
        "| target | 1 | 0 | 1 | 0.00 | 0.00 |",
    ]
