"""Trains with the rates of the range test, to see how good they are:
`python scripts/studies/lr_range.py`.

Five data sets, three networks, four optimizers, three seeds: each is trained with the rate of every
rule, with the optimizer's default rate, and with ten rates of a grid; what counts is the lowest
validation loss of 30 epochs. Twice: on the cases on which the rules were compared when they were
chosen, and on others. Losses are kept in logs/studies/lr_range.json by rate, so a second call
trains only what is missing; then the tables in docs/lr_range.md are written. An hour on two cores.
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

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "logs" / "studies" / "lr_range.json"
PAGE = ROOT / "docs" / "lr_range.md"
MARK = "<!-- Made by scripts/studies/lr_range.py: below this line do not edit. -->"
DATA = ("digits", "breast_cancer", "wine", "iris", "diabetes")
# By title: networks, optimizers, seeds.
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]] = {
    "The cases on which the rules were chosen": (
        ("shallow", "deep", "resnet"),
        ("sgd", "momentum", "adam", "nadam"),
        (0, 1, 2),
    ),
    "Other cases": (
        ("linear", "wide", "selfnorm"),
        ("nesterov", "rmsprop", "adamw", "adamax"),
        (3, 4, 5),
    ),
}
GRID = tuple(
    round(3 * 10**power if half else 10**power, 10) for power in range(-4, 1) for half in (0, 1)
)
RULES = ("fall", "minimum", "steepest", "valley", "half_divergence")
EPOCHS = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    given = parser.parse_args()
    stored: dict[str, Any] = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    keys = [f"{case} {seed}" for part in PARTS for case in cases(part) for seed in PARTS[part][2]]
    missing = [
        key
        for key in keys
        if not {*RULES, "default"} <= stored.get(key, {"rates": {}})["rates"].keys()
    ]
    STORE.parent.mkdir(parents=True, exist_ok=True)
    known = [stored.get(key, {}).get("losses", {}) for key in missing]
    with ProcessPoolExecutor(given.workers) as pool:
        for number, (key, found) in enumerate(
            zip(missing, pool.map(measure, missing, known), strict=True), 1
        ):
            stored[key] = found
            STORE.write_text(json.dumps(stored, indent=0, sort_keys=True) + "\n", encoding="utf-8")
            print(f"{number}/{len(missing)} {key} {found['rates']}", flush=True)
    write_page("\n\n".join(f"### {part}\n\n{table(stored, part)}" for part in PARTS))
    return 0


def cases(part: str) -> Iterator[str]:
    """Data, network and optimizer of each case."""
    for case in product(DATA, *PARTS[part][:2]):
        yield " ".join(case)


def written(rate: float) -> str:
    """A rate as the losses are kept by."""
    return f"{rate:.6g}"


# --- training -------------------------------------------------------------------------------------


def measure(key: str, known: dict[str, float | None]) -> dict[str, Any]:
    """Trains one case with one seed at every rate whose loss is not known;
    losses that are not finite become null.
    """
    import torch

    from goldilocks.config.compose import compose, prepare_hydra
    from goldilocks.training.components import prepare
    from goldilocks.training.lr_range.sweep import range_test

    torch.set_num_threads(1)
    prepare_hydra()
    data, model, optimizer, seed = key.split()
    words = [
        f"data={data}",
        f"model={model}",
        f"optimizer={optimizer}",
        f"seed={seed}",
        f"data.seed={seed}",
    ]
    words += ["trainer=cpu", f"trainer.max_epochs={EPOCHS}", "callbacks=none", "logger=none"]
    parts = prepare(compose([*words, "optimizer.lr=auto"])[0], warn=False)
    test = range_test(parts.module, parts.data, parts.settings.trainer, parts.settings.lr_range)
    default = prepare(compose(words)[0], warn=False).settings.optimizer["lr"]
    rates: dict[str, float | None] = {rule: test.points[rule] for rule in RULES} | {
        "default": default
    }
    for rate in (*GRID, *rates.values()):
        if rate is not None and written(rate) not in known:
            known = {**known, written(rate): lowest_loss([*words, f"optimizer.lr={written(rate)}"])}
    return {"chance": chance_loss(parts), "rates": rates, "losses": known}


def lowest_loss(words: list[str]) -> float | None:
    """The lowest validation loss of a run;
    None where it ends before the last epoch or is not finite.
    """
    from goldilocks.callbacks import recorder_of
    from goldilocks.config.compose import compose
    from goldilocks.runs.assembly import build_trainer
    from goldilocks.training.components import prepare

    parts = prepare(compose(words)[0], warn=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(parts, Path(folder))
        trainer.fit(parts.module, parts.data)
    return None if parts.module.diverged else recorder_of(trainer).best_value


def chance_loss(parts: Any) -> float:
    """The validation loss of a constant prediction:
    the classes' shares, or the mean, of the training rows.
    """
    import torch

    (_, train), (_, val) = (parts.data.tensors[stage] for stage in ("train", "val"))
    if parts.data.spec.task == "regression":
        return float((val - train.mean(0)).square().mean())
    train, val = train.reshape(-1).long(), val.reshape(-1).long()
    shares = torch.bincount(train, minlength=len(parts.data.spec.class_counts)) / len(train)
    return float(-shares[val].log().mean())


# --- what came of it ------------------------------------------------------------------------------


def mean(values: list[float | None]) -> float:
    """Infinite where one run diverged."""
    return (
        math.inf
        if None in values
        else statistics.mean(value for value in values if value is not None)
    )


def gaps(stored: dict[str, Any], part: str, name: str) -> dict[str, tuple[float, bool]]:
    """By case: the gap to the grid's best as a share of (chance - best),
    and whether it is within a standard error.
    """
    found = {}
    for case in cases(part):
        runs = [stored[f"{case} {seed}"] for seed in PARTS[part][2]]
        columns = [[run["losses"][written(rate)] for run in runs] for rate in GRID]
        losses = min(columns, key=mean)
        best, error = mean(losses), statistics.stdev(losses) / math.sqrt(len(losses))
        rates = [run["rates"][name] for run in runs]
        reached = [
            run["losses"][written(rate)] if rate else None
            for run, rate in zip(runs, rates, strict=True)
        ]
        gap = mean(reached) - best
        found[case] = gap / (mean([run["chance"] for run in runs]) - best), gap <= error
    return found


def table(stored: dict[str, Any], part: str) -> str:
    """A line a rule."""
    lines = [
        "| rate | gap at most 5 % | gap at most 10 % | median gap | largest gap | no rate, or"
        " diverged |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in (*RULES, "default"):
        found = gaps(stored, part, name)
        shares = [
            statistics.mean(gap <= limit or near for gap, near in found.values())
            for limit in (0.05, 0.1)
        ]
        lost = sum(math.isinf(gap) for gap, _ in found.values())
        middle = statistics.median(gap for gap, _ in found.values())
        most = max(gap for gap, _ in found.values() if not math.isinf(gap))
        largest = f"{most:.0%}" if most < 10 else "over 1000%"
        label = f"`{name}`" if name in RULES else "the optimizer's default"
        lines.append(
            f"| {label} | {shares[0]:.0%} | {shares[1]:.0%} | {middle:.1%} | {largest} | {lost} of"
            f" {len(found)} |"
        )
    return "\n".join(lines)


def write_page(text: str) -> None:
    """Replaces what stands below the mark."""
    above = PAGE.read_text(encoding="utf-8").partition(MARK)[0].rstrip()
    PAGE.write_text(f"{above}\n\n{MARK}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
