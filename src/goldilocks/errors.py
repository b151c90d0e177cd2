"""How a user's mistake is reported. Import-light: the command line needs it before torch."""

import difflib
from collections.abc import Iterable

EXTRAS = {
    "pytorch_optimizer": "optimizers",
    "timm": "pretrained",
    "pyarrow": "parquet",
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
    **dict.fromkeys(("optuna", "cmaes", "plotly"), "sweep"),
    "hydra_joblib_launcher": "joblib",
    "hydra_submitit_launcher": "submitit",
    "hydra_ray_launcher": "ray",
    "optuna_dashboard": "dashboard",
    **{name: name for name in ("wandb", "mlflow", "trackio")},
}  # of pyproject.toml, by the package that needs it


class Refused(ValueError):  # noqa: N818 - reads as a verdict on the input, which it is
    """The user's input cannot be used.
    The message is one line: what was given, what is allowed, what to write.

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


def missing(error: ModuleNotFoundError) -> str:
    """What a package that is not installed means for the user:
    how it is installed, where it belongs to an extra.
    """
    if error.name is None:
        return one_line(error)
    extra = EXTRAS.get(error.name.partition(".")[0])
    how = f"; pip install -e '.[{extra}]'" if extra else ""
    return f"needs the package {error.name}, which is not installed{how}"


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
