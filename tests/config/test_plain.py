"""Plain values are what OmegaConf makes of a configuration."""

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from goldilocks.config.plain import plain
from goldilocks.config.yaml_text import as_yaml

WORDS = {
    "all": [],
    "a table": ["data=table", "data.path=x.csv", "data.columns={a: drop}", "model=deep"],
    "several": ["regularization=[dropout,l2,mixup]", "logger=[tensorboard,csv]", "name=5"],
    "references": ["scheduler=plateau", "objective.metric=val/accuracy", "seed=${data.seed}"],
    "texts": ["name=a-b", "log_dir='1e-3 '", "data=openml", "data.name=yes", "optimizer.lr=auto"],
}
LIKE_OTHERS = [
    "on",
    "1e-3",
    "12",
    "0x1",
    "~",
    "null",
    "1_0",
    "-",
    "a: b",
    "größe",
    "x" * 200,
    "a\nb",
    "",
]


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("resolve", [True, False])
def test_values_are_those_of_omegaconf(compose, words: list[str], resolve: bool) -> None:
    cfg = compose(*words)
    ours, theirs = plain(cfg, resolve=resolve), OmegaConf.to_container(cfg, resolve=resolve)
    assert repr(ours) == repr(theirs)  # the order and the kinds too


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_text_is_that_of_omegaconf(compose, words: list[str]) -> None:
    cfg = compose(*words)
    text = as_yaml(plain(cfg))
    assert text == OmegaConf.to_yaml(cfg, resolve=True)
    assert OmegaConf.create(text) == OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))


@pytest.mark.parametrize(
    "value",
    ["on", "1e-3", "12", "0x1", "~", "null", "a: b", "ö", "x" * 200, "a\nb", ""],
)
def test_words_that_look_like_something_else_stay_words(value: str) -> None:
    assert as_yaml({"key": value}) == OmegaConf.to_yaml({"key": value})
    assert OmegaConf.create(as_yaml({"key": value})).key == value


def test_nested_references_and_lists() -> None:
    made = {"a": {"b": [1, "${c}", {"d": "${a.e}"}], "e": "x${c}"}, "c": 2, "f": "${a}", "g": None}
    cfg = OmegaConf.create(made)
    assert plain(cfg) == OmegaConf.to_container(cfg, resolve=True)
    assert plain(cfg, resolve=False) == made


@pytest.mark.parametrize("wrong", ["${nowhere}", "???", "${a.b.c}", "${no_such:1}"])
def test_what_cannot_be_followed_is_told_as_omegaconf_tells_it(wrong: str) -> None:
    cfg = OmegaConf.create({"a": 1, "b": wrong})
    assert isinstance(cfg, DictConfig)

    def outcome(make) -> str:
        try:
            return repr(make())
        except OmegaConfBaseException as error:
            return str(error)

    theirs = outcome(lambda: OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    assert outcome(lambda: plain(cfg, throw_on_missing=True)) == theirs
