"""metrics.csv in the run folder."""

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers as library


class CSVLogger(library.Logger):
    """metrics.csv: a row an epoch, written where it is saved.
    Resuming keeps the rows of the epochs before.

    Args:
        save_dir: Live: the run folder.
        resume_step: Live: rows from this optimizer step on are dropped,
            for they will be written again.
    """

    def __init__(self, save_dir: str, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.written = 0  # of the rows
        if resume_step is not None and self.path.exists():
            self.rows = [row for row in rows_of(self.path) if int(row["step"]) < resume_step]
            self._write_all()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """config.yaml has them."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Takes a row; `best/...` is left out, for the rows themselves tell it."""
        self.rows.append(
            {
                "step": step,
                **{key: value for key, value in metrics.items() if not key.startswith("best/")},
            }
        )

    def save(self) -> None:
        """Writes the rows since the last time."""
        fresh = self.rows[self.written :]
        if any(row.keys() - set(self.columns) for row in fresh):
            self._write_all()
        elif fresh:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerows(fresh)
        self.written = len(self.rows)

    def finalize(self, status: str) -> None:
        """Writes what is left."""
        self.save()

    def _write_all(self) -> None:
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.path)  # a run that is killed here keeps its rows
        self.written = len(self.rows)


def rows_of(table: Path) -> Iterator[dict[str, str]]:
    """The rows of a metrics.csv without what is damaged:
    a kill or a power cut leaves half of a row.
    """
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = (line.replace("\0", "") for line in file if line.endswith("\n"))
        for row in csv.DictReader(lines):
            if (row.get("step") or "").isdigit() and None not in row and None not in row.values():
                yield row


def numbers_in(table: Path) -> Iterator[dict[str, float]]:
    """The rows of a metrics.csv by column, without what is no number."""
    for row in rows_of(table):
        found = {key: as_number(word) for key, word in row.items()}
        yield {key: number for key, number in found.items() if number is not None}


def as_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
