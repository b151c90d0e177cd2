"""What a wheel has beside src/goldilocks: the options, two pages, and what `goldilocks new` copies.

All else is in pyproject.toml. An editable installation finds these at their own places.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
NAMES_YOURS = "_target_: project."  # an option of src/project/, which is copied and not installed


class BuildWithOptions(build_py):
    """Copies the files of other folders into the package."""

    def run(self) -> None:
        package = Path(self.build_lib) / "goldilocks"
        shutil.rmtree(package, ignore_errors=True)  # of an older build, whose files may be gone
        super().run()
        if self.editable_mode:
            return
        for source, target in files():
            to = package / target
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / source, to)
        (package / "conf" / "__init__.py").touch()  # without it pkg://goldilocks.conf warns


def files():
    """(file of this folder, its place in the package) of each that is copied."""
    template = Path("cli", "template")
    for path in sorted(ROOT.glob("conf/**/*.yaml")):
        source = path.relative_to(ROOT)
        yours = NAMES_YOURS in path.read_text(encoding="utf-8")
        yield source, template / "options" / source.relative_to("conf") if yours else source
    for name in ("guide.md", "options.md"):
        yield Path("docs", name), Path("docs", name)
    for path in sorted(ROOT.glob("src/project/[!_]*.py")):
        yield path.relative_to(ROOT), template / "project" / path.name
    yield Path("tests", "project", "test_loss.py"), template / "yours" / "test_loss.py"


setup(cmdclass={"build_py": BuildWithOptions})
