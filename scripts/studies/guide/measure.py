"""Trains what the experiments compare, through the product,
and keeps the results in a file of lines.
"""

import copy
import csv
import json
import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from studies.guide.experiments import Experiment

# Long enough for every rate that is tried, and one thread,
# so that the numbers do not depend on the machine's cores.
COMMON = (
    "trainer=cpu",
    "trainer.threads=1",
    "trainer.max_epochs=100",
    "callbacks.early_stopping.patience=10",
    "callbacks.last_checkpoint=null",
    "callbacks.progress_bar=null",
    "callbacks.evaluation=null",
)
SAVE_SECONDS = 30
Job = tuple[
    tuple[str, ...], int, str | None, bool
]  # overrides, seed, metric whose course is kept, gradients


class Store:
    """Results by overrides and seed:
    a line of JSON for each configuration, so that git shows which were measured again.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, dict[int, dict[str, Any]]] = {}
        self.about: dict[str, Any] = {}
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            self.about = stored["about"]
            for words, columns in stored["runs"].items():
                seeds = columns.pop("seed")
                rows = [
                    {key: column[i] for key, column in columns.items()} for i in range(len(seeds))
                ]
                self.runs[words] = dict(zip(seeds, rows, strict=True))

    def get(self, words: Iterable[str], seed: int) -> dict[str, Any] | None:
        return self.runs.get(" ".join(words), {}).get(seed)

    def put(self, words: Iterable[str], seed: int, record: dict[str, Any]) -> None:
        self.runs.setdefault(" ".join(words), {}).setdefault(seed, {}).update(record)

    def save(self) -> None:
        lines = []
        for words, rows in sorted(self.runs.items()):
            seeds = sorted(rows)
            keys = list(dict.fromkeys(key for seed in seeds for key in rows[seed]))
            columns = {
                "seed": seeds,
                **{key: [rows[seed].get(key) for seed in seeds] for key in keys},
            }
            lines.append(f"{json.dumps(words)}: {json.dumps(columns, separators=(',', ':'))}")
        text = (
            f'{{\n"about": {json.dumps(self.about)},\n"runs": {{\n' + ",\n".join(lines) + "\n}\n}\n"
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path)


def jobs_of(experiments: Iterable[Experiment], seeds: int | None, store: Store) -> list[Job]:
    """What is still to be trained, each once, seed by seed,
    so that an interrupted measurement has whole seeds.
    """
    jobs: dict[Job, None] = {}
    for experiment in experiments:
        for seed in range(seeds or experiment.seeds):
            for variant in experiment.variants.values():
                for data in experiment.data:
                    for words in experiment.words(variant, data):
                        record = store.get(words, seed) or {}
                        needs = {"status", *(["curve"] if experiment.curve else [])}
                        needs |= {"gradients"} if experiment.gradients else set()
                        if not needs <= record.keys():
                            jobs[words, seed, experiment.curve, experiment.gradients] = None
    return list(jobs)


def measure(
    jobs: list[Job], store: Store, extra: list[str], processes: int
) -> Iterator[tuple[int, Job]]:
    """Trains the jobs and stores their results; yields the count and the job as each ends."""
    saved = time.monotonic()
    try:
        for count, (job, record) in enumerate(results(jobs, extra, processes), start=1):
            store.put(job[0], job[1], record)
            if time.monotonic() - saved > SAVE_SECONDS:
                store.save()
                saved = time.monotonic()
            yield count, job
    finally:
        store.save()


def results(
    jobs: list[Job], extra: list[str], processes: int
) -> Iterator[tuple[Job, dict[str, Any]]]:
    if processes == 1:
        yield from ((job, train(*job, extra)) for job in jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train, *job, extra) for job in jobs]
        yield from ((job, future.result()) for job, future in zip(jobs, futures, strict=True))


@cache
def composed(words: tuple[str, ...]) -> Any:
    from goldilocks.config.compose import compose, prepare_hydra

    prepare_hydra()
    return compose(list(words))


def train(
    words: tuple[str, ...], seed: int, curve: str | None, gradients: bool, extra: list[str]
) -> dict[str, Any]:
    """One run: split, weights and order by the seed;
    tested once, at its end, on its best checkpoint.
    """
    from goldilocks.machine.interrupts import passed_on
    from goldilocks.runs.evaluate import evaluate_run
    from goldilocks.runs.request import RunRequest
    from goldilocks.runs.run import run
    from goldilocks.training.components import prepare

    logger = "logger=csv" if curve else "logger=none"
    cfg, choices = copy.deepcopy(composed((*COMMON, logger, *words, *extra)))
    cfg.seed = cfg.data.seed = seed
    parts = prepare(cfg, warn=False)
    record: dict[str, Any] = {"gradients": first_gradients(parts)} if gradients else {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        result = passed_on(run(RunRequest(cfg, folder, list(words), choices), parts))
        if result["status"] == "failed":
            raise RuntimeError(f"{' '.join(words)}: {result['error']}")
        if result["status"] == "diverged" and (folder / "checkpoints" / "best.ckpt").exists():
            result = evaluate_run(folder)  # its best epoch before it diverged
        if curve:
            record["curve"] = curve_of(folder / "metrics.csv", curve)
    tested = {
        key.removeprefix("test/"): value
        for key, value in result["metrics"].items()
        if key.startswith("test/")
    }
    return {
        "status": result["status"],
        "val": rounded(result["objective"]["value"]),
        **{key: rounded(value) for key, value in tested.items()},
        "epochs": result["epochs"],
        "seconds": round(result["seconds"]["train"], 2),
        **record,
    }


def rounded(value: float | None) -> float | None:
    """Five digits; None for what is not finite, which JSON cannot hold."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None


def curve_of(path: Path, metric: str) -> list[float | None]:
    """A metric after each epoch."""
    with path.open(newline="", encoding="utf-8") as file:
        return [rounded(float(row[metric])) for row in csv.DictReader(file) if row.get(metric)]


def first_gradients(parts: Any) -> list[float | None]:
    """Norm of the loss's gradient with respect to each linear layer's weights,
    before the first step.
    """
    from torch import nn

    module, (x, y) = parts.module, parts.data.tensors["train"]
    rows = parts.data.batch_size
    module.task.loss(module.network(x[:rows]), y[:rows]).backward()
    layers = [layer for layer in module.network.modules() if isinstance(layer, nn.Linear)]
    norms = [
        rounded(layer.weight.grad.norm().item())
        for layer in layers
        if layer.weight.grad is not None
    ]
    module.zero_grad()
    return norms
