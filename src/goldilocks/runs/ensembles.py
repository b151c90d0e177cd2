"""Networks that predict together are a run: ensemble.json in a run folder names them and their
weights.

The networks of a cross-validation are one (their plain mean), and what `selection` chooses among
the trials of a sweep.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from goldilocks.callbacks.predictions import FOLDER as PREDICTIONS
from goldilocks.config.build import check_arguments
from goldilocks.config.strangers import sealed
from goldilocks.errors import Refused
from goldilocks.machine.files import read_json, write_json
from goldilocks.tasks.task import Task
from goldilocks.training.outcome import Outcome, read_outcome, with_losses

FILE = "ensemble.json"
DEEPEST = 3  # an ensemble of cross-validations has two levels
COPIES = "members"  # folder of copied ones
COPIED = ("config.yaml", "overrides.yaml", "result.json", "ensemble.json", "calibration.json")


@dataclass(frozen=True)
class Member:
    """A run that predicts together with others.

    Attributes:
        folder: Of the run.
        weight: Of its predictions; those of an ensemble are 1 together.
    """

    folder: Path
    weight: float


# --- the file -------------------------------------------------------------------------------------


def is_ensemble(folder: Path) -> bool:
    """Whether the networks of several runs predict for this folder."""
    return (folder / FILE).exists()


def members_of(folder: Path, depth: int = 0) -> list[tuple[Path, float]]:
    """The folders of the networks that predict for a run, with their weights; of a single network
    its own.

    Raises:
        Refused: if one of them is gone, or the file is damaged.
    """
    if not is_ensemble(folder):
        return [(folder, 1.0)]
    if depth == DEEPEST:
        raise Refused(f"{folder}: its {FILE} leads from ensemble to ensemble; make it again")
    return [
        (own, member.weight * weight)
        for member in read_members(folder)
        for own, weight in members_of(member.folder, depth + 1)
    ]


def read_members(folder: Path) -> list[Member]:
    """What ensemble.json names.

    Raises:
        Refused: if it is damaged, or a member is gone.
    """
    where = f"{folder}: its {FILE}"
    found = read_json(folder / FILE, where)
    try:
        found = check_arguments(file_keys, found, "")
        entries = [check_arguments(member_keys, entry, "members") for entry in found["members"]]
    except Refused as refusal:
        raise Refused(f"{where} cannot be read ({refusal})") from refusal
    if not entries or abs(sum(entry["weight"] for entry in entries) - 1) > 1e-6:
        raise Refused(f"{where} cannot be read (the weights of its members are not 1 together)")
    members = []
    for entry in entries:
        place = Path(entry["run"])
        if place.is_absolute():
            raise Refused(f"{where} names {place}; paths in it are seen from its folder")
        own = Path(os.path.normpath(folder / place))
        if not (own / "config.yaml").is_file():
            raise Refused(
                f"{folder}: its member {own} is gone; put it back, or make the ensemble again"
                " with --copy, which keeps copies of its members"
            )
        members.append(Member(sealed(own), entry["weight"]))
    return members


def file_keys(*, how: str, members: list[dict[str, Any]], **others: Any) -> None:
    """The signature is the schema of ensemble.json."""


def member_keys(*, run: str, weight: Annotated[float, Field(gt=0, le=1)]) -> None:
    """The signature is the schema of a member in ensemble.json."""


def write_members(folder: Path, members: Sequence[Member], how: str) -> None:
    """Writes ensemble.json, with the members' paths as seen from the folder."""
    named = [
        {"run": Path(os.path.relpath(one.folder, folder)).as_posix(), "weight": one.weight}
        for one in members
    ]
    write_json(folder / FILE, {"how": how, "members": named})


def copy_members(folder: Path, members: Sequence[Member]) -> list[Member]:
    """Copies what predicting needs of each member into the folder."""
    copies = []
    for number, member in enumerate(members):
        own = folder / COPIES / str(number)
        copy_run(member.folder, own)
        copies.append(Member(own, member.weight))
    return copies


def copy_run(run: Path, to: Path) -> None:
    """Copies a run's configuration, best checkpoint and predictions, and an ensemble's members."""
    to.mkdir(parents=True)
    for name in COPIED:
        if (run / name).exists():
            shutil.copy2(run / name, to / name)
    for name in ("checkpoints/best.ckpt", f"{PREDICTIONS}/val.npz"):
        if (run / name).exists():
            (to / name).parent.mkdir(exist_ok=True)
            shutil.copy2(run / name, to / name)
    if is_ensemble(run):
        own = copy_members(to, read_members(run))
        write_members(to, own, read_json(run / FILE, FILE)["how"])


# --- predictions ----------------------------------------------------------------------------------


def kept(folder: Path, stage: str = "val") -> Outcome:
    """The predictions that a run has kept.

    Raises:
        Refused: if there are none, or they cannot be read.
    """
    return read_outcome(folder / PREDICTIONS / f"{stage}.npz")


def pooled(outcomes: Sequence[Outcome]) -> Outcome:
    """Out-of-fold predictions: those of each fold's own rows, by row."""
    parts = [one.arrays() for one in outcomes]
    joined = Outcome(**{name: np.concatenate([of[name] for of in parts]) for name in parts[0]})
    return joined.take(np.argsort(joined.rows, kind="stable"))


def together(task: Task, outcomes: Sequence[Outcome], weights: Sequence[float]) -> Outcome:
    """What several networks predict together for the same rows.

    Args:
        task: For the losses.
        outcomes: Of the networks.
        weights: Whose sum is 1.
    """
    first = outcomes[0]
    assert all(np.array_equal(one.rows, first.rows) for one in outcomes)
    total = weighted([one.predicted for one in outcomes], weights)
    known = [one.quantiles for one in outcomes if one.quantiles is not None]
    quantiles = weighted(known, weights) if known else None
    return with_losses(task, first.rows, first.true, total, quantiles)


def weighted(parts: Sequence[Any], weights: Sequence[float]) -> Any:
    """The weighted mean of arrays of one shape."""
    total = sum(
        weight * part.astype(np.float64) for part, weight in zip(parts, weights, strict=True)
    )
    return np.asarray(total)
