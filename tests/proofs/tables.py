"""Tables of your own: files, columns, splits."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from goldilocks.config.compose import compose, prepare_hydra
from goldilocks.data.base import TableData
from goldilocks.training.components import Parts, prepare
from proofs.drive import QUIET
from proofs.table import Measured, proof, within

Rows = list[dict[str, Any]]


def drawn(rows: int = 120) -> Rows:
    """Rows of a table: two numbers, a category of three, one of forty, a day, a group,
    and a target that follows.
    """
    random = np.random.default_rng(0)
    table = []
    for row in range(rows):
        size, age, make = float(f"{random.normal():.4f}"), int(random.integers(0, 9)), row % 3
        facts = {
            "size": size,
            "age": age,
            "make": "abc"[make],
            "town": f"town{min(row % 40, 29)}",
            "day": (row * 7) % rows,
        }
        table.append(
            {**facts, "group": f"g{row // 6}", "price": round(5 + size + age + 3 * make, 4)}
        )
    return table


@contextlib.contextmanager
def written(
    rows: Rows, separator: str = ",", encoding: str = "utf-8", header: bool = True
) -> Iterator[str]:
    """A file of these rows; yields its path."""
    lines = [separator.join(rows[0])] * header + [
        separator.join(map(str, row.values())) for row in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_bytes("\n".join(lines).encode(encoding))
        yield str(path)


def built(path: str, *words: str, target: str = "price") -> Parts:
    """What a command line builds; `composed` would not know names of columns."""
    prepare_hydra()
    given = [
        "data=table",
        f"data.path={path}",
        f"data.target={target}",
        "data.scaling=none",
        *words,
    ]
    return prepare(compose([*QUIET[1:], *given])[0], warn=False)


def read(path: str, *words: str, target: str = "price") -> Any:
    """The data of a command line."""
    return built(path, *words, target=target).data


def column(data: TableData, name: str, stage: str = "train") -> np.ndarray:
    """A feature of a stage's rows."""
    return data.tensors[stage][0][:, data.spec.feature_names.index(name)].double().numpy()


@proof(
    "data=table",
    "G1 G2 G10",
    "a file and a column are enough: the rest is found out",
    "120 rows written here: task, features of each column, numbers that arrive, what is left out",
    covers="data.path data.target",
)
def table() -> Measured:
    rows = drawn()
    with written([{"id": place, **row} for place, row in enumerate(rows)]) as path:
        data = read(path)
    numbers = [rows[place]["size"] for place in data.row_numbers["train"]]
    error = np.abs(column(data, "size") - numbers).max()
    names = data.spec.feature_names
    hot = [
        np.mean(
            column(data, f"make={word}")
            == [rows[p]["make"] == word for p in data.row_numbers["train"]]
        )
        for word in "abc"
    ]
    return (
        f"{data.spec.task}, {len(names)} features, error of the numbers"
        f" {within(float(error), 1e-6)}, categories"
        f" {'right' if min(hot) == 1 else 'wrong'};"
        f" {'id left out' if 'id' not in names else 'id used'}",
        data.spec.task == "regression" and error < 1e-6 and min(hot) == 1 and "id" not in names,
    )


@proof(
    "data.columns",
    "G1",
    "decides what columns are",
    "features with age left to itself, categorical and dropped",
)
def columns() -> Measured:
    with written(drawn()) as path:
        words: tuple[list[str], ...] = (
            [],
            ["data.columns.age=categorical"],
            ["data.columns.age=drop"],
        )
        found = [read(path, *given).spec.feature_names for given in words]
    counts = [sum(name.startswith("age") for name in names) for names in found]
    return f"{counts[0]}, {counts[1]} and {counts[2]}", counts == [1, 9, 0]


def layout_row(key: str, said: str, claim: str, wrong: str, **layout: Any) -> None:
    @proof(f"data.{key}", "", claim, f"columns found with {said} and with {wrong}")
    def laid_out() -> Measured:
        with written([{**row, "make": "ä" + row["make"]} for row in drawn()], **layout) as path:
            target = "column7" if key == "header" else "price"
            right = read(path, f"data.{key}={said}", target=target).spec.feature_names
            try:
                other = read(path, f"data.{key}={wrong}", target=target).spec.feature_names
            except ValueError:
                other = ()
        return f"{len(right)} features; {f'{len(other)} features' if other else 'refused'}", (
            any(name.endswith("=äb") for name in right) and right != other
        )


layout_row("separator", "':'", "what separates the columns of a text file", "'|'", separator=":")
layout_row("header", "false", "whether the first row names the columns", "true", header=False)
layout_row("encoding", "latin-1", "how a text file is encoded", "utf-8", encoding="latin-1")


def paths_row(stage: str) -> None:
    what = {"val": "validation", "test": "test"}[stage]

    @proof(
        f"data.{stage}_path",
        "",
        f"files of the {what} rows",
        f"the {what} rows' sizes are the other file's",
    )
    def taken() -> Measured:
        rows = drawn()
        with written(rows[:100]) as path, written(rows[100:]) as other:
            data = read(path, f"data.{stage}_path={other}")
        found = column(data, "size", stage)
        same = np.allclose(found, [row["size"] for row in rows[100:]])
        return f"{len(found)} rows, {'the same' if same else 'others'}", same


paths_row("val")
paths_row("test")


@proof(
    "data.split_column",
    "",
    "a column says train, val or test",
    "rows of each part beside what the column says",
)
def split_column() -> Measured:
    said = [["train", "train", "val", "test"][place % 4] for place in range(120)]
    with written([{**row, "part": part} for row, part in zip(drawn(), said, strict=True)]) as path:
        data = read(path, "data.split_column=part")
    right = all(said[row] == stage for stage, rows in data.row_numbers.items() for row in rows)
    counts = ", ".join(f"{count} {stage}" for stage, count in data.spec.num_rows.items())
    return f"{counts}, {'as it says' if right else 'otherwise'}", right and data.spec.num_rows[
        "train"
    ] == 60


@proof(
    "data.group_column",
    "",
    "rows of a group stay together",
    "groups with rows in two parts, with and without",
)
def group_column() -> Measured:
    with written(drawn()) as path:
        found = [read(path, *words).row_numbers for words in (("data.group_column=group",), ())]
    torn = [
        len(
            [g for g in range(20) if sum(any(r // 6 == g for r in rows) for rows in p.values()) > 1]
        )
        for p in found
    ]
    return f"{torn[0]} of 20; {torn[1]} of 20", torn[0] == 0 < torn[1]


@proof("data.time_column", "", "the last rows are the test", "latest day of each part")
def time_column() -> Measured:
    rows = drawn(120)
    with written(rows) as path:
        parts = read(path, "data.time_column=day").row_numbers
    days = {
        stage: [rows[place]["day"] for place in parts[stage]] for stage in ("train", "val", "test")
    }
    ends = [(min(found), max(found)) for found in days.values()]
    right = ends[0][1] < ends[1][0] <= ends[1][1] < ends[2][0]
    return ", ".join(
        f"{stage} {low} to {high}" for stage, (low, high) in zip(days, ends, strict=True)
    ), right


@proof(
    "data.not_missing",
    "",
    "words are values of a column of words, though they mark missing ones elsewhere",
    "inputs of a column with a, b, NA and gaps, without and with NA",
)
def not_missing() -> Measured:
    words = ["a", "b", "NA", ""]
    rows = [{**row, "make": words[place % 4]} for place, row in enumerate(drawn())]
    with written(rows) as path:
        found = [read(path, f"data.not_missing={value}").spec for value in ("[]", "[NA]")]
    names = [[n for n in spec.feature_names if n.startswith("make=")] for spec in found]
    return "; ".join(map(" ".join, names)), (
        "make=NA" not in names[0]
        and {*names[1]} == {"make=a", "make=b", "make=NA", "make=(missing)"}
    )


@proof(
    "data.max_one_hot",
    "",
    "above, a column's categories are learnt as vectors",
    "inputs and vectors with 50 and 10",
)
def max_one_hot() -> Measured:
    with written(drawn()) as path:
        words = ("data.min_category_rows=1", "data.columns.group=drop")
        found = [built(path, *words, f"data.max_one_hot={most}") for most in (50, 10)]
    flags = [sum("town=" in name for name in parts.data.spec.feature_names) for parts in found]
    tables = [
        [p.shape for n, p in parts.module.network.named_parameters() if "vectors" in n]
        for parts in found
    ]
    places = found[1].data.tensors["train"][0][:, -1].unique().numel()
    shown = " x ".join(map(str, tables[1][0]))
    return f"{flags[0]} inputs of 0 and 1, no vectors; {flags[1]} and a table of {shown}", (
        flags[0] > 20 and not tables[0] and flags[1] == 0 and tables[1][0][0] == places + 1
    )


@proof(
    "data.min_category_rows",
    "",
    "rarer categories are merged",
    "categories of 30 towns in 120 rows with 1 and 4",
)
def min_category_rows() -> Measured:
    with written(drawn()) as path:
        found = [
            read(path, f"data.min_category_rows={least}", "data.max_one_hot=100")
            for least in (1, 4)
        ]
    names = [
        [name for name in data.spec.feature_names if name.startswith("town=")] for data in found
    ]
    merged = column(found[1], "town=(other)").sum() if "town=(other)" in names[1] else 0
    return f"{len(names[0])}; {len(names[1])}, with {merged:.0f} rows in (other)", (
        len(names[1]) < len(names[0]) and bool(merged > 30)
    )


@proof(
    "data.min_class_rows",
    "",
    "rarer classes are left out, or merged",
    "classes and rows of 100 of a, 100 of b and 2 each of c and d: left out, merged",
    covers="data.rare_classes=drop data.rare_classes=merge",
)
def min_class_rows() -> Measured:
    rows = [
        {**row, "price": word} for row, word in zip(drawn(204), "ab" * 100 + "ccdd", strict=True)
    ]
    with written(rows) as path:
        found = [
            read(path, "data.min_class_rows=3", f"data.rare_classes={what}").spec
            for what in ("drop", "merge")
        ]
    told = [(spec.class_names, sum(spec.num_rows.values())) for spec in found]
    return "; ".join(f"{', '.join(names)} of {count} rows" for names, count in told), told == [
        (("a", "b"), 200),
        (("(other)", "a", "b"), 204),
    ]


@proof(
    "data.drop_duplicates",
    "",
    "rows that equal another one are left out before the split",
    "rows of a table that is there twice, by a number of its own, and validation rows that equal"
    " a training row",
)
def drop_duplicates() -> Measured:
    rows = [{"id": place, **row} for place, row in enumerate(2 * drawn())]
    with written(rows) as path:
        found = [read(path, f"data.drop_duplicates={option}") for option in ("false", "true")]
    counts = [sum(data.spec.num_rows.values()) for data in found]
    known = [{row.numpy().tobytes() for row in data.tensors["train"][0]} for data in found]
    seen = [
        sum(row.numpy().tobytes() in rows for row in data.tensors["val"][0])
        for data, rows in zip(found, known, strict=True)
    ]
    return f"{counts[0]} rows, {seen[0]} of them; {counts[1]} rows, {seen[1]} of them", (
        counts[0] == 2 * counts[1] and seen[0] > 0 and seen[1] == 0
    )


@proof(
    "data.target_log",
    "G10",
    "learns the target's logarithm",
    "scaled targets minus the formula; of auto, even prices",
)
def target_log() -> Measured:
    rows = drawn()
    skewed = [{**row, "price": float(np.exp(row["price"] / 3))} for row in rows]
    with written(skewed) as path, written(rows) as even:
        found = [read(path, f"data.target_log={option}") for option in ("true", "auto", "false")]
        kept = read(even, "data.target_log=auto").spec.target_log
    prices = np.log([skewed[place]["price"] for place in found[0].row_numbers["train"]])
    expected = (prices - prices.mean()) / prices.std()
    errors = [
        np.abs(data.tensors["train"][1][:, 0].double().numpy() - expected).max() for data in found
    ]
    return (
        f"{within(float(max(errors[:2])), 1e-5)}; false: {errors[2]:.1f}; even:"
        f" {'kept' if not any(kept) else 'log'}",
        (max(errors[:2]) < 1e-5 < 0.1 < errors[2] and not any(kept)),
    )


@proof(
    "data.pieces",
    "G10",
    "how much of each piece lies below a number: pieces of equally many training rows",
    "features of 4 pieces minus the formula; with auto, of 400 and 4,000 rows, how many",
)
def pieces() -> Measured:
    rows = drawn(400)
    with written(rows) as path, written(drawn(4000)) as large:
        found = [read(path, "data.pieces=4"), read(path), read(large)]
    sizes = np.array([rows[place]["size"] for place in found[0].row_numbers["train"]])
    edges = np.quantile(sizes, np.linspace(0, 1, 5), method="lower")
    cut = [
        [name for name in data.spec.feature_names if name.startswith("size from")] for data in found
    ]
    errors = [
        np.abs(column(found[0], name) - np.clip((sizes - low) / (high - low), 0, 1) + 0.5).max()
        for name, low, high in zip(cut[0], edges[:-1], edges[1:], strict=True)
    ]
    return f"{within(float(max(errors)), 1e-5)}; {len(cut[1])} and {len(cut[2])}", (
        max(errors) < 1e-5 and (len(cut[1]), len(cut[2])) == (0, 8)
    )
