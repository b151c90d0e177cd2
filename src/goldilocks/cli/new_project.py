"""A project of one's own: the files of cli/template/, and those of src/project/ under its name."""

import importlib.metadata
import json
import keyword
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

from goldilocks import __version__
from goldilocks.config.places import CONF, IS_INSTALLED, PACKAGE, ROOT
from goldilocks.errors import Refused

TEMPLATE = PACKAGE / "cli" / "template"
# A wheel has them in the template: there is no src/project/ beside it.
YOURS = TEMPLATE / "project" if IS_INSTALLED else ROOT / "src" / "project"
OPTIONS = TEMPLATE / "options" if IS_INSTALLED else CONF
TESTS = TEMPLATE / "yours" if IS_INSTALLED else ROOT / "tests" / "project"
NAMED = re.compile(r"\bproject(?=\.(?:model|data|loss|callbacks)\b)|(?<=src/)project\b")
TAKEN = ("conf", "goldilocks", "logs", "project", "src", "tests", "train")


# --- where ----------------------------------------------------------------------------------------


def free_place(folder: Path) -> Path:
    """The absolute path of a folder that may be made.

    Raises:
        Refused: if it is there and not empty, is in goldilocks itself, or its name cannot be that
            of a package of its own.
    """
    found = folder.expanduser().resolve()
    if found.exists() and (not found.is_dir() or any(found.iterdir())):
        raise Refused(f"{folder}: exists and is not empty; write the name of a new folder")
    if above := next((path for path in found.parents if path.is_file()), None):
        raise Refused(f"{folder}: {above} is a file; write another place")
    if found.is_relative_to(PACKAGE if IS_INSTALLED else ROOT):
        raise Refused(
            f"{folder}: is in goldilocks itself; write a place beside it: ../{found.name}"
        )
    refuse_name(found.name)
    return found


def refuse_name(name: str) -> None:
    """Refuses a name that cannot be a package's, or that another package has.

    Raises:
        Refused: for such a name.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        fitting = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
        usable = fitting.isidentifier() and not keyword.iskeyword(fitting)
        raise Refused(
            f"{name}: is no name of a Python package; write letters, digits and _, such as"
            f" {fitting if usable else 'my_project'}"
        )
    if name.lower() in TAKEN or name in sys.stdlib_module_names or is_installed(name):
        raise Refused(
            f"{name}: is taken by Python, an installed package or a file of the project; write"
            f" another name, such as my_{name}"
        )


def is_installed(name: str) -> bool:
    """Whether a package of that name can be imported, not counting the current folder."""
    if name in importlib.metadata.packages_distributions():
        return True
    places = [place for place in sys.path if place and Path(place).resolve() != Path.cwd()]
    found = PathFinder.find_spec(name, places)
    return found is not None and found.loader is not None


# --- what -----------------------------------------------------------------------------------------


def requirement() -> str:
    """What the project depends on: goldilocks at the address, place or version it came from."""
    if not IS_INSTALLED:
        return f"goldilocks @ {ROOT.as_uri()}"
    text = importlib.metadata.distribution("goldilocks").read_text("direct_url.json")
    return requirement_of(json.loads(text) if text else {})


def requirement_of(origin: Mapping) -> str:
    """The same of what pip has written down of an installation (PEP 610).

    >>> requirement_of({"url": "https://x.org", "vcs_info": {"vcs": "git", "commit_id": "a1"}})
    'goldilocks @ git+https://x.org@a1'
    """
    if not origin:
        return f"goldilocks=={__version__}"
    if vcs := origin.get("vcs_info"):
        return f"goldilocks @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}"
    return f"goldilocks @ {origin['url']}"


def files_of(name: str, needs: str) -> dict[str, str]:
    """The text of each file of a project, by its path.

    Args:
        name: Of the project and its package.
        needs: What it depends on.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    written = {}
    for path in sorted(TEMPLATE.rglob("*.jinja")):
        template = environment.from_string(path.read_text(encoding="utf-8"))
        to = path.relative_to(TEMPLATE).as_posix().removesuffix(".jinja")
        written[to.replace("PACKAGE", name)] = template.render(
            name=name, requirement=needs, is_local="file://" in needs
        )
    for to, path in yours(name):
        written[to] = renamed(path.read_text(encoding="utf-8"), name)
    return written


def yours(name: str) -> Iterator[tuple[str, Path]]:
    """Path in the new project, and file, of what is copied: worked examples, their options and
    their test.
    """
    for path in sorted(YOURS.glob("[!_]*.py")):
        yield f"src/{name}/{path.name}", path
    for path in sorted(OPTIONS.rglob("*.yaml")):
        if "_target_: project." in path.read_text(encoding="utf-8"):
            yield f"conf/{path.relative_to(OPTIONS).as_posix()}", path
    yield "tests/test_loss.py", TESTS / "test_loss.py"


def renamed(text: str, name: str) -> str:
    """A file of src/project/ or about it, with another name for the package.

    >>> renamed("from project.loss import A  # in src/project/", "cars")
    'from cars.loss import A  # in src/cars/'
    """
    return NAMED.sub(name, text)


def write(folder: Path, written: Mapping[str, str]) -> None:
    """Writes all files, or none: what was made before an error is removed.

    Raises:
        OSError: what the system says.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    made = missing[-1] if missing else None
    try:
        for name, text in written.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except BaseException:
        for path in [made] if made else list(folder.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
