"""How good the range test's rates are, by training with them: `python scripts/lr_range_proof.py [--workers 2]`.

Five data sets, three networks, four optimizers, three seeds: each is trained with the rate of every rule, with the
optimizer's default rate, and with ten rates of a grid; what counts is the lowest validation loss of 30 epochs. Numbers
are kept in docs/lr_range.json, so a second call trains only what is missing; then the table in docs/lr_range.md is
written. Two hours on one core.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
STORE, PAGE = DOCS / "lr_range.json", DOCS / "lr_range.md"
MARK = "<!-- Made by scripts/lr_range_proof.py: below this line do not edit. -->"
DATA = ("digits", "breast_cancer", "wine", "iris", "diabetes")
MODELS = ("shallow", "deep", "resnet")
OPTIMIZERS = ("sgd", "momentum", "adam", "nadam")
SEEDS = (0, 1, 2)
GRID = tuple(round(3 * 10**power if half else 10**power, 10) for power in range(-4, 1) for half in (0, 1))
RULES = ("minimum", "steepest", "valley", "half_divergence")
EPOCHS = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    given = parser.parse_args()
    stored: dict[str, Any] = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    missing = [key for case in cases() for seed in SEEDS if (key := f"{case} {seed}") not in stored]
    with ProcessPoolExecutor(given.workers) as pool:
        for number, (key, found) in enumerate(zip(missing, pool.map(measure, missing), strict=True), 1):
            stored[key] = found
            STORE.write_text(json.dumps(stored, indent=0, sort_keys=True) + "\n", encoding="utf-8")
            print(f"{number}/{len(missing)} {key} {found['rates']}", flush=True)
    write_page(table(stored))
    return 0


def cases() -> Iterator[str]:
    """Data, network and optimizer of each case."""
    for case in product(DATA, MODELS, OPTIMIZERS):
        yield " ".join(case)


# --- training ---------------------------------------------------------------------------------------------------------


def measure(key: str) -> dict[str, Any]:
    """Trains one case with one seed at every rate; losses that are not finite become null."""
    import torch

    from goldilocks.cli import register_resolvers
    from goldilocks.evaluate import compose
    from goldilocks.lr_range import range_test
    from goldilocks.run import prepare

    torch.set_num_threads(1)
    register_resolvers()
    data, model, optimizer, seed = key.split()
    words = [f"data={data}", f"model={model}", f"optimizer={optimizer}", f"seed={seed}", f"data.seed={seed}"]
    words += ["trainer=cpu", f"trainer.max_epochs={EPOCHS}", "callbacks=none", "logger=none"]
    parts = prepare(compose([*words, "optimizer.lr=auto"])[0], warn=False)
    test = range_test(parts.module, parts.data, parts.settings.trainer, parts.settings.lr_range)
    default = prepare(compose(words)[0], warn=False).settings.optimizer["lr"]
    rates: dict[str, float | None] = {rule: test.points[rule] for rule in RULES} | {"default": default}
    known: dict[float, float | None] = {}
    for rate in (*GRID, *rates.values()):
        if rate is not None and rate not in known:
            known[rate] = lowest_loss([*words, f"optimizer.lr={rate!r}"])
    return {
        "chance": chance_loss(parts),
        "rates": rates,
        "losses": {name: known[rate] if rate is not None else None for name, rate in rates.items()},
        "grid": [known[rate] for rate in GRID],
    }


def lowest_loss(words: list[str]) -> float | None:
    """The lowest validation loss of a run; None where it ends before the last epoch or is not finite."""
    from goldilocks.callbacks import recorder_of
    from goldilocks.evaluate import compose
    from goldilocks.run import build_trainer, prepare

    parts = prepare(compose(words)[0], warn=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(parts, Path(folder))
        trainer.fit(parts.module, parts.data)
    return None if parts.module.diverged else recorder_of(trainer).best_value


def chance_loss(parts: Any) -> float:
    """The validation loss of a constant prediction: the classes' shares, or the mean, of the training rows."""
    import torch

    (_, train), (_, val) = (parts.data.tensors[stage] for stage in ("train", "val"))
    if parts.data.spec.task == "regression":
        return float((val - train.mean(0)).square().mean())
    train, val = train.reshape(-1).long(), val.reshape(-1).long()
    shares = torch.bincount(train, minlength=len(parts.data.spec.class_counts)) / len(train)
    return float(-shares[val].log().mean())


# --- what came of it --------------------------------------------------------------------------------------------------


def mean(values: list[float | None]) -> float:
    """Infinite where one run diverged."""
    return math.inf if None in values else statistics.mean(value for value in values if value is not None)


def gaps(stored: dict[str, Any], name: str) -> dict[str, tuple[float, bool]]:
    """By case: the gap to the grid's best as a share of (chance - best), and whether it is within a standard error."""
    found = {}
    for case in cases():
        runs = [stored[key] for seed in SEEDS if (key := f"{case} {seed}") in stored]
        if len(runs) < len(SEEDS):
            continue
        column = min(range(len(GRID)), key=lambda i: mean([run["grid"][i] for run in runs]))
        losses = [run["grid"][column] for run in runs]
        best, error = mean(losses), statistics.stdev(losses) / math.sqrt(len(losses))
        gap = mean([run["losses"][name] for run in runs]) - best
        found[case] = gap / (mean([run["chance"] for run in runs]) - best), gap <= error
    return found


def table(stored: dict[str, Any]) -> str:
    """A line a rule."""
    lines = [
        "| rate | gap at most 5 % | gap at most 10 % | median gap | no rate, or diverged |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in (*RULES, "default"):
        found = gaps(stored, name)
        shares = [statistics.mean(gap <= limit or near for gap, near in found.values()) for limit in (0.05, 0.1)]
        lost = sum(math.isinf(gap) for gap, _ in found.values())
        middle = statistics.median(gap for gap, _ in found.values())
        label = f"`{name}`" if name in RULES else "the optimizer's default"
        lines.append(f"| {label} | {shares[0]:.0%} | {shares[1]:.0%} | {middle:.1%} | {lost} of {len(found)} |")
    return "\n".join(lines)


def write_page(text: str) -> None:
    """Replaces what stands below the mark."""
    above = PAGE.read_text(encoding="utf-8").partition(MARK)[0].rstrip()
    PAGE.write_text(f"{above}\n\n{MARK}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
