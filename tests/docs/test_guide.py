"""docs/guide.md: every row with an option that exists,
and its blocks are what the measured values say.
"""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from studies.guide.experiments import CHANCE, Claim, Experiment, Variant, experiment, load
from studies.guide.measure import Store, jobs_of
from studies.guide.page import BLOCK, ROWS, blocks, mean_ranks, renewed, sentence
from studies.guide.verdicts import (
    FAILS,
    HOLDS,
    NOISE,
    Comparison,
    chosen,
    compare,
    comparisons,
    scores,
    verdict,
)

PAGE = ROOT / "docs" / "guide.md"
FIGURES = ROOT / "docs" / "figures"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = dict(
    re.findall(r"^## (G\d+): .*?\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_has_all_thirty_rows_in_order():
    assert re.findall(r"^## (G\d+: .*)$", TEXT, flags=re.MULTILINE) == [
        f"{row}: {title}" for row, title in ROWS.items()
    ]
    assert list(ROWS) == [f"G{number}" for number in range(1, 31)]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_a_command_and_an_option_that_exists(row, compose):
    from omegaconf import OmegaConf

    from goldilocks.config.options import groups, options

    line = re.search(r"^Option: (.*?)\n\n", SECTIONS[row], flags=re.MULTILINE | re.DOTALL)
    assert line is not None
    words = re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)(?:=([^`]*))?`", line[1])
    assert words
    cfg = OmegaConf.to_container(compose(), resolve=False)
    for key, value in words:
        if key in groups():
            assert set(value.strip("[]").split(",")) - {""} <= set(options(key)), f"{key}={value}"
            continue
        node = (
            compose("optimizer=momentum")
            if key.startswith("optimizer.m")
            else OmegaConf.create(cfg)
        )
        assert OmegaConf.select(node, key, default="absent") != "absent", key
    assert re.search(r"^python train\.py .*=", SECTIONS[row], flags=re.MULTILINE)


def test_every_figure_is_there_shown_and_small():
    assert {f"figures/{path.name}" for path in FIGURES.glob("*.png")} == set(
        re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    )
    assert max(path.stat().st_size for path in FIGURES.glob("*.png")) < 60_000


def test_the_blocks_are_what_the_measured_values_say():
    table, store = load(), Store(FIGURES / "guide.json")
    made = blocks(table, store)
    assert renewed(TEXT, made) == TEXT
    assert {name for _, name, _ in BLOCK.findall(TEXT)} == made.keys()


def test_everything_was_measured():
    store = Store(FIGURES / "guide.json")
    assert jobs_of(load().values(), None, store) == []
    assert "not measured" not in TEXT


def test_links_within_the_page_lead_to_its_headings():
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, re.M)
    }
    links = set(re.findall(r"\]\(#(.*?)\)", TEXT))
    assert links
    assert links <= anchors


@pytest.mark.parametrize("data", CHANCE)
def test_what_guessing_reaches(data):
    from goldilocks.data.sources.sklearn_sets import load_embedded

    if data == "diabetes":
        assert CHANCE[data] == 0  # R2 of the mean
        return
    target = load_embedded(data).target
    assert CHANCE[data] == pytest.approx(
        np.unique(target, return_counts=True)[1].max() / len(target), abs=0.006
    )


# --- the rule -------------------------------------------------------------------------------------


def test_the_interval_is_that_of_the_paired_t_test():
    draw = np.random.default_rng(0)
    first, second = draw.normal(0.9, 0.02, 10), draw.normal(0.89, 0.02, 10)
    mean, half, count = compare(dict(enumerate(first)), dict(enumerate(second)))
    low, high = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (mean - half, mean + half, count) == pytest.approx((low, high, 10))


def test_only_common_seeds_are_compared():
    assert compare({0: 1.0, 1: 2.0, 2: 9.0}, {0: 0.5, 1: 1.5}) == (0.5, 0.0, 2)
    assert math.isnan(compare({}, {})[0])


@pytest.mark.parametrize(
    ("mean", "half", "margin", "word"),
    [
        (0.02, 0.01, None, HOLDS),
        (-0.02, 0.01, None, FAILS),
        (0.01, 0.02, None, NOISE),
        (0.0, 0.0, None, NOISE),
        (-0.005, 0.004, 0.01, HOLDS),
        (-0.005, 0.006, 0.01, NOISE),
        (-0.03, 0.01, 0.01, FAILS),
        (0.0, 0.0, 0.0, HOLDS),
    ],
)
def test_the_verdict_follows_from_the_interval(mean, half, margin, word):
    assert verdict(mean, half, margin) == word


def compared(*words: str) -> list[Comparison]:
    claim = Claim("G1", "a beats b", "a", "b", ("digits",))
    return [Comparison("one", claim, "digits", "accuracy", 0.0, 0.0, 10, word) for word in words]


def test_a_row_has_one_word():
    assert sentence(compared(HOLDS)) == "holds"
    assert sentence(compared(HOLDS, HOLDS, NOISE)) == "holds (holds in 2, within noise in 1 of 3)"
    assert (
        sentence(compared(HOLDS, NOISE, NOISE))
        == "within noise (holds in 1, within noise in 2 of 3)"
    )
    assert sentence(compared(HOLDS, FAILS)) == "mixed (holds in 1, does not hold in 1 of 2)"
    assert (
        sentence(compared(FAILS, FAILS, FAILS, HOLDS))
        == "does not hold (holds in 1, does not hold in 3 of 4)"
    )
    assert sentence(compared(NOISE, NOISE)) == "within noise (within noise in 2 of 2)"
    later = [replace(one, claim=replace(one.claim, later=True)) for one in compared(FAILS)]
    assert sentence([*later, *compared(HOLDS)]) == "holds"


# --- which runs count -----------------------------------------------------------------------------

RATES = {
    "title": "Rates",
    "data": ["digits"],
    "tune": ["optimizer.lr=0.1", "optimizer.lr=0.2", "optimizer.lr=0.4"],
    "variants": {
        "chosen": "",
        "half": {
            "tune": ["optimizer.lr=0.1", "optimizer.lr=0.2", "optimizer.lr=0.4"],
            "pick": "half",
        },
        "other": {"words": "scheduler=cosine", "pick": "chosen"},
    },
    "claims": [
        {"row": "G12", "text": "half serves", "better": "half", "than": "chosen", "margin": 0.01}
    ],
}


@pytest.fixture
def rates(tmp_path) -> tuple[Experiment, Store]:
    """Three rates by two seeds; the test would choose otherwise than validation does."""
    made, store = experiment("rates", dict(RATES)), Store(tmp_path / "guide.json")
    for seed, losses in enumerate([(0.3, 0.2, 2.3), (0.2, 0.3, None)]):
        for words, loss, accuracy in zip(
            made.words(made.variants["chosen"], "digits"), losses, (0.9, 0.8, 0.99), strict=True
        ):
            store.put(
                words,
                seed,
                {
                    "status": "done",
                    "val": loss,
                    "accuracy": accuracy if loss else None,
                    "seconds": 1,
                },
            )
        for words in made.words(made.variants["other"], "digits"):
            store.put(
                words,
                seed,
                {"status": "done", "val": 1.0, "accuracy": float(words[1][-3:]), "seconds": 1},
            )
    return made, store


def test_validation_chooses_for_each_seed(rates):
    made, store = rates
    assert scores(store, made, made.variants["chosen"], "digits", "accuracy") == {0: 0.8, 1: 0.9}
    assert [chosen(store, made, made.variants["half"], "digits", seed) for seed in (0, 1)] == [1, 1]
    assert [chosen(store, made, made.variants["other"], "digits", seed) for seed in (0, 1)] == [
        1,
        0,
    ]


def test_a_difference_speaks_for_the_guide_when_it_is_positive(rates):
    made, store = rates
    (one,) = comparisons(store, [made])
    assert (one.mean, one.seeds, one.claim.row) == (pytest.approx(-0.05), 2, "G12")


def test_ranks_are_means_over_seeds(rates):
    made, store = rates
    assert mean_ranks(replace(made, rank=""), store, [("digits", "accuracy")]) == {
        "chosen": 1.25,
        "half": 1.75,
        "other": 3.0,
    }


def test_what_learns_nothing_scores_what_guessing_reaches(rates):
    made, store = rates
    worst = Variant("worst", (("optimizer.lr=0.4",),))
    assert scores(store, made, worst, "digits", "accuracy") == {0: 0.99, 1: CHANCE["digits"]}


def test_the_last_word_counts_and_the_order_does_not():
    base = {"title": "One", "base": "model=deep optimizer.lr=1", "data": ["iris"]}
    one = experiment("one", {**base, "variants": {"a": "model=wide seed=1"}})
    two = experiment("two", {**base, "variants": {"a": "seed=1 model=wide"}})
    found = [made.words(made.variants["a"], "iris") for made in (one, two)]
    assert found[0] == found[1] == [("data=iris", "model=wide", "optimizer.lr=1", "seed=1")]


def test_the_store_reads_what_it_wrote(rates, tmp_path):
    made, store = rates
    assert jobs_of([made], 2, store) == []
    assert [job[1] for job in jobs_of([made], 3, store)] == [2] * 6
    store.about = {"commit": "abc"}
    store.save()
    again = Store(tmp_path / "guide.json")
    assert (again.runs, again.about) == (store.runs, store.about)


# --- the command ----------------------------------------------------------------------------------


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    path = [
        sys.executable,
        str(ROOT / "scripts" / "studies" / "guide_figures.py"),
        *words,
        "--to",
        str(tmp_path),
    ]
    return subprocess.run(path, cwd=tmp_path, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_it_runs_small_and_does_not_measure_twice(tmp_path):
    words = [
        "--only",
        "tanh_20",
        "--only",
        "outliers",
        "--seeds",
        "1",
        "trainer.max_epochs=1",
        "model.width=4",
    ]
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 of 5 runs")
    stored = json.loads((tmp_path / "figures" / "guide.json").read_text())["runs"]
    assert len(stored) == 5
    assert all(
        (row["seed"], row["status"], row["epochs"]) == ([0], ["done"], [1])
        for row in stored.values()
    )
    assert all(
        len(row["gradients"][0]) == 21 and len(row["curve"][0]) == 1
        for key, row in stored.items()
        if "tanh" in key
    )
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"guide.json", "tanh_20.png"}
    page = (tmp_path / "guide.md").read_text()
    assert "| spoilt" not in page
    assert re.search(r"made: outliers -->\n\*Losses on diabetes.*1 seeds", page)
    again = run(tmp_path, *words)
    assert (again.returncode, again.stdout) == (0, "")


def test_an_unknown_experiment_is_refused(tmp_path):
    done = run(tmp_path, "--only", "activation")
    assert done.returncode == 2
    assert "--only activation: no such experiment; write some of: activations " in done.stderr
