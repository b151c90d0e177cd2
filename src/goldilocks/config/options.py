"""Which groups and options there are:
in conf/, a project's first, and in the folder of a `--config-dir`. Import-light.
"""

import os
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from goldilocks.config.places import CONF, own_conf
from goldilocks.errors import Refused

CONFIG_DIR = re.compile(r"(?:--config-d(?:ir?)?|-cd)(?:=(?P<folder>.*))?", re.DOTALL)


def roots() -> list[Path]:
    """The folders that hold options, in the order in which Hydra looks:
    conf/, a project's before goldilocks' own, then that of `--config-dir`.

    Raises:
        Refused: for a `--config-dir` that is no folder, or has an option that conf/ has: Hydra
            would take conf/'s. For a second one: Hydra would take the last.
    """
    given = config_dirs()
    if len(given) > 1:
        raise Refused("--config-dir: is given twice; one folder may hold options of every group")
    for folder in given:
        if not os.path.isdir(folder):
            raise Refused(
                f"--config-dir={folder}: no such folder; write the folder of your options"
            )
        for path in option_files(Path(folder)):
            if any((own / path.relative_to(folder)).exists() for own in own_conf()):
                raise Refused(f"{path}: conf/ has an option of this name; rename the file")
    return [*own_conf(), *map(Path, given)]


def option_files(root: Path) -> Iterator[Path]:
    """The files that Hydra finds in a folder of options:
    at its top, and in the folders of groups.
    """
    for pattern in ("*.yaml", "*/*.yaml", "hydra/*/*.yaml"):
        yield from root.glob(pattern)


def config_dirs() -> list[str]:
    """The folders that the command names by `--config-dir`."""
    found = []
    for argument, following in pairwise([*sys.argv[1:], ""]):
        if match := CONFIG_DIR.fullmatch(argument):
            found.append(following if match["folder"] is None else match["folder"])
    return found


def groups() -> list[str]:
    """The groups in the order of the defaults list of conf/train.yaml, then the others."""
    found = {
        path.name
        for root in roots()
        for path in root.iterdir()
        if path.is_dir() and any(path.glob("*.yaml"))
    } - {"hydra", "project"}
    order = re.findall(
        r"^  - (\w+): ", (CONF / "train.yaml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return sorted(
        found, key=lambda group: (order.index(group) if group in order else len(order), group)
    )


def options(group: str) -> list[str]:
    """The options of a group, by name; none where there is no such group."""
    return sorted({path.stem for root in roots() for path in (root / group).glob("*.yaml")})


def text_of(group: str, option: str) -> str:
    """An option's file: the one that Hydra would read."""
    files = (root / group / f"{option}.yaml" for root in roots())
    return next(path for path in files if path.is_file()).read_text(encoding="utf-8")


def card(group: str, option: str) -> str:
    """The first comment line of an option's file: what it is."""
    comments = (
        line
        for line in text_of(group, option).splitlines()
        if line.startswith("#") and not line.startswith("# @package")
    )
    return next(comments, "").removeprefix("#").strip()


def options_with(group: str, key: str) -> list[str]:
    """The options of a group whose file has a key, as overrides to write."""
    line = re.compile(rf"^{re.escape(key)}:", flags=re.MULTILINE)
    known = options(group) if group else []
    return [f"{group}={option}" for option in known if line.search(text_of(group, option))]
