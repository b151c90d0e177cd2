"""The run folder: created atomically, complete without the code that made it;
`result.json` is replaced atomically.
"""

import errno
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from omegaconf import DictConfig, ListConfig, OmegaConf

from goldilocks.config.build import check_arguments
from goldilocks.config.choices import plain_overrides
from goldilocks.config.search_ranges import of_run
from goldilocks.config.strangers import judged, judged_overrides, sealed
from goldilocks.config.yaml_text import as_yaml
from goldilocks.errors import Refused, one_line
from goldilocks.machine.devices import is_first
from goldilocks.machine.files import NO_ROOM, as_json, read_json, write_json
from goldilocks.runs.environment import environment, recorded_environment
from goldilocks.training.checkpoints import load_training

Status = Literal["running", "done", "failed", "diverged", "pruned", "interrupted"]
STATUSES = get_args(Status)
# What every configuration has; a file that was cut short lacks the last of it.
GROUPS = (
    "data",
    "model",
    "loss",
    "regularization",
    "optimizer",
    "scheduler",
    "trainer",
    "objective",
)
KEYS = ("callbacks", "task", "seed", "name", "log_dir")
OF_SWEEPS = ("sweep.yaml", "trials")  # what only a sweep's folder has
FILES = ("config.yaml", "overrides.yaml", "environment.json", "result.json")


# --- folders --------------------------------------------------------------------------------------


def make_run_folder(parent: Path, name: str, config_hash: str, now: datetime | None = None) -> Path:
    """Makes `parent/<time>_<name>_<hash>`, which did not exist:
    -2, -3 and so on are added until that is so.
    """
    stamp = (now or datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
    return make_new_folder(parent, f"{stamp}_{name}_{config_hash}")


def make_new_folder(parent: Path, name: str) -> Path:
    """Makes a folder that did not exist, in one atomic step."""
    make_parent(parent)
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise cannot_write(f"log_dir={parent.parent}", error) from error
        else:
            return folder


def make_parent(folder: Path) -> None:
    """Makes the folder that runs or sweeps are in."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(f"log_dir={folder.parent}", error) from error


def cannot_write(where: object, error: OSError) -> Refused:
    """A folder that is read-only, or on a disk that is full."""
    return Refused(f"{where}: cannot be written to ({error.strerror}); write another")


def find_run(run: str, log_dir: str | Path, *, ensembles: bool = False) -> Path:
    """The folder of a run, given as a path or as `last`: that of `log_dir/runs` which was started
    or resumed last.

    Args:
        run: The path, or `last`.
        log_dir: Where `last` looks.
        ensembles: Whether a sweep's ensemble counts as a run, and a sweep's folder as its ensemble.

    Raises:
        Refused: if there is no such folder, it is not a run's, or a link leads out of it.
    """
    runs = Path(log_dir) / "runs"
    if run == "last":
        found = list(runs.glob("*/result.json"))
        found += Path(log_dir).glob("sweeps/*/ensemble/result.json") if ensembles else []
        folders = [path.parent for path in found if (path.parent / "config.yaml").exists()]
        if not folders:
            raise Refused(f"last: there is no run in {runs}; train one with: python train.py")
        return sealed(max(folders, key=lambda folder: (folder / "config.yaml").stat().st_mtime_ns))
    if not run:
        raise Refused(f"the run is empty; write a folder of {runs}, or last")
    folder = Path(run)
    if not folder.is_dir():
        raise Refused(f"{run}: no such run folder; write a folder of {runs}, or last")
    if ensembles and (folder / "trials").is_dir() and (folder / "ensemble").is_dir():
        folder = folder / "ensemble"
    missing = [name for name in ("config.yaml", "result.json") if not (folder / name).is_file()]
    if missing:
        raise Refused(
            f"{run}: is not a run folder, it has no {missing[0]}; write a folder of {runs}, or last"
        )
    return sealed(folder)


def read_config(folder: Path) -> DictConfig:
    """The configuration of a run folder, as far as that may say; see `strangers.judged`.

    Raises:
        Refused: if it cannot be read, or leads out of the folder.
    """
    try:
        cfg = OmegaConf.load(folder / "config.yaml")
    except Exception as error:  # YAML's and OmegaConf's errors have no common base
        raise Refused(f"{folder}: its config.yaml cannot be read ({one_line(error)})") from error
    if not isinstance(cfg, DictConfig):
        raise Refused(f"{folder}: its config.yaml is not a configuration")
    for group in GROUPS:
        if not isinstance(cfg.get(group), DictConfig):
            raise Refused(f"{folder}: its config.yaml is not a configuration, it lacks {group}")
    if lacking := [key for key in KEYS if key not in cfg]:
        raise Refused(f"{folder}: its config.yaml is not a configuration, it lacks {lacking[0]}")
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return of_run(OmegaConf.create(judged(plain, f"{folder}/config.yaml", folder)))


def read_overrides(folder: Path) -> list[str]:
    """The overrides of the command line that a run was started with.

    Raises:
        Refused: if they cannot be read, or must not be followed.
    """
    try:
        overrides = OmegaConf.load(folder / "overrides.yaml")
    except Exception as error:  # YAML's and OmegaConf's errors have no common base
        raise Refused(f"{folder}: its overrides.yaml cannot be read ({one_line(error)})") from error
    if overrides and not isinstance(overrides, ListConfig):
        raise Refused(f"{folder}: its overrides.yaml is not a list of overrides")
    return judged_overrides(plain_overrides(overrides), f"{folder}/overrides.yaml")


def is_trial(folder: Path) -> bool:
    """Whether a run folder is a trial of a sweep, or a fold of one."""
    places = [parent / name for parent in folder.resolve().parents[:2] for name in OF_SWEEPS]
    return any(path.exists() for path in places)


def write_start(
    folder: Path,
    values: Mapping[str, Any],
    overrides: Iterable[str],
    result: Mapping[str, Any],
    threads: int | None = None,
) -> None:
    """Writes what is known before training. result.json comes last: with it the folder is a run's.

    Args:
        folder: Of the run.
        values: The configuration, resolved.
        overrides: Of the command line.
        result: What there is of it.
        threads: Of the CPU that train.

    Raises:
        Refused: if the folder cannot be written to.
    """
    if not is_first():
        return
    started = datetime.now().isoformat(timespec="seconds")
    now = {**environment(), "threads": threads, "seed": values["seed"], "started": started}
    if not values.get("record_changes", True):
        now["git"] = {**now["git"], "diff": None, "left_out": []}
    if first := recorded_environment(folder):  # resumed: the first start stays on record
        now = {**first, "resumed": [*first["resumed"], now]}
    try:
        (folder / "traceback.txt").unlink(missing_ok=True)
        (folder / "config.yaml").write_text(as_yaml(values), encoding="utf-8")
        (folder / "overrides.yaml").write_text(as_yaml(list(overrides)), encoding="utf-8")
        write_json(folder / "environment.json", now)
        write_json(folder / "result.json", result)
    except OSError as error:
        raise cannot_write(folder, error) from error


# --- results --------------------------------------------------------------------------------------


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a run folder.

    Raises:
        Refused: if it is missing or damaged.
    """
    return read_checked(folder / "result.json", f"{folder}: its result.json", result_keys)


def read_checked(path: Path, where: str, schema: Callable[..., None]) -> dict[str, Any]:
    """What a file of JSON says whose keys are the arguments of `schema`.

    Args:
        path: Of the file.
        where: What the file is, for the message.
        schema: Its signature says what each key may hold.

    Raises:
        Refused: if it is missing or damaged, or a value is not what the annotation says.
    """
    found = read_json(path, where)
    try:
        return {**found, **check_arguments(schema, found, "")}
    except Refused as refusal:
        raise Refused(f"{where} cannot be read ({refusal})") from refusal


def result_keys(
    *,
    status: Status,
    objective: dict[str, Any] | None = None,
    metrics: dict[str, float | None] | None = None,
    best_epoch: int | None = None,
    epochs: int = 0,
    steps: int = 0,
    seconds: dict[str, float] | None = None,
    num_parameters: int | None = None,
    choices: dict[str, Any] = {},  # noqa: B006 - only the annotation is used
    data_hash: str | None = None,
    diagnosis: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    **others: Any,
) -> None:
    """The signature is the schema of what commands rely on.
    A run that failed early has few of the keys.
    """


def compare(
    before: Mapping[str, float], after: Mapping[str, float], tolerance: float
) -> tuple[str, dict[str, tuple[float, float, float]]]:
    """Whether two runs' metrics are `identical`, `equal` within a relative tolerance,
    or `different`.

    >>> compare({"val/loss": 1.0}, {"val/loss": 1.0001}, tolerance=1e-3)[0]
    'equal'

    Returns:
        The verdict, and by metric both values and their relative difference.
    """
    rows = {
        key: (old, after[key], abs(after[key] - old) / max(abs(old), 1e-12))
        for key, old in before.items()
        if key in after
    }
    worst = max((difference for _, _, difference in rows.values()), default=math.inf)
    return "identical" if worst == 0 else "equal" if worst <= tolerance else "different", rows


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Replaces result.json atomically; in its own place where there is no room for another file.

    Raises:
        OSError: if the folder is gone, or cannot be written to at all.
    """
    assert result["status"] in STATUSES
    if not is_first():
        return
    path = folder / "result.json"
    try:
        write_json(path, result)
    except OSError as error:
        if not folder.is_dir():
            raise FileNotFoundError(
                errno.ENOENT, "the folder was moved or deleted meanwhile", str(folder)
            ) from error
        if error.errno not in NO_ROOM or not path.exists():
            raise
        overwrite(path, result)


def overwrite(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result over the one before, in the blocks that this has on the disk;
    without its diagnosis, if need be.
    """
    for kept in (result, {**result, "diagnosis": None}):
        content = as_json(kept).encode()
        if len(content) <= path.stat().st_blocks * 512:
            break
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def forget_training(folder: Path) -> None:
    """Removes what a run has written that was killed before its first last.ckpt:
    it begins again.
    """
    if not is_first():
        return
    predictions = (folder / "predictions").glob("*.npz")
    for path in (*folder.glob("events.out.tfevents.*"), folder / "metrics.csv", *predictions):
        path.unlink(missing_ok=True)
    for name in ("checkpoints/best.ckpt", "calibration.json"):
        (folder / name).unlink(missing_ok=True)


def can_resume(folder: Path) -> bool:
    """Whether a run was interrupted or killed after a checkpoint that can be read,
    or after a fold's first one.
    """
    try:
        if read_result(folder)["status"] not in ("running", "interrupted"):
            return False
        if (folder / "fold_0").is_dir():
            return True  # each fold asks for itself
        load_training(folder / "checkpoints" / "last.ckpt")
    except Refused:
        return False
    return True
