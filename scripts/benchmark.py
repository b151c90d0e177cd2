"""What the template costs, as ratios measured in one run: `python scripts/benchmark.py [train]`.

train: steps a second of a run, with metrics, TensorBoard, checkpoints and early stopping on, over those of a bare
PyTorch loop with the same network, rows, optimizer and clipping. Pairs are interleaved; medians and spreads printed.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from goldilocks.cli import refusals

CASES = {  # name: overrides; the shapes of the embedded sets, and larger
    "breast_cancer: 30 inputs, 3 x 64, 341 rows": "data=breast_cancer model.width=64",
    "digits: 64 inputs, 3 x 100, 1,078 rows": "data=digits",
    "30 inputs, 3 x 64, 20,000 rows": "data=synthetic data.rows=33333 model.width=64",
    "784 inputs, 3 x 100, 20,000 rows": "data=synthetic data.rows=33333 data.features=784 data.classes=10",
    "784 inputs, 3 x 512, batch 256, 20,000 rows": "data=synthetic data.rows=33333 data.features=784 data.classes=10"
    " model.width=512 data.batch_size=256",
}
COMMON = "model=deep optimizer=adam callbacks.progress_bar=null callbacks.early_stopping.patience=1000"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("part", nargs="?", default="train", choices=["train"])
    parser.add_argument("--pairs", type=int, default=7, help="interleaved measurements (default: 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a measurement (default: 2)")
    parser.add_argument("--quick", action="store_true", help="one short pair each: does it run?")
    parser.add_argument("--only", default="", help="only the cases whose name holds this")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    if given.quick:
        given.pairs, given.seconds = 1, 0.1
    with refusals() as outcome:
        rows = [measure_case(name, given.pairs, given.seconds) for name in CASES if given.only in name]
        print_rows(rows)
        if given.json:
            given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return outcome.code


def measure_case(name: str, pairs: int, seconds: float) -> dict[str, Any]:
    """Median and spread of the ratio of steps a second, by wall time and by CPU time."""
    bare_loop(name, epochs=1)  # warms up
    epochs = max(2, round(seconds / bare_loop(name, epochs=1)["wall"]))
    ratios: dict[str, list[float]] = {"wall": [], "cpu": [], "steps": []}
    speeds = []
    for _ in range(pairs):
        ours, bare = our_run(name, epochs), bare_loop(name, epochs)
        ratios["wall"].append(bare["wall"] / ours["wall"])
        ratios["cpu"].append(bare["cpu"] / ours["cpu"])
        ratios["steps"].append(bare["wall"] / ours["train"])
        speeds.append(bare["steps"] / bare["wall"])
    return {"case": name, "epochs": epochs, "bare_steps_per_second": statistics.median(speeds), **ratios}


def compose_case(name: str, epochs: int) -> Any:
    from goldilocks.evaluate import compose

    return compose([*COMMON.split(), *CASES[name].split(), f"trainer.max_epochs={epochs}"])


def our_run(name: str, epochs: int) -> dict[str, float]:
    """A whole fit, everything on. Its time is without validation, of which a bare loop has none.

    Returns:
        wall and cpu: of the whole fit less validation. train: of the epochs alone, as result.json has it.
    """
    from goldilocks.callbacks import recorder_of
    from goldilocks.results import read_result
    from goldilocks.run import prepare, run

    cfg, choices = compose_case(name, epochs)
    parts = prepare(cfg)
    clock: dict[str, float] = {"validation": 0.0, "validation_cpu": 0.0}
    watch(parts.module, clock)
    with tempfile.TemporaryDirectory() as folder:
        result = run(cfg, [], choices, folder=Path(folder), parts=parts, test=False)
        assert read_result(Path(folder)) == result
        assert recorder_of(parts.module.trainer).epochs == epochs
    return {
        "wall": clock["ended"] - clock["began"] - clock["validation"],
        "cpu": clock["ended_cpu"] - clock["began_cpu"] - clock["validation_cpu"],
        "train": result["seconds"]["train"],
    }


def watch(module: Any, clock: dict[str, float]) -> None:
    """Notes when training begins and ends, and the time in validation, by wrapping the module's hooks."""

    def wrap(hook: str, note: Any, first: bool) -> None:
        original = getattr(module, hook)

        def wrapped(*args: Any) -> Any:
            if first:
                note()
            returned = original(*args)
            if not first:
                note()
            return returned

        setattr(module, hook, wrapped)

    def began() -> None:
        clock["began"], clock["began_cpu"] = time.perf_counter(), time.process_time()

    def ended() -> None:
        clock["ended"], clock["ended_cpu"] = time.perf_counter(), time.process_time()

    def validation_began() -> None:
        clock["v"], clock["v_cpu"] = time.perf_counter(), time.process_time()

    def validation_ended() -> None:
        clock["validation"] += time.perf_counter() - clock["v"]
        clock["validation_cpu"] += time.process_time() - clock["v_cpu"]

    wrap("on_train_start", began, first=True)
    wrap("on_train_end", ended, first=False)
    wrap("on_validation_start", validation_began, first=True)
    wrap("on_validation_end", validation_ended, first=False)


def bare_loop(name: str, epochs: int) -> dict[str, float]:
    """The same training without the template: the loop that one would write by hand."""
    import torch
    from torch import nn

    from goldilocks.optimizers import build_optimizer
    from goldilocks.run import prepare
    from goldilocks.trainer import Trainer

    parts = prepare(compose_case(name, epochs)[0])
    network = parts.module.network
    Trainer(accelerator="cpu").set_threads(sum(p.numel() for p in network.parameters()) * parts.data.batch_size)
    optimizer = build_optimizer(parts.settings.optimizer, network)
    x, y = parts.data.tensors["train"]
    size = parts.data.batch_size
    loss_function = nn.CrossEntropyLoss() if y.dtype == torch.long else nn.BCEWithLogitsLoss()
    clip = parts.settings.trainer["gradient_clip_val"]
    network.train()
    steps = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x), size):
            rows = order[start : start + size]
            loss = loss_function(network(x[rows]), y[rows])
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "steps": steps}


def print_rows(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("case", "bare steps/s", "share, wall", "share, CPU", "share, epochs alone")
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        shares = (
            f"{statistics.median(row[k]):.2f} ({min(row[k]):.2f}-{max(row[k]):.2f})" for k in ("wall", "cpu", "steps")
        )
        table.add_row(row["case"], f"{row['bare_steps_per_second']:,.0f}", *shares)
    Console(highlight=False, soft_wrap=True).print(table)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
