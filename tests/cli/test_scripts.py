"""The scripts' arguments are checked before any work, in one line;
long scripts say how far they are.
"""

import importlib
import sys

import pytest

from conftest import ROOT

WRONG = [
    ("lr_range --output x.foo", "x.foo: is no picture; write a name that ends in one of .png"),
    ("lr_range --output .", ".: is a folder; write a file in it: ./x.png"),
    ("plot_schedules --output .", ".: is a folder; write a file in it: ./x.png"),
    ("plot_schedules --output taken/x.png", "taken is no folder; write another place"),
    ("scores --seeds 0", "0: a whole number of at least 1 is expected"),
    ("scores --seeds x", "x: a whole number of at least 1 is expected"),
    ("scores resume=last", "resume=last: is for python train.py alone; leave it out"),
    ("lr_range resume=last", "resume=last: is for python train.py alone; leave it out"),
    ("doctor -m", "-m: this script takes one configuration, no sweep; leave it out"),
    ("doctor --wrong", "unrecognized arguments: --wrong"),
    ("evaluate", "the following arguments are required: run"),
]


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[words for words, _ in WRONG])
def test_a_wrong_argument_is_one_line(words, line, tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    name, *given = words.split()
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *given])
    try:
        code = importlib.import_module(name).main()
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert line in printed
    assert len(printed.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]
