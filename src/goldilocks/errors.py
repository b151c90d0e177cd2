"""How a user's mistake is told. Import-light: the command line needs it before torch."""

import difflib
from collections.abc import Iterable


class Refused(ValueError):  # noqa: N818 - reads as a verdict on the input, which it is
    """The user's input cannot be used. The message is one line: what was given, what is allowed, what to write.

    The command line prints it without a traceback and exits with code 2.
    """


def near_miss(word: str, known: Iterable[str]) -> str:
    """Names the known words closest to `word`, or all of them where none is close.

    >>> near_miss("nadm", ["adam", "nadam", "sgd"])
    'did you mean nadam?'
    >>> near_miss("zzz", ["adam", "sgd"])
    'write one of: adam, sgd'
    """
    known = sorted(set(known))
    lowered = {name.lower(): name for name in known}
    begun = [name for name in lowered if len(word) > 1 and name.startswith(word.lower())]
    close = begun or difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"did you mean {lowered[close[0]]}?"
    return f"write one of: {', '.join(known)}" if known else "there is nothing to choose from"
