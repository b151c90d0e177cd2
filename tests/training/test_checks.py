"""What runs but is probably not meant is said once, with the reason and what to write instead."""

import pytest

from conftest import SMALL

WARNED = [
    (
        "model=deep model.norm=batch regularization=dropout",
        "dropout before BatchNorm",
        "model.norm=layer",
    ),
    ("model.norm=batch model.activation=selu", "BatchNorm is pointless with it", "model.norm=none"),
    (
        "model.norm=batch data.batch_size=8",
        "BatchNorm's statistics are unreliable over 8 rows",
        "data.batch_size=32",
    ),
    (
        "regularization=alpha_dropout",
        "AlphaDropout keeps mean and variance of SELU's",
        "regularization=dropout",
    ),
    (
        "regularization=swa trainer.max_epochs=30",
        "early stopping may end the run",
        "callbacks.early_stopping=null",
    ),
    (
        "task.class_weight=balanced data.sampler=balanced",
        "rare classes count twice",
        "write task.class_weight=none, or data.sampler=null",
    ),
    ("regularization=l2", "L2 in an adaptive optimizer is not weight decay", "optimizer=adamw"),
    (
        "regularization=l2 optimizer=lion",
        "L2 in an adaptive optimizer is not weight decay",
        "optimizer=adamw",
    ),
    (
        "optimizer=schedule_free model.norm=batch",
        "BatchNorm's statistics are those of the weights that this optimizer trains",
        "model.norm=layer",
    ),
    (
        "optimizer=schedule_free_sgd regularization=max_norm",
        "max_norm limits the weights that this optimizer trains",
        "optimizer.weight_decay=0.1",
    ),
    (
        "optimizer=schedule_free scheduler=cosine callbacks.early_stopping=null",
        "this optimizer takes the place of a schedule",
        "scheduler=constant",
    ),
    (
        "scheduler=cosine trainer.max_epochs=30",
        "early stopping may cut it",
        "callbacks.early_stopping=null",
    ),
    (
        "scheduler=cosine callbacks.early_stopping=null trainer.max_time=1h",
        "trainer.max_time may cut it",
        "scheduler=constant",
    ),
    (
        "scheduler=onecycle trainer.max_epochs=30",
        "early stopping may cut it",
        "callbacks.early_stopping=null",
    ),
]
SILENT = [
    "",
    "model.norm=batch",
    "model.norm=layer regularization=dropout",
    "model.norm=layer data.batch_size=8",
    "model=shallow model.norm=batch regularization=dropout",  # the dropout comes last
    "regularization=alpha_dropout model.activation=selu",
    "regularization=swa trainer.max_epochs=30 callbacks.early_stopping=null",
    "regularization=l2 optimizer=sgd",
    "optimizer=schedule_free model.norm=layer",
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


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        ("model=linear regularization=alpha_dropout", "model=selfnorm"),
        ("model=linear regularization=dropout", "a deeper one"),
        ("regularization.shift=1", "leave it out"),
        ("regularization=[ema,swa]", "leave one of them out"),
        ("model=realmlp regularization=alpha_dropout", "model=selfnorm"),
    ],
)
def test_a_strength_that_cannot_act_is_refused(command, words: str, instead: str) -> None:
    ended = command(*SMALL, *words.split())
    assert (ended.code, ended.new) == (2, [])
    assert ended.err.startswith("error: regularization")
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert instead in ended.err


def test_a_sweep_warns_once(command) -> None:
    ended = command("-m", *SMALL, "regularization=l2", "seed=0,1,2")
    assert ended.err.count("warning: ") == 1
