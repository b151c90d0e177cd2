"""What the template costs, as ratios measured in one run:
`python scripts/benchmark.py [start train sweep data fused gpu]`.

start: printing the configuration and the help against importing Hydra; a run of one step against
importing torch and Lightning. train: steps a second of a run, with metrics, TensorBoard,
checkpoints and early stopping on, against a bare PyTorch loop over the same tensors with the same
network, optimizer flags and clipping. sweep: seconds that a trial costs beyond its steps and its
validation. data: the time of an epoch as the rows grow. fused: how many times as fast sweeps are
whose trials are trained as one network. gpu: rows a second of runs on a GPU, their share of a bare
loop's, and memory. The last two only where they are named.

What is compared is measured in turns, at least 7 times; medians and the range are printed.
`--write` renews docs/benchmarks.md.
"""

import argparse
import itertools
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

from goldilocks.cli.main import refusals
from goldilocks.machine.interrupts import passed_on
from goldilocks.machine.progress import shown_progress
from studies.stopwatch import Watch, after, before

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
WIDE = "data=synthetic data.rows=33333 data.features=784 data.classes=10"
CASES = {  # name: overrides; two embedded sets, and larger
    "30 inputs, 3 x 64, batch 32, 20,000 rows": "data=synthetic data.rows=33333 model.width=64",
    "the same with nadam, clipped": "data=synthetic data.rows=33333 model.width=64 optimizer=nadam"
    " trainer.gradient_clip_val=1",
    "784 inputs, 3 x 100, batch 32, 20,000 rows": WIDE,
    "784 inputs, 3 x 512, batch 256, 20,000 rows": f"{WIDE} model.width=512 data.batch_size=256",
    "digits: 64 inputs, 3 x 100, batch 32, 1,078 rows": "data=digits",
    "breast_cancer: 30 inputs, 3 x 64, batch 32, 341 rows": "data=breast_cancer model.width=64",
}
# Figures are drawn once, however long a run is.
QUIET = "callbacks.progress_bar=null callbacks.evaluation=null"
COMMON = f"model=deep optimizer=adam {QUIET} callbacks.early_stopping.patience=1000"
TRIALS = 20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", help=f"of {', '.join(PARTS)}; default: {', '.join(DEFAULT)}"
    )
    parser.add_argument("--pairs", type=int, default=7, help="measurements of each (default: 7)")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="length of a measurement of train (default: 2)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short measurement of each: does it run?"
    )
    parser.add_argument(
        "--only", default="", help="of train, fused and gpu, only the cases whose name holds this"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument(
        "--device", choices=("gpu", "cpu"), default="gpu", help="of gpu; cpu: does it run?"
    )
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"{min(unknown)}: no such part; write some of: {' '.join(PARTS)}")
    if given.quick:
        given.pairs, given.seconds = 1, 0.1
    with refusals() as outcome:
        rows = []
        for part in given.parts or DEFAULT:
            for row in PARTS[part](given):
                rows.append({"part": part, **row})
                print(f"{part:<6} {row['what']:<58} {shown(row)}", flush=True)
        if given.json:
            given.json.write_text(
                json.dumps({**machine(), "rows": rows}, indent=2) + "\n", encoding="utf-8"
            )
        if given.write:
            PAGE.write_text(page(rows), encoding="utf-8")
    return outcome.code


# --- start ----------------------------------------------------------------------------------------


def start_part(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Ratios of the wall time of whole processes."""
    train = [sys.executable, str(ROOT / "train.py")]
    hydra, libraries = (
        [sys.executable, "-c", f"import {names}"] for names in ("hydra", "torch, pytorch_lightning")
    )
    commands = {
        "train.py --help / import hydra": ([*train, "--help"], hydra),
        "train.py --cfg job / import hydra": ([*train, "--cfg", "job"], hydra),
        "train.py, a run of one step / import torch, lightning": (
            [*train, "trainer.max_steps=1"],
            libraries,
        ),
    }
    rows = []
    for what, (ours, bare) in commands.items():
        process_seconds(ours)  # warms the disk's cache
        ratios = [
            process_seconds(ours) / process_seconds(bare)
            for _ in shown_progress(range(given.pairs), given.pairs, f"pairs of {what}")
        ]
        rows.append({"what": what, "unit": "times", "values": ratios})
    return rows


def process_seconds(command: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - began


# --- train ----------------------------------------------------------------------------------------


def train_part(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Shares of a bare loop's speed, by wall time and by CPU time."""
    rows = []
    for name in (name for name in CASES if given.only in name):
        if given.quick:
            CASES[name] = CASES[name].replace("data.rows=33333", "data.rows=1000")
        bare_loop(name, epochs=1)  # warms up
        epochs = max(2, round(given.seconds / bare_loop(name, epochs=1)["wall"]))
        turns = shown_progress(range(given.pairs), given.pairs, f"pairs of {name}")
        pairs = [(our_run(name, epochs), bare_loop(name, epochs)) for _ in turns]
        for side, whose in enumerate(("ours", "bare")):
            speeds = [pair[side]["steps"] / pair[side]["wall"] for pair in pairs]
            rows.append({"what": f"{name}, {whose}", "unit": "steps/s", "values": speeds})
        for clock in ("wall", "cpu"):
            shares = [bare[clock] / ours[clock] for ours, bare in pairs]
            rows.append({"what": f"{name}, {clock} time", "unit": "of bare", "values": shares})
    return rows


def our_run(name: str, epochs: int) -> dict[str, float]:
    """Seconds of a whole fit, everything on, without validation,
    of which the bare loop has none.
    """
    from goldilocks.runs.request import RunRequest
    from goldilocks.runs.run import run
    from goldilocks.training.components import prepare

    cfg, choices = compose_case(name, epochs)
    parts = prepare(cfg)
    watch = Watch()
    for hook, note in {"on_train_start": watch.start, "on_validation_start": watch.pause}.items():
        setattr(parts.module, hook, before(note, getattr(parts.module, hook)))
    for hook, note in {"on_validation_end": watch.resume, "on_train_end": watch.pause}.items():
        setattr(parts.module, hook, after(getattr(parts.module, hook), note))
    with tempfile.TemporaryDirectory() as folder:
        result = passed_on(run(RunRequest(cfg, Path(folder), [], choices, test=False), parts))
    assert result["epochs"] == epochs
    return {"wall": watch.wall, "cpu": watch.cpu, "steps": result["steps"]}


def bare_loop(name: str, epochs: int) -> dict[str, float]:
    """Seconds of the same training without the template: the loop that one would write by hand."""
    import torch
    from torch import nn

    from goldilocks.optimizers.optimizer import build_optimizer
    from goldilocks.training.components import prepare
    from goldilocks.training.threads import threads_for

    parts = prepare(compose_case(name, epochs)[0])
    network, size = parts.module.network, parts.data.batch_size
    torch.set_num_threads(threads_for(parts))
    optimizer = build_optimizer(parts.settings.optimizer, network)
    x, y = parts.data.tensors["train"]
    loss_function = nn.CrossEntropyLoss() if y.dtype == torch.long else nn.BCEWithLogitsLoss()
    clip = parts.settings.trainer["gradient_clip_val"]
    network.train()
    watch = Watch()
    watch.start()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for first in range(0, len(x), size):
            rows = order[first : first + size]
            loss = loss_function(network(x[rows]), y[rows])
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    watch.pause()
    return {"wall": watch.wall, "cpu": watch.cpu, "steps": epochs * math.ceil(len(x) / size)}


def compose_case(name: str, epochs: int) -> Any:
    from goldilocks.config.compose import compose

    return compose([*COMMON.split(), *CASES[name].split(), f"trainer.max_epochs={epochs}"])


# --- sweep and data -------------------------------------------------------------------------------


def sweep_part(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds a trial beyond steps and validation,
    in a sweep of several in one process that has warmed up.
    """
    times = 2 if given.quick else given.pairs + 1
    seconds = [
        sweep_overhead(2 if given.quick else TRIALS)
        for _ in shown_progress(range(times), times, "sweeps")
    ]
    return [{"what": f"{TRIALS} trials in one process, each", "unit": "s", "values": seconds[1:]}]


def sweep_overhead(trials: int) -> float:
    from goldilocks.training.module import TrainingModule

    sys.path.insert(0, str(ROOT))
    import train

    worked = Watch()
    names = {"on_train_epoch_start": worked.resume, "on_validation_end": worked.pause}
    originals = {name: getattr(TrainingModule, name) for name in names}
    words = [
        "-m",
        "data=iris",
        "trainer.max_epochs=5",
        f"seed=range({trials})",
        "callbacks.progress_bar=null",
        "hydra/launcher=basic",
    ]
    with tempfile.TemporaryDirectory() as folder, chdir(folder), open(os.devnull, "w") as nowhere:
        sys.argv = ["train.py", *words]
        screen, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), nowhere, nowhere
        try:
            resumed = before(worked.resume, originals["on_train_epoch_start"])
            paused = after(originals["on_validation_end"], worked.pause)
            TrainingModule.on_train_epoch_start = resumed  # type: ignore[method-assign]
            TrainingModule.on_validation_end = paused  # type: ignore[method-assign]
            began = time.perf_counter()
            code = train.main()
            wall = time.perf_counter() - began
        finally:
            sys.stdout, sys.stderr = screen
            for name, original in originals.items():
                setattr(TrainingModule, name, original)
    assert code == 0
    return (wall - worked.wall) / trials


def data_part(given: argparse.Namespace) -> list[dict[str, Any]]:
    """How the time of an epoch grows with the rows, 30 columns wide,
    and the memory of the largest.
    """
    counts = [1_000, 10_000] if given.quick else [100_000, 1_000_000, 10_000_000]
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for turn in shown_progress(range(given.pairs), given.pairs, "turns of the data"):
        for count in counts if turn < 3 else counts[:-1]:  # the largest takes a minute
            seconds[count].append(epoch_seconds(count, epochs=2 if count == counts[-1] else 4))
    rows = []
    for fewer, more in itertools.pairwise(counts):
        ratios = [
            large / small for large, small in zip(seconds[more], seconds[fewer], strict=False)
        ]
        rows.append(
            {"what": f"epoch of {more:,} rows / of {fewer:,}", "unit": "times", "values": ratios}
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        *rows,
        {"what": f"peak memory with {counts[-1]:,} rows", "unit": "GiB", "values": [peak]},
    ]


def epoch_seconds(rows: int, epochs: int) -> float:
    """Seconds of an epoch, validation left out: the median of all but the first."""
    from goldilocks.config.compose import compose
    from goldilocks.runs.request import RunRequest
    from goldilocks.runs.run import run
    from goldilocks.training.components import prepare

    words = (
        f"data=synthetic data.rows={rows} data.batch_size=1024 model=deep optimizer=adam"
        f" trainer.max_epochs={epochs}"
    )
    cfg, choices = compose([*words.split(), *QUIET.split()])
    parts, seconds = prepare(cfg), []
    with tempfile.TemporaryDirectory() as folder:
        hook = parts.module.on_train_epoch_start
        watch = Watch()
        parts.module.on_train_epoch_start = before(watch.start, hook)  # type: ignore[method-assign]
        parts.module.on_validation_start = watch.pause  # type: ignore[method-assign]
        parts.module.on_validation_end = lambda: seconds.append(watch.wall)  # type: ignore[method-assign]
        run(RunRequest(cfg, Path(folder), [], choices, test=False), parts)
    return statistics.median(end - start for start, end in itertools.pairwise(seconds))


def gpu_part(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Networks for tables and images on a GPU; see studies/benchmark_gpu.py."""
    from studies.benchmark_gpu import measure

    return measure(given)


def fused_part(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Sweeps whose trials are trained as one network; see studies/benchmark_fused.py."""
    from studies.benchmark_fused import measure

    return measure(given)


# --- showing --------------------------------------------------------------------------------------

PARTS = {
    "start": start_part,
    "train": train_part,
    "sweep": sweep_part,
    "data": data_part,
    "fused": fused_part,
    "gpu": gpu_part,
}
DEFAULT = ("start", "train", "sweep", "data")


def shown(row: dict[str, Any]) -> str:
    """Median, range and unit."""
    values = row["values"]
    span = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.2f}{span} {row['unit']}"


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    from goldilocks.runs.environment import environment

    found = environment()
    versions = ", ".join(
        f"{name} {found['packages'][name]}" for name in ("torch", "pytorch-lightning", "hydra-core")
    )
    return {
        "machine": f"{found['cpu_count']} cores ({platform.machine()}), {platform.system()}",
        "versions": f"Python {found['python']}, {versions}",
        "commit": str(found["git"]["commit"])[:12]
        + (" with changes" if found["git"]["diff"] else ""),
    }


def page(rows: list[dict[str, Any]]) -> str:
    """docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `python scripts/benchmark.py --write`; the script's head says what is measured.",
    ]
    lines += ["Medians, and the range of the measurements in brackets.", ""]
    lines += [f"- {name}: {value}" for name, value in machine().items()]
    lines += ["", "| part | what | figure |", "| --- | --- | --- |"]
    lines += [f"| {row['part']} | {row['what']} | {shown(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
