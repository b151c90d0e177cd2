"""What others may have written is read here:
run folders, sweep folders, the options of a `--config-dir`.

Values are taken from it and nothing else: no class of a package that conf/ does not allow, no
setting of Hydra's, no variable of this machine's environment, no path that leads out of the folder.
docs/security.md is the user's side of it.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from goldilocks.config.places import CONF, OWN, own_conf, project
from goldilocks.errors import Refused

OURS = ("hydra", "packages", "log_dir", "resume")  # only conf/ and the command line set these
RESOLVERS = {"direction"}  # which look at nothing but their arguments
PLACE = re.compile(  # arguments that are places
    r"(?:^|_)(?:dir|dirpath|directory|path|folder|root|uri|url|location|artifact)s?(?:_|$)", re.I
)
LOG_DIR = "${log_dir}"  # in a file of conf/
NAME = re.compile(r"(?!\.)[\w .+@-]+(?:/(?!\.)[\w .+@-]+)*")  # of an option: no `..`, no line break
# For the processes of a sweep: what its command says, and no file in its folder can.
STORAGE, PACKAGES = "GOLDILOCKS_STORAGE", "GOLDILOCKS_PACKAGES"


# --- folders --------------------------------------------------------------------------------------


def sealed(folder: Path) -> Path:
    """A folder from which no link leads out: what is written into it stays there.

    Raises:
        Refused: for a symbolic link to a place outside,
            or anything else that is neither a file nor a folder.
    """
    root = os.path.realpath(folder)
    for path in odd_entries(root):
        target = os.path.realpath(path)
        if os.path.islink(path) and not target.startswith(root + os.sep):
            raise Refused(
                f"{path}: is a link to {target}, out of the folder; replace it by a copy, or"
                " remove it"
            )
        if not os.path.islink(path):
            raise Refused(f"{path}: is neither a file nor a folder; remove it")
    return folder


def odd_entries(folder: str) -> Iterator[str]:
    """Links and devices in a folder and the folders in it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from odd_entries(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                yield entry.path


# --- configurations -------------------------------------------------------------------------------


def judged(config: Mapping[Any, Any], where: str, folder: Path) -> dict[str, Any]:
    """A configuration from a run or sweep folder, with the packages of conf/ in place of its own.

    Args:
        config: As plain values, references not followed.
        where: The file, for messages.
        folder: What its paths may lead to.

    Raises:
        Refused: if it refers to this machine's environment, or would write out of the folder.
    """
    refuse_references(config, where)
    refuse_paths(config, where, folder, log_dir_of(config, folder))
    return {**config, "packages": own_packages()}


def refuse_references(config: Mapping[Any, Any], where: str) -> None:
    """Refuses `${oc.env:...}` and its likes:
    they would be written into the folder, or sent to a server.
    """
    for key, value in leaves(config):
        if looks_elsewhere(value) and not is_own(key, value, LOG_DIR):
            raise Refused(
                f"{where}: {key}={value}: only references to other keys are followed there; write"
                " the value"
            )


def looks_elsewhere(value: Any) -> bool:
    """Whether a value calls a resolver other than ours: most look at the machine."""
    calls = re.findall(r"\$\{\s*([\w.]+)\s*:", value) if isinstance(value, str) else []
    return not RESOLVERS.issuperset(calls)


def settled(config: Any) -> dict[str, Any]:
    """A composed configuration of one's own as a folder keeps it:
    what it takes from this machine is a value there.
    """
    from goldilocks.config.plain import plain

    values = plain(config, resolve=False)
    if any(looks_elsewhere(value) for _, value in leaves(values)):
        values = plain(config)
    return {str(key): value for key, value in values.items()}


def log_dir_of(config: Mapping[Any, Any], folder: Path) -> str | None:
    """The `log_dir` of a configuration from a folder, if it is conf/'s or the folder is in it."""
    said = config.get("log_dir")
    if not isinstance(said, str) or said == own_log_dir():
        return said
    kept = {Path(said).resolve() / kind for kind in ("runs", "sweeps")}
    return said if kept & {folder.resolve(), *folder.resolve().parents} else None


def refuse_paths(
    config: Mapping[Any, Any], where: str, folder: Path | None, log_dir: str | None
) -> None:
    """Refuses callbacks and loggers that would write out of a folder.

    Args:
        config: What has them.
        where: The file, for messages.
        folder: None: they must not have any place of their own.
        log_dir: What `${log_dir}` in a file of conf/ means; None: no place to write to.
    """
    watchers = {group: config.get(group) for group in ("callbacks", "logger")}
    for key, value in leaves(watchers):
        if leads_out(key, value, folder) and not is_own(key, value, log_dir):
            raise Refused(
                f"{where}: {key}={value}: leads out of the run folder; leave it out, or set it in"
                " a file of conf/"
            )


def leads_out(key: str, value: Any, folder: Path | None) -> bool:
    """Whether an argument names a place outside of a folder, or what another key says.

    Addresses of servers are no places.
    """
    if not isinstance(value, str) or re.match(r"https?://[^$]*$", value):
        return False
    if (
        "${" in value
        or ".." in re.split(r"[\\/]", value)
        or re.match(r"~|\\|[\w+.-]+:[\\/]|file:", value)
    ):
        return True
    if not value.startswith("/") and not PLACE.search(key.rpartition(".")[2]):
        return False
    return folder is None or not Path(value).resolve().is_relative_to(folder.resolve())


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings and lists by dotted key; those of a list have the list's."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from leaves(value, key)
    else:
        yield key, node


def is_own(key: str, value: str, log_dir: str | None) -> bool:
    """Whether a file of conf/ says the same of an argument, perhaps of a place in `log_dir`."""
    said = (word for name, word in own_values() if name == key.rpartition(".")[2])
    if log_dir is None:
        return any(word == value for word in said if LOG_DIR not in word)
    return any(value in (word, word.replace(LOG_DIR, log_dir)) for word in said)


def own_values() -> frozenset[tuple[str, str]]:
    """All words that the files of conf/ set, with the last part of their key."""
    return values_in(tuple(own_conf()))


@cache
def values_in(folders: tuple[Path, ...]) -> frozenset[tuple[str, str]]:
    """The same of some folders, which are read once a process."""
    import yaml

    paths = (path for folder in folders for path in folder.rglob("*.yaml"))
    files = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths)
    found = (pair for content in files for pair in leaves(content))
    return frozenset((key.rpartition(".")[2], value) for key, value in found if type(value) is str)


def own_packages() -> list[str]:
    """The packages whose classes may be built:
    of conf/train.yaml, and of the command that started this process.
    """
    said = os.environ.get(PACKAGES, "").split(",")
    known = settings_with(project())["packages"]
    return list(dict.fromkeys([*known, *filter(None, said)]))


def own_log_dir() -> str:
    """The `log_dir` of conf/train.yaml, or of a project."""
    return str(settings_with(project())["log_dir"])


@cache
def settings_with(folder: Path | None) -> dict[str, Any]:
    """The top-level keys of conf/train.yaml, with what a project sets otherwise."""
    import yaml

    files = [CONF / "train.yaml", *([folder / OWN] if folder else [])]
    return {
        key: value
        for path in files
        for key, value in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items()
    }


# --- overrides and names --------------------------------------------------------------------------


def judged_overrides(overrides: Sequence[str], where: str) -> list[str]:
    """Overrides from a folder, which may be composed again or shown as a command to copy.

    Raises:
        Refused: if one sets something of Hydra's, adds a package or is a flag.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        parts = re.split(r"[@./:]", key.lstrip("+~"))
        known = parts == ["packages"] and set(re.findall(r"\w+", value)) <= set(own_packages())
        if override.startswith("-") or ({"hydra", "packages"} & set(parts) and not known):
            raise Refused(f"{where}: {override}: only conf/ and the command line may say so")
    return list(overrides)


def judged_choices(choices: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Option by group from a folder: names, of which paths are made.

    Raises:
        Refused: for anything else.
    """
    for group, chosen in choices.items():
        for name in [group, *(chosen if isinstance(chosen, list) else [chosen])]:
            if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
                raise Refused(f"{where}: choices: {name!r} is not the name of an option")
    return dict(choices)


# --- files that Hydra loads -----------------------------------------------------------------------


def guard_hydra() -> None:
    """Judges every file that Hydra loads, before it builds anything of it. Once a process.

    A private name of Hydra; tests/config/test_strangers.py watches it.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    load = ConfigLoaderImpl._load_single_config
    if load.__module__ == __name__:
        return

    def load_judged(self: Any, default: Any, repo: Any) -> Any:
        loaded = load(self, default=default, repo=repo)
        judge_file(loaded, default.config_path)
        return loaded

    load_judged.__module__ = __name__
    ConfigLoaderImpl._load_single_config = load_judged  # type: ignore[method-assign]


def judge_file(loaded: Any, name: str) -> None:
    """Refuses a file that is not of conf/, for what only conf/ and the command line may say.

    Args:
        loaded: What Hydra has read; its `config` is in the place that the file is for.
        name: The file, without its ending, in the directory `loaded.path`.
    """
    from omegaconf import OmegaConf

    if not loaded.path.startswith("file://"):  # of an installed package
        return
    root = Path(loaded.path.removeprefix("file://")).resolve()
    file = Path(os.path.normpath(root / f"{name.removesuffix('.yaml')}.yaml"))
    of_conf = root in [folder.resolve() for folder in own_conf()]
    if not (file if of_conf else file.resolve()).is_relative_to(root):
        raise Refused(f"{name}: leads out of {root}; write the name of an option")
    if of_conf:
        return
    frozen = loaded.provider in ("main", "project")
    if frozen:  # conf/ as a sweep has frozen it: what it says of Hydra is over
        take_ours(loaded.config)
    content = OmegaConf.to_container(loaded.config, resolve=False)
    assert isinstance(content, dict)
    sweep = content.get("sweep")
    storage = isinstance(sweep, dict) and sweep.get("storage") and not frozen
    set_there = [key for key in OURS if key in content and not frozen]
    if set_there or storage:
        key = set_there[0] if set_there else "sweep.storage"
        raise Refused(
            f"{file}: sets {key}, which only conf/ and the command line may; leave it out"
        )
    refuse_references(content, str(file))
    refuse_paths(content, str(file), None, LOG_DIR)


def take_ours(config: Any) -> None:
    """Takes Hydra's settings out of a composed file,
    and puts conf/'s packages and log_dir in place of its own.
    """
    from omegaconf import open_dict

    with open_dict(config):
        config.pop("hydra", None)
        if "packages" in config:
            config.packages = own_packages()
        if "log_dir" in config:
            config.log_dir = own_log_dir()


# --- what a command says to its processes ---------------------------------------------------------


@contextmanager
def said_to_processes(packages: Sequence[str], storage: str | None) -> Iterator[None]:
    """Within the block, processes that are started know what the command
    says and its folder does not keep.
    """
    said = {PACKAGES: ",".join(packages), STORAGE: storage or ""}
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
