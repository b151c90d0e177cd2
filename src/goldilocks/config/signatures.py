"""A constructor's signature as a schema:
annotations, and what pydantic says of a value in words.
"""

import inspect
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import (
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

LONG = 100  # characters of a value that a message repeats


def is_mapping(annotation: Any) -> bool:
    """Whether a parameter takes a node as it is, instead of what it would build."""
    return dict in (get_origin(annotation), *map(get_origin, get_args(annotation)))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def reasons(error: ValidationError, annotation: Any) -> str:
    """What pydantic found, as part of one line.
    For unions, only what is wrong with the value's own kind.
    """
    found = [entry for entry in error.errors() if entry["type"] != "is_instance_of"]
    if said := description_of(annotation):
        return f"{said} is expected"
    kinds = ("_type", "_parsing", "none_required", "missing", "literal_error")
    of_kind = [entry for entry in found if not entry["type"].endswith(kinds)]
    message = "; ".join(
        dict.fromkeys(entry["msg"].replace("Input should be", "must be") for entry in of_kind)
    )
    return (
        message.replace("String should match", "must match")
        or f"{expected(annotation)} is expected"
    )


def description_of(annotation: Any) -> str | None:
    """What a Field says of its values, in a union too."""
    for part in get_args(annotation):
        if said := getattr(part, "description", None) or description_of(part):
            return said
    return None


def expected(annotation: Any) -> str:
    """An annotation in words: `a whole number or a list`."""
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a word",
        type(None): "null",
    }
    origin = get_origin(annotation)
    if origin is Annotated:
        return expected(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        kinds = sorted(get_args(annotation), key=lambda kind: kind is type(None))
        written = [
            kind for kind in kinds if not inspect.isclass(kind) or kind in words
        ]  # in YAML; a Tensor is not
        return " or ".join(dict.fromkeys(expected(kind) for kind in written or kinds))
    if origin is Literal:
        values = list(dict.fromkeys(str(value) for value in get_args(annotation)))
        return "one of " + ", ".join(values) if len(values) > 1 else values[0]
    if origin is dict:
        inner = get_args(annotation)[1]
        each = "a value" if inner is Any else expected(inner)
        return f"{{KEY: VALUE}} with {each} for each key"
    if origin in (list, tuple):
        inner = expected(get_args(annotation)[0]).removeprefix("a ")
        fixed = origin is tuple and Ellipsis not in get_args(annotation)
        count = f"{len(get_args(annotation))} " if fixed else ""
        return (
            f"a list of {count}{inner}s"
            if inner in ("whole number", "number", "word")
            else "a list"
        )
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def holds_bool(value: Any) -> bool:
    """Whether a value is true or false, or a list with one."""
    return isinstance(value, bool) or (
        isinstance(value, list | tuple) and any(map(holds_bool, value))
    )


def accepts_bool(annotation: Any) -> bool:
    """Whether true and false are meant: pydantic would take them for 1 and 0."""
    if annotation in (bool, Any) or isinstance(annotation, TypeVar):
        return True
    return any(
        accepts_bool(inner)
        for inner in get_args(annotation)
        if not isinstance(inner, str | int | float)
    )


@cache
def parameters_of(function: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a function or constructor by name, without self.

    A constructor's `**options` stands for the keywords of the class above it, which it passes on.
    One that repeats a parameter which that class needs passes the needed ones itself: then they may
    be left out. So does one of Lightning's that needs others (TensorBoardLogger: `save_dir`).
    """
    parameters = dict(inspect.signature(function).parameters)
    if above := class_above(function, parameters):
        parameters = {k: p for k, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
        inherited = parameters_of(above)
        needed = needed_of(inherited)
        passed = needed & parameters.keys() or (is_lightning(function) and needed_of(parameters))
        optional = needed if passed else set()
        inherited = {
            k: p.replace(default=None) if k in optional else p for k, p in inherited.items()
        }
        parameters = {**inherited, **parameters}
    return parameters


def is_lightning(function: Any) -> bool:
    """Whether a class is of the library, whose own checks are to be trusted."""
    return function.__module__.partition(".")[0] == "pytorch_lightning"


def needed_of(parameters: Mapping[str, inspect.Parameter]) -> set[str]:
    """The parameters without a default."""
    gathers = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {k for k, p in parameters.items() if p.default is p.empty and p.kind not in gathers}


def class_above(function: Any, parameters: Mapping[str, inspect.Parameter]) -> type | None:
    """The class to which a constructor passes its `**options` on."""
    if not inspect.isclass(function) or not any(
        p.kind is p.VAR_KEYWORD for p in parameters.values()
    ):
        return None
    own = next((i for i, kind in enumerate(function.__mro__) if "__init__" in vars(kind)), None)
    above = (
        [kind for kind in function.__mro__[own + 1 :] if "__init__" in vars(kind)]
        if own is not None
        else []
    )
    return above[0] if above and above[0] is not object else None


@cache
def hints_of(function: Any) -> dict[str, Any]:
    """The annotations of a function or constructor; those that cannot be evaluated are left out."""
    if inspect.isclass(function):
        above = class_above(function, inspect.signature(function).parameters)
        return {**(hints_of(above) if above else {}), **hints_of(function.__init__)}
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # one annotation under TYPE_CHECKING fails them all: take them one by one
        hints: dict[str, Any] = {}
        for name, annotation in getattr(function, "__annotations__", {}).items():
            try:
                holder = types.SimpleNamespace(__annotations__={name: annotation})
                hints |= get_type_hints(
                    holder, getattr(function, "__globals__", {}), include_extras=True
                )
            except Exception:  # an annotation that cannot be read checks nothing
                continue
        return hints


@cache
def adapters_of(function: Any) -> dict[str, TypeAdapter]:
    """pydantic's checker for each annotated parameter; none where pydantic cannot make one."""
    adapters = {}
    for name, hint in hints_of(function).items():
        for config in (ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False), None):
            try:
                adapters[name] = TypeAdapter(hint, config=config)
                break
            except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
                continue
    return adapters


def name_of(function: Any) -> str:
    """How a class or function is named in messages;
    the schema of the whole configuration says `called` itself.
    """
    return str(getattr(function, "called", getattr(function, "__name__", function)))


def shown(value: Any) -> str:
    """A value as it is written on the command line; the beginning of a long one."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = str(value).replace("'", "").replace(", ", ",")
    return text if len(text) <= LONG else f"{text[:LONG]}... ({len(text)} characters)"
