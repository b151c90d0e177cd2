"""The part `gpu` of the benchmark:
rows a second of runs on a GPU, their share of a bare loop's, and their memory.

A run has everything on but figures and importances, which are drawn once, however long it is. The
bare loop trains the same network on the same rows, which lie on the GPU, with the same optimizer,
precision and compiler. Both train an epoch before the clock starts, so compiling is not in the
figures.
"""

import argparse
import itertools
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from goldilocks.config.compose import compose
from goldilocks.errors import Refused, one_line
from goldilocks.machine.interrupts import passed_on
from goldilocks.optimizers.optimizer import build_optimizer
from goldilocks.runs import failures
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training import components
from goldilocks.training.components import build_data, check, prepare
from studies.stopwatch import Watch, before

ROWS, IMAGES, CLASSES = 140_000, 70_000, 10
STEPS = {32: 300, 4096: 16}  # in an epoch
EPOCHS = {32: 3, 4096: 8}  # after the first
MODELS = ("deep", "cnn")
COMMON = (
    "optimizer=adam callbacks.progress_bar=null callbacks.evaluation=null callbacks.importance=null"
)


def measure(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Two rows of figures and one of memory for each model, batch size, precision,
    and way of running it.
    """
    if given.device == "gpu" and not torch.cuda.is_available():
        raise Refused("gpu: there is no CUDA GPU; leave the part out")
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            words = [
                *COMMON.split(),
                f"model={model}",
                f"trainer={given.device}",
                *source(model, Path(folder), given),
            ]
            data = build_data(check(compose(words)[0]))
            with mock.patch.object(
                components, "build_data", lambda settings, *_, data=data: sized(data, settings)
            ):
                for rows, precision, compiled in itertools.product(
                    STEPS, ("32", "bf16-mixed"), (False, True)
                ):
                    what = (
                        f"{model}, batch {rows}, {precision}, {'compiled' if compiled else 'eager'}"
                    )
                    if given.only not in what:
                        continue
                    more = [
                        f"data.batch_size={rows}",
                        f"trainer.precision={precision}",
                        f"trainer.compile={compiled}",
                    ]
                    yield from figures(what, [*words, *more], rows, given)


def source(model: str, folder: Path, given: argparse.Namespace) -> list[str]:
    """The overrides of made-up data: a table, or images in files as MNIST has them."""
    parts = ["data.val_fraction=0.05", "data.test_fraction=0.01"]
    if model == "deep":
        rows = ROWS // (100 if given.quick else 1)
        return [
            "data=synthetic",
            f"data.rows={rows}",
            "data.features=784",
            f"data.classes={CLASSES}",
            *parts,
        ]
    random = np.random.default_rng(0)
    for part, rows in (("train", IMAGES // (100 if given.quick else 1)), ("t10k", 100)):
        images = random.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(
            folder / f"{part}-labels-idx1-ubyte",
            (images.mean((1, 2)) * 7).astype(np.uint8) % CLASSES,
        )
    return ["data=mnist", f"data.root={folder}", "data.val_fraction=0.05"]


def write_idx(path: Path, values: np.ndarray) -> None:
    """Writes bytes in the format of MNIST's files."""
    path.write_bytes(
        struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
    )


def sized(data: Any, settings: Any) -> Any:
    """The rows that are loaded already, with a configuration's batch size."""
    data.batch_size, data.fit = settings.data["batch_size"], None
    return data


def figures(
    what: str, words: list[str], rows: int, given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Measures runs and bare loops in turns; a case that fails says so, and the others go on."""
    steps, epochs = (3, 1) if given.quick else (STEPS[rows], EPOCHS[rows])
    words = [*words, f"trainer.limit_train_batches={steps}", f"trainer.max_epochs={epochs + 1}"]
    pairs: list[tuple[float, float]] = []
    memory = 0.0
    try:
        for _ in range(1 if given.quick else min(given.pairs, 3)):
            ours, memory = our_speed(words, steps * epochs * rows)
            pairs.append((ours, bare_speed(words, steps, epochs, steps * epochs * rows)))
    except Exception as error:  # of a compiler, or for want of memory
        reason = f"{type(error).__name__}: {one_line(error)[:60]}"
        yield {"what": f"{what}, failed: {reason}", "unit": "", "values": [0.0]}
        return
    yield {"what": what, "unit": "rows/s", "values": [ours for ours, _ in pairs]}
    yield {
        "what": f"{what}, share",
        "unit": "of bare",
        "values": [ours / bare for ours, bare in pairs],
    }
    if memory:
        yield {"what": f"{what}, peak memory", "unit": "GiB", "values": [memory]}


def our_speed(words: list[str], rows: int) -> tuple[float, float]:
    """Rows a second of a run after its first epoch, validation left out;
    and the peak of the GPU's memory in GiB.
    """
    cfg, choices = compose(words)
    parts, watch = prepare(cfg, warn=False), Watch()

    def from_the_second_on(act: Callable[[], None]) -> Callable[[], None]:
        return lambda: act() if parts.module.current_epoch > 0 else None

    def pause() -> None:
        synchronize()
        watch.pause()

    module: Any = parts.module
    module.on_train_epoch_start = before(
        from_the_second_on(watch.resume), module.on_train_epoch_start
    )
    module.on_validation_start = from_the_second_on(pause)
    torch.compiler.reset()
    failures.give_back_memory()  # of the case before
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        result = passed_on(run(RunRequest(cfg, Path(folder), [], choices, test=False), parts))
    if result["status"] != "done":
        raise RuntimeError(f"{result['status']}: {result['error']}")
    return (
        rows / watch.wall,
        torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0,
    )


def bare_speed(words: list[str], steps: int, epochs: int, rows: int) -> float:
    """Rows a second of the loop that one would write by hand, after its first epoch."""
    parts = prepare(compose(words)[0], warn=False)
    options, size = parts.settings.trainer, parts.data.batch_size
    device = torch.device("cuda" if options["accelerator"] == "gpu" else "cpu")
    network, compiled = parts.module.network.to(device), options["compile"]
    x, y = (tensor.to(device) for tensor in parts.data.tensors["train"])
    mixed = str(options["precision"]) == "bf16-mixed"
    autocast = (lambda: torch.autocast(device.type, torch.bfloat16)) if mixed else nullcontext
    optimizer = build_optimizer(parts.settings.optimizer, network)
    torch.compiler.reset()
    mode = "reduce-overhead" if device.type == "cuda" else None
    forward: Any = torch.compile(network, mode=mode, dynamic=False) if compiled else network
    loss_function, watch = nn.CrossEntropyLoss(), Watch()
    network.train()
    for epoch in range(epochs + 1):
        if epoch == 1:
            synchronize()
            watch.start()
        order = torch.randperm(len(x), device=device)
        for first in range(0, steps * size, size):
            taken = order[first : first + size]
            if compiled:
                torch.compiler.cudagraph_mark_step_begin()
            with autocast():
                loss = loss_function(forward(x[taken]), y[taken])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    synchronize()
    watch.pause()
    return rows / watch.wall


def synchronize() -> None:
    """Waits until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
