"""From a composed configuration to objects: `build` is the only place where a `_target_` becomes one.

A constructor's annotations are the schema. `check_arguments` compares a node with them before anything is built and
says which key, which value, what was expected. Only classes that are defined under an allowed package and that subclass
what their place calls for are ever built: a configuration from a stranger must not run arbitrary code.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import (
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

from goldilocks.errors import EXTRAS, Refused, missing, near_miss, one_line

LONG = 100  # characters of a value that a message repeats
PACKAGES = (
    *("goldilocks", "torch", "pytorch_lightning", "torchmetrics", "sklearn", "optuna"),
    *("pytorch_optimizer", "timm"),
)
T = TypeVar("T")


def build(
    node: Mapping[str, Any],
    base: type[T],
    where: str,
    *,
    packages: Iterable[str] = (),
    offered: Mapping[str, Any] | None = None,
    **live: Any,
) -> T:
    """Builds the object that a node describes: `_target_` and flat keywords.

    Args:
        node: The node, resolved. Values that are nodes with a `_target_` are built first.
        base: The class that the target must be or subclass.
        where: The node's key in the configuration, for messages.
        packages: Packages allowed beside PACKAGES.
        offered: Live values that are passed where the class takes them and the node does not say them itself.
        live: Live values that are always passed. They never appear in a configuration.

    Raises:
        Refused: if the target is not allowed, a keyword unknown or a value not what the annotation says.
    """
    target: Any = find_class(node, base, where, packages)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    if both := arguments.keys() & live.keys():
        raise Refused(f"{where}.{min(both)}: is set by the run itself; leave it out")
    parameters = parameters_of(target)
    extra = {
        key: value
        for key, value in (offered or {}).items()
        if key in parameters and key not in arguments
    }
    checked = check_arguments(target, arguments, where, packages, given=live.keys() | extra.keys())
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not open_ended and (foreign := live.keys() - parameters.keys()):
        takes = ", ".join(sorted(foreign))
        raise Refused(f"{where}._target_={node['_target_']}: its constructor does not take {takes}")
    try:
        return target(**checked, **extra, **live)
    except Refused:
        raise
    except ModuleNotFoundError as error:  # a constructor that imports what only it needs
        raise Refused(f"{where}._target_={node['_target_']}: {missing(error)}") from error
    except Exception as error:
        usual = isinstance(
            error, ValueError | TypeError | ArithmeticError | RuntimeError | MemoryError
        )
        if not usual and top_level(type(error)) != top_level(
            target
        ):  # a library's own kind of exception
            raise
        raise Refused(f"{culprit(where, arguments, one_line(error))}: {one_line(error)}") from error


def find_class(
    node: Mapping[str, Any], base: type[T], where: str, packages: Iterable[str] = ()
) -> type[T]:
    """Imports a node's `_target_`, if that is allowed.

    Raises:
        Refused: if there is none, it is not under an allowed package, or it is not a `base`.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise Refused(f"{where}: needs an option with a _target_, got {node!r}")
    path, allowed = node["_target_"], {*PACKAGES, *packages}
    top = path.partition(".")[0]
    if top not in allowed:
        raise Refused(
            f"{where}._target_={path}: package {top} is not allowed (allowed: {', '.join(sorted(allowed))});"
            " add your own to `packages` in conf/train.yaml"
        )
    refuse_unless_written(path, where)
    found = import_path(path, where)
    if not inspect.isclass(found) or top_level(found) not in allowed or not issubclass(found, base):
        raise Refused(
            f"{where}._target_={path}: must be a subclass of {base.__module__}.{base.__name__}"
        )
    if inspect.isabstract(found):
        raise Refused(f"{where}._target_={path}: is abstract; name a class that can be built")
    return found


def refuse_unless_written(path: str, where: str) -> None:
    """Refuses a class that its module does not have, before the module is imported: a script would run by that."""
    if "." not in path:
        return
    module, name, file = source_of(path)
    if module in sys.modules or file is None:
        return
    tree = ast.parse(file.read_bytes())
    known = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in (
        ast.walk(tree) if file.name == "__init__.py" else []
    ):  # hands on its modules' classes
        if isinstance(node, ast.ImportFrom):
            known += [alias.asname or alias.name for alias in node.names]
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            known.append("*")
    if not {name, "*"} & set(known):
        raise Refused(
            f"{where}._target_={path}: {name} is not in {module}; {near_miss(name, known)}"
        )


def source_of(path: str) -> tuple[str, str, Path | None]:
    """A target's module, what is asked of it, and its source, found without running it; None if there is none."""
    parts, spec, count = path.split("."), None, 0
    for count, _ in enumerate(parts[:-1]):
        module, places = ".".join(parts[: count + 1]), spec and spec.submodule_search_locations
        if module in sys.modules:
            found = getattr(sys.modules[module], "__spec__", None)
        elif count == 0:
            found = importlib.util.find_spec(module)
        else:
            found = PathFinder.find_spec(module, places) if places is not None else None
        if found is None:
            count -= 1
            break
        spec = found
    file = Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None
    source = file if file is not None and file.suffix == ".py" else None
    return ".".join(parts[: count + 1]), parts[count + 1], source


def import_path(path: str, where: str) -> Any:
    """Imports `package.module.Name`."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                continue
            raise Refused(f"{where}._target_={path}: {missing(error)}") from error
        for part in parts[cut:]:
            if not hasattr(found, part):
                known = [word for word in dir(found) if word[0].isupper()]
                raise Refused(
                    f"{where}._target_={path}: {part} is not in {name}; {near_miss(part, known)}"
                )
            found = getattr(found, part)
        return found
    if parts[0] in EXTRAS and not importlib.util.find_spec(parts[0]):
        raise Refused(f"{where}._target_={path}: {missing(ModuleNotFoundError(name=parts[0]))}")
    raise Refused(f"{where}._target_={path}: no such module")


def top_level(kind: type) -> str:
    """The package that a class is defined in."""
    return kind.__module__.partition(".")[0]


def culprit(where: str, arguments: Mapping[str, Any], message: str) -> str:
    """The argument that a library's message quotes the value of, as it was written; else only the place."""
    words = set(re.findall(r"[-+]?\w+(?:\.\w+)?", message))
    quoted = [
        key
        for key, value in arguments.items()
        if {str(value), str(float(value) if is_number(value) else value)} & words
    ]
    return f"{where}.{quoted[0]}={shown(arguments[quoted[0]])}" if len(quoted) == 1 else where


def is_mapping(annotation: Any) -> bool:
    """Whether a parameter takes a node as it is, instead of what it would build."""
    return dict in (get_origin(annotation), *map(get_origin, get_args(annotation)))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- arguments against annotations ------------------------------------------------------------------------------------


def check_arguments(
    function: Any,
    arguments: Mapping[str, Any],
    where: str,
    packages: Iterable[str] = (),
    *,
    given: Iterable[str] = (),
) -> dict[str, Any]:
    """Checks keywords against a constructor's (or function's) signature; returns them converted.

    Lists become tuples where the annotation says so; nodes with a `_target_` are built.

    Args:
        function: A class or function with annotations.
        arguments: The keywords from the configuration.
        where: Their place in the configuration; empty at the top.
        packages: Packages allowed beside PACKAGES.
        given: Parameters that the caller passes, which need not be in `arguments`.

    Raises:
        Refused: for an unknown, missing or wrong keyword.
    """
    parameters = parameters_of(function)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    checked = {}
    for key, value in arguments.items():
        path = f"{where}.{key}" if where else str(key)
        parameter = parameters.get(key)
        if parameter is None or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            if not open_ended or key.startswith("_"):
                known = [name for name in parameters if name not in given]
                raise Refused(
                    f"{path}: {name_of(function)} has no such key; {near_miss(key, known)}"
                )
            checked[key] = value
        elif (
            isinstance(value, Mapping)
            and "_target_" in value
            and not is_mapping(hints_of(function).get(key))
        ):
            checked[key] = build(value, nested_base(function, key, path), path, packages=packages)
        else:
            checked[key] = check_value(function, key, value, path)
    for key, parameter in parameters.items():
        keyword = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if (
            keyword
            and parameter.default is parameter.empty
            and key not in checked
            and key not in given
        ):
            raise Refused(
                f"{where + '.' if where else ''}{key}: is missing; {name_of(function)} needs it"
            )
    return checked


def check_value(function: Any, key: str, value: Any, path: str) -> Any:
    """Checks one value against the parameter's annotation; returns it converted."""
    adapter = adapters_of(function).get(key)
    if adapter is None:
        return value
    annotation = hints_of(function)[key]
    if holds_bool(value) and not accepts_bool(annotation):
        raise Refused(
            f"{path}={shown(value)}: {expected(annotation)} is expected, not true or false"
        )
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise Refused(f"{path}={shown(value)}: {reasons(error, annotation)}") from error


def reasons(error: ValidationError, annotation: Any) -> str:
    """What pydantic found, as part of one line. For unions, only what is wrong with the value's own kind."""
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


def nested_base(function: Any, key: str, path: str) -> type:
    """The class that a nested node must build: the one that the parameter is annotated with."""
    annotation = hints_of(function).get(key)
    kinds = [kind for kind in (annotation, *get_args(annotation)) if inspect.isclass(kind)]
    kinds = [
        kind
        for kind in kinds
        if kind.__module__.partition(".")[0] not in ("builtins", "typing", "types")
    ]
    if len(kinds) != 1:
        raise Refused(f"{path}: takes no _target_")
    return kinds[0]


@cache
def parameters_of(function: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a function or constructor by name, without self.

    A constructor's `**options` stands for the keywords of the class above it, which it passes on. One that repeats a
    parameter which that class needs passes the needed ones itself: then they may be left out.
    """
    parameters = dict(inspect.signature(function).parameters)
    if above := class_above(function, parameters):
        parameters = {k: p for k, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
        inherited = parameters_of(above)
        needed = {k for k, p in inherited.items() if p.default is p.empty}
        optional = needed if needed & parameters.keys() else set()
        inherited = {
            k: p.replace(default=None) if k in optional else p for k, p in inherited.items()
        }
        parameters = {**inherited, **parameters}
    return parameters


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
    """How a class or function is named in messages; the schema of the whole configuration says `called` itself."""
    return str(getattr(function, "called", getattr(function, "__name__", function)))


def shown(value: Any) -> str:
    """A value as it is written on the command line; the beginning of a long one."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = str(value).replace("'", "").replace(", ", ",")
    return text if len(text) <= LONG else f"{text[:LONG]}... ({len(text)} characters)"
