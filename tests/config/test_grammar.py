"""Overrides as users type them: free text needs no quotes, names of columns may have any signs."""

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from goldilocks.config.compose import prepare_hydra
from goldilocks.errors import Refused

PLAIN = [  # what is typed, and the value that Hydra reads
    ("data.path=größe.csv", "größe.csv"),
    ("data.target=Price (EUR)", "Price (EUR)"),
    ("data.target=Price (EUR, net)", "Price (EUR, net)"),
    ("data.target=it's", "it's"),
    ("data.target=a & b; c #1", "a & b; c #1"),
    ("data.target=a=b", "a=b"),
    ("data.target=2024", "2024"),
    ("data.target=true", "true"),
    ("data.target=1e3", "1e3"),
    ("data.target=null", None),
    ("data.target=[größe,b]", ["größe", "b"]),
    ("name=é", "é"),
    ("data.path=C:\\data\\x.csv", "C:\\data\\x.csv"),
    ("data.target='quoted, already'", "quoted, already"),
    ("optimizer.lr=0.1", 0.1),
    ("model.width=[10,20]", [10, 20]),
    ("data.columns.größe=drop", {"größe": "drop"}),
    ("data.columns.a.b (c)=drop", {"a.b (c)": "drop"}),
    ("data.columns.a=b=drop", {"a=b": "drop"}),
    ("data.columns={colour: drop, größe: numeric}", {"colour": "drop", "größe": "numeric"}),
]


@pytest.fixture
def read():
    prepare_hydra()
    return OverridesParser.create().parse_override


@pytest.mark.parametrize(("word", "value"), PLAIN, ids=[word for word, _ in PLAIN])
def test_text_is_read_as_it_is_typed(read, word, value):
    found = read(word)
    assert found.value() == value
    assert type(found.value()) is type(value) or isinstance(value, str)
    assert found.input_line.lstrip("+") == word.lstrip("+")  # what is recorded and repeated


def test_a_tilde_is_the_users_home(read, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert read("data.path=~/x.csv").value() == "/home/somebody/x.csv"


def test_values_of_a_sweep_are_quoted_one_by_one(read):
    found = read("data.target=Price (EUR),b")
    assert list(found.sweep_string_iterator()) == ["'Price (EUR)'", "'b'"]
    found = read("data.columns.größe=drop,numeric")
    words = [f"{found.get_key_element()}={value}" for value in found.sweep_string_iterator()]
    assert [read(word).value() for word in words] == [{"größe": "drop"}, {"größe": "numeric"}]


@pytest.mark.parametrize(
    "word",
    ["=1", "+=1", "~", "@seed=1", "optimizer@model=adam", "optimizer=../model/deep", "hydra=1"],
)
def test_what_names_nothing_is_refused(read, word):
    with pytest.raises(Refused, match="write "):
        read(word)


def test_a_table_of_foreign_names(command, tmp_path):
    lines = ["größe,Price (EUR),colour,2024"]
    lines += [f"{i},{i * 7 % 13}.5,c{i % 3},{i % 2}" for i in range(40)]
    (tmp_path / "größe.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    quick = ["data=table", "trainer.max_epochs=1", "callbacks=none", "logger=none"]
    ended = command(
        *quick,
        "data.path=größe.csv",
        "data.target=Price (EUR)",
        "data.columns.größe=drop",
        "data.columns={colour: drop}",
        "name=é",
    )
    assert ended.code == 0, ended.err
    config = yaml.safe_load((ended.folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["data"]["target"] == "Price (EUR)"
    assert config["data"]["columns"] == {"größe": "drop", "colour": "drop"}
    assert "data.target=Price (EUR)" in (ended.folder / "overrides.yaml").read_text("utf-8")
    assert command(*quick, "data.path=größe.csv", "data.target=2024").code == 0
    sweep = command("-m", *quick, "data.path=größe.csv", "data.target=Price (EUR),2024", "name=s")
    assert sweep.code in (0, 2)  # 2: where targets of two kinds are not ranked together


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=range(0,10,0)", "has no end"),
        ("optimizer.lr=range(0,1,0.0)", "has no end"),
        ("seed=range(0,inf)", "has no end"),
        ("seed=shuffle(range(0,10,0))", "has no end"),
        ("seed=range(10,0)", "holds no values"),
        ("seed=range(0)", "holds no values"),
        ("seed=tag(x,range(0,10,-1))", "holds no values"),
    ],
)
def test_a_range_without_end_or_values_is_refused_before_it_is_enumerated(read, word, said):
    with pytest.raises(Refused, match=said):
        read(word)
