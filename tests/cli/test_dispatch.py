"""`goldilocks VERB` does what train.py and scripts/ do, and its help is quick and true."""

import ast
import subprocess
import sys
import tomllib

import pytest

from conftest import ROOT
from goldilocks import __version__
from goldilocks.cli import dispatch

AS_SCRIPTS = ("doctor", "ensemble", "evaluate", "export", "predict", "report")


@pytest.fixture
def goldilocks(tmp_path, monkeypatch, capfd):
    """Runs `goldilocks WORDS` in this process, in an empty folder; returns code, out and err."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["goldilocks", *map(str, words)])
        try:
            code = dispatch.main()
        except SystemExit as ended:  # of argparse
            code = ended.code
        return code, *capfd.readouterr()

    return run


def test_help_names_every_verb(goldilocks):
    code, out, err = goldilocks("--help")
    assert (code, err) == (0, "")
    verbs = [path.stem for path in (ROOT / "src/goldilocks/cli/verbs").glob("[!_]*.py")]
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("  ")}
    assert listed == set(verbs) == set(dispatch.VERBS)
    assert goldilocks() == (code, out, err)


def test_the_version_is_that_of_the_package(goldilocks):
    assert goldilocks("--version")[:2] == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("trian", "trian: no such verb; did you mean train?"),
        ("model=deep", "model=deep: a verb is expected first; write goldilocks train model=deep"),
    ],
)
def test_a_wrong_verb_is_one_line(goldilocks, word, line):
    code, out, err = goldilocks(word)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {line}")


@pytest.mark.parametrize("verb", dispatch.VERBS)
def test_the_help_of_a_verb_is_its_own(goldilocks, verb):
    code, out, err = goldilocks(verb, "--help")
    assert (code, err) == (0, "")
    assert f"goldilocks {verb}" in out.splitlines()[0]
    assert "train.py" not in out.splitlines()[0]


@pytest.mark.parametrize("verb", ["", *dispatch.VERBS])
def test_help_imports_nothing_heavy(verb, tmp_path):
    words = [*([verb] if verb else []), "--help"]
    code = (
        f"import sys; sys.argv = ['goldilocks', *{words}]\n"
        "from goldilocks.cli.dispatch import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'pandas', 'pydantic', 'sklearn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_console_command_is_declared():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = declared["scripts"]["goldilocks"].partition(":")
    assert (module, function) == (dispatch.main.__module__, "main")


@pytest.mark.parametrize("verb", AS_SCRIPTS)
def test_a_script_is_the_verb(verb):
    tree = ast.parse((ROOT / "scripts" / f"{verb}.py").read_text(encoding="utf-8"))
    taken = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert taken == [f"goldilocks.cli.verbs.{verb}"]


def test_train_and_doctor_do_their_work(goldilocks, tmp_path):
    words = ["data=iris", "trainer=smoke", "callbacks=none", "logger=none"]
    code, out, _ = goldilocks("train", *words)
    assert code == 0
    assert "done" in out
    assert len(list(tmp_path.glob("logs/runs/*/result.json"))) == 1
    code, out, _ = goldilocks("doctor", "data=iris", "optimizer.lr=100")
    assert code == 1
    assert "nothing was written" in out
