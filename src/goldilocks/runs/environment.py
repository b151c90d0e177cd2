"""What a run was trained with: git, packages, hardware."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

from goldilocks.config.places import home
from goldilocks.config.privacy import shareable, without_passwords
from goldilocks.errors import Refused
from goldilocks.machine.files import read_json

# --- environment ----------------------------------------------------------------------------------


def recorded_environment(folder: Path) -> dict[str, Any]:
    """What environment.json says of a run's first start, and of the others in `resumed`;
    empty if it is damaged.

    It is a record, which no command needs.
    """
    try:
        known = read_json(folder / "environment.json", "environment.json")
    except Refused:
        return {}
    resumed = known.get("resumed")
    return {**known, "resumed": resumed if isinstance(resumed, list) else []} if known else {}


def recorded_threads(folder: Path) -> int | None:
    """Threads of the CPU that a run was first started with; None where that is not on record."""
    threads = recorded_environment(folder).get("threads")
    return threads if isinstance(threads, int) and threads >= 1 else None


@cache
def environment() -> dict[str, Any]:
    """Code, packages and hardware; read once a process."""
    return {
        "command": without_passwords(" ".join(sys.argv)),
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "torch": torch.__version__,  # with its build (+cu130), which the package's version may lack
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """The versions of what is installed, by name.
    Of two of one name the one that Python imports, which it finds first.

    A folder that pip has left half installed has no name.
    """
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        if "Name" in distribution.metadata:
            found.setdefault(distribution.metadata["Name"], distribution.version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def git_state() -> dict[str, Any]:
    """Commit and uncommitted changes of tracked files, null outside of a git checkout.

    Files that look like secrets are named in `left_out` instead.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=home(),
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    commit = git("rev-parse", "HEAD")
    changes = git("diff", "--no-ext-diff", "HEAD") if commit else None
    diff, left_out = (None, []) if changes is None else shareable(changes)
    return {"commit": commit.strip() if commit else None, "diff": diff, "left_out": left_out}
