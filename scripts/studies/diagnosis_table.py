"""How often the diagnosis is right: `python scripts/studies/diagnosis_table.py`.

Trains a network for each problem of diagnosis_problems.py and compares its diagnosis with what is
wrong with it. Prints the precision and the recall of each finding. `--follow` follows each kind of
advice once. `--write` follows it too, and puts the tables into docs/diagnosis.md. Exit code 1 if a
finding is wrong or missing, or an advice did not help. Results are kept in
logs/diagnosis_table.jsonl: the same command goes on where it was interrupted. What rules of another
version said is not used again.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from goldilocks.cli.main import refusals

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `studies` is
from studies.diagnosis_problems import Columns, Problem, problems

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "diagnosis.md"
KEPT = ROOT / "logs" / "diagnosis_table.jsonl"
RULES = [
    *(ROOT / "src" / "goldilocks" / "diagnosis").glob("*.py"),
    ROOT / "src/goldilocks/data/checks.py",
    *(ROOT / "src" / "goldilocks" / "callbacks").glob("baseline*.py"),
]
HEADING = "## How often it is right"
OFF = ("evaluation", "importance", "last_checkpoint", "health", "histograms", "graph", "charts")
WORDS = [
    *("data=table", "data.target=y", "data.batch_size=64"),
    *("data.val_fraction=0.25", "data.test_fraction=0"),
    *("trainer.accelerator=cpu", "trainer.threads=1", "trainer.max_epochs=80"),
    *("logger=none", "callbacks.progress_bar=null", *(f"callbacks.{name}=null" for name in OFF)),
]


# Findings that say what a score is worth, or which rows are looked at: their advice changes the
# rows or the loss, so that the loss before and after are not the same thing.
OF_ROWS = {"single features", "rows in two splits", "target", "rare class missed"}


@dataclass(frozen=True)
class Outcome:
    """What a problem was told.

    Attributes:
        problem: It.
        loss: val/loss of the best epoch; NaN where there is none.
        error: Its standard error; NaN where it is not known.
        findings: As in result.json.
    """

    problem: Problem
    loss: float
    error: float
    findings: list[dict[str, Any]]

    @property
    def found(self) -> set[str]:
        return {finding["name"] for finding in self.findings}

    @property
    def missing(self) -> set[str]:
        return set(self.problem.right - self.found)

    @property
    def wrong(self) -> set[str]:
        return self.found - self.problem.right - self.problem.open

    @property
    def undecided(self) -> set[str]:
        """Open findings that it got."""
        return self.found & self.problem.open


@dataclass(frozen=True)
class Followed:
    """The advice to a finding, and what came of it.

    Attributes:
        name: Of the finding.
        before: The problem as it was.
        words: What was advised.
        after: The problem with these words.
    """

    name: str
    before: Outcome
    words: list[str]
    after: Outcome

    @property
    def gone(self) -> bool:
        return self.name not in self.after.found

    @property
    def helped(self) -> bool:
        """Whether the loss, or its standard error, is lower;
        where losses cannot be compared, the finding is gone.
        """
        if self.name == "noise":
            return self.after.error < self.before.error
        if self.name in OF_ROWS or not math.isfinite(self.before.loss):
            return self.gone
        return self.after.loss < self.before.loss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="problems whose name contains this word")
    parser.add_argument("--follow", action="store_true", help="follow the advice, too")
    parser.add_argument("--write", action="store_true", help="write docs/diagnosis.md")
    given = parser.parse_args()
    if given.only and given.write:
        parser.error("--write needs all problems: leave --only out")
    chosen = [problem for problem in problems() if given.only in problem.name]
    if not chosen:
        parser.error(f"--only {given.only}: no problem has this word")
    with refusals() as outcome:
        kept = Kept(KEPT)
        outcomes = list(told(chosen, kept))
        followed = list(follow(outcomes, kept)) if given.follow or given.write else []
        print("\n".join(["", *scores(outcomes)]))
        if given.write:
            write(outcomes, followed)
        bad = any(each.missing or each.wrong for each in outcomes)
        outcome.code = int(bad or not all(each.helped for each in followed))
    return outcome.code


# --- training -------------------------------------------------------------------------------------


class Kept:
    """Outcomes in a file of lines, so that an interrupted table goes on.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):  # the last line of an interrupted table
                read = json.loads(line)
                self.lines[read["key"]] = read

    def outcome(self, problem: Problem, words: Sequence[str] = ()) -> Outcome:
        """What a problem is told, from the file or by training."""
        key = key_of(problem, words)
        if key not in self.lines:
            made = diagnosed(problem, words)
            kept = {"key": key, "name": problem.name, "loss": made.loss, "error": made.error}
            kept["findings"] = made.findings
            self.lines[key] = kept
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(kept)}")
        line = self.lines[key]
        return Outcome(problem, line["loss"], line["error"], line["findings"])


def key_of(problem: Problem, words: Sequence[str]) -> str:
    """What an outcome depends on: the table, the command and the rules."""
    digest = hashlib.sha256("\n".join([*WORDS, problem.words, *words]).encode())
    for name, column in problem.make().items():
        digest.update(name.encode() + repr(column.tolist()).encode())
    for path in sorted(RULES):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def told(chosen: Sequence[Problem], kept: Kept) -> Iterator[Outcome]:
    """Trains each problem, and says what it was told."""
    for number, problem in enumerate(chosen, 1):
        outcome = kept.outcome(problem)
        line = f"{number:2} of {len(chosen)}  {problem.name}: {listed(outcome.found)}"
        for what, names in (("missing", outcome.missing), ("wrong", outcome.wrong)):
            line += f"; {what.upper()}: {listed(names)}" if names else ""
        print(line, flush=True)
        yield outcome


def diagnosed(problem: Problem, words: Sequence[str] = ()) -> Outcome:
    """Trains a problem in a folder that is removed afterwards."""
    from goldilocks.config.compose import compose
    from goldilocks.diagnosis.advice import replaced
    from goldilocks.machine.interrupts import passed_on
    from goldilocks.runs.run import start

    with TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = Path(folder) / "table.csv"
        write_table(path, problem.make())
        places = [f"data.path='{path.as_posix()}'", f"log_dir='{Path(folder).as_posix()}'"]
        given = replaced([*WORDS, *places, *problem.words.split()], list(words))
        cfg, choices = compose(given)
        result = passed_on(start(cfg, given, choices)[1])
    diagnosis = result["diagnosis"] or {"findings": []}
    loss, error = (
        math.nan if number is None else number
        for number in (result["metrics"].get("val/loss"), diagnosis.get("standard_error"))
    )
    return Outcome(problem, loss, error, diagnosis["findings"])


def write_table(path: Path, columns: Columns) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def follow(outcomes: Sequence[Outcome], kept: Kept) -> Iterator[Followed]:
    """Follows each kind of advice until it helps in a problem: in those that have the finding, else
    where it is open.
    """
    rightly = advised(outcomes, lambda problem: problem.right)
    openly = advised(outcomes, lambda problem: problem.open)
    kinds = rightly | {key: given for key, given in openly.items() if key not in rightly}
    for number, ((name, *_), given) in enumerate(kinds.items(), 1):
        for outcome, words in given:
            followed = Followed(name, outcome, words, kept.outcome(outcome.problem, words))
            came = f"{name}: {' '.join(words)}: {what_came(followed)}"
            print(f"{number:2} of {len(kinds)}  {came}", flush=True)
            yield followed
            if followed.helped:
                break


Kinds = dict[tuple[str, ...], list[tuple[Outcome, list[str]]]]


def advised(outcomes: Sequence[Outcome], which: Callable[[Problem], frozenset[str]]) -> Kinds:
    """By kind of advice, the problems to which it was given for one of some findings, and its
    words.
    """
    kinds: Kinds = {}
    for outcome in outcomes:
        for finding in outcome.findings:
            name, words = finding["name"], finding["overrides"]
            if name in which(outcome.problem) and words:
                kinds.setdefault((name, *map(kind, words)), []).append((outcome, words))
    return kinds


def kind(word: str) -> str:
    """An advice without its number: `optimizer.lr=0.01` and `optimizer.lr=0.3` are of one kind."""
    key = word.partition("=")[0]
    return key if "." in key else word


# --- in words -------------------------------------------------------------------------------------


def what_came(followed: Followed) -> str:
    """What came of an advice, and what is found with it."""
    before, after = followed.before, followed.after
    text = f"finds {listed(after.found)}"
    if followed.name == "noise":
        text = f"standard error {before.error:.2g}, then {after.error:.2g}; {text}"
    elif followed.name not in OF_ROWS:
        text = f"`val/loss` {before.loss:.4g}, then {after.loss:.4g}; {text}"
    return text if followed.helped else f"{text}: no help"


def listed(names: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def scores(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A row for each finding."""
    heads = [
        "finding",
        "problems that have it",
        "found in them",
        "found wrongly",
        "found where open",
    ]
    yield f"| {' | '.join([*heads, 'precision', 'strict precision', 'recall'])} |"
    yield "| --- " * 8 + "|"
    for name in sorted({name for each in outcomes for name in each.problem.right | each.found}):
        have = [each for each in outcomes if name in each.problem.right]
        right = sum(name in each.found for each in have)
        wrong = sum(name in each.wrong for each in outcomes)
        undecided = sum(name in each.undecided for each in outcomes)
        counts = f"{len(have)} | {right} | {wrong} | {undecided}"
        precisions = share(right, right + wrong), share(right, right + wrong + undecided)
        yield f"| {name} | {counts} | {' | '.join(precisions)} | {share(right, len(have))} |"


def share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else ""


def write(outcomes: Sequence[Outcome], followed: Sequence[Followed]) -> None:
    """Replaces the last section of the page."""
    before = PAGE.read_text(encoding="utf-8").partition(f"\n{HEADING}\n")[0]
    PAGE.write_text("\n".join([before, *page(outcomes, followed), ""]), encoding="utf-8")


def page(outcomes: Sequence[Outcome], followed: Sequence[Followed]) -> Iterator[str]:
    """The section."""
    healthy = [each for each in outcomes if not each.problem.right]
    clean = sum(not each.wrong for each in healthy)
    silent = sum(not each.found for each in healthy)
    undecided = sum(len(each.undecided) for each in outcomes)
    yield HEADING
    yield ""
    yield (
        "`python scripts/studies/diagnosis_table.py --write` trains a network for each of"
        f" {len(outcomes)} made problems,"
    )
    yield (
        "whose right diagnosis is known because they were made to have it, and makes these tables."
    )
    yield (
        "The limits of the rules were set on some of these problems, so expect a little less of"
        " others."
    )
    yield (
        f"{len(healthy)} problems have nothing wrong: {silent} of these get no finding, {clean}"
        " none that is wrong."
    )
    yield (
        "An *open* finding is true or not as chance has it, such as noise among half as noisy"
        " labels: it counts"
    )
    yield (
        f"neither as found nor as wrong. That happened {undecided} times; *strict precision*"
        " counts each as wrong."
    )
    yield ""
    yield from scores(outcomes)
    yield ""
    yield (
        "Each kind of advice, followed in a problem that has the finding, and in the next one"
        f" where that was no help ({sum(each.helped for each in followed)} of {len(followed)}"
        " helped)."
    )
    yield (
        "It helped if the loss is lower, by however little; against noise, if the standard error"
        " is; and where rows or loss are others than before, if the finding is gone:"
    )
    yield ""
    yield "| finding | problem | advice | what came of it |"
    yield "| --- | --- | --- | --- |"
    for each in followed:
        words = " ".join(f"`{word}`" for word in each.words)
        yield f"| {each.name} | {each.before.problem.name} | {words} | {what_came(each)} |"
    yield ""
    yield "The problems:"
    yield ""
    yield "| problem | options | right | open | found |"
    yield "| --- | --- | --- | --- | --- |"
    for outcome in outcomes:
        problem = outcome.problem
        words = " ".join(f"`{word}`" for word in problem.words.split())
        cells = listed(problem.right), listed(problem.open) if problem.open else ""
        yield f"| {problem.name} | {words} | {cells[0]} | {cells[1]} | {listed(outcome.found)} |"


if __name__ == "__main__":
    sys.exit(main())
