"""One line for an error of Hydra, OmegaConf or ours: what was given and what to write instead."""

import importlib.metadata
import re
import sys
import traceback
from collections.abc import Iterable, Iterator

from goldilocks.config.options import groups, options, options_with, roots
from goldilocks.config.places import CONF
from goldilocks.errors import Refused, near_miss, one_line

FROM_LIGHTNING = {
    "fast_dev_run": "trainer=smoke",
    "overfit_batches": "trainer.limit_train_batches=N",
    "val_check_interval": "trainer.check_val_every_n_epoch=N",
    "gpus": "trainer=gpu trainer.devices=N",
    "ckpt_path": "resume=RUN",
    "learning_rate": "optimizer.lr",
}  # keys of other projects
FULL_ERROR = "HYDRA_FULL_ERROR"
OF_ONE_TORCH = (
    "torchvision",
    "torchaudio",
)  # compiled for one torch; torchmetrics imports what it finds


# --- errors ---------------------------------------------------------------------------------------


def explain(error: BaseException) -> str:
    """One line for an error of Hydra, OmegaConf or ours:
    what was given and what to write instead.
    """
    if isinstance(error, Refused):
        return str(error)
    if line := of_import(error):
        return line
    text = " ".join(str(error).split())
    if missing := getattr(error, "missing_cfg_file", None):  # Hydra's, which is an OSError too
        return explain_option(str(missing))
    if isinstance(error, OSError):
        return of_system(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1].split("@")[0]
        return with_pointer(explain_key(key), key)
    if match := re.search(r"Could not delete '([^']+)'\. No match in the defaults list", text):
        group = match[1].split("=")[0]
        if group not in groups():
            return f"~{match[1]}: no such key; {near_miss(group, groups())}"
        known = options(group)
        instead = f"write {group}=none, or choose" if "none" in known else "choose"
        return f"~{match[1]}: cannot be left out; {instead} one of: {', '.join(known)}"
    if match := re.search(r"Could not delete from config\. '([^']+)'", text):
        return with_pointer(explain_key(match[1]), match[1])
    if match := re.search(r"Interpolation key '([^']+)' not found(?:.*full_key: (\S+))?", text):
        return f"{match[2] or 'the configuration'} refers to {match[1]}, which does not exist"
    if match := re.search(r"Sweep parameters '([^']+)' requires --multirun", text):
        return f"{match[1]}: stands for several values; write one, or -m for a sweep over them"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match[1]}: several values; write -m for a sweep over them, or [a,b] for a list"
    if (
        type(error).__name__ == "OverrideParseException"
        or "mismatched input" in text
        or "token recognition" in text
    ):
        return explain_override(getattr(error, "override", None) or text)
    return text


def of_system(error: OSError) -> str:
    """One line for what the system refuses."""
    where = f"{error.filename}: " if error.filename else ""
    said = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{where}{said}; {FULL_ERROR}=1 shows where it was met"


def of_import(error: BaseException) -> str | None:
    """One line for an installed package that fails while it is imported,
    as one made for another torch does.

    None where no package does, or one that is not installed:
    a user's own module, whose traceback is needed.
    """
    importing = [
        frame.f_globals.get("__name__", "")
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    ]
    package = importing[-1].partition(".")[0] if importing else ""
    names = importlib.metadata.packages_distributions().get(package)
    if package == "goldilocks" or not names:
        return None
    version = importlib.metadata.version(names[0])
    why = f"{type(error).__name__}: {one_line(error)}"
    if package not in OF_ONE_TORCH:
        return (
            f"{names[0]} {version} cannot be imported ({why});"
            " install versions that fit: pip install -e . -c constraints.txt"
        )
    torch = getattr(sys.modules.get("torch"), "__version__", importlib.metadata.version("torch"))
    return (
        f"{names[0]} {version} does not fit torch {torch} ({why}); install the one made for this"
        " torch,"
        f" from where torch came from, or remove it: pip uninstall {names[0]}"
    )


def explain_option(missing: str) -> str:
    """`optimizer/nadm` was asked for: names the group's options."""
    group, _, option = missing.removesuffix(".yaml").rstrip("/").rpartition("/")
    if missing.startswith("data/") and "." in option:
        path = missing.removeprefix("data/").removesuffix(".yaml")
        return (
            f"data={path}: no such option; a file is data=table data.path={path} data.target=COLUMN"
        )
    if group.startswith("hydra/"):
        known = ["basic", *options(group)]
        return (
            f"{group}={option}: no such option, or its plugin is not installed;"
            f" {near_miss(option, known)}"
        )
    if not group or not options(group):
        return f"{option or missing}: no such configuration; " + near_miss(
            option or missing, groups()
        )
    known = options(group)
    text = near_miss(option, known)
    return f"{group}={option}: no such option; {text}" + (
        "" if "one of" in text else f" ({', '.join(known)})"
    )


def explain_key(key: str) -> str:
    """`optimizer.lrr` is not in the configuration: names the nearest key that is."""
    if other := FROM_LIGHTNING.get(key.rpartition(".")[2]):
        return f"{key}: no such key; write {other}"
    known = set(composed_keys())
    parent = key.rpartition(".")[0]
    if not parent and (
        longer := sorted(
            name for name in known if name.endswith(f".{key}") and ".search." not in name
        )
    ):
        return (
            f"{key}: no such key; write {'one of: ' if len(longer) > 1 else ''}{', '.join(longer)}"
        )
    if others := options_with(parent, key.rpartition(".")[2]):
        which = "" if len(others) == 1 else "one of: "
        return f"{key}: no such key in the {parent} chosen; write {which}{', '.join(others)}"
    top, _, rest = parent.partition(".")
    first = rest.partition(".")[0]
    is_known = f"{top}.{first}" in known  # a value, which has no keys
    if others := options_with(top, first) if rest and not is_known else []:
        which = "" if len(others) == 1 else "one of: "
        return f"{key}: no such key in the {top} chosen; write {which}{', '.join(others)}"
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    within = f" in {parent}" if parent and siblings else ""
    return f"{key}: no such key{within}; " + near_miss(key, siblings or known | set(groups()))


def with_pointer(line: str, key: str) -> str:
    """A line about a key that no option has, with the command that tells what there is."""
    group, dot, _ = key.partition(".")
    if not dot or group not in groups() or not ("did you mean" in line or "write one of" in line):
        return line
    text = (CONF / "train.yaml").read_text(encoding="utf-8")
    usual = [f"{group}={name}" for name in re.findall(rf"^  - {group}: (\w+)", text, re.MULTILINE)]
    given = [word for word in sys.argv[1:] if re.fullmatch(rf"{group}=[\w-]+", word)]
    return f"{line} python -m goldilocks explain {[group, *usual, *given][-1]} lists them"


def explain_override(override: str) -> str:
    """An override that could not be read as key=value."""
    text = override.split("\n")[0].strip()
    return (
        f"{text}: cannot be read; write key=value, group=option or group=[option,option], without"
        " spaces around ="
    )


def composed_keys() -> Iterator[str]:
    """Every dotted key of the configuration that the given options
    compose (without the given values).
    """
    from hydra.errors import HydraException

    from goldilocks.config.compose import composed_from

    chosen = [
        argument
        for argument in sys.argv[1:]
        if re.fullmatch(rf"({'|'.join(groups())})=[\w-]+", argument)
    ]
    try:
        cfg = composed_from(roots(), chosen)
    except HydraException:
        cfg = composed_from(roots(), [])
    yield from (key for key in dotted_keys(cfg) if key.partition(".")[0] != "hydra")


def dotted_keys(node: Iterable, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a nested mapping, the inner nodes' included."""
    from omegaconf import DictConfig

    assert isinstance(node, DictConfig)
    for key in map(str, node):
        yield f"{prefix}{key}"
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from dotted_keys(child, f"{prefix}{key}.")
