"""Finished runs that tests use: trained in a moment, in a folder of their own."""

import importlib.util
import sys

from conftest import ROOT
from goldilocks.config.compose import prepare_hydra
from tables import cars, write

QUIET = [
    "trainer=cpu",
    "trainer.max_epochs=2",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
    "callbacks.evaluation=null",
    "logger=none",
]
AVERAGED = ["regularization=swa", "regularization.swa=0.9"]
# By name: a regression with a vector for each category,
# classes by an ensemble whose weights are averaged, two classes.
TABLES = {
    "price": [
        "data.target=price",
        "data.max_one_hot=2",
        "model.embedding=periodic",
        "data.target_log=true",
    ],
    "colour": [
        "data.target=colour",
        "data.max_one_hot=3",
        "model=tabm",
        "model.k=4",
        "model.embedding=pbld",
        "regularization=ema",
    ],
    "fuel": [
        "data.target=fuel",
        "data.scaling=robust",
        "regularization=swa",
        "regularization.swa=0.9",
        "model.norm=batch",
    ],
}


def finished(folder, *words):
    """The run folder of a training with these words."""
    from goldilocks.config.compose import compose
    from goldilocks.runs.run import start

    prepare_hydra()
    cfg, choices = compose([*QUIET, f"log_dir='{folder.as_posix()}'", *words])
    run, result = start(cfg, [], choices)
    assert result["status"] == "done", result
    return run


def finished_tables(folder):
    """The runs of TABLES by name, and the file of their rows."""
    lines = [line.replace(",-", ",") for line in cars(150)]  # a logarithm is learnt
    path = write(folder / "cars.csv", lines)
    return {
        name: finished(folder, "data=table", f"data.path={path}", *words)
        for name, words in TABLES.items()
    }, path


def command_of(script):
    """Runs `python scripts/SCRIPT.py WORDS` in this process; returns the exit code."""
    spec = importlib.util.spec_from_file_location(
        f"{script}_script", ROOT / "scripts" / f"{script}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(monkeypatch, *words):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, words)])
        return module.main()

    return run
