"""Where the options are: those of goldilocks, and those of a project that builds on it."""

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IS_INSTALLED = (PACKAGE / "conf" / "train.yaml").is_file()  # a wheel has conf/ within the package
SOURCE = PACKAGE.parent
ROOT = SOURCE if IS_INSTALLED else SOURCE.parent
CONF = PACKAGE / "conf" if IS_INSTALLED else ROOT / "conf"
DOCS = PACKAGE / "docs" if IS_INSTALLED else ROOT / "docs"
PROJECT = "GOLDILOCKS_PROJECT"  # the variable by which processes that are started know the project
OWN = Path("conf", "project", "default.yaml")  # what makes a folder a project
OF_RUNS = ("config.yaml", "result.json", "sweep.yaml")  # in a run or sweep folder, maybe another's


def use(folder: Path | str) -> None:
    """Takes a folder's conf/ before goldilocks' own, and makes src/ of it importable.

    Nothing happens where the folder is no project: it has no conf/project/default.yaml, is a run or
    sweep folder, or the checkout of goldilocks. Its files are trusted from then on, as a Makefile
    is: docs/security.md.
    """
    of_runs = any(os.path.lexists(os.path.join(folder, name)) for name in OF_RUNS)
    if of_runs or not os.path.isfile(os.path.join(folder, OWN)):
        return
    found = Path(folder).resolve()
    if found / "conf" == CONF:
        return
    os.environ[PROJECT] = str(found)
    if (source := str(found / "src")) not in sys.path:
        sys.path.insert(0, source)


def project() -> Path | None:
    """The project in use, if any."""
    return Path(os.environ[PROJECT]) if os.environ.get(PROJECT) else None


def home() -> Path:
    """The folder whose code a run is trained with: the project's, or where goldilocks is.

    Never the current folder by itself, which may be a run folder of somebody else's.
    """
    return project() or ROOT


def own_conf() -> list[Path]:
    """The folders of options that are trusted, in the order in which they are looked for."""
    found = project()
    return [CONF] if found is None else [found / "conf", CONF]
