"""The result of a run, in the terminal."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from goldilocks.callbacks.comparison import lines
from goldilocks.runs import uncertainty
from goldilocks.runs.failures import in_words
from goldilocks.runs.folder import compare, read_result

MOST_BOARD_RUNS = 40  # of more, TensorBoard ticks none
MOST_FINDINGS = 3  # on the screen; diagnosis.md has all


def print_result(folder: Path, result: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a short table: metrics of the best epoch and of the test,
    then what the run took and where it lies.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    metrics = result.get("metrics") or {}
    if metrics:
        console.print(metrics_table(metrics, result.get("spread") or {}))
    console.print(f"[bold]{result['status']}[/bold]{escape(explanation(result))}")
    seconds = result.get("seconds") or {}
    if result.get("epochs"):
        best = (
            f"of {result['folds']} folds"
            if result.get("folds")
            else f"(best {result['best_epoch']})"
        )
        console.print(
            f"epochs {result['epochs']} {best}   steps {result['steps']:,}"
            f"   seconds {times(seconds)}   examples/s {result['examples_per_second'] or 0:,.0f}"
            f"   parameters {result['num_parameters']:,}"
        )
    if alone := result.get("alone"):
        console.print(alone_in_words(alone, result["folds"]), markup=False)
    for line in uncertainty.in_words(result):
        console.print(line, markup=False)
    diagnosis = result.get("diagnosis") or {"summary": "", "findings": []}
    if diagnosis["summary"]:
        console.print(diagnosis["summary"], markup=False)
    for line in lines(result.get("baselines") or {}):
        console.print(line, markup=False)
    for finding in diagnosis["findings"][:MOST_FINDINGS]:
        overrides = " ".join(finding["overrides"])
        text = f"{finding['measured']}; {finding['advice']}{': ' * bool(overrides)}{overrides}"
        console.print(f"[yellow]{finding['name']}[/yellow]: {escape(text)}")
    console.print(f"run folder   {folder}", markup=False)
    print_board(folder, console)
    if result["status"] == "interrupted":
        console.print(f"python train.py resume={shlex.quote(str(folder))}", markup=False)


def alone_in_words(alone: Mapping[str, Any], folds: int) -> str:
    """What a single network of a cross-validation reaches on the test rows, beside all of them
    together.

    >>> known = {"metrics": {"test/loss": 0.5}, "spread": {"test/loss": 0.02}}
    >>> alone_in_words(known, 5)  # doctest: +NORMALIZE_WHITESPACE
    'test: of the 5 networks together, the mean of their predictions; one alone: loss 0.5000 ±
    0.0200'
    """
    values = [
        f"{name.removeprefix('test/')} {with_spread(value, alone['spread'].get(name))}"
        for name, value in alone["metrics"].items()
    ]
    return (
        f"test: of the {folds} networks together, the mean of their predictions;"
        f" one alone: {', '.join(values[:2])}"
    )


def times(seconds: Mapping[str, float]) -> str:
    """Where a run's seconds went.

    >>> times({"total": 6.04, "start": 5.11, "train": 3.9, "after": 2.0})
    '11.2 (start 5.1, training 4.0, figures and test 2.0)'
    >>> times({"total": 6.04, "train": 3.9})
    '6.0'
    """
    if "after" not in seconds or "start" not in seconds:
        return f"{seconds['total']:.1f}"
    start, after = seconds["start"], seconds["after"]
    training = seconds["total"] - after
    return (
        f"{start + training + after:.1f} (start {start:.1f}, training {training:.1f},"
        f" figures and test {after:.1f})"
    )


def print_board(folder: Path, console: Console) -> None:
    """Prints the command that shows a run or a sweep in TensorBoard, if it has written for it."""
    written = {path.parent for path in folder.rglob("events.out.tfevents.*")}
    if written:
        console.print(f"tensorboard --logdir {shlex.quote(str(folder))}", markup=False)
    if len(written) > MOST_BOARD_RUNS:
        console.print(
            f"of {len(written)} runs TensorBoard shows none at first: tick the box above their list"
        )


def metrics_table(metrics: Mapping[str, float], spread: Mapping[str, float | None]) -> Table:
    """A row for each metric, a column for each stage that has any;
    with standard deviations, where there are some.
    """
    stages = [
        stage
        for stage in ("train", "val", "test")
        if any(key.startswith(f"{stage}/") for key in metrics)
    ]
    names = list(
        dict.fromkeys(key.partition("/")[2] for key in metrics if key.partition("/")[0] in stages)
    )
    table = Table("metric", *(f"{stage}" for stage in stages), box=None, pad_edge=False)
    for name in sorted(names, key=lambda name: (name != "loss", names.index(name))):
        cells = [
            (metrics.get(f"{stage}/{name}"), spread.get(f"{stage}/{name}")) for stage in stages
        ]
        table.add_row(
            name,
            *("" if value is None else with_spread(value, deviation) for value, deviation in cells),
        )
    return table


def with_spread(value: float, deviation: float | None) -> str:
    """A metric in figures.

    >>> with_spread(0.97, 0.012)
    '0.9700 ± 0.0120'
    """
    return f"{value:.4f}" if deviation is None else f"{value:.4f} ± {deviation:.4f}"


def print_comparison(
    before: Path, after: Path, tolerance: float, console: Console | None = None
) -> str:
    """Prints whether two runs' numbers agree, and where they differ; returns the verdict."""
    verdict, rows = compare(
        read_result(before)["metrics"], read_result(after)["metrics"], tolerance
    )
    console = console or Console(highlight=False, soft_wrap=True)
    if verdict != "identical" and rows:
        table = Table("metric", "before", "after", "relative difference", box=None, pad_edge=False)
        for name, (old, new, difference) in rows.items():
            table.add_row(name, f"{old:.6g}", f"{new:.6g}", f"{difference:.2g}")
        console.print(table)
    limit = {"equal": f" within {tolerance:g}", "different": f" by more than {tolerance:g}"}.get(
        verdict, ""
    )
    console.print(f"[bold]{verdict}[/bold]{limit}: {escape(f'{before} and {after}')}")
    return verdict


def explanation(result: Mapping[str, Any]) -> str:
    """What a status other than done means and what to do."""
    if result["status"] == "diverged":
        return (
            f": the loss is no longer finite after {result['epochs']} epochs; lower optimizer.lr"
            f" (now {result['learning_rate']}) or write trainer.gradient_clip_val=1"
        )
    if result["status"] == "failed":
        return f": {in_words(result['error'])} (traceback.txt in the run folder)"
    if result["status"] == "interrupted":
        return ": continue it with the command below"
    return ""


def rounded(value: str) -> str:
    """A value of the command line to be read: a number with more than five digits has four.

    >>> rounded("0.0012837465192837"), rounded("1e-3"), rounded("2048"), rounded("[64,32]")
    ('0.001284', '1e-3', '2048', '[64,32]')
    """
    digits = re.sub(r"e.*|[^0-9]", "", value.lower()).lstrip("0")
    is_fraction = re.fullmatch(r"[-+]?(\d+\.\d*|\.?\d+)(e[-+]?\d+)?", value.lower())
    return (
        f"{float(value):.4g}" if is_fraction and not value.isdigit() and len(digits) > 5 else value
    )
