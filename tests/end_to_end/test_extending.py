"""Follows docs/extending.md word for word in a copy of the project:
its files, its edits, its commands.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
# Before a block: `file`:  or  `file`, below `line`:  or  `file`, in place of `line`:
# Commands are in ```bash blocks.
BLOCK = re.compile(
    r"(?:^`(?P<file>[\w./-]+)`(?:, (?P<how>below|in place of) `(?P<line>[^\n]+)`)?:\n\n)?"
    r"^```(?P<language>python|yaml|bash)\n(?P<text>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
BRIEF = [
    "trainer=cpu",
    "trainer.max_epochs=2",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
]
# Beside the page: its regularizer at zero strength, to compare with.
WITHOUT = [
    "train.py",
    "regularization=[dropout,outputs]",
    "regularization.outputs=0",
    *BRIEF,
    "log_dir=without",
]
# Runs each command in one process: the libraries are imported once.
DRIVER = """
import json, runpy, sys
from hydra.core.global_hydra import GlobalHydra
codes = []
for words in json.loads(sys.argv[1]):
    GlobalHydra.instance().clear()
    sys.argv = words
    if words[0] == "train.py":
        import train
        codes.append(train.main())
    else:
        runpy.run_path(words[0], run_name="__main__")
        codes.append(0)
print(json.dumps(codes))
"""


class Block(NamedTuple):
    """A fenced block of the page and what is said before it."""

    file: str | None
    how: str | None
    line: str | None
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for match in BLOCK.finditer(PAGE):
        yield Block(*match.group("file", "how", "line", "language", "text"))


def commands() -> list[list[str]]:
    """The words of the page's commands, `python` left out."""
    lines = [
        line for block in blocks() if block.language == "bash" for line in block.text.splitlines()
    ]
    assert all(line.startswith("python ") for line in lines), lines
    return [line.split()[1:] for line in lines]


def follow(block: Block, root: Path) -> None:
    """Writes the block's file, or changes the one line that it names."""
    assert block.file is not None, f"docs/extending.md: no file is named before\n{block.text}"
    path = root / block.file
    if block.how is None:
        assert not path.exists(), f"docs/extending.md writes {block.file}, which exists"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found = [
        number for number, line in enumerate(lines) if line.strip().startswith(block.line or "")
    ]
    assert len(found) == 1, (
        f"docs/extending.md: {len(found)} lines of {block.file} begin with {block.line!r}"
    )
    first = found[0] + (block.how == "below")
    lines[first : found[0] + 1] = [block.text]
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the page was followed and all its
    commands were run for two epochs.
    """
    root = tmp_path_factory.mktemp("clone")
    for name in ("src", "conf"):
        shutil.copytree(
            ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    shutil.copy(ROOT / "train.py", root)
    for block in blocks():
        if block.language != "bash":
            follow(block, root)
    words = [[*command, *(BRIEF if command[0] == "train.py" else [])] for command in commands()] + [
        WITHOUT
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(words)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    failed = [" ".join(command) for command, code in zip(words, codes, strict=True) if code]
    assert not failed, f"{failed}\n{done.stderr}\n{done.stdout}"
    return root


def run_of(clone: Path, command: str) -> Path:
    """The folder of the run that a command of the page made, by its overrides."""
    words = command.split()
    for folder in (clone / "logs" / "runs").iterdir():
        overrides = (folder / "overrides.yaml").read_text(encoding="utf-8").split("\n")
        if [line.removeprefix("- ") for line in overrides if line] == [*words, *BRIEF]:
            return folder
    raise AssertionError(f"docs/extending.md has no command: python train.py {command}")


def test_every_command_of_the_page_leaves_a_finished_run(clone):
    runs = [
        json.loads(path.read_text()) for path in (clone / "logs" / "runs").glob("*/result.json")
    ]
    assert len(runs) == sum(command[0] == "train.py" for command in commands()) >= 8
    assert {run["status"] for run in runs} == {"done"}
    assert {run["epochs"] for run in runs} == {2}


def test_the_run_used_the_copy_of_the_package(clone):
    """Else this file would test the project and not the page."""
    assert "outputs: 0.0" in (run_of(clone, "optimizer=adafactor") / "config.yaml").read_text()


def test_the_own_model_takes_its_options_and_the_dropout(clone):
    folder = run_of(clone, "model=residual model.blocks=3 regularization=dropout")
    config = (folder / "config.yaml").read_text()
    assert "project.model.ResidualNet" in config
    assert re.search(r"blocks: 3\n  dropout: 0\.[1-9]", config)


def test_an_option_of_another_folder_is_composed_with_those_of_conf(clone):
    config = (run_of(clone, "model=narrow") / "config.yaml").read_text()
    assert re.search(r"depth: 3\n  width: 10\n", config)


def test_the_optimizer_of_a_library_steps_in_two_groups(clone):
    import torch

    folder = run_of(clone, "optimizer=adafactor")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][
        0
    ]
    assert [group["weight_decay"] for group in state["param_groups"]] == [0.01, 0.0]
    assert (
        sum("row_var" in entry for entry in state["state"].values()) == 2
    )  # the weights of both layers


def test_the_own_data_are_read_split_and_described(clone):
    import torch

    folder = run_of(clone, "data=images model=cnn")
    spec = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["spec"]
    assert spec["task"] == "multiclass"
    assert spec["input_shape"] == (3, 8, 8)
    assert list(spec["class_names"]) == list("0123456789")
    assert sum(spec["num_rows"].values()) == 1797


def test_what_the_own_callback_logs_is_in_the_table(clone):
    with (run_of(clone, "callbacks=watched") / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["weight_norm"]) > 0 for row in rows[:2])


def test_the_own_metric_decides_where_it_is_the_objective(clone):
    result = json.loads(
        (
            run_of(clone, "data=diabetes metrics=[auto,mape] objective.metric=val/mape")
            / "result.json"
        ).read_text()
    )
    assert (result["objective"]["metric"], result["objective"]["mode"]) == ("val/mape", "min")
    assert result["metrics"]["val/mape"] == result["objective"]["value"]
    assert "test/mape" in result["metrics"]


def test_the_own_regularizer_changes_the_weights(clone):
    """Against the same run with the strength at zero;
    everything else in it is the same by its seed.
    """
    folder = run_of(clone, "regularization=[dropout,outputs]")
    result = json.loads((folder / "result.json").read_text())
    assert result["choices"]["regularization"] == ["dropout", "outputs"]
    without = json.loads(next((clone / "without" / "runs").glob("*/result.json")).read_text())
    assert without["metrics"]["val/loss"] != result["metrics"]["val/loss"]


def test_the_own_transform_of_gradients_is_in_the_run(clone):
    folder = run_of(
        clone, "model=deep regularization=[l2,centred] regularization.centred.share=0.5"
    )
    result = json.loads((folder / "result.json").read_text())
    assert result["choices"]["regularization"] == ["l2", "centred"]
    assert re.search(
        r"project\.gradients\.Centred\n +share: 0\.5", (folder / "config.yaml").read_text()
    )
