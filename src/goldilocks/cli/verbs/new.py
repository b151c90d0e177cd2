"""Writes a small project of your own, which takes its options and code from goldilocks."""

import shlex
from pathlib import Path

from goldilocks.cli.main import refusals
from goldilocks.cli.script import ScriptParser


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("folder", type=Path, help="to be made; its name is the package's")
    given = parser.parse_args()
    with refusals() as outcome:
        from goldilocks.cli.new_project import files_of, free_place, requirement, write

        folder = free_place(given.folder)
        needs = requirement()
        written = files_of(folder.name, needs)
        write(folder, written)
        lines = sum(text.count("\n") for text in written.values())
        print(f"{folder}: {len(written)} files, {lines} lines; it needs {needs}")
        print(f"cd {shlex.quote(str(given.folder))} && python train.py")
    return outcome.code
