"""`goldilocks explain` tells of an option or key what its file, its class and the pages say."""

import sys

import pytest

from goldilocks.cli.verbs import explain
from goldilocks.config.options import card
from goldilocks.errors import Refused
from yours import OPTIONS

SHOWN = [(group, option) for group, option in OPTIONS if "/" not in group]


def page(setting):
    return "\n".join(explain.page_of(setting))


def test_an_option_is_told_whole():
    text = page("optimizer=nadam")
    assert card("optimizer", "nadam") in text
    assert "optimizer.lr                      0.001        learning rate; [a number]" in text
    assert "searched: tag(log, interval(1e-4, 3e-2))" in text
    assert "G25, optimizers: SGD for the last percent" in text
    assert "tried: within noise" in text
    assert "nadam, tuned: digits, accuracy" in text
    assert "Nadam beats Adam, both tuned (digits)" in text
    assert "optimizer=nadam: Adam with Nesterov's look ahead" in text
    assert "optimizer=adam " in text.split("related")[1]
    assert "optimizer=nadam" not in text.split("related")[1]
    assert "(default" not in text  # torch's, which may be others


@pytest.mark.parametrize(("group", "option"), SHOWN, ids=lambda word: word)
def test_every_option_is_told(group, option):
    text = page(f"{group}={option}")
    assert text.startswith(f"{group}={option}\n")
    assert card(group, option) in text


def test_bounds_and_meaning_come_from_the_class_and_the_file():
    text = page("regularization=dropout")
    assert "at least 0, below 1" in text
    assert "share of a hidden layer's units set to zero" in text
    assert "l2" not in text.split("the guide")[0]  # the others are at zero


def test_a_key_that_is_not_searched_says_nothing_of_it():
    assert "searched: tag(log" in page("model=selfnorm")
    assert "searched: None" not in page("model=selfnorm")


def test_keys_of_one_name_are_told_apart():
    lines = page("callbacks=default").splitlines()
    health, histograms = (line for line in lines if "every_n_epochs" in line)
    assert "gradients by layer" in health
    assert "weights and activations" in histograms


def test_a_key_is_told_in_every_option_that_has_it():
    lines = page("optimizer.lr").splitlines()
    values = dict(
        line.split()[:2] for line in lines if line.startswith("  ") and "searched" in line
    )
    assert values["sgd"] == "0.03"
    assert values["nesterov"] == "0.01"  # which has it from momentum
    assert "learning rate" in lines[1]


@pytest.mark.parametrize("key", ["seed", "task.threshold", "lr_range.rule"])
def test_keys_beside_the_groups_are_told(key):
    lines = page(key).splitlines()
    assert lines[0] == key
    assert lines[2].startswith("  here: ")


def test_a_group_is_listed():
    assert "nadam" in page("optimizer")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("optimizer=nadm", "did you mean nadam?"),
        ("optimizer.lrr", "did you mean optimizer.lr?"),
        ("wrong", "no such key"),
        ("optimizer.lr=1", "write GROUP=OPTION or GROUP.KEY"),
    ],
)
def test_what_is_not_there_is_one_line(setting, line, monkeypatch, capsys):
    with pytest.raises(Refused, match=line.replace("?", r"\?")):
        page(setting)
    monkeypatch.setattr(sys, "argv", ["goldilocks explain", setting])
    assert explain.main() == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_error_about_a_key_points_to_the_page(command):
    ended = command("optimizer=sgd", "optimizer.lrr=1")
    assert ended.code == 2
    assert ended.err.endswith("python -m goldilocks explain optimizer=sgd lists them\n")
    assert command("optimizer.lrr=1").err.endswith("explain optimizer=nadam lists them\n")


def test_help_points_to_it(command):
    assert "python -m goldilocks explain optimizer=nadam" in command("--help").out
