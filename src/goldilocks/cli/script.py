"""What the scripts share: their arguments, checked before any work. Import-light."""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

RUN = (
    "a run folder, or last: the one that was started or resumed last"
    " (a sweep's trials are named by their folder)"
)
PICTURES = (".png", ".pdf", ".svg", ".jpg")


class ScriptParser(argparse.ArgumentParser):
    """Tells a mistake in one line, like every other command here.

    Args:
        doc: The script's docstring, whose first line is the description.
    """

    def __init__(self, doc: str | None) -> None:
        super().__init__(description=(doc or "").split("\n", 1)[0])

    def takes_overrides(self) -> "ScriptParser":
        """Adds the overrides of one configuration, and the folder of options that they may name."""
        self.add_argument("overrides", nargs="*", help="as of train.py")
        self.add_argument("--config-dir", metavar="FOLDER", help="of options beside conf/")
        return self

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """The arguments; overrides of a run that resumes are refused:
        the scripts begin with a configuration.
        """
        given = super().parse_args(*args, **kwargs)
        for override in getattr(given, "overrides", []):
            if override.startswith("resume="):
                self.error(f"{override}: is for python train.py alone; leave it out")
        return given

    def error(self, message: str) -> NoReturn:
        if {"-m", "--multirun"} & set(sys.argv[1:]) and "unrecognized" in message:
            message = "-m: this script takes one configuration, no sweep; leave it out"
        self.exit(2, f"error: {message}\n")


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number of at least 1 is expected")
    return int(text)


def picture(text: str) -> Path:
    """An argument that names a picture to be written."""
    path = Path(text).expanduser()
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a folder; write a file in it: {path}/x.png")
    if path.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(
            f"{text}: is no picture; write a name that ends in one of {', '.join(PICTURES)}"
        )
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: {above} is no folder; write another place")
    return path
