"""Reads experiments.yaml, the list of what is compared, as plain objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

TABLE = Path(__file__).with_name("experiments.yaml")
# What guessing reaches: the share of the largest class, or the mean.
CHANCE = {"digits": 0.1, "breast_cancer": 0.63, "wine": 0.4, "iris": 0.33, "diabetes": 0.0}
METRIC = {"diabetes": "r2"}  # the others: accuracy
LOWER_IS_BETTER = ("loss", "rmse", "mae")


@dataclass(frozen=True)
class Variant:
    """One thing that is compared: overrides, or several candidates of which
    validation chooses one for each seed.
    """

    name: str
    candidates: tuple[tuple[str, ...], ...]  # overrides of each, beside those of the experiment
    series: str = ""
    x: float | None = None
    # best: by validation; half: half the smallest rate that diverges; else as this variant's best
    pick: str = "best"


@dataclass(frozen=True)
class Claim:
    """What the guide or later work says, as a comparison of two variants."""

    row: str
    text: str
    better: str
    than: str
    data: tuple[str, ...]
    metric: str | None = None
    margin: float | None = None  # `better` need only be no worse than by this much
    later: bool = False  # not the guide's: later work says so


@dataclass(frozen=True)
class Experiment:
    """An entry of the table."""

    name: str
    title: str
    base: tuple[str, ...]
    data: tuple[str, ...]
    variants: Mapping[str, Variant]
    claims: tuple[Claim, ...]
    metrics: tuple[str, ...] = ()  # (): the data set's own
    seeds: int = 10
    figure: Mapping[str, Any] | None = None
    curve: str | None = None  # a metric whose course over the epochs is kept
    gradients: bool = False  # the gradient of each layer before the first step is kept
    rank: str | None = None  # the table has the mean rank among the variants whose names end so

    def words(self, variant: Variant, data: str) -> list[tuple[str, ...]]:
        """The overrides of each candidate, in one order,
        so that experiments share what they both train.
        """
        found = []
        for own in variant.candidates:
            words = (f"data={data}", *self.base, *own)
            last = {word.partition("=")[0]: word for word in words}
            found.append(tuple(sorted(last.values())))
        return found

    def metrics_of(self, data: str) -> tuple[str, ...]:
        return self.metrics or (METRIC.get(data, "accuracy"),)


def load(path: Path = TABLE) -> dict[str, Experiment]:
    """Every experiment by name."""
    entries = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(entries, dict)
    return {str(name): experiment(str(name), dict(entry)) for name, entry in entries.items()}


def experiment(name: str, entry: dict[str, Any]) -> Experiment:
    data = tuple(entry.pop("data"))
    variants = {variant.name: variant for variant in variants_of(entry)}
    claims = tuple(Claim(**{"data": data, **claim}) for claim in entry.pop("claims", []))
    for claim in claims:
        assert {claim.better, claim.than} <= variants.keys(), f"{name}: {claim}"
    base = tuple(entry.pop("base", "").split())
    metrics = tuple(entry.pop("metrics", ()))
    return Experiment(
        name, base=base, data=data, variants=variants, claims=claims, metrics=metrics, **entry
    )


def variants_of(entry: dict[str, Any]) -> list[Variant]:
    """From `variants`, or every pair of `series` and `x`; `tune` lists what each is tried with."""
    tune = entry.pop("tune", [""])
    found = [variant(str(name), given, tune) for name, given in entry.pop("variants", {}).items()]
    series, x = entry.pop("series", {}), entry.pop("x", None)
    for name, given in series.items():
        for value in x["values"]:
            one = variant(f"{name} @ {value}", given, tune)
            candidates = tuple((*words, f"{x['key']}={value}") for words in one.candidates)
            found.append(Variant(one.name, candidates, str(name), float(value), one.pick))
    return found


def variant(name: str, given: Any, tune: list[str]) -> Variant:
    """`given`: overrides as a string, or a mapping with `words`, its own `tune` and `pick`."""
    given = given if isinstance(given, dict) else {"words": given or ""}
    words = str(given.get("words") or "").split()
    candidates = tuple((*words, *str(more or "").split()) for more in given.get("tune", tune))
    return Variant(name, candidates, pick=given.get("pick", "best"))
