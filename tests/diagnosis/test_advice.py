"""What is advised exists: every option, key and script that a message of ours names,
and every advice to a finding.
"""

import ast
import re

import pytest

from conftest import ROOT
from goldilocks.config.options import groups, options
from goldilocks.diagnosis.advice import ADVICE, advise
from goldilocks.diagnosis.advice import command as next_command
from goldilocks.diagnosis.evidence import Evidence, Rows
from goldilocks.diagnosis.findings import Finding
from goldilocks.training.checks import check, warnings_about_training

MESSAGES = sorted([*ROOT.glob("src/goldilocks/**/*.py"), ROOT / "docs" / "diagnosis.md"])
TOP = ("seed", "name", "log_dir", "resume", "task", "objective", "lr_range", "packages")
KEY = re.compile(r"(?<![\w./-])([a-z_]+(?:\.[a-z_]+)+)=")
OPTION = re.compile(r"(?<![\w./-])([a-z_]+)=([a-z_]\w*)(?![\w.(])")
HOLE = "\0"  # where a message has a value
MADE = {("experiment", "best")}  # by a sweep, of its best trial
LIVE = {"data.columns"}  # below which the user's own names are


def messages(path):
    """The texts of a file, with a hole for each value: of Python its strings, but no docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text
        return
    tree = ast.parse(text)
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in inside | docs:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else HOLE for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def known_keys():
    """Every key of every option, by the group that it is under."""
    import yaml

    found = set(TOP)
    for path in (ROOT / "conf").rglob("*.yaml"):
        parts = path.relative_to(ROOT / "conf").parts
        node = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        walk("" if parts == ("train.yaml",) else parts[0], node, found)
    return found


def walk(prefix, node, found):
    found.add(prefix)
    if isinstance(node, dict):
        for key, value in node.items():
            walk(f"{prefix}.{key}".lstrip("."), value, found)


def test_every_key_and_option_that_a_message_names_exists():
    keys, groups_known = known_keys(), set(groups())
    wrong = []
    for path in MESSAGES:
        for text in messages(path):
            for key in KEY.findall(text):
                below = any(key.startswith(f"{live}.") for live in LIVE)
                if key.partition(".")[0] in {*groups_known, *TOP} and key not in keys and not below:
                    wrong.append(f"{path.name}: {key}")
            for group, option in OPTION.findall(text):
                given = {*options(group), "null"} if group in groups_known else {option}
                if option not in given and (group, option) not in MADE:
                    wrong.append(f"{path.name}: {group}={option}")
            for script in re.findall(r"scripts/\w+\.py", text):
                if not (ROOT / script).is_file():
                    wrong.append(f"{path.name}: {script}")
    assert wrong == []


def test_a_key_that_is_not_there_would_be_found():
    assert "data.drop_duplicates" in known_keys() and "data.drop_repeats" not in known_keys()
    assert KEY.findall("write data.drop_repeats=true") == ["data.drop_repeats"]


# --- the advice to each finding, under many options -----------------------------------------------

EVIDENCE = Evidence(
    task="multiclass",
    status="done",
    history=[{"train/loss": 1.0, "val/loss": 1.0, "gradient_norm": 1.0}] * 3,
    best_epoch=1,
    planned_epochs=3,
    rate=0.01,
    clip=0.5,
    train=Rows(90, 0.9, 0.01, 1.0, 0.01),
    val=Rows(30, 0.95, 0.02, 1.0, 0.02),
    steps=2000,
)
CHOICES = [
    [],
    ["model=deep", "model.norm=batch", "data.batch_size=8"],
    ["model=selfnorm", "optimizer=sgd"],
    ["model=resnet", "regularization=[dropout]"],
    ["model=linear", "task.class_weight=balanced"],
    ["data.sampler=balanced"],
    ["model=realmlp", "data.test_fraction=0.7", "data.val_fraction=0.05"],
    ["model.activation=tanh", "model.init=normal", "data.scaling=none"],
    ["model.width=[20,10]", "model.depth=null", "optimizer=adadelta", "data.folds=3"],
    ["model=wide", "regularization=[dropout,mixup]", "trainer.max_steps=100"],
    ["regularization.dropout=0.2", "optimizer=nesterov"],
]


@pytest.mark.parametrize("words", CHOICES, ids=" ".join)
def test_every_advice_is_a_configuration_and_brings_no_warning(words, compose):
    """And changes something: an advice that is followed already would be given again and again."""
    before = compose("data=digits", *words)
    settings = check(before)
    known = set(warnings_about_training(settings))
    given = {}
    for name in ADVICE:
        told, overrides = advise(Finding(name, ""), EVIDENCE, settings)
        assert told
        if overrides:
            given[tuple(overrides)] = name
    for overrides, name in given.items():  # several findings have the same advice
        after = compose(*next_command(["data=digits", *words], list(overrides)).split()[2:])
        assert set(warnings_about_training(check(after))) <= known, (name, overrides)
        assert after != before, (name, overrides)


def test_following_the_advice_against_noise_comes_to_an_end(compose):
    """Overfitting is answered with less and less, and in the end with words alone."""
    words, seen = ["data=digits", "model=wide"], set()
    while True:
        settings = check(compose(*words))
        _, overrides = advise(Finding("overfitting", ""), EVIDENCE, settings)
        if not overrides:
            break
        words = next_command(words, overrides).split()[2:]
        assert tuple(sorted(words)) not in seen
        seen.add(tuple(sorted(words)))
    assert len(seen) > 3


@pytest.mark.parametrize("model", ["linear", "shallow", "wide", "resnet", "realmlp"])
def test_following_the_advice_against_underfitting_comes_to_an_end(model, compose):
    words = ["data=digits", f"model={model}", "optimizer=sgd"]
    for _ in range(6):
        settings = check(compose(*words))
        _, overrides = advise(Finding("underfitting", ""), EVIDENCE, settings)
        if not overrides:
            return
        words = next_command(words, overrides).split()[2:]
    pytest.fail(f"goes on and on: {words}")
