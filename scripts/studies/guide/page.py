"""The generated blocks of docs/guide.md:
a table for each experiment, the verdicts of each row, and their summary.
"""

import re
import statistics
from collections.abc import Mapping

from studies.guide.experiments import LOWER_IS_BETTER, Experiment
from studies.guide.measure import Store
from studies.guide.verdicts import FAILS, HOLDS, NOISE, Comparison, comparisons, overall, scores

ROWS = {
    "G1": "inputs",
    "G2": "outputs",
    "G3": "depth",
    "G4": "width",
    "G5": "layers before neurons",
    "G6": "too big first",
    "G7": "losses",
    "G8": "batch size",
    "G9": "epochs",
    "G10": "scaling",
    "G11": "the learning rate",
    "G12": "the range test",
    "G13": "momentum",
    "G14": "activations",
    "G15": "output functions",
    "G16": "initial weights",
    "G17": "batch normalisation",
    "G18": "clipping",
    "G19": "the best model",
    "G20": "dropout",
    "G21": "AlphaDropout",
    "G22": "dropout with BatchNorm",
    "G23": "penalties on the weights",
    "G24": "augmentation",
    "G25": "optimizers",
    "G26": "schedules",
    "G27": "schedule last",
    "G28": "vanishing and exploding gradients",
    "G29": "dashboards",
    "G30": "known architectures",
}
BLOCK = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(text: str, made: Mapping[str, str]) -> str:
    """The page with every marked block replaced by what was made for it."""
    return BLOCK.sub(lambda found: f"{found[1]}{made[found[2]]}\n{found[3]}", text)


def blocks(table: Mapping[str, Experiment], store: Store) -> dict[str, str]:
    """Every block by name: an experiment's, `verdict G14`, `summary` and `about`."""
    made = {name: measured(experiment, store) for name, experiment in table.items()}
    found = comparisons(store, table.values())
    claimed = {claim.row for experiment in table.values() for claim in experiment.claims}
    by_row = {row: [one for one in found if one.claim.row == row] for row in ROWS if row in claimed}
    made |= {f"verdict {row}": verdicts(ones) for row, ones in by_row.items()}
    return made | {"summary": summary(by_row), "against": against(found), "about": about(store)}


def about(store: Store) -> str:
    runs = sum(len(rows) for rows in store.runs.values())
    hours = sum(row["seconds"] for rows in store.runs.values() for row in rows.values()) / 3600
    versions, commit = (
        store.about.get("versions", "unknown versions"),
        store.about.get("commit", "unknown"),
    )
    where = f"Last measured at commit {commit} with {versions}, on one thread of a CPU"
    return f"{where}: {runs:,} runs, {hours:.1f} hours of training."


# --- what was measured ----------------------------------------------------------------------------


def measured(experiment: Experiment, store: Store) -> str:
    """Title, figure and table of an experiment."""
    lines = [f"*{experiment.title}.* {told(experiment, store)}", ""]
    if experiment.figure:
        lines += [f"![{experiment.title}](figures/{experiment.name}.png)", ""]
    series = any(variant.x is not None for variant in experiment.variants.values())
    return "\n".join([*lines, *(grid(experiment, store) if series else plain(experiment, store))])


def told(experiment: Experiment, store: Store) -> str:
    """What the numbers of the table are."""
    counts = {
        len(scores(store, experiment, variant, data, metric))
        for variant in experiment.variants.values()
        for data in experiment.data
        for metric in experiment.metrics_of(data)
    }
    metrics = list(
        dict.fromkeys(
            shown(metric) for data in experiment.data for metric in experiment.metrics_of(data)
        )
    )
    seeds = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"Test {' and '.join(metrics)}, mean ± standard deviation over {seeds} seeds."


def shown(metric: str) -> str:
    return {"r2": "R2", "loss": "log-loss"}.get(metric, metric)


def plain(experiment: Experiment, store: Store) -> list[str]:
    """A row for each variant, a column for each data set and metric."""
    columns = [(data, metric) for data in experiment.data for metric in experiment.metrics_of(data)]
    head = [f"{data}, {shown(metric)}" for data, metric in columns]
    ranks = {} if experiment.rank is None else mean_ranks(experiment, store, columns)
    head += ["mean rank"] if ranks else []
    lines = ["| | " + " | ".join(head) + " |", "| --- " * (len(head) + 1) + "|"]
    for name, variant in experiment.variants.items():
        cells = [
            spread(list(scores(store, experiment, variant, *column).values())) for column in columns
        ]
        cells += [f"{ranks[name]:.1f}" if name in ranks else ""] if ranks else []
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def mean_ranks(
    experiment: Experiment, store: Store, columns: list[tuple[str, str]]
) -> dict[str, float]:
    """Mean over data sets and seeds of each variant's rank, 1 the best;
    equal scores share theirs.
    """
    from scipy.stats import rankdata

    variants = [
        one for name, one in experiment.variants.items() if name.endswith(experiment.rank or "")
    ]
    rows = []
    for column in columns:
        by_variant = [scores(store, experiment, variant, *column) for variant in variants]
        sign = 1 if column[1] in LOWER_IS_BETTER else -1
        seeds = set.intersection(*(set(found) for found in by_variant))
        rows += [rankdata([sign * found[seed] for found in by_variant]) for seed in sorted(seeds)]
    means = [statistics.mean(map(float, ranks)) for ranks in zip(*rows, strict=True)]
    return dict(zip((variant.name for variant in variants), means, strict=True)) if rows else {}


def grid(experiment: Experiment, store: Store) -> list[str]:
    """A row for each series and data set, a column for each x."""
    xs = list(dict.fromkeys(variant.x for variant in experiment.variants.values()))
    assert experiment.figure is not None
    label = experiment.figure["label"]
    lines = [
        f"| {label} | " + " | ".join(f"{x:g}" for x in xs if x is not None) + " |",
        "| --- " * (len(xs) + 1) + "|",
    ]
    for data in experiment.data:
        rows: dict[str, list[str]] = {}
        for variant in experiment.variants.values():
            values = scores(store, experiment, variant, data, experiment.metrics_of(data)[0])
            rows.setdefault(variant.series, []).append(spread(list(values.values())))
        title = f"{data}, " if len(experiment.data) > 1 else ""
        lines += [f"| {title}{name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return lines


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    if not values:
        return "not measured"
    return f"{statistics.mean(values):.3f}" + (
        f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    )


# --- what follows ---------------------------------------------------------------------------------


def verdicts(found: list[Comparison]) -> str:
    """A line with the row's verdict, and a table of its comparisons."""
    lines = [f"**Verdict: {sentence(found)}.**", "", "| claim | data | difference | verdict |"]
    lines.append("| --- | --- | --- | --- |")
    for one in found:
        later = "*later work:* " if one.claim.later else ""
        margin = "" if one.claim.margin is None else f" (margin {one.claim.margin:g})"
        lines.append(
            f"| {later}{one.claim.text}{margin} | {one.data} | {one.mean:+.3f} ± {one.half:.3f} |"
            f" {one.verdict} |"
        )
    return "\n".join(lines)


def sentence(found: list[Comparison]) -> str:
    """The row's word and how the comparisons of the guide's own claims went.

    >>> sentence([])
    'not measured'
    """
    found = [one for one in found if not one.claim.later]
    if not found:
        return "not measured"
    counts = {word: sum(one.verdict == word for one in found) for word in (HOLDS, FAILS, NOISE)}
    parts = [f"{word} in {count}" for word, count in counts.items() if count]
    return (
        f"{overall(found)} ({', '.join(parts)} of {len(found)})"
        if len(found) > 1
        else overall(found)
    )


def summary(by_row: Mapping[str, list[Comparison]]) -> str:
    """A line for each row of the guide."""
    lines = ["| row | verdict |", "| --- | --- |"]
    for row, title in ROWS.items():
        came = sentence(by_row[row]) if row in by_row else "a mechanism: nothing to compare"
        lines.append(f"| [{row}: {title}](#{anchor(row)}) | {came} |")
    return "\n".join(lines)


def against(found: list[Comparison]) -> str:
    """A line for each claim that does not hold."""
    lines = [
        f"- [{one.claim.row}](#{anchor(one.claim.row)}), {one.data}: not so that {one.claim.text}"
        f" ({one.mean:+.3f} ± {one.half:.3f})."
        for one in found
        if one.verdict == FAILS and not one.claim.later
    ]
    return "\n".join(lines or ["Nowhere."])


def anchor(row: str) -> str:
    """Of a row's heading."""
    return f"{row} {ROWS[row]}".lower().replace(" ", "-")
