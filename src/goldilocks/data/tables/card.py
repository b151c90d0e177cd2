"""What was found out about a table and decided,
as `data_card.yaml` for programs and `data_card.md` for people.

Legend: N rows, F features, C columns of an encoded target.
"""

import html
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goldilocks.data import checks
from goldilocks.data.spec import Spec
from goldilocks.data.tables.columns import Column
from goldilocks.data.tables.preparation import Fitted, Preparation
from goldilocks.data.tables.values import dates_of, numbers_of, words_of
from goldilocks.data.targets import MAX_CLASSES

COMMON = 5  # categories that are named
Pairs = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]  # inputs and targets by stage


def describe_table(
    columns: Sequence[Column], train: Any, preparation: Preparation
) -> list[dict[str, Any]]:
    """A description of each column:
    what it is and why, what is missing, its values and its features.

    Args:
        columns: Of the table.
        train: The training rows, a pandas DataFrame [N, columns].
        preparation: Fitted on them.
    """
    fitted = {column.name: column for column in preparation.columns}
    owners = Counter(preparation.owners)
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "used": column.name in fitted,
            "reason": column.reason
            if column.name in fitted or not column.used
            else "a single value in training rows",
            "missing": round(column.missing, 4),
            "distinct": column.distinct,
            **(values_of(train[column.name], fitted[column.name]) if column.name in fitted else {}),
            "features": owners[column.name],
        }
        for column in columns
    ]


def values_of(series: Any, column: Fitted) -> dict[str, Any]:
    """The range of numbers and dates, or the commonest categories with
    the number of their training rows.
    """
    if column.kind == "numeric":
        values = numbers_of(series, column.form)
        return {
            "least": float(np.nanmin(values)),
            "median": float(np.nanmedian(values)),
            "most": float(np.nanmax(values)),
        }
    if column.kind == "date":
        dates = dates_of(series, column.form)
        return {"least": written(dates.min()), "most": written(dates.max())}
    counts = words_of(series, column.form).value_counts()
    common = {str(word): int(count) for word, count in counts.head(COMMON).items()}
    return {
        "common": common,
        "given": "a vector for each category" if column.embedded else "0 and 1",
    }


def written(date: Any) -> str:
    """A point in time, without a time of day where that is midnight."""
    return str(date).removesuffix(" 00:00:00")


def describe_target(
    names: Sequence[str], target: NDArray[Any], spec: Spec, given: str
) -> dict[str, Any]:
    """What is predicted, why it is taken for that, and how its values are spread.

    Args:
        names: Of the targets.
        target: As it was read, [N] or [N, targets].
        spec: Of the data.
        given: The task that the user chose, or `auto`.
    """
    distinct = len(np.unique(target, axis=0))
    facts: dict[str, Any] = {
        "name": list(names),
        "task": spec.task,
        "reason": reason_of(target, distinct, spec, given),
    }
    if spec.task != "regression":
        counts = dict(zip(spec.class_names, spec.class_counts, strict=True))
        return facts | {"training_rows_by_class": counts}
    values = target.reshape(len(target), -1)
    facts |= {
        "least": values.min(0).tolist(),
        "mean": values.mean(0).tolist(),
        "most": values.max(0).tolist(),
    }
    logged = [name for name, log in zip(names, spec.target_log, strict=False) if log]
    return facts | {"learnt_as_logarithm": logged}


def reason_of(target: NDArray[Any], distinct: int, spec: Spec, given: str) -> str:
    """Why a target is taken for a task."""
    if given != "auto":
        return f"data.task={given}"
    if target.ndim > 1:
        return "several targets"
    if spec.task == "binary":
        return "two values"
    if target.dtype.kind not in "iuf":
        return f"{distinct} different words"
    if spec.task == "multiclass":
        return (
            f"{distinct} different whole numbers, up to {MAX_CLASSES} are classes;"
            " data.task=regression otherwise"
        )
    return f"{distinct:,} different numbers"


def check_table(
    pairs: Pairs, spec: Spec, plain: list[int], owners: Sequence[str], dropped: bool
) -> list[dict[str, Any]]:
    """What the health check says of the rows:
    leaks, rows in two splits, balance or outliers of the target.

    Args:
        pairs: Inputs and targets by stage.
        spec: Of the data.
        plain: The places of the features that are looked at one by one.
        owners: The column that each feature is of, [F].
        dropped: Whether repeated rows have been left out.
    """
    x, y = pairs["train"]
    names, columns = ([known[place] for place in plain] for known in (spec.feature_names, owners))
    verdicts = [
        checks.check_equal_rows(pairs, dropped),
        checks.check_single_features(x[:, plain], y, spec.task, names, spec.class_names, columns),
        checks.check_target(y)
        if spec.task == "regression"
        else checks.check_classes(spec.class_counts, spec.class_names),
    ]
    return [
        {
            "name": found.name,
            "status": found.status,
            "measured": found.measured,
            "advice": found.advice,
            "overrides": list(found.overrides),
        }
        for found in verdicts
    ]


# --- the files ------------------------------------------------------------------------------------


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Writes both files into a run folder, and warns of what makes the result untrue."""
    import yaml

    text = yaml.safe_dump(dict(card), sort_keys=False, allow_unicode=True, width=120)
    (folder / "data_card.yaml").write_text(text, encoding="utf-8")
    (folder / "data_card.md").write_text("\n".join(lines_of(card)) + "\n", encoding="utf-8")
    for said in card["said"]:
        print(f"note: {said}", file=sys.stderr)
    for check in card["checks"]:
        if check["status"] == "failed":
            print(
                f"warning: {check['name']}: {check['measured']}: {check['advice']}", file=sys.stderr
            )


def lines_of(card: Mapping[str, Any]) -> Iterator[str]:
    """The card as Markdown."""
    target, rows = card["target"], card["rows"]
    yield "# The data of this run"
    yield ""
    notes = [note[:1].upper() + note[1:] for note in [*card["notes"], *card["said"]]]
    yield f"Files: {', '.join(card['files'])}. {cell('. '.join(dict.fromkeys(notes)))}."
    yield ""
    facts = (f"{rows[stage]:,} {stage}" for stage in ("train", "val", "test"))
    yield f"Rows: {', '.join(facts)}; {card['split']}."
    yield ""
    yield f"Target: {cell(', '.join(target['name']))}, {target['task']} ({target['reason']})."
    if "training_rows_by_class" in target:
        total = sum(target["training_rows_by_class"].values())
        shares = (
            f"{cell(name)} {n:,} ({n / total:.0%})"
            for name, n in target["training_rows_by_class"].items()
        )
        yield f"Training rows by class: {', '.join(shares)}."
    else:
        yield (
            f"From {spoken(target['least'])} to {spoken(target['most'])}, mean"
            f" {spoken(target['mean'])}."
        )
    if logged := ", ".join(target.get("learnt_as_logarithm", [])):
        yield (
            f"The logarithm of {cell(logged)} is learnt; data.target_log=false learns the number"
            " itself."
        )
    yield from column_lines(card)
    yield from ["", "## Checks", ""]
    for check in card["checks"]:
        advice = f". Advice: {check['advice']}" if check["advice"] else ""
        yield f"- {check['status']}: {check['name']}: {cell(check['measured'])}{advice}"


def column_lines(card: Mapping[str, Any]) -> Iterator[str]:
    """The columns as tables: those that are used, and those that are not."""
    used = [column for column in card["columns"] if column["used"]]
    yield from ["", f"## Columns: {len(used)} used, {card['inputs']} inputs of the network", ""]
    yield "| column | kind | why | missing | different | values | inputs |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for column in used:
        words = [
            column["name"],
            column["kind"],
            column["reason"],
            f"{column['missing']:.1%}",
            f"{column['distinct']:,}",
        ]
        yield f"| {' | '.join(map(cell, [*words, value_words(column), column['features']]))} |"
    yield from ["", "A decision is changed by `data.columns.NAME=KIND`, or `drop`."]
    if card["skewed"]:
        names = cell(", ".join(card["skewed"]))
        hint = f"data.scaling={card['scaling']} allows for that"
        if card["scaling"] in ("standard", "minmax", "none"):
            hint = "data.scaling=auto scales these robustly"
        yield ""
        yield (
            f"Skewed, with values more than ten inter-quartile ranges from the median: {names};"
            f" {hint}."
        )
    left = [column for column in card["columns"] if not column["used"]]
    yield from ["", f"## Not used: {len(left)}", ""] if left else []
    for column in left:
        yield f"- {cell(column['name'])}: {column['kind']}, {column['reason']}"


def value_words(column: Mapping[str, Any]) -> str:
    """A column's values in a few words."""
    if "common" in column:
        return ", ".join(f"{word} ({count:,})" for word, count in column["common"].items())
    return f"{spoken(column['least'])} to {spoken(column['most'])}"


def spoken(value: Any) -> str:
    """Numbers with few digits, words as they are. Four digits, which may be a year, have no comma.

    >>> spoken([2024.0, 12345.678, 2.0]), spoken("2024-01-01")
    ('2024, 12,346, 2', '2024-01-01')
    """
    if isinstance(value, list):
        return ", ".join(map(spoken, value))
    if not isinstance(value, float):
        return str(value)
    if abs(value) < 1000 and value != int(value):
        return f"{value:.4g}"
    return f"{value:.0f}" if abs(value) < 10_000 else f"{value:,.0f}"


def cell(text: Any) -> str:
    """Text that breaks no table, and is neither HTML nor a link.

    >>> cell("<b>|x[y](z)")
    '&lt;b&gt;\\\\|x\\\\[y\\\\](z)'
    """
    text = html.escape(str(text), quote=False)
    return " ".join(re.sub(r"([|\[\]])", r"\\\1", text).split())
