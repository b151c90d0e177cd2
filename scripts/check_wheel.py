"""Installs the wheel in an empty environment and trains: `python scripts/check_wheel.py`.

What is checked is what a release is: a wheel without this folder beside it. It trains, writes a new
project, which passes its own tests, and explains an option. Prints what each step took; exit code 1
where one fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ["data=iris", "trainer=smoke"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--borrow",
        action="store_true",
        help="take the dependencies of this Python, in place of installing them",
    )
    parser.add_argument("--output", type=Path, help="a folder in which the wheel is kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(Path(folder), given.borrow, given.output)
        except subprocess.CalledProcessError as error:
            print(error.stdout, file=sys.stderr)
            return 1
    return 0


def check(folder: Path, borrow: bool, output: Path | None) -> None:
    """All steps, in a folder that is empty.

    Raises:
        CalledProcessError: of the step that failed.
    """
    run("the wheel is built", built_by(folder), folder)
    wheel = next(folder.glob("*.whl"))
    run("an environment", [sys.executable, "-m", "venv", "env"], folder)
    python = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if borrow:
        lend(python)
    install = [str(python), "-m", "pip", "install", "-q", str(wheel), "pytest"]
    install += ["--no-deps"] if borrow else ["-c", str(ROOT / "constraints.txt")]
    run("the wheel is installed", install, folder)
    verb = [str(python), "-m", "goldilocks"]
    outside = "import goldilocks, pathlib; assert '{}' not in goldilocks.__file__".format
    run("it is not this folder's", [str(python), "-c", outside(ROOT / "src")], folder)
    run("goldilocks train", [*verb, "train", *TRAIN], folder)
    run("goldilocks doctor", [*verb, "doctor", "data=iris"], folder)
    run("goldilocks explain", [*verb, "explain", "optimizer=nadam"], folder)
    run("goldilocks new", [*verb, "new", "cars"], folder)
    run("train.py of the project", [str(python), "train.py", "trainer=smoke"], folder / "cars")
    run("the project's tests", [str(python), "-m", "pytest"], folder / "cars")
    if output:
        output.mkdir(parents=True, exist_ok=True)
        print(shutil.copy(wheel, output))


def built_by(folder: Path) -> list[str]:
    """The command that builds the wheel into a folder, from a copy of the files that git knows."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (to := folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to)
    return [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", ".", "./source"]


def lend(python: Path) -> None:
    """Lets an environment import what this Python has installed; an editable goldilocks not."""
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    for path in map(Path, sys.path):
        if path.name == "site-packages":  # as PYTHONPATH, so that its own .pth files are not read
            (own / "lent.pth").write_text(f"{path}\n", encoding="utf-8")


def run(step: str, command: list[str], folder: Path) -> None:
    """Runs a step, and prints what it took."""
    began = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        command,
        cwd=folder,
        env=environment,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    print(f"{step:<26}{time.perf_counter() - began:6.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
