"""The report of a sweep: what it concludes from made-up trials, and what a real sweep leaves."""

import builtins
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from conftest import ROOT, SMALL, read_result
from finished import command_of
from goldilocks.runs.folder import write_result
from goldilocks.sweeps.execution.trials import Trial
from goldilocks.sweeps.report.comparison import compare, paired_t
from goldilocks.sweeps.report.conclusions import command_overrides, conclusions
from goldilocks.sweeps.report.page import (
    quoted,
    sections_of,
    trials_table,
    try_report,
    write_report,
)
from goldilocks.sweeps.report.plots import scale_of
from goldilocks.sweeps.report.reading import (
    curve_of_events,
    find_sweep,
    read_summary,
    validation_curve,
)
from goldilocks.sweeps.report.rendering import Cell, Section, Table, markdown, page
from goldilocks.sweeps.report.summary import Summary, summarize
from goldilocks.sweeps.report.tables import best_per_value
from goldilocks.training.outcome import Outcome, save_outcome

LR = {"key": "optimizer.lr", "low": 1e-4, "high": 1.0, "log": True}
WIDTH = {"key": "model.width", "low": 8, "high": 128, "log": False}
DROPOUT = {"key": "regularization.dropout", "low": 0.0, "high": 0.5, "log": False}
DEPTH = {"key": "model.depth", "choices": ["1", "2", "3"]}
MODEL = {"key": "model", "choices": ["shallow", "deep"]}
SETTINGS = {
    "sampler": "grid",
    "n_trials": None,
    "scientific": [],
    "objectives": [],
    "seeds": 1,
    "pruner": "none",
}


def trial(number: int, value: float | None, status: str = "done", error: str = "", **rest) -> Trial:
    """A made-up trial; `varied` by key, further figures of result.json by name."""
    varied = {key: str(word) for key, word in rest.pop("varied", {}).items()}
    result = {
        "status": status,
        "objective": {"metric": "val/loss", "mode": "min", "value": value},
        "metrics": {"val/loss": value} | rest.pop("metrics", {}),
        "epochs": rest.pop("epochs", 10),
        "seconds": {"total": rest.pop("seconds", 2.0)},
        "error": {"type": "RuntimeError", "message": error} if error else None,
        **rest,
    }
    known = None if status == "waiting" else result
    return Trial(
        [f"{key}={word}" for key, word in varied.items()],
        varied,
        OmegaConf.create(),
        {},
        "",
        number,
        result=known,
    )


def summary_of(trials, *spaces, modes=None, ended=None, **settings) -> Summary:
    stored = {
        "settings": SETTINGS | settings,
        "space": {str(i): s for i, s in enumerate(spaces)},
        "commands": ["c"],
    }
    return summarize(Path("logs/sweeps/s"), stored, modes or {"val/loss": "min"}, trials, ended)


def rates(*pairs) -> list[Trial]:
    """A trial for each (rate, value)."""
    return [
        trial(number, value, varied={"optimizer.lr": rate})
        for number, (rate, value) in enumerate(pairs)
    ]


def said(summary: Summary, *words: str, **options) -> str:
    """The only conclusion with these words."""
    found = [
        text for text in conclusions(summary, **options) if all(word in text for word in words)
    ]
    assert len(found) == 1, (words, conclusions(summary, **options))
    return found[0]


def silent(summary: Summary, *words: str, **options) -> bool:
    return not any(all(word in text for word in words) for text in conclusions(summary, **options))


# --- what is best, and whether that is sure -------------------------------------------------------


def test_the_best_by_either_direction():
    trials = rates((0.01, 0.3), (0.1, 0.2), (1, 0.9))
    assert conclusions(summary_of(trials, LR))[0].startswith(
        "Best: trial 1 (`optimizer.lr=0.1`): `val/loss` 0.2; less"
    )
    most = conclusions(summary_of(trials, LR, modes={"val/loss": "max"}))[0]
    assert most.startswith("Best: trial 2 (`optimizer.lr=1`): `val/loss` 0.9; more is better")


def test_pruned_and_diverged_trials_are_never_best():
    varied = {"optimizer.lr": 0.1}
    trials = [
        trial(0, 0.5, varied={"optimizer.lr": 0.01}),
        trial(1, 0.1, "pruned", varied=varied),
        trial(2, 0.1, "diverged", varied={"optimizer.lr": 1}),
    ]
    assert "trial 0" in conclusions(summary_of(trials, LR))[0]
    only_pruned = summary_of(trials[1:2], LR)
    assert "this one is pruned" in said(only_pruned, "No configuration is done")
    assert conclusions(summary_of([trial(0, None, "waiting")], LR))[0].startswith(
        "No trial has ended with a value"
    )


def test_one_seed_cannot_tell():
    text = said(summary_of(rates((0.01, 0.3), (0.1, 0.2)), LR), "Second: trial 0")
    assert "One seed cannot tell" in text and "`sweep.seeds=5`" in text


def seeded(*rows, sizes=(100, 10, 1)) -> list[Trial]:
    """Rows of values by seed, a configuration a row."""
    return [
        trial(
            len(row) * place + seed,
            value,
            varied={"optimizer.lr": 10.0**-place, "seed": seed},
            num_parameters=sizes[place],
        )
        for place, row in enumerate(rows)
        for seed, value in enumerate(row)
    ]


def test_a_win_beyond_the_noise_of_the_seeds():
    summary = summary_of(seeded((0.30, 0.41, 0.52), (0.40, 0.50, 0.63)), LR, seeds=3)
    assert (
        "trials 0, 1, 2 (`optimizer.lr=1.0`): `val/loss` 0.41 ± 0.11, mean ± standard"
        in conclusions(summary)[0]
    )
    text = said(summary, "Second: trials 3, 4, 5")
    assert (
        "3 of 3 seeds, which is more than the noise of the seeds (paired t-test, p = 0.00" in text
    )
    compared = compare(*summary.ranked[:2], 1)
    assert compared.gain == pytest.approx(0.1) and (compared.wins, compared.seeds) == (3, 3)


def test_a_win_inside_the_noise_is_not_called_one():
    summary = summary_of(
        seeded((0.30, 0.50, 0.40), (0.45, 0.36, 0.42), (2.0, 2.1, 2.2)), LR, seeds=3
    )
    text = said(summary, "First by value: trials 0, 1, 2")
    assert "; the one taken is the second. The first is ahead" in text
    assert "inside the noise" in text and "this is no win" in text
    assert said(summary, "No winner: 2 of 3 configurations cannot be told apart")
    assert silent(summary, "more than the noise")
    text = said(summary, "Taken as the best, as the smallest of them: trials 3, 4, 5")
    assert ", mean ± standard deviation over 3 seeds, 10 parameters." in text
    assert summary.best.number == 3


def judged(*rows, error: float = 0.033, **more) -> list[Trial]:
    """A trial for each (rate, width, value, parameters, seconds);
    all values are known to within `error`.
    """
    return [
        trial(
            number,
            value,
            varied={"optimizer.lr": rate, "model.width": width},
            num_parameters=size,
            seconds=seconds,
            diagnosis={"summary": "", "findings": [], "standard_error": error},
            **more,
        )
        for number, (rate, width, value, size, seconds) in enumerate(rows)
    ]


NINE = [
    (rate, width, 0.1226 - 0.0037 * (3 * i + j) / 8, 10 * width, 2.0 + j)
    for i, rate in enumerate((0.01, 0.1, 0.9))
    for j, width in enumerate((16, 64, 128))
]


def test_nine_within_a_standard_error_have_no_winner():
    summary = summary_of(judged(*NINE), LR, WIDTH)
    text = said(summary, "No winner: 9 of 9 configurations cannot be told apart.")
    assert "Their `val/loss` is 0.1189 to 0.1226, which is within a standard error, 0.033" in text
    assert "trial 6 (`optimizer.lr=0.9 model.width=16`): `val/loss` 0.1198" in said(
        summary,
        "Taken as the best, as the best by value of the smallest: ",
        "± 0.033",
        "160 parameters",
    )
    assert silent(summary, "Best:") and silent(summary, "end of what was searched")
    text = said(summary, "First by value: trial 8", "write `data.folds=5`")
    assert "; second: trial 7 (" in text
    assert [table_row[0].text for table_row in trials_table(summary).rows[:2]] == ["6", "8"]
    clear = summary_of(judged(*NINE, error=0.0001), LR, WIDTH)
    assert "Best: trial 8" in conclusions(clear)[0] and said(clear, "`optimizer.lr`, 0.9, lies at")


@pytest.mark.parametrize(("noise", "alike"), [(0.001, 1), (0.3, 3)])
def test_trials_that_kept_their_predictions_are_compared_row_by_row(noise, alike, tmp_path):
    """Values known to within 0.1 differ by 0.01: by rows that all find hard that is much."""
    draws = np.random.default_rng(0)
    hard = draws.exponential(size=100)
    rows = [(0.1, 8 * (3 - number), 1 + 0.01 * number, 30 - number, 1.0) for number in range(3)]
    trials = judged(*rows, error=0.1)
    for number in range(3):
        own = (np.arange(100), np.zeros(100, int), np.full((100, 2), 0.5))
        outcome = Outcome(*own, hard + noise * draws.normal(size=100))
        (tmp_path / str(number)).mkdir()
        save_outcome(outcome, tmp_path / str(number) / "predictions" / "val.npz", 100)
    summary = replace(summary_of(trials, LR, WIDTH), folder=tmp_path)
    assert len(summary.alike) == alike
    assert summary.best.number == alike - 1  # the smallest of them
    if alike > 1:
        assert "compared row by row" in said(summary, "No winner")


def test_the_importance_of_noise_is_not_told():
    pytest.importorskip("optuna")
    from goldilocks.sweeps.report.importance import importances_of

    noise, clear = (summary_of(judged(*NINE, error=e), LR, WIDTH) for e in (0.033, 0.0001))
    assert importances_of(clear) and not importances_of(noise)
    listed = {"key": "optimizer.lr", "choices": ["0.01", "0.1", "0.9"]}
    found = sections_of_all(summary_of(judged(*NINE), listed, WIDTH))
    titles = {section.title: section for section in found}
    assert "cannot be said" in titles["How much each parameter matters"].sentences[0]
    assert "larger than the noise" in titles["The best of each value"].sentences[0]
    half = judged(*NINE[:5], *((r, w, 0.9, s, t) for r, w, _, s, t in NINE[5:]))
    assert next(iter(importances_of(summary_of(half, LR, WIDTH)))) == "optimizer.lr"


def test_the_smallest_has_fewest_parameters_then_seconds():
    rows = [(0.1, 8, 0.20, 80, 9.0), (0.2, 8, 0.21, 80, 3.1), (0.3, 8, 0.22, 80, 3.0)]
    assert summary_of(judged(*rows), LR).best.number == 1  # 3.0 and 3.1 seconds are the same
    rows += [(0.4, 4, 0.23, 40, 99.0), (0.5, 2, 0.3, 20, 1.0)]
    assert summary_of(judged(*rows), LR).best.number == 3
    assert summary_of(judged(*rows, error=None), LR).best.number == 0


@pytest.mark.parametrize(
    ("sizes", "seconds", "number", "why"),
    [
        ((9, 9, 9), (3, 3, 3), 0, "the best by value of them, all equally large"),
        ((9, 9, 9), (9, 9, 3), 2, "the quickest of them, all equally large"),
        ((9, 9, 9), (9, 3, 3), 1, "the best by value of the quickest of them, all equally large"),
        ((9, 4, 4), (3, 9, 3), 2, "the quickest of the smallest"),
        ((9, 4, 4), (3, 3, 3), 1, "the best by value of the smallest"),
        ((9, 4, 2), (3, 3, 9), 2, "the smallest of them"),
        ((None,) * 3, (3, 9, 3), 0, "the best by value of the quickest of them"),
    ],
)
def test_why_the_best_was_taken_is_true(sizes, seconds, number, why):
    rows = [(0.1 * i, 8, 0.2 + 0.01 * i, sizes[i], seconds[i]) for i in range(3)]
    summary = summary_of(judged(*rows), LR)
    assert said(summary, f"Taken as the best, as {why}: trial {number} ")


def test_where_there_is_no_winner_each_is_named_once():
    rows = [(0.1, 8, 0.20, 80, 3.0), (0.2, 8, 0.21, 80, 3.0)]
    first = conclusions(summary_of(judged(*rows), LR))
    assert sum(text.count("trial 0 (") for text in first) == 1
    assert any("The one taken is the first by value. Second: trial 1 (" in text for text in first)
    second = conclusions(summary_of(judged(rows[0], (*rows[1][:3], 40, 3.0)), LR))
    assert sum(text.count("trial 1 (") for text in second) == 1
    assert any("; the one taken is the second." in text for text in second)


def test_seeds_do_not_lessen_what_few_rows_leave_open():
    trials = seeded((0.300, 0.410, 0.520), (0.301, 0.412, 0.522))
    assert said(summary_of(trials, LR, seeds=3), "Best: trials 0, 1, 2")
    for one in trials:
        one.result["diagnosis"] = {"findings": [], "standard_error": 0.05}
    summary = summary_of(trials, LR, seeds=3)
    assert summary.best.number == 3 and said(summary, "No winner: 2 of 2")
    assert said(summary, "more than the noise of the seeds", "less than that of the validation")


def test_folds_know_their_standard_error():
    trials = [
        trial(
            i,
            value,
            varied={"optimizer.lr": 0.1 * (i + 1)},
            folds=4,
            spread={"val/loss": 0.04},
            num_parameters=9 - i,
        )
        for i, value in enumerate((0.20, 0.21, 0.23))
    ]
    summary = summary_of(trials, LR)
    assert summary.best.number == 1 and said(summary, "No winner: 2 of 3", "a standard error, 0.02")


def test_folds_without_a_spread_do_not_tell_the_standard_error():
    def of(*values):
        rows = enumerate(values)
        return [
            trial(i, value, varied={"optimizer.lr": i + 1.0}, folds=4, spread={"val/loss": 0.0})
            for i, value in rows
        ]

    apart, tied = summary_of(of(0.20, 0.21), LR), summary_of(of(0.20, 0.20), LR)
    assert [one.error for one in apart.configurations] == [None, None]
    assert said(apart, "One seed cannot tell whether the difference is more than luck")
    assert said(tied, "No winner: 2 of 2", "Their `val/loss` is 0.2; less is better")


def test_seeds_that_differ_by_as_much_each_are_no_test():
    summary = summary_of(seeded((0.5, 0.25), (0.75, 0.5)), LR, seeds=2)
    text = said(summary, "Second", "whether that is luck cannot be told; write `sweep.seeds=5`")
    assert "p = 0" not in text


def test_a_search_that_found_nothing_new_is_not_told_to_go_on():
    rows = [(0.01 + 0.001 * i, 8, 0.2 - 0.0001 * i, 80, 2.0) for i in range(20)]
    known = {"sampler": "tpe"}
    assert silent(summary_of(judged(*rows), LR, **known), "still getting somewhere")
    assert said(summary_of(judged(*rows, error=1e-5), LR, **known), "still getting somewhere")


def test_how_many_seeds_a_difference_takes():
    close = summary_of(seeded((0.30, 0.42), (0.35, 0.48)), LR, seeds=2)
    assert re.search(r"write `sweep.seeds=([3-9])`", said(close, "Second"))
    hopeless = summary_of(seeded((0.300, 0.500), (0.501, 0.300)), LR, seeds=2)
    assert "More than 30 seeds" in said(hopeless, "the second")


def test_the_paired_test_is_scipys():
    from scipy.stats import ttest_rel

    first, second = [0.3, 0.52, 0.41, 0.6], [0.35, 0.5, 0.49, 0.72]
    assert paired_t([b - a for a, b in zip(first, second, strict=True)]) == pytest.approx(
        ttest_rel(second, first).pvalue
    )
    assert (paired_t([0.0, 0.0]), paired_t([0.1, 0.1])) == (1.0, 0.0)


def test_a_seed_that_failed_keeps_a_configuration_from_being_best():
    trials = seeded((0.1, 0.1), (0.4, 0.5))
    trials[1].result = {"status": "failed", "error": {"type": "E", "message": "no"}}
    assert summary_of(trials, LR, seeds=2).best.number == 2


def test_folds_are_told():
    best = trial(0, 0.2, varied={"optimizer.lr": 0.1}, folds=5, spread={"val/loss": 0.03})
    assert (
        "mean of 5 folds with a standard deviation of 0.03"
        in conclusions(summary_of([best], LR))[0]
    )


def test_several_objectives_have_a_front():
    values = [(0.1, 900), (0.2, 100), (0.3, 500)]
    trials = [
        trial(i, loss, varied={"model.width": i}, num_parameters=size)
        for i, (loss, size) in enumerate(values)
    ]
    summary = summary_of(trials, WIDTH, modes={"val/loss": "min", "num_parameters": "min"})
    assert [one.number for one in summary.front] == [0, 1]
    assert "2 are best in their way" in said(summary, "Of 3 configurations")
    assert "`val/loss` 0.2, `num_parameters` 100" in said(
        summary, "Best in `num_parameters`: trial 1"
    )
    assert silent(summary, "Second")


# --- where to search next -------------------------------------------------------------------------


def test_the_best_at_the_upper_end_of_a_logarithmic_range():
    summary = summary_of(rates((0.001, 0.9), (0.01, 0.5), (0.1, 0.4), (0.9, 0.2)), LR)
    text = said(summary, "upper end")
    assert "`optimizer.lr`, 0.9, lies at the upper end of what was searched, 0.0001 to 1" in text
    assert text.endswith("Widen the range: `optimizer.lr='tag(log,interval(0.0001,10))'`.")
    assert silent(summary, "upper end", allowed=lambda key, value: value <= 1)


def test_the_best_at_the_lower_end_of_whole_numbers():
    trials = [trial(i, w, varied={"model.width": w}) for i, w in enumerate((8, 40, 80, 128))]
    assert "`model.width='interval(0,128)'`" not in " ".join(conclusions(summary_of(trials, WIDTH)))
    assert said(summary_of(trials, WIDTH), "lower end").endswith(
        "Widen the range: `model.width='interval(1,128)'`."
    )


def test_zero_is_an_end_that_nothing_lies_beyond():
    trials = [
        trial(i, w, varied={"regularization.dropout": w}) for i, w in enumerate((0.0, 0.2, 0.4))
    ]
    assert silent(summary_of(trials, DROPOUT), "end of what")


def test_one_more_value_in_a_list():
    trials = [trial(i, -w, varied={"model.depth": w}) for i, w in enumerate((1, 2, 3))]
    assert "Add a value: `model.depth=1,2,3,4`" in said(summary_of(trials, DEPTH), "upper end")
    listed = {"key": "optimizer.lr", "choices": ["0.1", "0.01", "0.001"]}
    summary = summary_of(rates((0.1, 3), (0.01, 2), (0.001, 1)), listed)
    assert "Add a value: `optimizer.lr=0.0001,0.001,0.01,0.1`" in said(summary, "lower end")


def test_two_values_or_a_single_lucky_one_are_no_edge():
    two = {"key": "model.depth", "choices": ["1", "2"]}
    assert silent(
        summary_of([trial(i, i, varied={"model.depth": i}) for i in (1, 2)], two), "end of what"
    )
    middle = [(0.01 + 0.001 * i, 0.3 + 0.01 * i) for i in range(14)]
    assert silent(summary_of(rates((0.99, 0.2), *middle), LR), "end of what")


def test_a_range_that_an_option_states_is_widened_in_its_file():
    own = LR | {"when": {"optimizer": "sgd"}}
    trials = [
        trial(i, v, varied={"optimizer": "sgd", "optimizer.lr": r})
        for i, (r, v) in enumerate([(0.01, 0.9), (0.1, 0.5), (0.95, 0.2)])
    ]
    other = {"key": "optimizer", "choices": ["sgd", "adam"]}
    text = said(summary_of(trials, other, own, LR | {"when": {"optimizer": "adam"}}), "upper end")
    assert "under `search` in `conf/optimizer/sgd.yaml`: `lr: tag(log,interval(0.0001,10))`" in text


def test_a_search_that_was_still_getting_somewhere():
    trials = rates(*[(0.01 + 0.001 * i, 1 - 0.01 * i) for i in range(20)])
    assert "`sweep.n_trials=40` goes on" in said(
        summary_of(trials, LR, sampler="tpe"), "number 20 of 20"
    )
    assert silent(summary_of(trials, LR, sampler="qmc"), "number 20")


# --- what went wrong, and what it cost ------------------------------------------------------------


def test_failures_are_grouped_by_reason():
    trials = [
        trial(0, 0.1),
        *(
            trial(i, None, "failed", f"out of memory: {i}00.5 MB", varied={"a": i})
            for i in (1, 2, 3)
        ),
        trial(4, None, "failed", "no such file", varied={"a": 4}),
    ]
    summary = summary_of(trials)
    assert said(summary, "4 of 5 trials failed, 80 %")
    assert "RuntimeError: out of memory: # MB (trial 1 and 2 more;" in said(
        summary, "Failed with", "memory"
    )
    assert said(summary, "Failed with", "no such file (trial 4;")
    assert said(summary, "sweep.retry_failed=true")


def test_where_trials_diverge():
    trials = rates((0.001, 0.5), (0.02, 0.2), (0.3, None), (0.5, None))
    for one in trials[2:]:
        one.result["status"] = "diverged"
    summary = summary_of(trials, LR)
    assert said(summary, "2 of 4 trials diverged")
    text = said(summary, "All trials with `optimizer.lr` of 0.3 or more diverged, none up to 0.02.")
    assert text.endswith("Narrow the range: `optimizer.lr='tag(log,interval(0.0001,0.02))'`.")


def test_what_pruning_saved_and_what_has_not_ended():
    trials = [
        trial(0, 0.1, epochs=20),
        trial(1, 0.2, epochs=30, varied={"a": 1}),
        trial(2, 0.3, "pruned", epochs=5, varied={"a": 2}),
        trial(3, None, "waiting", varied={"a": 3}),
    ]
    summary = summary_of(trials)
    assert "saved about 20 of 75 epochs (27 %)" in said(summary, "1 of 4 trials were pruned")
    assert "1 trial of 4 have not ended (1 waiting)" in said(summary, "not ended")
    assert "4 of 9 trials were started" in said(summary_of(trials, n_trials=9), "started")


def test_time_on_the_clock_leaves_pauses_out():
    trials = [trial(i, 0.1 * i, seconds=100.0, varied={"a": i}) for i in range(3)]
    summary = summary_of(trials, ended={0: 1000.0, 1: 1050.0, 2: 9000.0})
    assert (summary.seconds, summary.wall_time) == (300.0, 250.0)
    assert "3 trials took 5 min together, 4 min on the clock" in said(summary, "on the clock")


def finding(name: str, word: str) -> dict:
    return {"name": name, "measured": "m", "advice": "longer", "overrides": [word]}


def told_of(*findings) -> dict:
    return {"summary": "", "findings": list(findings)}


def test_findings_of_the_best_are_passed_on():
    best = trial(0, 0.1, diagnosis=told_of(finding("overfitting", "regularization.dropout=0.3")))
    text = said(summary_of([best]), "Diagnosis of the best, overfitting")
    assert text.endswith("m; longer: `regularization.dropout=0.3`.")


def test_trials_that_were_still_improving_are_told_once():
    late = told_of(finding("still improving", "trainer.max_epochs=30"))
    well = told_of()
    words = "still improving in the last epoch: write `trainer.max_epochs=30` and another `name`"
    both = summary_of([trial(0, 0.1, diagnosis=late), trial(1, 0.2, diagnosis=late)])
    assert said(both, "still improving").startswith(f"All 2 trials that are done were {words}")
    best = summary_of([trial(0, 0.1, diagnosis=late), trial(1, 0.2, diagnosis=well)])
    assert said(best, "still improving").startswith(f"The best was {words}")
    other = [trial(0, 0.1, diagnosis=well), trial(1, 0.2, diagnosis=late)]
    assert silent(summary_of(other), "still improving")
    searched = trial(0, 0.1, varied={"trainer.max_epochs": 10}, diagnosis=late)
    assert said(summary_of([searched]), "still improving").startswith("Diagnosis of the best")


@pytest.mark.parametrize(("steps", "hint"), [(8, True), (200, False)])
def test_short_trials_are_still_improving_where_their_last_epoch_is_best(steps, hint):
    trials = [
        trial(i, 0.1, epochs=4, best_epoch=3, steps=steps, diagnosis=told_of()) for i in (0, 1)
    ]
    summary = summary_of(trials)
    assert silent(summary, "write `trainer.max_epochs=12`") != hint
    trials[0].result["best_epoch"] = trials[1].result["best_epoch"] = 2
    assert silent(summary, "trainer.max_epochs")


# --- tables, figures, pages -----------------------------------------------------------------------


def two_by_three() -> list[Trial]:
    grid = [("shallow", 0.1, 0.5), ("shallow", 0.01, 0.4), ("deep", 0.1, 0.3), ("deep", 0.01, None)]
    return [
        trial(
            i, value, "done" if value else "diverged", varied={"model": model, "optimizer.lr": rate}
        )
        for i, (model, rate, value) in enumerate(grid)
    ]


def test_the_best_of_each_value_leaves_the_others_free():
    rows = best_per_value(summary_of(two_by_three(), MODEL), ["model"]).rows
    plain = [[cell.text if isinstance(cell, Cell) else cell for cell in row] for row in rows]
    assert plain == [
        ["deep", "0.3", "2", 2, 1, "optimizer.lr=0.1"],
        ["shallow", "0.4", "1", 2, 0, "optimizer.lr=0.01"],
    ]
    section = next(
        s
        for s in sections_of_all(summary_of(two_by_three(), MODEL))
        if s.title == "The best of each value"
    )
    assert [table.title for table in section.tables] == ["model", "optimizer.lr"]
    asked = summary_of(two_by_three(), MODEL, scientific=["model"])
    section = next(s for s in sections_of_all(asked) if s.title == "The best of each value")
    assert [table.title for table in section.tables] == ["model"]


def sections_of_all(summary: Summary) -> list[Section]:
    from goldilocks.sweeps.report.page import no_figures

    return sections_of(summary, lambda key, value: True, no_figures(), "")


def test_markdown_has_no_captions_of_figures_and_no_clicks():
    figure = Section("Each parameter", ["Every point is a configuration."], figures=["f"])
    both = Section("How much", ["It matters."], [], [Table(["a"], [["1"]], drawn=True)], ["f"])
    text = markdown("t", "f", [figure, both, Section("Words", ["w"])])
    assert re.findall("## .*", text) == ["## How much", "## Words"] and "Every point" not in text
    summary = summary_of(two_by_three(), MODEL)
    trials = [section for section in sections_of_all(summary) if section.title == "Trials"]
    assert "click" not in markdown("t", "f", trials).lower()
    assert page("t", "f", trials).count("Click a column to sort by it.") == 1


def test_the_test_is_explained_where_it_was_made():
    def words(summary: Summary) -> str:
        return " ".join(next(s for s in sections_of_all(summary) if s.title == "Words").sentences)

    tested = summary_of(seeded((0.30, 0.41, 0.52), (0.40, 0.50, 0.63)), LR, seeds=3)
    assert "The test of the best against the second" in words(tested)
    one_seed = words(summary_of(rates((0.01, 0.3), (0.1, 0.2)), LR))
    assert "The best of many" in one_seed and "test of the best" not in one_seed


def test_the_table_of_trials_has_the_best_first_and_links():
    table = trials_table(summary_of(two_by_three(), MODEL))
    assert [row[0].text for row in table.rows] == ["2", "1", "0", "3"]
    assert table.rows[0][0].link == "2/"
    assert [row[1].kind for row in table.rows] == ["done"] * 3 + ["diverged"]


def test_importance_finds_what_matters():
    pytest.importorskip("optuna")
    from goldilocks.sweeps.report.importance import importances_of

    trials = [
        trial(
            i,
            abs(rate - 2) + 0.001 * (width % 7),
            varied={"optimizer.lr": 10.0**-rate, "model.width": width},
        )
        for i, (rate, width) in enumerate((i % 5, 8 + (37 * i) % 120) for i in range(40))
    ]
    found = importances_of(summary_of(trials, LR, WIDTH))
    assert list(found) == ["optimizer.lr", "model.width"]
    assert found["optimizer.lr"] > 0.9
    assert importances_of(summary_of(trials[:3], LR, WIDTH)) == {}


def test_axes_show_what_can_be_told_apart():
    assert scale_of([0.1, 0.2, 9.0], 1)["type"] == "log"
    assert scale_of([0.8, 0.9, 0.95], -1) == {}
    low, high = scale_of([0.01, 0.1, 0.2, 1e12], 1)["range"]  # exponents
    assert -3 < low < -2 and 1 < high < 4
    low, high = scale_of([-0.1, 0.0, 0.1, 50.0], 1)["range"]
    assert low < -0.1 and 0.1 < high < 1
    low, high = scale_of([0.5, 0.6, 0.7, -90.0], -1)["range"]
    assert high > 0.7 and -1 < low < 0.5


def test_a_page_takes_nothing_for_markup():
    bad = "<script>alert(1)</script> | `a<b`"
    section = Section(
        bad, [bad], [bad], [Table([bad], [[bad], [Cell(bad, link='"><b>')]], title=bad)]
    )
    text = page(bad, bad, [section])
    assert "<script>alert" not in text and '"><b>' not in text
    assert "<code>a&lt;b</code>" in text
    assert "\\|" in markdown(bad, bad, [section])


def test_commands_can_be_copied():
    assert (
        quoted("python train.py -m lr=tag(log,interval(1,2))")
        == "python train.py -m 'lr=tag(log,interval(1,2))'"
    )
    words = ["data=iris", "name=s", "+log_dir=x", "model=shallow", "regularization=[dropout,l2]"]
    assert (
        command_overrides(words)
        == "python train.py data=iris model=shallow 'regularization=[dropout,l2]'"
    )


# --- real sweeps ----------------------------------------------------------------------------------

SWEEP = [
    "-m",
    *SMALL,
    "name=s",
    "model=shallow,deep",
    "optimizer.lr=0.01,0.1",
    "regularization=[dropout]",
]


def best_again(command, folder: Path) -> dict:
    """The result of a run of a sweep's best trial."""
    ended = command("--config-dir", str(folder), "experiment=best")
    assert ended.code == 0, ended.err
    return read_result(ended.folder)


def test_a_sweep_leaves_a_report_and_its_best_trial(command, tmp_path: Path):
    pytest.importorskip("plotly")
    ended = command(*SWEEP, "sweep.seeds=2", "hydra/launcher=basic")
    folder = tmp_path / "logs/sweeps/s"
    assert ended.code == 0, ended.err
    assert "report   logs/sweeps/s/report.html" in ended.out
    late = "The best was still improving in the last epoch: write trainer.max_epochs=6"
    assert ended.out.count(late) == 1
    html = (folder / "report.html").read_text()
    assert html.count("plotly.js v") == 1
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", html), "it needs the network"
    assert (
        html.count('class="plotly-graph-div"') == 5
    )  # two parameters, both together, curves, seeds
    text = (folder / "report.md").read_text()
    best = read_summary(folder).best
    assert f"- Best: {'trials ' + ', '.join(str(t.number) for t in best.trials)}" in text
    assert "python train.py --config-dir logs/sweeps/s experiment=best\n" in text
    assert text.count("| done |") == 8
    plain = json.loads((folder / "report.json").read_text())
    assert plain["best"] == best.number and len(plain["trials"]) == 8
    assert [f"- {text}" for text in plain["conclusions"]] == text.split("\n\n")[3].splitlines()

    trial = read_result(folder / str(best.number))
    again = best_again(command, folder)
    assert again["config_hash"] == trial["config_hash"]
    assert trial["metrics"].items() <= again["metrics"].items()
    assert any(key.startswith("test/") for key in again["metrics"])

    curve = validation_curve(folder / "0", "val/loss")
    assert list(curve) == [0, 1]
    assert min(curve.values()) == read_result(folder / "0")["metrics"]["val/loss"]
    (folder / "0" / "metrics.csv").unlink()
    assert (
        validation_curve(folder / "0", "val/loss")
        == pytest.approx(curve)
        == curve_of_events(folder / "0", "val/loss")
    )


def test_the_best_trial_keeps_options_of_the_users_own(command, tmp_path: Path):
    own = tmp_path / "own" / "model"
    own.mkdir(parents=True)
    text = (ROOT / "conf/model/shallow.yaml").read_text()
    (own / "mine.yaml").write_text(re.sub(r"width: \d+", "width: 7", text))
    words = ["data=iris", "trainer.max_epochs=2", "name=s", "optimizer.lr=0.01,0.1", "model=mine"]
    words += ["logger=csv", "callbacks=none", "trainer=cpu"]
    ended = command("-m", "--config-dir", str(tmp_path / "own"), *words)
    assert ended.code == 0, ended.err
    folder = tmp_path / "logs/sweeps/s"
    shutil.rmtree(tmp_path / "own")
    best = read_result(folder / str(read_summary(folder).best.number))
    again = best_again(command, folder)
    assert (again["config_hash"], again["choices"]["model"]) == (best["config_hash"], "mine")
    assert again["metrics"]["val/loss"] == pytest.approx(best["metrics"]["val/loss"])


def test_an_interrupted_sweep_has_a_report(command, tmp_path: Path, monkeypatch):
    from goldilocks.training.module import TrainingModule

    original = TrainingModule.on_validation_epoch_start

    def broken(self) -> None:
        if self.seed == 1:
            raise KeyboardInterrupt
        original(self)

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_start", broken)
    words = ["name=s", "logger=none", "model=shallow,deep", "seed=0,1,2", "hydra/launcher=basic"]
    ended = command("-m", *SMALL, *words)
    assert ended.code == 130
    text = (tmp_path / "logs/sweeps/s/report.md").read_text()
    assert "- Best: trials 0, 1, 2 (`model=shallow`)" in text
    assert "5 trials of 6 have not ended (1 interrupted, 4 waiting)" in text
    assert (tmp_path / "logs/sweeps/s/experiment/best.yaml").exists()


def test_a_sweep_does_not_fail_because_of_its_report(tmp_path: Path, capsys, monkeypatch):
    try_report(tmp_path / "s", [])
    assert re.fullmatch(
        r"warning: no report was written \(.*\); python scripts/report.py .*/s\n",
        capsys.readouterr().err,
    )


def test_what_cannot_be_told_apart_is_told_alike_everywhere(command, tmp_path: Path, capfd):
    words = ["-m", *SMALL, "name=s", "logger=none", "model.width=16,8,32", "kept_predictions=0"]
    assert command(*words).code == 0
    folder = tmp_path / "logs/sweeps/s"
    for number in range(3):
        result = read_result(folder / str(number))
        told = float(re.search(r"± (\S+),", result["diagnosis"]["summary"])[1])
        assert result["diagnosis"]["standard_error"] == pytest.approx(told, rel=0.1)
        result["diagnosis"]["standard_error"] = 9.0
        write_result(folder / str(number), result)
    ended = command(*words)
    for text in (ended.out, *((folder / f"report.{kind}").read_text() for kind in ("md", "html"))):
        assert "No winner: 3 of 3 configurations cannot be told apart." in text
        assert "the smallest of them: trial 1" in text and "Best: trial" not in text
        assert "end of what was searched" not in text
    best = (folder / "experiment" / "best.yaml").read_text()
    told = "; 3 cannot be told apart, and it is the smallest of them."
    assert "# Trial 1 of s" in best and told in best
    assert "width: 8" in best


def test_the_script_and_a_report_without_figures(command, tmp_path: Path, monkeypatch, capfd):
    report = command_of("report")
    assert command("-m", *SMALL, "name=s", "logger=none", "optimizer.lr=0.01,0.1").code == 0
    folder = tmp_path / "logs/sweeps/s"
    imported = builtins.__import__

    def without_plotly(name, *rest, **options):
        if name.partition(".")[0] == "plotly":
            raise ModuleNotFoundError("No module named 'plotly'", name="plotly")
        return imported(name, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", without_plotly)
        assert report(patched, "last") == 0
    assert capfd.readouterr().out == "logs/sweeps/s/report.html\n"
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert "needs the package plotly, which is not installed; pip install -e" in text
        assert 'class="plotly-graph-div"' not in text and "Best: trial" in text
    assert len((folder / "report.html").read_text()) < 50_000
    assert not list(folder.rglob("*.tmp"))
    assert (
        write_report(folder).read_text().count("plotly.js v") == 1
    )  # with plotly it has figures again


@pytest.mark.parametrize("given", ["nowhere", "empty", "last", "broken"])
def test_what_is_no_sweep_is_refused_in_one_line(given, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sweep.yaml").write_text("trials: {")
    assert command_of("report")(monkeypatch, given) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and err.startswith("error: ")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("report")]


def test_the_newest_sweep_is_found(tmp_path: Path):
    import os

    for age, name in enumerate(("new", "old")):
        folder = tmp_path / "sweeps" / name
        folder.mkdir(parents=True)
        (folder / "sweep.yaml").write_text("")
        os.utime(folder / "sweep.yaml", (1000 - age, 1000 - age))
    assert find_sweep("last", tmp_path).name == "new"


def test_the_last_sweep_is_the_one_that_was_resumed_last_as_of_runs(command, tmp_path: Path):
    import os

    words = ["-m", *SMALL, "logger=none", "trainer.max_epochs=1", "seed=0,1"]
    for name in ("first", "second"):
        assert command(*words, f"name={name}").code == 0
        path = tmp_path / "logs/sweeps" / name / "sweep.yaml"
        os.utime(path, (1000 + len(name), 1000 + len(name)))
    assert find_sweep("last", tmp_path / "logs").name == "second"
    assert command(*words, "name=first").code == 0
    assert find_sweep("last", tmp_path / "logs").name == "first"
