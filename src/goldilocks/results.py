"""The run folder: made atomically, explained by what lies in it, `result.json` replaced atomically whatever happens."""

import errno
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import ZipFile

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from goldilocks.composed import SWEEP, of_run
from goldilocks.config import check_arguments
from goldilocks.devices import is_first
from goldilocks.errors import Refused, one_line
from goldilocks.places import ROOT
from goldilocks.privacy import shareable, without_passwords
from goldilocks.strangers import judged, judged_words, leaves, sealed

Status = Literal["running", "done", "failed", "diverged", "pruned", "interrupted"]
STATUSES = get_args(Status)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # of an error: the disk, or the user's share of it, is full
NOT_HASHED = ("name", "log_dir", "resume", "record_changes")  # what does not change the numbers
# What every configuration has; a file that was cut short lacks the last of it.
GROUPS = ("data", "model", "regularization", "optimizer", "scheduler", "trainer", "objective")
KEYS = ("callbacks", "task", "seed", "name", "log_dir")
OF_SWEEPS = ("sweep.yaml", "trials")  # what only a sweep's folder has
FILES = ("config.yaml", "overrides.yaml", "environment.json", "result.json")


# --- folders ----------------------------------------------------------------------------------------------------------


def make_run_folder(parent: Path, name: str, config_hash: str, now: datetime | None = None) -> Path:
    """Makes `parent/<time>_<name>_<hash>`, which did not exist: -2, -3 and so on are added until that is so."""
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
    """Makes the folder that runs or sweeps lie in."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(f"log_dir={folder.parent}", error) from error


def cannot_write(where: object, error: OSError) -> Refused:
    """A folder that is read-only, or on a disk that is full."""
    return Refused(f"{where}: cannot be written to ({error.strerror}); write another")


def find_run(run: str, log_dir: str | Path) -> Path:
    """The folder of a run, given as a path or as `last`: the newest of `log_dir/runs`.

    Raises:
        Refused: if there is no such folder, it is not a run's, or a link leads out of it.
    """
    runs = Path(log_dir) / "runs"
    if run == "last":
        folders = [
            path.parent
            for path in runs.glob("*/result.json")
            if (path.parent / "config.yaml").exists()
        ]
        if not folders:
            raise Refused(f"last: there is no run in {runs}; train one with: python train.py")
        return sealed(max(folders, key=lambda folder: (folder / "config.yaml").stat().st_mtime_ns))
    if not run:
        raise Refused(f"the run is empty; write a folder of {runs}, or last")
    folder = Path(run)
    if not folder.is_dir():
        raise Refused(f"{run}: no such run folder; write a folder of {runs}, or last")
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
    return OmegaConf.create(judged(plain, f"{folder}/config.yaml", folder))


def read_overrides(folder: Path) -> list[str]:
    """The overrides of the command line that a run was started with.

    Raises:
        Refused: if they cannot be read, or must not be followed.
    """
    try:
        words = OmegaConf.load(folder / "overrides.yaml")
    except Exception as error:  # YAML's and OmegaConf's errors have no common base
        raise Refused(f"{folder}: its overrides.yaml cannot be read ({one_line(error)})") from error
    if words and not isinstance(words, ListConfig):
        raise Refused(f"{folder}: its overrides.yaml is not a list of overrides")
    return judged_words(plain_words(words), f"{folder}/overrides.yaml")


def plain_words(words: Any) -> list[str]:
    """Overrides as they were written: `${...}` in them is not for this list to resolve."""
    return [str(word) for word in OmegaConf.to_container(words, resolve=False) or []]


def is_trial(folder: Path) -> bool:
    """Whether a run folder is a trial of a sweep, or a fold of one."""
    places = [parent / name for parent in folder.resolve().parents[:2] for name in OF_SWEEPS]
    return any(path.exists() for path in places)


def write_start(
    folder: Path,
    cfg: DictConfig,
    overrides: Iterable[str],
    result: Mapping[str, Any],
    threads: int | None = None,
) -> None:
    """Writes what is known before training. result.json comes last: with it the folder is a run's.

    Raises:
        Refused: if the folder cannot be written to.
    """
    if not is_first():
        return
    started = datetime.now().isoformat(timespec="seconds")
    now = {**environment(), "threads": threads, "seed": cfg.seed, "started": started}
    if not cfg.get("record_changes", True):
        now["git"] = {**now["git"], "diff": None, "left_out": []}
    if first := recorded_environment(folder):  # resumed: the first start stays on record
        now = {**first, "resumed": [*first["resumed"], now]}
    try:
        (folder / "traceback.txt").unlink(missing_ok=True)
        OmegaConf.save(of_run(cfg), folder / "config.yaml", resolve=True)
        OmegaConf.save(OmegaConf.create(list(overrides)), folder / "overrides.yaml")
        write_json(folder / "environment.json", now)
        write_json(folder / "result.json", result)
    except OSError as error:
        raise cannot_write(folder, error) from error


# --- results ----------------------------------------------------------------------------------------------------------


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a run folder.

    Raises:
        Refused: if it is missing or damaged.
    """
    where = f"{folder}: its result.json"
    found = read_json(folder / "result.json", where)
    try:
        return {**found, **check_arguments(result_keys, found, "")}
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
    """The signature is the schema of what commands rely on. A run that failed early has few of the keys."""


def read_json(path: Path, where: str) -> dict[str, Any]:
    """A file that holds an object of JSON.

    Args:
        path: Of the file.
        where: What the file is, for the message.

    Raises:
        Refused: if it is missing, damaged or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{where} cannot be read ({one_line(error)})") from error
    if not isinstance(found, dict):
        raise Refused(f"{where} cannot be read (it holds {json.dumps(found)[:20]}, not an object)")
    return found


def compare(
    before: Mapping[str, float], after: Mapping[str, float], tolerance: float
) -> tuple[str, dict[str, tuple[float, float, float]]]:
    """Whether two runs' metrics are `identical`, `equal` within a relative tolerance, or `different`.

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
    """Writes a result over the one before, in the blocks that this has on the disk; without its diagnosis, if need be."""
    for kept in (result, {**result, "diagnosis": None}):
        content = as_json(kept).encode()
        if len(content) <= path.stat().st_blocks * 512:
            break
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under another name first: a reader sees the old file or the new one, never half of it.

    Numbers that are not finite become null, which every reader of JSON understands.
    """
    temporary, text = path.with_name(f".{path.name}.{os.getpid()}"), as_json(value)
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def as_json(value: Any) -> str:
    """A value as its file has it."""
    return json.dumps(finite(value), indent=2, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """A value without NaN and infinities."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def config_hash(cfg: DictConfig) -> str:
    """Twelve hex digits of the resolved configuration, without what does not change the numbers."""
    container = OmegaConf.to_container(of_run(cfg), resolve=True)
    assert isinstance(container, dict)
    relevant = {key: value for key, value in container.items() if key not in NOT_HASHED}
    if isinstance(data := relevant.get("data"), dict):
        relevant["data"] = {key: same_place(key, value) for key, value in data.items()}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()[
        :12
    ]


def same_place(key: str, value: Any) -> Any:
    """A path in one way, whether it was given as a relative or an absolute one: seen from the project, if it is in it."""
    if isinstance(value, list):
        return [same_place(key, word) for word in value]
    if not isinstance(value, str) or not (key in ("path", "root") or key.endswith("_path")):
        return value
    path = Path(value).expanduser().absolute().resolve()
    project = ROOT.resolve()
    return str(path.relative_to(project) if path.is_relative_to(project) else path)


def chosen(choices: Mapping[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """Option by group. Hydra leaves out groups of which several may be chosen: they are read off what they set."""
    single = {
        group: option
        for group, option in choices.items()
        if option is not None and "/" not in group
    }
    single.pop(SWEEP, None)
    several = {
        "regularization": [
            key for key, strength in cfg.get("regularization", {}).items() if strength
        ],
        "logger": [key for key, node in cfg.get("logger", {}).items() if node is not None],
    }
    return {**single, **several}


def flat_options(cfg: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run by dotted key, for HPARAMS and tables: choices, then values that are not references.

    A name that only repeats the choice is left out: `data=iris` says `data.name: iris` too.
    """
    flat: dict[str, Any] = {
        group: "+".join(value) if isinstance(value, list) else value
        for group, value in choices.items()
    }

    def walk(node: DictConfig, prefix: str) -> None:
        for key in map(str, node):
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                walk(child, f"{prefix}{key}.")
            elif key != "_target_" and child is not None and not child._is_interpolation():
                value = node[key]
                if key != "name" or value != flat.get(prefix[:-1]):
                    flat[f"{prefix}{key}"] = (
                        OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
                    )

    for group in map(str, cfg):
        if group in (*NOT_HASHED, "packages", "logger"):
            continue
        child = cfg._get_node(group)
        if isinstance(child, DictConfig):
            walk(child, f"{group}.")
        else:
            flat[group] = cfg[group]
    return flat


# --- checkpoints ------------------------------------------------------------------------------------------------------


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a checkpoint without running any code from it.

    Raises:
        Refused: if it is missing, truncated or not a checkpoint of ours.
    """
    if not path.is_file() and (folds := sorted(path.parents[1].glob("fold_*"))):
        raise Refused(
            f"{path.parents[1]}: is a cross-validation; write the folder of one of its networks: {folds[0]}"
        )
    if not path.is_file():
        raise Refused(f"{path}: there is no such checkpoint; a run with callbacks=none keeps none")
    try:
        with ZipFile(path) as parts:
            assert parts.testzip() is None  # the checksums, at which torch.load does not look
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the library raises many kinds
        raise Refused(
            f"{path}: cannot be read as a checkpoint, it is truncated or damaged"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "spec"} <= checkpoint.keys():
        raise Refused(f"{path}: is not a checkpoint of goldilocks")
    refuse_ways_up(checkpoint, path)
    return checkpoint


def refuse_ways_up(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuses paths with `..` in what callbacks have saved: the library's removes such files as outdated ones of its own."""
    for key, value in leaves(checkpoint.get("callbacks")):
        for text in (key, value):
            if isinstance(text, str) and ".." in re.split(r"[\\/]", text):
                raise Refused(f"{path}: leads out of the folder, to {text}")


def load_training(path: Path) -> dict[str, Any]:
    """A checkpoint that training can go on from.

    Raises:
        Refused: if it is missing, damaged or holds weights only.
    """
    checkpoint = load_checkpoint(path)
    if not {"loops", "optimizer_states", "diverged"} <= checkpoint.keys():
        raise Refused(f"{path}: holds weights only; training cannot go on from it")
    return checkpoint


def forget_training(folder: Path) -> None:
    """Removes what a run has written that was killed before its first last.ckpt: it begins again."""
    if not is_first():
        return
    for path in (*folder.glob("events.out.tfevents.*"), folder / "metrics.csv"):
        path.unlink(missing_ok=True)
    (folder / "checkpoints" / "best.ckpt").unlink(missing_ok=True)


def can_resume(folder: Path) -> bool:
    """Whether a run was interrupted or killed behind a checkpoint that can be read, or behind a fold's first one."""
    try:
        if read_result(folder)["status"] not in ("running", "interrupted"):
            return False
        if (folder / "fold_0").is_dir():
            return True  # each fold asks for itself
        load_training(folder / "checkpoints" / "last.ckpt")
    except Refused:
        return False
    return True


def load_weights(module: torch.nn.Module, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Loads a checkpoint's weights into a module.

    Raises:
        Refused: if it holds the weights of another network.
    """
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise Refused(
            f"{path}: holds the weights of another network ({first_mismatch(module, checkpoint)})"
        ) from error


def first_mismatch(module: torch.nn.Module, checkpoint: Mapping[str, Any]) -> str:
    """The first tensor that differs in name or shape."""
    ours, theirs = module.state_dict(), checkpoint["state_dict"]
    for name in [*ours, *theirs]:
        here = tuple(ours[name].shape) if name in ours else "none"
        there = tuple(theirs[name].shape) if name in theirs else "none"
        if here != there:
            return f"{name}: {there} in the checkpoint, {here} in the configuration"
    return "values differ in kind"


# --- environment ------------------------------------------------------------------------------------------------------


def recorded_environment(folder: Path) -> dict[str, Any]:
    """What environment.json says of a run's first start, and of the others in `resumed`; empty if it is damaged.

    It is a record, which no command needs.
    """
    try:
        known = read_json(folder / "environment.json", "environment.json")
    except Refused:
        return {}
    resumed = known.get("resumed")
    return {**known, "resumed": resumed if isinstance(resumed, list) else []} if known else {}


def recorded_threads(folder: Path) -> int | None:
    """Threads of the CPU that a run was first started with; None where that is not on record."""
    threads = recorded_environment(folder).get("threads")
    return threads if isinstance(threads, int) and threads >= 1 else None


@cache
def environment() -> dict[str, Any]:
    """Code, packages and hardware; read once a process."""
    return {
        "command": without_passwords(" ".join(sys.argv)),
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {
            d.name: d.version
            for d in sorted(importlib.metadata.distributions(), key=lambda d: d.name.lower())
        },
    }


def git_state() -> dict[str, Any]:
    """Commit and uncommitted changes of tracked files, null outside of a git checkout.

    Files that look like secrets are named in `left_out` instead.
    """

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    commit = git("rev-parse", "HEAD")
    changes = git("diff", "--no-ext-diff", "HEAD") if commit else None
    diff, left_out = (None, []) if changes is None else shareable(changes)
    return {"commit": commit.strip() if commit else None, "diff": diff, "left_out": left_out}
