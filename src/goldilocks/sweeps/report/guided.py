"""What the report says of a guided search: verdict, table, answers, and what each step did."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from goldilocks.errors import Refused
from goldilocks.machine.clock import duration
from goldilocks.machine.files import read_json
from goldilocks.sweeps.report.rendering import Section, Table
from goldilocks.sweeps.report.wording import shown

FILE = "guide.json"
HEAD = ["", "validation rows", "±", "test rows", "±"]


def told_of(folder: Path) -> Mapping[str, Any]:
    """What a search has concluded; of any other sweep, nothing."""
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        return dict(read_json(path, str(path)).get("told") or {})
    except Refused:
        return {}


def guided_sections(folder: Path) -> list[Section]:
    """The parts of the report before those of any sweep."""
    told = told_of(folder)
    if not told:
        return []
    metric = str(told["metric"]).partition("/")[2]
    table = Table(HEAD, told["table"], title=f"{metric}, with standard errors")
    steps = [
        [one["step"], str(one["trials"]), duration(one["seconds"]), shown(one["best"])]
        for one in told["steps"]
    ]
    curve = [[duration(at), shown(value)] for at, value in told["curve"]]
    return [
        Section("The verdict", told["sentences"], tables=[table], as_list=True),
        Section("The guide's questions", [one["answer"] for one in told["answers"]], as_list=True),
        Section(
            "What was tried",
            tables=[
                Table(["step", "trials", "trained for", "best value after it"], steps),
                Table(["after", "best value"], curve, title="The best value against the time"),
            ],
        ),
    ]
