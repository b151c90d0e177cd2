"""Probabilities that mean what they say: a temperature, fitted on kept predictions.

Guo et al. (2017), "On Calibration of Modern Neural Networks": the logits of all rows are divided by
one number, so that the order of the classes stays. Logits of networks that predict together are the
logarithms of their mean probabilities.

Legend: N rows, C classes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import minimize_scalar

from goldilocks.config.build import check_arguments
from goldilocks.errors import Refused
from goldilocks.machine.files import read_json, write_json
from goldilocks.tasks.pooled_metrics import calibration_error

Array = NDArray[Any]

FILE = "calibration.json"
# Of log(temperature), a normal prior around 0: without it, rows that are all right make every
# probability 1.
PRIOR = 0.5
WIDEST = 10.0  # temperatures are from 1 / WIDEST to WIDEST
FOLDS = 5
FEWEST = 20  # rows of which something can be left out
# Wrong rows without which `auto` sharpens nothing: by the few errors of rows that have chosen the
# epoch nobody knows how wrong a probability near 1 is.
FEWEST_WRONG = 10
MOST_FITTED = 20_000  # rows; one number needs no more


@dataclass(frozen=True)
class Calibration:
    """How a run's probabilities are read.

    Attributes:
        temperature: By which all logits are divided; 1: they are as trained.
        threshold: Of two classes: the probability above which the second one is predicted.
    """

    temperature: Annotated[float, Field(gt=0)] = 1.0
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5


# --- the file -------------------------------------------------------------------------------------


def read_calibration(folder: Path) -> Calibration:
    """How the predictions of the run in a folder are read; as trained if it does not say.

    Raises:
        Refused: if calibration.json is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return Calibration()
    found = read_json(path, str(path))
    try:
        return Calibration(**check_arguments(Calibration, found, ""))
    except (Refused, TypeError, AttributeError) as error:
        raise Refused(f"{path}: cannot be read ({error})") from error


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Writes calibration.json; removes it where everything is as trained."""
    if calibration == Calibration():
        (folder / FILE).unlink(missing_ok=True)
    else:
        write_json(folder / FILE, asdict(calibration))


# --- temperature ----------------------------------------------------------------------------------


def logs_of(predicted: Array) -> NDArray[np.float64]:
    """Logarithms of probabilities, [N, C], that are finite."""
    values = np.asarray(predicted, np.float64)
    return np.asarray(np.log(np.maximum(values, np.finfo(np.float32).tiny)))


def tempered(predicted: Array, temperature: float) -> Array:
    """Probabilities, [N, C], whose logits are divided by a temperature."""
    if temperature == 1:
        return predicted
    values = logs_of(predicted) / temperature
    values = np.exp(values - values.max(1, keepdims=True))
    return np.asarray(values / values.sum(1, keepdims=True), np.float32)


def log_losses(logs: NDArray[np.float64], true: Array, temperature: float) -> Array:
    """-log of the true class's probability of each row, [N]."""
    values = logs / temperature
    values = values - values.max(1, keepdims=True)
    own = np.take_along_axis(values, np.asarray(true)[:, None], 1)[:, 0]
    return np.asarray(np.log(np.exp(values).sum(1)) - own)


def fitted_temperature(predicted: Array, true: Array) -> float:
    """The temperature with the least log-loss, drawn to 1 by the prior.

    Args:
        predicted: [N, C] probabilities.
        true: [N] class indices.
    """
    logs = logs_of(predicted)

    def lost(log_temperature: float) -> float:
        rows = log_losses(logs, true, float(np.exp(log_temperature)))
        return float(rows.sum() + (log_temperature / PRIOR) ** 2 / 2)

    widest = float(np.log(WIDEST))
    found = minimize_scalar(lost, bounds=(-widest, widest), method="bounded")
    return float(np.exp(found.x))


def out_of_fold(predicted: Array, true: Array) -> Array:
    """Probabilities, [N, C], each row's by the temperature of rows in other folds."""
    folds = np.random.default_rng(0).permutation(len(true)) % FOLDS
    found = np.empty_like(predicted)
    for fold in range(FOLDS):
        rest, own = folds != fold, folds == fold
        found[own] = tempered(predicted[own], fitted_temperature(predicted[rest], true[rest]))
    return found


def calibrate(option: str, predicted: Array, true: Array) -> dict[str, Any]:
    """Fits a temperature and says what it gains on rows that it was not fitted on.

    Args:
        option: `temperature`; or `auto`, which keeps 1 unless the log-loss falls by more than a
            standard error, and takes a temperature below 1 only where enough rows are wrong.
        predicted: [N, C] probabilities of rows that the network was not trained on.
        true: [N] class indices.

    Returns:
        What result.json says: `after` is of each row by the temperature of the others.
    """
    if len(true) > MOST_FITTED:
        places = np.linspace(0, len(true) - 1, MOST_FITTED).round().astype(int)
        predicted, true = predicted[places], true[places]
    before = log_losses(logs_of(predicted), true, 1.0)
    temperature = round(fitted_temperature(predicted, true), 6)
    entry: dict[str, Any] = {
        "option": option,
        "temperature": temperature,
        "rows": len(true),
        "wrong": int((predicted.argmax(1) != true).sum()),
        "before": measured(predicted, true),
        **dict.fromkeys(("after", "gain", "gain_error")),
    }
    if len(true) >= FEWEST:
        others = out_of_fold(predicted, true)
        gains = before - log_losses(logs_of(others), true, 1.0)
        error = float(gains.std(ddof=1) / len(gains) ** 0.5)
        entry |= {"after": measured(others, true), "gain": float(gains.mean()), "gain_error": error}
    entry["reason"] = why_not(entry) if option == "auto" else ""
    return {**entry, "temperature": 1.0} if entry["reason"] else entry


def why_not(entry: Mapping[str, Any]) -> str:
    """Why `auto` takes no temperature, in words; empty if it does."""
    if entry["gain"] is None:
        return f"fewer than {FEWEST} validation rows"
    if entry["gain"] <= entry["gain_error"]:
        return "no gain of more than a standard error"
    if entry["temperature"] < 1 and entry["wrong"] < FEWEST_WRONG:
        return f"fewer than {FEWEST_WRONG} wrong rows say nothing of probabilities nearer to 1"
    return ""


def in_words(entry: Mapping[str, Any]) -> str:
    """What a temperature does, or why there is none, in a line.

    >>> scores = {"log_loss": 0.5, "ece": 0.1}, {"log_loss": 0.4, "ece": 0.05}
    >>> known = {"temperature": 2.0, "rows": 99, "before": scores[0], "after": scores[1]}
    >>> in_words(known)  # doctest: +NORMALIZE_WHITESPACE
    'calibrated: temperature 2 by 99 validation rows; log-loss 0.5000 to 0.4000, ece 0.1000 to
    0.0500, each row by the temperature of others'
    """
    before, after, rows = entry["before"], entry["after"], entry["rows"]
    found = ""
    if after is not None:
        found = (
            f"; log-loss {before['log_loss']:.4f} to {after['log_loss']:.4f}, ece"
            f" {before['ece']:.4f} to {after['ece']:.4f}, each row by the temperature of others"
        )
    if entry.get("reason"):
        return f"not calibrated by {rows:,} validation rows: {entry['reason']}{found}"
    return f"calibrated: temperature {entry['temperature']:.3g} by {rows:,} validation rows{found}"


def measured(predicted: Array, true: Array) -> dict[str, float]:
    """The log-loss and the expected calibration error, as the metric `ece` has it."""
    logs = logs_of(predicted)
    values = torch.from_numpy(logs)
    output = torch.from_numpy(np.asarray(predicted))[:, 1] if logs.shape[1] == 2 else values
    ece = calibration_error(output.float()[None], torch.from_numpy(np.asarray(true))[None])[0]
    return {"log_loss": float(log_losses(logs, true, 1.0).mean()), "ece": float(ece)}
