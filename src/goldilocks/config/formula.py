"""Formulas of a configuration: a line of arithmetic, which can compute and do nothing else."""

import ast
import math
from collections.abc import Callable, Iterable

from goldilocks.errors import near_miss

FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "cos": math.cos,
    "sin": math.sin,
    "exp": math.exp,
    "log": math.log,
    "log2": math.log2,
    "sqrt": math.sqrt,
}
CONSTANTS = {"pi": math.pi}
OPERATORS = (
    *(
        ast.BinOp,
        ast.Add,
        ast.Sub,
        ast.Mult,
        ast.Div,
        ast.FloorDiv,
        ast.Mod,
        ast.Pow,
        ast.UnaryOp,
        ast.USub,
        ast.UAdd,
    ),
    *(
        ast.Compare,
        ast.Lt,
        ast.LtE,
        ast.Gt,
        ast.GtE,
        ast.Eq,
        ast.NotEq,
        ast.IfExp,
        ast.BoolOp,
        ast.And,
        ast.Or,
    ),
)
MAX_LENGTH = 500  # characters: deeper nesting than these allow would exhaust the parser


class FormulaError(ValueError):
    """What is wrong with a formula, as part of a line."""


def compile_formula(text: str, variables: Iterable[str]) -> Callable[..., float]:
    """A function of the variables, which are its keywords. The root of a negative number is NaN.

    Numbers count as floats, so that no power takes longer than a moment.

    >>> compile_formula("1 - t if t < 0.5 else sqrt(t) / 2", ["t"])(t=0.25)
    0.75

    Raises:
        FormulaError: for anything but numbers, the operators and functions above and the variables.
    """
    variables = list(variables)
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormulaError("is not a formula") from error
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if id(node) not in called:
            check_node(node, [*variables, *CONSTANTS])
    code = compile(ast.fix_missing_locations(Floats().visit(tree)), "formula", "eval")
    known = {"__builtins__": {}, **FUNCTIONS, **CONSTANTS}

    def evaluate(**values: float) -> float:
        try:
            result = eval(code, known, values)
            return math.nan if isinstance(result, complex) else float(result)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise FormulaError(f"fails with: {error}") from error

    return evaluate


def names_in(text: str) -> set[str]:
    """The names that a formula uses; none where it is not one.

    >>> sorted(names_in("sqrt(1 - step / steps)"))
    ['sqrt', 'step', 'steps']
    """
    try:
        return {
            node.id
            for node in ast.walk(ast.parse(text.strip(), mode="eval"))
            if isinstance(node, ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()


def check_node(node: ast.AST, names: list[str]) -> None:
    """Refuses a part of a formula that is not on the list."""
    match node:
        case ast.Expression() | ast.Load():
            pass
        case ast.Constant(value=value):
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not abs(value) < 1e300
            ):
                raise FormulaError(f"{ast.unparse(node)} is not a number that can be computed with")
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
            if any(isinstance(argument, ast.Starred) for argument in node.args):
                raise FormulaError("a star is not allowed before an argument")
        case ast.Call():
            raise FormulaError(
                f"{ast.unparse(node.func)}(...) is not known;"
                f" {near_miss(ast.unparse(node.func), FUNCTIONS)}"
            )
        case ast.Name(id=name):
            if name in FUNCTIONS:
                raise FormulaError(f"{name} without its arguments is not allowed")
            if name not in names:
                raise FormulaError(f"{name} is not known; {near_miss(name, [*names, *FUNCTIONS])}")
        case _ if not isinstance(node, OPERATORS):
            raise FormulaError(f"{ast.unparse(node) or type(node).__name__} is not allowed")


class Floats(ast.NodeTransformer):
    """Turns whole numbers into floats."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        assert isinstance(node.value, int | float)
        return ast.Constant(float(node.value))
