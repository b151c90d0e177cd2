"""How often the diagnosis is right: `python scripts/studies/diagnosis_table.py`.

Trains a network for each problem of diagnosis_problems.py and compares what it is told with what is wrong with it.
Prints the precision and the recall of each finding. `--follow` follows the advice to each finding once. `--write`
follows it too, and puts the tables into docs/diagnosis.md. Exit code 1 if a finding is wrong or missing.
"""

import argparse
import contextlib
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from goldilocks.cli.main import refusals

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `studies` is
from studies.diagnosis_problems import Columns, Problem, problems

PAGE = Path(__file__).resolve().parents[2] / "docs" / "diagnosis.md"
HEADING = "## How often it is right"
OFF = ("evaluation", "importance", "last_checkpoint", "health", "histograms", "graph", "charts")
WORDS = [
    *("data=table", "data.target=y", "data.batch_size=64"),
    *("data.val_fraction=0.25", "data.test_fraction=0"),
    *("trainer.accelerator=cpu", "trainer.max_epochs=80"),
    *("logger=none", "callbacks.progress_bar=null", *(f"callbacks.{name}=null" for name in OFF)),
]


@dataclass(frozen=True)
class Outcome:
    """What a problem was told.

    Attributes:
        problem: It.
        loss: val/loss of the best epoch; not a number where there is none.
        findings: As in result.json.
    """

    problem: Problem
    loss: float
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
        return self.gone or self.after.loss < self.before.loss


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
        outcomes = list(told(chosen))
        followed = list(follow(outcomes)) if given.follow or given.write else []
        print("\n".join(["", *scores(outcomes)]))
        if given.write:
            write(outcomes, followed)
        bad = any(each.missing or each.wrong for each in outcomes)
        outcome.code = int(bad or not all(each.helped for each in followed))
    return outcome.code


def told(chosen: Sequence[Problem]) -> Iterator[Outcome]:
    """Trains each problem, and says what it was told."""
    for number, problem in enumerate(chosen, 1):
        outcome = diagnosed(problem)
        line = f"{number:2} of {len(chosen)}  {problem.name}: {listed(outcome.found)}"
        for what, names in (("missing", outcome.missing), ("wrong", outcome.wrong)):
            line += f"; {what.upper()}: {listed(names)}" if names else ""
        print(line, flush=True)
        yield outcome


def diagnosed(problem: Problem, words: Sequence[str] = ()) -> Outcome:
    """Trains a problem in a folder that is removed afterwards."""
    from goldilocks.config.compose import compose
    from goldilocks.machine.interrupts import passed_on
    from goldilocks.runs.run import start

    with TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = Path(folder) / "table.csv"
        write_table(path, problem.make())
        places = [f"data.path='{path.as_posix()}'", f"log_dir='{Path(folder).as_posix()}'"]
        given = [*WORDS, *places, *problem.words.split(), *words]
        cfg, choices = compose(given)
        result = passed_on(start(cfg, given, choices)[1])
    value = result["metrics"].get("val/loss")
    diagnosis = result["diagnosis"] or {"findings": []}
    return Outcome(problem, float("nan") if value is None else value, diagnosis["findings"])


def write_table(path: Path, columns: Columns) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def follow(outcomes: Sequence[Outcome]) -> Iterator[Followed]:
    """Follows the advice to each finding in the first problem that has it rightly."""
    done: set[str] = set()
    for outcome in outcomes:
        for finding in outcome.findings:
            name, words = finding["name"], finding["overrides"]
            if name in done or name not in outcome.problem.right or not words:
                continue
            done.add(name)
            followed = Followed(name, outcome, words, diagnosed(outcome.problem, words))
            print(f"{name}: {' '.join(words)}: {what_came(followed)}", flush=True)
            yield followed


# --- in words ---------------------------------------------------------------------------------------------------------


def what_came(followed: Followed) -> str:
    """What came of an advice."""
    losses = f"`val/loss` {followed.before.loss:.4g}, then {followed.after.loss:.4g}"
    return f"{losses}; the finding is {'gone' if followed.gone else 'still there'}"


def listed(names: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def scores(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A row for each finding."""
    yield "| finding | problems that have it | found in them | found wrongly | precision | recall |"
    yield "| --- | --- | --- | --- | --- | --- |"
    names = sorted({name for each in outcomes for name in each.problem.right | each.wrong})
    for name in names:
        have = [each for each in outcomes if name in each.problem.right]
        right = sum(name in each.found for each in have)
        wrong = sum(name in each.wrong for each in outcomes)
        shares = share(right, right + wrong), share(right, len(have))
        yield f"| {name} | {len(have)} | {right} | {wrong} | {shares[0]} | {shares[1]} |"


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
    yield HEADING
    yield ""
    yield f"`python scripts/studies/diagnosis_table.py --write` trains a network for each of {len(outcomes)} made problems, whose right diagnosis is known, and"
    yield f"makes these tables. {len(healthy)} of them have nothing wrong; {clean} of these are told of nothing wrong. An *open* finding is true or not as chance has it: it"
    yield "counts neither as found nor as wrong."
    yield ""
    yield from scores(outcomes)
    yield ""
    yield "The advice to each finding, followed in one of the problems that have it:"
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
