"""What a run tells its loggers beyond metrics and options."""

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

ENDED_WELL = ("done", "pruned")
NONE: Mapping[str, float] = {}


class RunLogger(Logger):
    """A logger that takes more than metrics and options:
    it has those of the methods below that it has a place for.

    By the class, not by the methods' names:
    loggers of libraries have a `log_text` too, of other arguments.
    """

    def log_figure(self, tag: str, png: bytes, step: int) -> None:
        """Shows a picture, of a PNG file's bytes."""

    def log_text(self, tag: str, text: str, step: int = 0) -> None:
        """Shows preformatted text."""

    def log_precision_recall(self, tag: str, positive: Any, scores: Any, step: int) -> None:
        """Shows a curve.

        Args:
            tag: Of the curve.
            positive: [N], whether a row is of the class.
            scores: [N], its probability.
            step: Of the optimizer.
        """

    def log_scalars(self, values: dict[str, float], step: int) -> None:
        """Writes numbers that are no metrics: of the layers, and rates within an epoch."""

    def log_histograms(self, tensors: dict[str, Tensor], step: int) -> None:
        """Writes by tag how a tensor's values are distributed."""

    def log_network(self, network: nn.Module, x: Tensor) -> None:
        """Draws a network's graph: of a traced network and its input, [B, ...]."""

    def log_layout(self, layout: dict[str, Any]) -> None:
        """Arranges charts: by category and chart, `["Multiline", tags]`."""

    def close(self, status: str, metrics: Mapping[str, float] = NONE) -> None:
        """Writes how the run ended, a status of result.json, and what is left.

        Args:
            status: Of the run.
            metrics: Of its best epoch, and `test/...` where it was tested.
        """


def takers(loggers: Iterable[Any], method: str) -> list[Any]:
    """The loggers that have a method of RunLogger's of their own."""
    return [
        logger
        for logger in loggers
        if isinstance(logger, RunLogger)
        and getattr(type(logger), method) is not getattr(RunLogger, method)
    ]


def title_of(folder: Path) -> str:
    """What a run is called beside others: its folder's name;
    a trial's and a fold's with the one that they belong to.

    >>> title_of(Path("logs/runs/2026-11-23_08-15-30_deep-nadam_4f2a9c"))
    '2026-11-23_08-15-30_deep-nadam_4f2a9c'
    >>> title_of(Path("logs/sweeps/first/3/fold_0"))
    'first/3/fold_0'
    """
    names = [folder.name]
    for parent in folder.absolute().parents:
        if not (names[0].isdigit() or names[0].startswith("fold_")) or not parent.name:
            break
        names.insert(0, parent.name)
    return "/".join(names)


def final(metrics: Mapping[str, float]) -> dict[str, float]:
    """A run's last numbers by the names that the loggers have for them:
    `best/val/loss`, `test/loss`.
    """
    return {
        name if name.startswith("test/") else f"best/{name}": value
        for name, value in metrics.items()
    }


def remembered(folder: Path, service: str) -> str:
    """An id for a run at a service, which is in `<service>.id` of its folder:
    a resumed run goes on under it.
    """
    path = folder / f"{service}.id"
    if not path.exists():
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def plain(value: Any) -> bool | float | str:
    """An option as every service takes it: lists and null are text."""
    return (
        value
        if isinstance(value, bool | int | float | str)
        else "null"
        if value is None
        else str(value)
    )
