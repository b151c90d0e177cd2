"""`--help` of training: every option of every group with a line about it."""

import shutil
import sys
import textwrap

from goldilocks.config.options import card, groups, options

USAGE = {
    " [group=option ...] [key=value ...]": "train one network",
    " -m group=option,option key=value,value": "train one for each combination",
    " resume=last": "continue an interrupted run",
    " --cfg job [...]": "print the configuration, run nothing",
}
ENDLESS = 10_000  # columns of what is no terminal: a line stays a line, as grep likes it
NARROW = 30  # columns, with fewer of which the words stand below the name


def help_text(width: int | None = None) -> str:
    """The usage, and every option of every group with the first line of its file.

    Args:
        width: Columns that a line may have; None: as many as the terminal has.
    """
    width = width or shutil.get_terminal_size((ENDLESS, 24)).columns
    known = {group: options(group) for group in groups()}
    column = 4 + max(len(option) for names in known.values() for option in names)
    train, explain = commands()
    lines = [line for use, told in USAGE.items() for line in row(train + use, told, 58, width)]
    for group, names in known.items():
        lines += ["", group]
        for option in names:
            lines += row(f"  {option}", card(group, option), column, width)
    keys = "optimizer.lr=0.01 trainer.max_epochs=50 regularization=[dropout,l2]"
    return "\n".join(
        [
            *lines,
            "",
            *row("Any key of the configuration:", keys, 30, width),
            *row("All about an option:", f"{explain} optimizer=nadam", 30, width),
        ]
    )


def commands() -> tuple[str, str]:
    """How training, and an explanation, is asked for where this was: of the program, or of
    `goldilocks train`.
    """
    if sys.argv[0].startswith("goldilocks "):
        return "goldilocks train", "goldilocks explain"
    return "python train.py", "python -m goldilocks explain"


def row(name: str, text: str, column: int, width: int) -> list[str]:
    """A name and, from a column on, what it is, in lines of a width; where that is narrow, below
    the name.
    """
    if width - column < NARROW:
        return [
            name,
            *textwrap.wrap(text, width - 6, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    first, *more = textwrap.wrap(text, width - column, break_on_hyphens=False) or [""]
    return [f"{name:<{column}}{first}".rstrip(), *(" " * column + line for line in more)]
