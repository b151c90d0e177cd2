"""What runs but is probably not meant is said once, with the reason and what to write instead."""

import pytest

from conftest import SMALL

WARNED = [
    ("model.norm=batch regularization=dropout", "dropout before BatchNorm", "model.norm=layer"),
    ("regularization=l2", "L2 in an adaptive optimizer is not weight decay", "optimizer=adamw"),
    ("scheduler=cosine trainer.max_epochs=30", "early stopping may cut it", "callbacks.early_stopping=null"),
    ("scheduler=onecycle trainer.max_epochs=30", "early stopping may cut it", "callbacks.early_stopping=null"),
]
SILENT = [
    "",
    "model.norm=batch",
    "model.norm=layer regularization=dropout",
    "regularization=l2 optimizer=sgd",
    "scheduler=cosine trainer.max_epochs=30 callbacks.early_stopping=null",
    "scheduler=plateau trainer.max_epochs=30",
]


@pytest.mark.parametrize(("words", "why", "instead"), WARNED)
def test_what_is_probably_not_meant_is_said(command, words: str, why: str, instead: str) -> None:
    ended = command(*SMALL, *words.split())
    lines = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    assert ended.code == 0
    assert len(lines) == 1
    assert why in lines[0]
    assert instead in lines[0]


@pytest.mark.parametrize("words", SILENT)
def test_what_is_sound_is_not_warned_of(command, words: str) -> None:
    assert "warning" not in command(*SMALL, *words.split()).err


def test_a_sweep_warns_once(command) -> None:
    ended = command("-m", *SMALL, "regularization=l2", "seed=0,1,2")
    assert ended.err.count("warning: ") == 1
