"""The command line around Hydra:
help without Hydra, and a user's mistake as one line with exit code 2.

Import-light: `--help`, `--cfg job` and tab completion pass here, and none of them needs torch.
"""

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from goldilocks.cli.help import help_text
from goldilocks.cli.mistakes import FULL_ERROR, composed_keys, explain, explain_key, of_import
from goldilocks.config.compose import prepare_hydra
from goldilocks.config.options import roots
from goldilocks.errors import Refused
from goldilocks.machine.interrupts import killed_as_by_ctrl_c

MOVED = ("data.path=", "data.val_path=", "data.test_path=", "data.root=")  # of a run that resumes


def cli(main: Callable[[], None]) -> int:
    """Runs a function decorated by `hydra.main`; returns the exit code.

    0: done. 1: the run failed. 2: the input was refused. 130: interrupted.
    """
    if any(argument in ("--help", "-h") for argument in sys.argv[1:]):
        with refusals() as outcome:
            print(help_text())
        return outcome.code
    sys.argv[1:] = overrides_first(places_of_resumed(sys.argv[1:]))
    with refusals() as outcome:
        refuse_unknown_flag(sys.argv[1:])
        roots()  # refuses a --config-dir that is no folder
        refuse_sweep_without_m(sys.argv[1:])
        main()
    return outcome.code


def refuse_unknown_flag(arguments: Sequence[str]) -> None:
    """Refuses `--epochs 5` in one line, where Hydra would print its own usage."""
    from hydra._internal.utils import get_args_parser

    if (
        path := next((given for given in arguments if re.match("-cp|--config-p", given)), None)
    ) is not None:
        raise Refused(
            f"{path}: conf/ cannot be replaced; write --config-dir FOLDER for options beside it"
        )
    known = get_args_parser()._option_string_actions
    for argument in (
        argument.partition("=")[0] for argument in arguments if argument.startswith("-")
    ):
        begun = argument if argument.startswith("--") else argument[:2]
        if not any(flag.startswith(begun) for flag in known):
            raise Refused(
                f"{argument}: no such option; write key=value, as in trainer.max_epochs=5, or"
                " --help"
            )


def refuse_sweep_without_m(arguments: Sequence[str]) -> None:
    """Refuses an override for sweeps in the command of a single run, where it would do nothing."""
    argument = next(
        (argument for argument in arguments if re.match(r"\+*sweep[.=]", argument)), None
    )
    if argument is not None and not {"-m", "--multirun", "-c", "--cfg", "--info"} & set(arguments):
        key = argument.partition("=")[0].lstrip("+")
        if key not in ("sweep", *composed_keys()) and not key.startswith("sweep.params."):
            raise Refused(explain_key(key))
        raise Refused(
            f"{argument}: is for sweeps; write python train.py -m {shlex.join(arguments)}"
        )


def places_of_resumed(arguments: Sequence[str]) -> list[str]:
    """Overrides in which `data.path` and its kind may be given with `resume`:
    those data are not composed.

    >>> places_of_resumed(["resume=last", "data.path=x.csv"])
    ['resume=last', '++data.path=x.csv']
    """
    if not any(argument.startswith("resume=") for argument in arguments):
        return list(arguments)
    return [f"++{argument}" if argument.startswith(MOVED) else argument for argument in arguments]


def overrides_first(arguments: Sequence[str]) -> list[str]:
    """Hydra takes options before all overrides or after them, but not in between,
    and says so in eight lines.

    >>> overrides_first(["model=deep", "-m", "optimizer.lr=0.1,0.01"])
    ['model=deep', 'optimizer.lr=0.1,0.01', '-m']
    """
    return sorted(
        arguments,
        key=lambda argument: (
            argument.startswith("-") or not ("=" in argument or argument.startswith("~"))
        ),
    )


@dataclass
class Outcome:
    """A command's exit code."""

    code: int = 0


@contextmanager
def refusals() -> Iterator[Outcome]:
    """Turns a user's mistake into one line on stderr and exit code 2;
    HYDRA_FULL_ERROR=1 shows the traceback.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    open_standard_streams()
    prepare_hydra()
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
    except Exception as error:
        if given == "1" or not is_explained(error):
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        outcome.code = 1 if isinstance(error, OSError) else 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        outcome.code = 130
    finally:
        os.environ.pop(FULL_ERROR)
        if given is not None:
            os.environ[FULL_ERROR] = given


def is_explained(error: Exception) -> bool:
    """Whether one line says enough: of the system, as of a full disk;
    of a package that does not fit; of Hydra itself.
    """
    return (
        isinstance(error, OSError)
        or of_import(error) is not None
        or (isinstance(error, ValueError) and raised_by_hydra(error))
    )


@contextmanager
def importing() -> Iterator[None]:
    """Around the first heavy import:
    Hydra would print a line of its own about a package that does not fit.
    """
    try:
        yield
    except Exception as error:
        if of_import(error) is None:
            raise
        raise SystemExit(2) from error


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
    """Opens what was closed when the process began, as by `>&-`:
    a file of ours must not get its place.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def is_first_here() -> bool:
    """Whether this is the first of the processes that torchrun or Slurm have
    started on this machine, or the only one.

    Import-light, unlike `devices`, and all of them refuse the same.
    """
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


def raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra raised an exception itself, about overrides that it could not use."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("hydra.")
