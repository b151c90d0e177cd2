"""The report of a sweep: `report.html`, `report.md`,
`report.json` and `experiment/best.yaml` in its folder.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from goldilocks.errors import missing
from goldilocks.machine.files import write_json
from goldilocks.runs.failures import summary as summary_of
from goldilocks.sweeps.execution.trials import Trial, frozen
from goldilocks.sweeps.report.as_json import as_plain
from goldilocks.sweeps.report.best import is_allowed, write, write_best
from goldilocks.sweeps.report.comparison import certainty_sentences
from goldilocks.sweeps.report.conclusions import (
    best_sentences,
    command_overrides,
    conclusions,
    length_sentences,
)
from goldilocks.sweeps.report.edges import Allowed
from goldilocks.sweeps.report.guided import guided_sections
from goldilocks.sweeps.report.reading import mean_curve, read_summary, validation_curve
from goldilocks.sweeps.report.rendering import Cell, Section, Table, markdown, page
from goldilocks.sweeps.report.summary import Configuration, Summary
from goldilocks.sweeps.report.tables import best_per_value, trials_table
from goldilocks.sweeps.report.wording import overrides_of, plural, shown
from goldilocks.sweeps.report.worth import worth_sentences

SHOWN = 10  # configurations whose curves are drawn
MOST_VALUES = 12  # of a parameter that gets a table of its values
ROUGH = 10  # configurations for each parameter below which importances are rough
WORDS = [
    "A trial is one training; trials that differ only in their seed are one configuration, judged"
    " by its mean.",
    "The objective is the validation metric of a trial's best epoch. The test set has not been"
    " touched.",
    "`done`: trained to its end, or stopped early since nothing improved. `pruned`: given up by"
    " the sweep, since it lagged behind. `diverged`: the loss was no longer finite. `failed`: an"
    " error, which is in the trial's folder.",
    "The best of many configurations is partly lucky. Train the best few again with other seeds"
    " before you rely on a small difference.",
]
OF_THE_TEST = (
    "The test of the best against the second knows nothing of how many configurations there were."
)


def try_report(folder: Path, trials: Sequence[Trial]) -> None:
    """Says what is best and writes the report at the end of a sweep,
    which does not fail because of it.
    """
    try:
        summary = read_summary(folder, trials)
        told = [
            *best_sentences(summary),
            *worth_sentences(summary),
            *length_sentences(summary),
        ]
        print(*(text.replace("`", "") for text in told), sep="\n")
        print(f"report   {write_report(folder, summary)}")
    except Exception as error:  # of whatever library: the sweep is done
        cause = summary_of(error)
        reason = f"{cause['type']}: {cause['message']}"
        print(
            f"warning: no report was written ({reason}); python scripts/report.py {folder}",
            file=sys.stderr,
        )


def write_report(folder: Path, summary: Summary | None = None) -> Path:
    """Writes the report of a sweep and its best trial as an experiment.

    Args:
        folder: Of the sweep.
        summary: Of the sweep, if it is known already.

    Returns:
        The path of report.html.

    Raises:
        Refused: if the folder is not a sweep's or cannot be read.
    """
    summary = read_summary(folder) if summary is None else summary
    allowed: Allowed = lambda key, value: True  # noqa: E731
    if summary.best is not None:
        trial = frozen(folder, summary.best.number)
        about = (
            f"Trial {trial.number} of {folder.name}: {summary.objective}"
            f" {shown(summary.best.value())}"
        )
        if (count := len(summary.alike)) > 1:
            about += f"; {count} cannot be told apart, and it is {summary.why_best}"
        write_best(
            folder,
            trial,
            f"{about}. python train.py --config-dir {shlex.quote(str(folder))} experiment=best",
        )
        allowed = partial(is_allowed, trial.config)
    try:
        from goldilocks.sweeps.report.plots import import_plotly

        import_plotly()
    except ModuleNotFoundError as error:
        drawn, script, note = no_figures(), "", f"There are no figures: drawing {missing(error)}."
    else:
        from plotly.offline import get_plotlyjs

        drawn, script, note = figures(summary), get_plotlyjs(), ""
    sections = sections_of(summary, allowed, drawn, note)
    title, facts = f"Sweep {folder.name}", facts_of(summary)
    write(folder / "report.md", markdown(title, facts, sections))
    came_out = next(one for one in sections if one.title == "What came out")
    sentences = [text for text in came_out.sentences if text != note]
    plain = as_plain(summary, sentences, drawn["importances"])
    write_json(folder / "report.json", plain)
    return write(folder / "report.html", page(title, facts, sections, script))


def facts_of(summary: Summary) -> str:
    """A line on what the sweep is."""
    now = datetime.now().strftime("%Y-%m-%d %H:%M")
    ways = ", ".join(
        f"`{name}` ({'less' if mode == 'min' else 'more'} is better)"
        for name, mode in summary.modes.items()
    )
    seeds = f", {summary.num_seeds} seeds each" if summary.num_seeds > 1 else ""
    searched = ", ".join(f"`{parameter.key}`" for parameter in summary.parameters) or "nothing"
    return (
        f"{ways}; {plural(len(summary.configurations), 'configuration')}{seeds} by"
        f" `{summary.settings['sampler']}`;"
        f" searched: {searched}; written {now}"
    )


def sections_of(
    summary: Summary, allowed: Allowed, drawn: dict[str, Any], note: str
) -> list[Section]:
    """The parts of the report, the answer first."""
    guided = guided_sections(summary.folder)
    sections = [
        Section(
            "What came out",
            [*conclusions(summary, allowed), *([note] if note else [])],
            as_list=True,
        )
    ]
    if summary.best is not None:
        sections.append(train_it(summary, summary.best))
    sections = [*guided, *sections]
    sections += [
        Section(
            "Trials",
            ["The best first, then by value."],
            tables=[trials_table(summary)],
        ),
        each_parameter(summary, drawn),
        *how_much_each_matters(summary, drawn),
        *each_value(summary),
        *over_epochs(summary, drawn),
        *over_seeds(summary, drawn),
        *trade_off(summary, drawn),
        Section("Words", [*WORDS, *[OF_THE_TEST] * is_tested(summary)], as_list=True),
        Section("How it was run", commands=[quoted(command) for command in summary.commands]),
    ]
    return [
        section for section in sections if section.sentences or section.commands or section.tables
    ]


def is_tested(summary: Summary) -> bool:
    """Whether the first two configurations are compared by a test."""
    return any("t-test" in text for text in certainty_sentences(summary))


def quoted(command: str) -> str:
    """A command of sweep.yaml, which has its overrides without quotes, as a shell takes it."""
    return shlex.join(command.split())


def train_it(summary: Summary, best: Configuration) -> Section:
    """The commands that train the best configuration."""
    folder = shlex.quote(str(summary.folder))
    text = (
        "The first command trains it as it was, whatever has been edited in `conf/` since; the"
        " second says it in words."
    )
    seeds = (
        f" It was trained with several seeds; this is the first, of trial {best.number}."
        if len(best.trials) > 1
        else ""
    )
    commands = [
        f"python train.py --config-dir {folder} experiment=best",
        command_overrides(best.trials[0].overrides),
    ]
    test = "Both test the network at their end, which trials do not."
    return Section("Train the best one", [f"{text}{seeds} {test}"], commands=commands)


# --- sections with figures ------------------------------------------------------------------------


def each_parameter(summary: Summary, drawn: dict[str, Any]) -> Section:
    """The objective against each parameter."""
    if not drawn["parameters"]:
        return Section("Each parameter")
    text = (
        "Every point is a configuration, over the value that it has. Crosses failed or diverged:"
        " they have no"
        f" `{summary.objective}`, and stand at the edge. A parameter matters where the best points"
        " gather."
    )
    if any(figure.layout.yaxis.range for figure in drawn["parameters"]):
        text += " What is far worse than most is out of sight: double-click a figure to see it too."
    return Section("Each parameter", [text], figures=drawn["parameters"])


def how_much_each_matters(summary: Summary, drawn: dict[str, Any]) -> list[Section]:
    """Importance, then parameters together."""
    found, sections = drawn["importances"], []
    if found:
        first = max(found, key=lambda key: found[key])
        text = (
            f"`{first}` matters most: by itself it explains {100 * found[first]:.0f} % of what the"
            " parameters explain"
            " of the order of the configurations that are done (fANOVA, Hutter et al. 2014). The"
            " shares add up to all,"
            " even where nothing matters much."
        )
        if len(summary.ranked) < ROUGH * len(found):
            text += (
                f" With {len(summary.ranked)} of them for {len(found)} parameters this is rough."
            )
        left = [f"`{p.key}`" for p in summary.parameters if p.key not in found]
        if left:
            text += f" Not among them, since not every configuration has it: {', '.join(left)}."
        rows: list[list[str | float | Cell | None]] = [
            [key, Cell(f"{100 * value:.0f} %", value, kind="number")]
            for key, value in found.items()
        ]
        table = Table(["parameter", "importance"], rows, drawn=True)
        sections.append(
            Section("How much each parameter matters", [text], [], [table], drawn["importance"])
        )
    elif summary.nothing_differs and len(summary.parameters) > 1:
        text = "That cannot be said: no two configurations differ by more than the noise."
        sections.append(Section("How much each parameter matters", [text]))
    if drawn["pair"]:
        text = (
            "Colour is the objective, the best one is ringed. Where the good ones lie on a slope,"
            " the two have to be"
            " chosen together. The worst tenth has one colour."
        )
        sections.append(
            Section("The two that matter most, together", [text], figures=drawn["pair"])
        )
    if drawn["parallel"]:
        text = (
            "A line is a configuration that is done, dark where it is good. Drag along an axis to"
            " keep those that pass"
            " there, and drag an axis by its name to move it."
        )
        sections.append(Section("All parameters together", [text], figures=drawn["parallel"]))
    return sections


def each_value(summary: Summary) -> list[Section]:
    """What each value can do at its best."""
    scientific = list(summary.settings["scientific"])
    tables = [
        best_per_value(summary, [parameter.key])
        for parameter in summary.parameters
        if not parameter.ranged and len(parameter.values) <= MOST_VALUES and not scientific
    ]
    if scientific:
        tables = [best_per_value(summary, scientific)]
    if not tables or len(summary.parameters) < 2:
        return []
    text = (
        "Each value with the best that was found for all others. A value that was tried more often"
        " had more chances."
    )
    if summary.nothing_differs:
        text += " No difference here is larger than the noise."
    return [Section("The best of each value", [text], tables=tables)]


def over_epochs(summary: Summary, drawn: dict[str, Any]) -> list[Section]:
    """Validation curves."""
    if not drawn["curves"]:
        return []
    count = min(SHOWN, len(summary.ranked))
    better = "falls" if summary.signs[0] == 1 else "rises"
    text = (
        f"`{summary.objective}` by epoch of the best {count}, the best one thick. If a curve still"
        f" {better}, train for"
        " longer."
    )
    return [Section("Over the epochs", [text], figures=drawn["curves"])]


def over_seeds(summary: Summary, drawn: dict[str, Any]) -> list[Section]:
    """How far seeds scatter."""
    if summary.num_seeds < 2:
        return []
    ranked = [one for one in summary.ranked if len(one.by_seed) > 1][:MOST_VALUES]
    rows: list[list[str | float | Cell | None]] = [
        [
            one.number,
            overrides_of(one),
            one.value(),
            one.deviation(),
            *(row[0] for row in one.by_seed.values()),
        ]
        for one in ranked
    ]
    seeds = max((len(one.by_seed) for one in ranked), default=0)
    rows = [row + [None] * (4 + seeds - len(row)) for row in rows]
    head = [
        "trial",
        "configuration",
        "mean",
        "deviation",
        *(f"seed {seed}" for seed in range(seeds)),
    ]
    text = (
        "A configuration is better than another only where it is so with most seeds, not by its"
        " mean alone."
    )
    return [
        Section("Over the seeds", [text], [], [Table(head, rows)] if rows else [], drawn["seeds"])
    ]


def trade_off(summary: Summary, drawn: dict[str, Any]) -> list[Section]:
    """Several objectives."""
    if not summary.front:
        return []
    names = list(summary.modes)
    rows: list[list[str | float | Cell | None]] = [
        [
            Cell(str(one.number), one.number, f"{one.number}/"),
            *(one.value(i) for i in range(len(names))),
            overrides_of(one),
        ]
        for one in summary.front
    ]
    text = "None of these is beaten: to be better in one objective, another has to give."
    return [
        Section(
            "The trade-off",
            [text],
            [],
            [Table(["trial", *names, "configuration"], rows)],
            drawn["front"],
        )
    ]


# --- figures --------------------------------------------------------------------------------------


def no_figures() -> dict[str, Any]:
    return {
        name: []
        for name in ("parameters", "importance", "pair", "parallel", "curves", "seeds", "front")
    } | {"importances": {}}


def figures(summary: Summary) -> dict[str, Any]:
    """All figures by name, and the importances."""
    from goldilocks.sweeps.report import importance, parameter_plots, plots

    drawn = no_figures()
    if not summary.ranked:
        return drawn
    found = drawn["importances"] = importance.importances_of(summary)
    ordered = sorted(summary.parameters, key=lambda parameter: -found.get(parameter.key, 0.0))
    shared = [p for p in ordered if all(p.key in one.varied for one in summary.ranked)]
    several = len(summary.ranked) > 1
    make: dict[str, tuple[bool, Callable[[], Any]]] = {
        "importance": (bool(found), lambda: parameter_plots.importance_figure(found)),
        "pair": (
            len(shared) > 1 and several and not summary.nothing_differs,
            lambda: parameter_plots.pair_figure(summary, *shared[:2]),
        ),
        "parallel": (
            len(shared) > 2 and several,
            lambda: parameter_plots.parallel_figure(summary, shared),
        ),
        "seeds": (summary.num_seeds > 1, lambda: plots.seeds_figure(summary)),
        "front": (len(summary.modes) > 1 and several, lambda: plots.front_figure(summary)),
    }
    drawn |= {name: [draw()] for name, (wanted, draw) in make.items() if wanted}
    drawn["parameters"] = [
        parameter_plots.parameter_figure(summary, parameter) for parameter in ordered
    ]
    metric = summary.objective
    curves = {}
    for one in summary.best_first[:SHOWN]:
        own = [validation_curve(summary.folder / str(trial.number), metric) for trial in one.trials]
        if curve := mean_curve(own):
            curves[one.number] = curve
    drawn["curves"] = [plots.curves_figure(summary, curves)] if curves else []
    return drawn
