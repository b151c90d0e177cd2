"""What it saves to train trials as one network: `python scripts/benchmark.py fused`.

The same sweep, in this process, with `hydra/launcher=basic` (one by one), `fused` and `auto`, in
turns, once the process has warmed up. All that a trial writes is included, and so are planning and
the report. CPU time is told beside wall time: other work on the machine changes it less.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, cast

from goldilocks.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
QUIET = "callbacks.progress_bar=null callbacks.early_stopping=null sweep.ensemble=0"
DIGITS = f"{QUIET} data=digits data.batch_size=32"
RATES = "optimizer.lr=0.0003,0.0005,0.001,0.0015,0.002,0.003,0.005,0.01"
SWEEPS = {
    "64 trials of 2 x 32, 30 epochs of digits": f"{DIGITS} {RATES} seed=range(8)"
    " model=deep model.depth=2 model.width=32 trainer.max_epochs=30",
    "64 trials of 3 x 100, 30 epochs of digits": f"{DIGITS} {RATES} seed=range(8)"
    " model=deep model.depth=3 model.width=100 trainer.max_epochs=30",
}
WIDTHS = (32, 128, 512)
TRIALS = (2, 8, 32)
NETWORKS = {  # for which `auto` chooses
    "linear": "model=linear",
    "shallow": "model=shallow",
    "deep": "model=deep",
    "wide": "model=wide",
    "3 x 512": "model=deep model.width=512",
    "batch norm": "model=deep model.norm=batch",
    "selfnorm": "model=selfnorm",
    "residual": "model=residual",
    "resnet": "model=resnet",
    "realmlp": "model=realmlp",
    "tabm": "model=tabm model.k=8",
    "cnn": "model=cnn",
}


def measure(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Ratios of the sweeps' times."""
    pairs = 1 if given.quick else min(given.pairs, 3)
    few = "trainer.max_epochs=2" if given.quick else ""
    seconds("basic", f"{DIGITS} seed=0,1 trainer.max_epochs=1")  # imports, caches
    for name, words in SWEEPS.items():
        yield from ratios(name, f"{words} {few}", pairs, given.only)
    yield from folds(pairs, given.only)
    for width in WIDTHS:
        for trials in TRIALS:
            words = f"{DIGITS} model=deep model.width={width} seed=range({trials})"
            name = f"{trials} trials of 3 x {width}, 10 epochs of digits"
            yield from ratios(name, f"{words} trainer.max_epochs=10 {few}", 1, given.only)
    for name, network in NETWORKS.items():
        words = f"{DIGITS} {network} seed=range(8) trainer.max_epochs=5 {few}"
        yield from choices(f"auto, 8 trials of {name}", words, given.only)


def ratios(name: str, words: str, pairs: int, only: str) -> Iterator[dict[str, Any]]:
    """One by one against together."""
    if only not in name:
        return
    wall, cpu = [], []
    for _ in range(pairs):
        alone, together = seconds("basic", words), seconds("fused", words)
        wall.append(alone[0] / together[0])
        cpu.append(alone[1] / together[1])
    yield {"what": f"{name}, wall time", "unit": "times as fast", "values": wall}
    yield {"what": f"{name}, cpu time", "unit": "times as fast", "values": cpu}


def choices(name: str, words: str, only: str) -> Iterator[dict[str, Any]]:
    """The launcher that chooses by itself against the better of the two, by CPU time."""
    if only not in name:
        return
    spent = {launcher: seconds(launcher, words)[1] for launcher in ("basic", "fused", "auto")}
    best = min(spent["basic"], spent["fused"])
    faster = spent["basic"] / spent["fused"]
    yield {"what": name.replace("auto", "fused"), "unit": "times as fast", "values": [faster]}
    yield {"what": name, "unit": "of the better's speed", "values": [best / spent["auto"]]}


def folds(pairs: int, only: str) -> Iterator[dict[str, Any]]:
    """Five folds of the default network, one after the other against together."""
    from goldilocks.runs import cross_validation

    name = "five folds of breast_cancer"
    if only not in name:
        return
    words = "data=breast_cancer data.folds=5 callbacks.progress_bar=null callbacks.baselines=null"
    together = cross_validation.are_together
    wall, cpu = [], []
    for _ in range(pairs):
        cross_validation.are_together = lambda *_: False
        alone = spent_on(words.split())
        cross_validation.are_together = together
        both = spent_on(words.split())
        wall.append(alone[0] / both[0])
        cpu.append(alone[1] / both[1])
    yield {"what": f"{name}, wall time", "unit": "times as fast", "values": wall}
    yield {"what": f"{name}, cpu time", "unit": "times as fast", "values": cpu}


def seconds(launcher: str, words: str) -> tuple[float, float]:
    """Of a sweep, wall and CPU."""
    return spent_on(["-m", f"hydra/launcher={launcher}", *words.split()])


def spent_on(words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command in this process, in an empty folder."""
    sys.path.insert(0, str(ROOT))
    import train

    with tempfile.TemporaryDirectory() as folder, chdir(folder), open(os.devnull, "w") as nowhere:
        sys.argv = ["train.py", *words]
        screen, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), nowhere, nowhere
        try:
            began, used = time.perf_counter(), time.process_time()
            code = cli(cast("Any", train.main))
            found = time.perf_counter() - began, time.process_time() - used
        finally:
            sys.stdout, sys.stderr = screen
    assert code == 0, words
    return found
