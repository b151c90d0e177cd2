"""`goldilocks VERB ...`, which is `python -m goldilocks VERB ...`. Import-light."""

import importlib
import os
import sys

from goldilocks import __version__
from goldilocks.config.places import use
from goldilocks.errors import near_miss

VERBS = {
    "train": "train one network, or with -m a sweep of them",
    "doctor": "check a configuration before it is trained",
    "explain": "what an option is, what it does and what was measured",
    "evaluate": "test a finished run",
    "predict": "predict the rows of a file with a finished run",
    "export": "write a finished run's network for other programs",
    "ensemble": "let the networks of a sweep predict together",
    "report": "write the report of a sweep again",
    "new": "write a project of your own, which builds on goldilocks",
}
USAGE = "goldilocks VERB ..."


def main() -> int:
    """Runs the verb that the command names; returns the exit code.

    A project in the current folder is taken before goldilocks' own options.
    """
    verb, *words = sys.argv[1:] or ["--help"]
    if verb in ("--help", "-h"):
        print(help_text())
        return 0
    if verb == "--version":
        print(__version__)
        return 0
    if verb not in VERBS:
        print(f"error: {refusal(verb)}", file=sys.stderr)
        return 2
    use(os.curdir)
    sys.argv[:] = [f"goldilocks {verb}", *words]
    return importlib.import_module(f"goldilocks.cli.verbs.{verb}").main()


def refusal(word: str) -> str:
    """What is said of a word that is no verb."""
    if "=" in word or word == "-m":
        return f"{word}: a verb is expected first; write goldilocks train {word} ..."
    return f"{word}: no such verb; {near_miss(word, list(VERBS))}"


def help_text() -> str:
    """The verbs, a line each."""
    lines = [f"  {verb:<10}{about}" for verb, about in VERBS.items()]
    return "\n".join(
        [
            USAGE,
            "",
            *lines,
            "",
            "goldilocks VERB --help lists what a verb takes, goldilocks train --help every option.",
            "goldilocks explain optimizer=nadam tells all about one.",
        ]
    )
