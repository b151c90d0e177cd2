"""Training from Python and notebooks: `goldilocks.train(...)`."""

import contextlib
import hashlib
import io
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf.errors import OmegaConfBaseException

from goldilocks.callbacks.checkpoint import read_history
from goldilocks.cli.main import (
    killed_as_by_ctrl_c,
    places_of_resumed,
    refuse_sweep_without_m,
)
from goldilocks.cli.mistakes import explain
from goldilocks.config.compose import compose, loader_of, prepare_hydra
from goldilocks.config.grammar import quote
from goldilocks.config.options import roots
from goldilocks.data.tables.values import MARKS
from goldilocks.errors import Refused
from goldilocks.inference.predict import Classifier, Regressor, load
from goldilocks.machine import devices
from goldilocks.runs.folder import read_result
from goldilocks.runs.printing import print_result
from goldilocks.runs.run import resume as resume_run
from goldilocks.runs.run import start

SEVERAL = re.compile(r"[,\s]")  # in an override, values of a sweep


@dataclass(frozen=True)
class TrainedRun:
    """What a training in Python leaves: its run folder, and what is in it.

    Attributes:
        folder: Of the run; `python train.py resume=FOLDER` and all scripts take it.
        result: What its result.json holds.
    """

    folder: Path
    result: Mapping[str, Any] = field(repr=False)

    @property
    def status(self) -> str:
        """`done`, `diverged`, `failed` or `interrupted`."""
        return self.result["status"]

    @property
    def metrics(self) -> dict[str, float]:
        """Of the best epoch, `val/loss` and the others, and `test/...`."""
        return dict(self.result["metrics"] or {})

    @property
    def curves(self) -> Any:
        """The metrics of each epoch, a pandas DataFrame; empty of a run with callbacks=none. Of
        folds one below the other, told by the column `fold`.
        """
        import pandas as pd

        if not self.result.get("folds"):
            return curves_of(self.folder, self.result["epochs"])
        folds = {}
        for fold in range(self.result["folds"]):
            folder = self.folder / f"fold_{fold}"
            if (folder / "result.json").exists():
                folds[fold] = curves_of(folder, read_result(folder)["epochs"])
        if not folds:
            return pd.DataFrame()
        return pd.concat(folds, names=["fold", "epoch"]).reset_index("fold")

    def load(self, strict: bool = False) -> Regressor | Classifier:
        """The network, ready to predict; see `goldilocks.load`."""
        return load(self.folder, strict=strict)

    def predict(self, rows: Any) -> Any:
        """Classes or values of rows, [N]; see `goldilocks.load`."""
        return self.load().predict(rows)

    def predict_proba(self, rows: Any) -> Any:
        """Probabilities of the classes, [N, C].

        Raises:
            Refused: for a regression.
        """
        predictor = self.load()
        if isinstance(predictor, Regressor):
            raise Refused("predict_proba: this run is a regression; write predict")
        return predictor.predict_proba(rows)

    def __repr__(self) -> str:
        """Reads as the end of a run does on the screen."""
        screen = io.StringIO()
        print_result(self.folder, self.result, plain_console(screen))
        return screen.getvalue().rstrip()


def curves_of(folder: Path, epochs: int) -> Any:
    """The metrics of each epoch of one network, a pandas DataFrame."""
    import pandas as pd

    path = folder / "checkpoints" / "history.jsonl"
    history = read_history(path, epochs) if path.exists() else []
    return pd.DataFrame(history).rename_axis("epoch")


def train(
    overrides: Sequence[str] = (),
    *,
    frame: Any = None,
    target: str | Sequence[str] | None = None,
    search: str | float | None = None,
    quiet: bool = False,
    **options: Any,
) -> TrainedRun:
    """Trains one network in this process, as `python train.py` does, and leaves the same folder.

    Args:
        overrides: As of the command line: `["model=deep", "optimizer.lr=0.01"]`.
        frame: A pandas DataFrame to train on. It is written to `frames/` in `log_dir` as a CSV
            file, from which the run can be resumed, tested and trained again.
        target: Its column to predict, or several.
        search: A time, as "10m" or a number of seconds: what `python train.py -m sweep=guide` finds
            in it, the networks that predict together.
        quiet: Whether nothing is printed.
        options: Further ones, two underscores for a dot: `model="deep", optimizer__lr=0.01`.

    Raises:
        Refused: a ValueError, for any mistake that `python train.py` would tell in one line.
    """
    began = time.perf_counter()
    given = [overrides] if isinstance(overrides, str) else overrides
    words = [*given, *(override_of(key, value) for key, value in options.items())]
    check_call(words, frame, target, search)
    with state_kept(), killed_as_by_ctrl_c(), nowhere() if quiet else contextlib.nullcontext():
        try:
            if frame is not None:
                words += of_frame(frame, target, words)
            if search is not None:
                return searched(words, search, began)
            cfg, choices = compose(places_of_resumed(words))
            with devices.joined(cfg.trainer):
                if cfg.resume is not None:
                    folder, result = resume_run(cfg, words, began)
                else:
                    folder, result = start(cfg, words, choices, began=began)
        except (HydraException, OmegaConfBaseException) as error:
            raise Refused(explain(error)) from None
        if not quiet:
            print_result(folder, result)
    return TrainedRun(folder.absolute(), result)


def searched(words: list[str], search: str | float, began: float) -> TrainedRun:
    """What a guided search finds in a time: its networks together, or the best one."""
    from goldilocks.sweeps.report.reading import read_summary

    prepare_hydra()
    name = datetime.now().strftime("search_%Y-%m-%d_%H-%M-%S")
    own = [] if any(word.startswith("name=") for word in words) else [f"name={name}"]
    own += ["sweep=guide", f"sweep.budget={search}"]
    loader = loader_of(roots())
    cfg = loader.load_configuration("train", [*own, *words], run_mode=RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader, callbacks=Callbacks(cfg))
    sweeper: Any = Plugins.instance().instantiate_sweeper(
        hydra_context=context, task_function=lambda _: None, config=cfg
    )
    sweeper.began = began
    with contextlib.suppress(SystemExit):  # some trials have failed, which has been said
        sweeper.sweep(list(cfg.hydra.overrides.task))
    folder = Path(cfg.log_dir) / "sweeps" / cfg.name
    found = folder / "ensemble"
    if not (found / "result.json").exists():
        best = read_summary(folder).best
        if best is None:
            raise Refused(f"search={search}: no network was trained; {folder} says why")
        found = folder / str(best.number)
    return TrainedRun(found.absolute(), read_result(found))


def check_call(words: Sequence[str], frame: Any, target: Any, search: Any) -> None:
    """Refuses what is for sweeps, a target without a frame, and any thread but the main one."""
    if sweeping := next((word for word in words if word in ("-m", "--multirun")), None):
        raise Refused(f"{sweeping}: a sweep is started with python train.py -m; leave it out")
    if search is None:
        refuse_sweep_without_m(words)
    elif said := next((word for word in words if word.startswith("sweep.budget=")), None):
        raise Refused(f"{said}: search={search} says it; leave one of them out")
    if frame is None and target is not None:
        raise Refused(
            f"target={target}: is of a frame; write {override_of('data__target', target)}"
        )
    if threading.current_thread() is not threading.main_thread():
        raise Refused("train: Ctrl-C reaches only the main thread of Python; call it there")


def override_of(key: str, value: Any) -> str:
    """A keyword as an override of the command line.

    >>> override_of("optimizer__lr", 0.01), override_of("regularization", ["l2", "dropout"])
    ('optimizer.lr=0.01', 'regularization=[l2,dropout]')
    >>> override_of("callbacks__progress_bar", None)
    'callbacks.progress_bar=null'
    """
    return f"{key.replace('__', '.')}={text_of(value)}"


def text_of(value: Any) -> str:
    """A value as the command line has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{text_of(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(text_of, value)) + "]"
    if isinstance(value, str) and SEVERAL.search(value) and value[:1] not in "[{'\"":
        return quote(value)
    return str(value)


def of_frame(frame: Any, target: Any, words: Sequence[str]) -> list[str]:
    """Writes a DataFrame where runs can find it again; returns the overrides that name it."""
    if target is None:
        raise Refused("target: is missing; write target=COLUMN of the frame")
    if not hasattr(frame, "to_csv"):
        raise Refused(f"frame: a pandas DataFrame is expected, not {type(frame).__name__}")
    frame = frame.rename(columns=str)
    names = list(map(str, target if isinstance(target, list | tuple) else [target]))
    if unknown := [name for name in names if name not in frame.columns]:
        known = ", ".join(map(str, frame))
        raise Refused(f"target={unknown[0]}: the frame has no such column; it has: {known}")
    log_dir = next((w.partition("=")[2] for w in words if w.startswith("log_dir=")), "logs")
    path = kept_frame(frame, Path(log_dir.strip("'\"")) / "frames")
    columns = quote(names[0]) if len(names) == 1 else "[" + ",".join(map(quote, names)) + "]"
    own = [] if any(word.startswith("data=") for word in words) else ["data=table"]
    found = [*own, f"data.path={quote(path.absolute().as_posix())}", f"data.target={columns}"]
    if any(word.startswith("data.not_missing=") for word in words):
        return found
    kept = words_like_marks(frame)
    return [*found, *([f"data.not_missing=[{','.join(map(quote, kept))}]"] if kept else [])]


# What pandas makes of a missing value where it is turned into text.
NOTHING = {"", "nan", "NaN", "None", "<NA>", "NaT"}


def words_like_marks(frame: Any) -> list[str]:
    """Text in a DataFrame that a file would have for missing values: there it is a value."""
    found: set[str] = set()
    for name in frame.columns:
        if frame[name].dtype.kind not in "biufcmM":
            values = {value.strip() for value in frame[name].unique() if isinstance(value, str)}
            found |= (values & MARKS) - NOTHING
    return sorted(found)


def kept_frame(frame: Any, folder: Path) -> Path:
    """The CSV file of a DataFrame, named by what is in it."""
    content = frame.to_csv(index=False).encode()
    path = folder / f"{hashlib.sha256(content).hexdigest()[:12]}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(content)
        os.replace(temporary, path)
    return path


@contextlib.contextmanager
def state_kept() -> Iterator[None]:
    """Random numbers, threads and Hydra are afterwards as they were."""
    drawn = random.getstate(), np.random.get_state()
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    hydra = GlobalHydra.instance().hydra
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        GlobalHydra.instance().hydra = hydra


@contextlib.contextmanager
def nowhere() -> Iterator[None]:
    """What is printed goes nowhere."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def plain_console(file: Any) -> Any:
    """A console that writes plain text."""
    from rich.console import Console

    return Console(
        file=file,
        force_terminal=False,  # in a notebook, too
        force_jupyter=False,
        no_color=True,
        highlight=False,
        soft_wrap=True,
        width=200,
    )
