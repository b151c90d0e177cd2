"""The command line around Hydra: help without Hydra, and a user's mistake as one line with exit code 2.

Import-light: `--help`, `--cfg job` and tab completion pass here, and none of them needs torch.
"""

import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from goldilocks.errors import Refused, near_miss
from goldilocks.grammar import read_as_typed
from goldilocks.interrupts import killed_as_by_ctrl_c
from goldilocks.places import CONF

MOVED = ("data.path=", "data.val_path=", "data.test_path=", "data.root=")  # of a run that resumes
FROM_LIGHTNING = {
    "fast_dev_run": "trainer=smoke",
    "overfit_batches": "trainer.limit_train_batches=N",
    "val_check_interval": "trainer.check_val_every_n_epoch=N",
    "gpus": "trainer=gpu trainer.devices=N",
    "ckpt_path": "resume=RUN",
    "learning_rate": "optimizer.lr",
}  # keys of other projects
FULL_ERROR = "HYDRA_FULL_ERROR"
BEGAN = time.perf_counter()  # this process, but for the start of Python


def cli(main: Callable[[], None]) -> int:
    """Runs a function decorated by `hydra.main`; returns the exit code.

    0: done. 1: the run failed. 2: the input was refused. 130: interrupted.
    """
    if any(word in ("--help", "-h") for word in sys.argv[1:]):
        with somebody_reads():
            print(help_text())
        return 0
    sys.argv[1:] = overrides_first(places_of_resumed(sys.argv[1:]))
    with refusals() as outcome:
        refuse_unknown_flag(sys.argv[1:])
        refuse_sweep_without_m(sys.argv[1:])
        main()
    return outcome.code


def refuse_unknown_flag(words: Sequence[str]) -> None:
    """Refuses `--epochs 5` in one line, where Hydra would print its own usage."""
    from hydra._internal.utils import get_args_parser

    if (path := next((w for w in words if re.match("-cp|--config-p", w)), None)) is not None:
        raise Refused(
            f"{path}: conf/ cannot be replaced; write --config-dir FOLDER for options beside it"
        )
    known = get_args_parser()._option_string_actions
    for word in (word.partition("=")[0] for word in words if word.startswith("-")):
        begun = word if word.startswith("--") else word[:2]
        if not any(flag.startswith(begun) for flag in known):
            raise Refused(
                f"{word}: no such option; write key=value, as in trainer.max_epochs=5, or --help"
            )


def refuse_sweep_without_m(words: Sequence[str]) -> None:
    """Refuses a word for sweeps in the command of a single run, where it would do nothing."""
    word = next((word for word in words if re.match(r"\+*sweep[.=]", word)), None)
    if word is not None and not {"-m", "--multirun", "-c", "--cfg", "--info"} & set(words):
        raise Refused(f"{word}: is for sweeps; write python train.py -m {shlex.join(words)}")


def places_of_resumed(words: Sequence[str]) -> list[str]:
    """Overrides in which `data.path` and its kind may be given with `resume`: those data are not composed.

    >>> places_of_resumed(["resume=last", "data.path=x.csv"])
    ['resume=last', '++data.path=x.csv']
    """
    if not any(word.startswith("resume=") for word in words):
        return list(words)
    return [f"++{word}" if word.startswith(MOVED) else word for word in words]


def overrides_first(words: Sequence[str]) -> list[str]:
    """Hydra takes options before all overrides or behind them, but not in between, and says so in eight lines.

    >>> overrides_first(["model=deep", "-m", "optimizer.lr=0.1,0.01"])
    ['model=deep', 'optimizer.lr=0.1,0.01', '-m']
    """
    return sorted(
        words, key=lambda word: word.startswith("-") or not ("=" in word or word.startswith("~"))
    )


@dataclass
class Outcome:
    """The exit code that a command comes to."""

    code: int = 0


@contextmanager
def refusals() -> Iterator[Outcome]:
    """Turns a user's mistake into one line on stderr and exit code 2; HYDRA_FULL_ERROR=1 shows the traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    open_standard_streams()
    register_resolvers()
    outcome, given = Outcome(), os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # hydra.main then raises instead of printing several lines
    try:
        with killed_as_by_ctrl_c(), somebody_reads():
            yield outcome
    except (Refused, HydraException, OmegaConfBaseException, SystemExit) as error:
        mistake = error.__cause__ if isinstance(error, SystemExit) else error
        code = error.code if isinstance(error, SystemExit) else 2
        outcome.code = code if isinstance(code, int) else int(code is not None)
        if mistake is not None and given == "1":
            raise mistake from None
        if mistake is not None and is_first_here():
            print(f"error: {explain(mistake)}", file=sys.stderr)
    except ValueError as error:
        if given == "1" or not raised_by_hydra(error):
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        outcome.code = 2
    except OSError as error:  # a full disk, a folder that was moved meanwhile
        if given == "1":
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        outcome.code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        outcome.code = 130
    finally:
        os.environ.pop(FULL_ERROR)
        if given is not None:
            os.environ[FULL_ERROR] = given


@contextmanager
def somebody_reads() -> Iterator[None]:
    """Ends in silence what prints to a reader that has gone, as `head` has after ten lines."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        print_nowhere()
    except OSError:
        print_nowhere()  # it may be what could not be written
        raise


def print_nowhere() -> None:
    """Gives up what is still to be printed. Python flushes once more at its end, and would fail."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_standard_streams() -> None:
    """Opens what was closed when the process began, as by `>&-`: a file of ours must not get its place."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def is_first_here() -> bool:
    """Whether this is the first of the processes that torchrun or Slurm have started on this machine, or the only one.

    Import-light, unlike `devices`, and all of them refuse the same.
    """
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


def raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra raised an exception itself, about words that it could not use."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("hydra.")


def register_resolvers() -> None:
    """Registers `${direction:METRIC}`: min or max, whichever is better for the metric. Called before Hydra composes.

    From then on files of others are judged. Also welcomes, in silence, the schemas that launchers' packages bring for files of the same names in conf/.
    """
    from omegaconf import OmegaConf

    from goldilocks.metric_names import direction
    from goldilocks.strangers import guard_hydra

    OmegaConf.register_new_resolver("direction", direction, replace=True)
    guard_hydra()
    read_as_typed()
    warnings.filterwarnings("ignore", message="(?s).*is validated against ConfigStore schema")


# --- help -------------------------------------------------------------------------------------------------------------


def help_text() -> str:
    """The usage, and every option of every group with the first line of its file."""
    lines = [
        "python train.py [group=option ...] [key=value ...]      train one network",
        "python train.py -m group=option,option key=value,value  train one for each combination",
        "python train.py resume=last                             continue an interrupted run",
        "python train.py --cfg job [...]                         print the configuration, run nothing",
    ]
    for group in groups():
        lines += ["", f"{group}"]
        lines += [f"  {option:<16} {card(group, option)}" for option in options(group)]
    lines += [
        "",
        "Any key of the configuration: optimizer.lr=0.01 trainer.max_epochs=50 regularization=[dropout,l2]",
    ]
    return "\n".join(lines)


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


# --- errors -----------------------------------------------------------------------------------------------------------


def explain(error: BaseException) -> str:
    """One line for an error of Hydra, OmegaConf or ours: what was given and what to write instead."""
    if isinstance(error, Refused):
        return str(error)
    text = " ".join(str(error).split())
    if missing := getattr(error, "missing_cfg_file", None):  # Hydra's, which is an OSError too
        return explain_option(str(missing))
    if isinstance(error, OSError):
        return of_system(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        return explain_key(match[1].split("@")[0])
    if match := re.search(r"Could not delete '([^']+)'\. No match in the defaults list", text):
        return f"~{match[1]}: cannot be left out; write {match[1].split('=')[0]}=none, or choose another option"
    if match := re.search(r"Could not delete from config\. '([^']+)'", text):
        return explain_key(match[1])
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


def explain_option(missing: str) -> str:
    """`optimizer/nadm` was asked for: names the group's options."""
    group, _, option = missing.removesuffix(".yaml").rstrip("/").rpartition("/")
    if missing.startswith("data/") and "." in option:
        path = missing.removeprefix("data/").removesuffix(".yaml")
        return (
            f"data={path}: no such option; a file is data=table data.path={path} data.target=COLUMN"
        )
    if group.startswith("hydra/"):
        known = ["basic", *(options(group) if (CONF / group).is_dir() else [])]
        return f"{group}={option}: no such option, or its plugin is not installed; {near_miss(option, known)}"
    if not group or not (CONF / group).is_dir():
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
    if others := options_with(top, rest.partition(".")[0]) if rest else []:
        which = "" if len(others) == 1 else "one of: "
        return f"{key}: no such key in the {top} chosen; write {which}{', '.join(others)}"
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    within = f" in {parent}" if parent and siblings else ""
    return f"{key}: no such key{within}; " + near_miss(key, siblings or known | set(groups()))


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


def explain_override(override: str) -> str:
    """The word could not be read as key=value."""
    word = override.split("\n")[0].strip()
    return f"{word}: cannot be read; write key=value, group=option or group=[option,option], without spaces around ="


def composed_keys() -> Iterator[str]:
    """Every dotted key of the configuration that the given options compose (without the given values)."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    chosen = [
        word for word in sys.argv[1:] if re.fullmatch(rf"({'|'.join(groups())})=[\w-]+", word)
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            cfg = compose("train", overrides=chosen)
        except HydraException:
            cfg = compose("train")
    yield from dotted_keys(cfg)


def dotted_keys(node: Iterable, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a nested mapping, the inner nodes' included."""
    from omegaconf import DictConfig

    assert isinstance(node, DictConfig)
    for key in map(str, node):
        yield f"{prefix}{key}"
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from dotted_keys(child, f"{prefix}{key}.")
