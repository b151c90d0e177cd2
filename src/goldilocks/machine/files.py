"""JSON files, written atomically and read with one clear line where they are damaged."""

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from goldilocks.errors import Refused, one_line

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # of an error: the disk, or the user's share of it, is full


def read_json(path: Path, where: str) -> dict[str, Any]:
    """A file that holds an object of JSON.

    Args:
        path: Of the file.
        where: What the file is, for the message.

    Raises:
        Refused: if it is missing, damaged or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{where} cannot be read ({one_line(error)})") from error
    if not isinstance(found, dict):
        raise Refused(f"{where} cannot be read (it holds {json.dumps(found)[:20]}, not an object)")
    return found


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under another name first:
    a reader sees the old file or the new one, never half of it.

    Numbers that are not finite become null, which every reader of JSON understands.
    """
    temporary, text = path.with_name(f".{path.name}.{os.getpid()}"), as_json(value)
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def as_json(value: Any) -> str:
    """A value as its file has it."""
    return json.dumps(finite(value), indent=2, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """A value without NaN and infinities."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
