"""Which groups and options there are. Import-light."""

import re

from goldilocks.config.places import CONF


def groups() -> list[str]:
    """The groups in the order of the defaults list of conf/train.yaml, the rest behind them."""
    found = {path.name for path in CONF.iterdir() if path.is_dir() and any(path.glob("*.yaml"))} - {
        "hydra"
    }
    order = re.findall(
        r"^  - (\w+): ", (CONF / "train.yaml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return sorted(
        found, key=lambda group: (order.index(group) if group in order else len(order), group)
    )


def options(group: str) -> list[str]:
    """The options of a group, by name."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def card(group: str, option: str) -> str:
    """The first comment line of an option's file: what it is."""
    lines = (CONF / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    comments = (
        line for line in lines if line.startswith("#") and not line.startswith("# @package")
    )
    return next(comments, "").removeprefix("#").strip()


def options_with(group: str, key: str) -> list[str]:
    """The options of a group whose file has a key, as words to write."""
    if not group or not (CONF / group).is_dir():
        return []
    line = re.compile(rf"^{re.escape(key)}:", flags=re.MULTILINE)
    files = ((option, CONF / group / f"{option}.yaml") for option in options(group))
    return [
        f"{group}={option}"
        for option, path in files
        if line.search(path.read_text(encoding="utf-8"))
    ]
