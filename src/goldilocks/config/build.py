"""From a composed configuration to objects:
`build` is the only place where a `_target_` becomes one.

A constructor's annotations are the schema. `check_arguments` compares a node with them before
anything is built and says which key, which value, what was expected. Only classes that are defined
under an allowed package and that subclass what their place calls for are ever built: a
configuration from a stranger must not run arbitrary code.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import (
    ValidationError,
)

from goldilocks.config.signatures import (
    accepts_bool,
    adapters_of,
    expected,
    hints_of,
    holds_bool,
    is_mapping,
    is_number,
    name_of,
    parameters_of,
    reasons,
    shown,
)
from goldilocks.errors import EXTRAS, Refused, missing, near_miss, one_line

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
        offered: Live values that are passed where the class takes them and the
            node does not say them itself.
        live: Live values that are always passed. They never appear in a configuration.

    Raises:
        Refused: if the target is not allowed, a keyword unknown or a value
            not what the annotation says.
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
            f"{where}._target_={path}: package {top} is not allowed (allowed:"
            f" {', '.join(sorted(allowed))});"
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
    """Refuses a class that its module does not have, before the module is imported:
    a script would run by that.
    """
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
    """A target's module, what is asked of it, and its source, found without running it;
    None if there is none.
    """
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
    """The argument that a library's message quotes the value of, as it was written;
    else only the place.
    """
    words = set(re.findall(r"[-+]?\w+(?:\.\w+)?", message))
    quoted = [
        key
        for key, value in arguments.items()
        if {str(value), str(float(value) if is_number(value) else value)} & words
    ]
    return f"{where}.{quoted[0]}={shown(arguments[quoted[0]])}" if len(quoted) == 1 else where


# --- arguments against annotations ----------------------------------------------------------------


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
