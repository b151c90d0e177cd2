"""Loggers: what they leave in the run folder."""

import sys
from pathlib import Path
from unittest import mock

from proofs.drive import finished, refusal
from proofs.table import Measured, proof

EPOCHS = "trainer.max_epochs=3"


def kinds(folder: Path) -> list[str]:
    """The loggers' files."""
    names = {path.name.partition(".out")[0] for path in folder.iterdir()}
    return sorted(names & {"events", "metrics.csv"})


@proof(
    "logger=csv",
    "G29",
    "metrics.csv, a row an epoch",
    "its rows with a val/loss after 3 epochs; files",
)
def csv() -> Measured:
    with finished("logger=csv", EPOCHS) as (folder, result):
        header, *lines = [
            line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()
        ]
        files = kinds(folder)
    values = [
        float(line[header.index("val/loss")]) for line in lines if line[header.index("val/loss")]
    ]
    best = min(values) if values else None
    return f"{len(values)} rows; {' '.join(files)}", len(values) == 3 and files == [
        "metrics.csv"
    ] and best == result["objective"]["value"]


@proof(
    "logger=tensorboard",
    "G29",
    "curves, and the HPARAMS tab with the options and real metrics",
    "values read back from the events of 3 epochs; optimizer.lr in the tab; the last best/val/loss",
)
def tensorboard() -> Measured:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    with finished("logger=tensorboard", EPOCHS) as (folder, result):
        events = EventAccumulator(str(folder))
        events.Reload()
        files = kinds(folder)
    losses = [event.value for event in events.Scalars("Val/loss")]
    best = events.Scalars("best/val/loss")[-1].value
    start = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    options = HParamsPluginData.FromString(start).session_start_info.hparams
    rate = options["optimizer.lr"].number_value
    right = abs(best / result["objective"]["value"] - 1) < 1e-6 and rate == 1e-3
    return (
        f"{len(losses)} of val/loss; {rate:g}; {'as' if right else 'not as'} in result.json",
        len(losses) == 3 and right and files == ["events"],
    )


def without(service: str) -> Measured:
    """What is said where the package is missing."""
    modules = {service: None, f"goldilocks.loggers.{service}": None}
    with mock.patch.dict(sys.modules, modules):
        del sys.modules[f"goldilocks.loggers.{service}"]
        said = refusal(f"logger={service}").partition(": ")[2]
    return f"the service not run here; refused: {said}", f"pip install -e '.[{service}]'" in said


KEPT = "curves, options, figures, final metrics and the end of a run"
SEEN = "without the package; with it tests/loggers/test_services.py reads them back"


@proof("logger=wandb", "G29", KEPT, SEEN)
def wandb() -> Measured:
    return without("wandb")


@proof("logger=mlflow", "G29", KEPT, SEEN)
def mlflow() -> Measured:
    return without("mlflow")


@proof("logger=trackio", "G29", KEPT, SEEN)
def trackio() -> Measured:
    return without("trackio")


@proof("logger=none", "", "no files of curves", "files of loggers in the run folder")
def none() -> Measured:
    with finished("logger=none", EPOCHS) as (folder, result):
        files = kinds(folder)
    return f"{len(files)} files, status {result['status']}", not files and result[
        "status"
    ] == "done"
