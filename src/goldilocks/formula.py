"""Formulas of a configuration: a line of arithmetic, which can compute and do nothing else."""

import ast
import builtins
import math
from collections.abc import Callable, Iterable

FUNCTIONS: dict[str, Callable[..., float]] = {
    name: getattr(builtins, name, None) or getattr(math, name)
    for name in ("min", "max", "abs", "cos", "sin", "exp", "log", "log2", "sqrt")
}
CONSTANTS = {"pi": math.pi}
OPERATORS = (
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.UnaryOp, ast.USub, ast.UAdd),
    *(ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.IfExp, ast.BoolOp, ast.And, ast.Or),
)
MAX_LENGTH = 500  # characters: deeper nesting than these allow would exhaust the parser


class FormulaError(ValueError):
    """What is wrong with a formula, as part of a line."""


def compile_formula(text: str, variables: Iterable[str]) -> Callable[..., float]:
    """A function of the variables, which are its keywords.

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
        except (ArithmeticError, ValueError, TypeError) as error:
            raise FormulaError(f"fails with: {error}") from error
        if isinstance(result, complex):
            raise FormulaError("is the root of a negative number")
        return float(result)

    return evaluate


def names_in(text: str) -> set[str]:
    """The words of a formula; none where it is not one."""
    try:
        return {node.id for node in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()


def check_node(node: ast.AST, names: list[str]) -> None:
    """Refuses a part of a formula that is not on the list."""
    match node:
        case ast.Expression() | ast.Load():
            return
        case ast.Constant(value=value):
            allowed = not isinstance(value, bool) and isinstance(value, int | float) and abs(value) < 1e300
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            allowed = name in FUNCTIONS
        case ast.Name(id=name):
            allowed = name in names
        case _:
            allowed = isinstance(node, OPERATORS)
    if not allowed:
        raise FormulaError(f"{ast.unparse(node) or type(node).__name__} is not allowed")


class Floats(ast.NodeTransformer):
    """Turns whole numbers into floats."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        assert isinstance(node.value, int | float)
        return ast.Constant(float(node.value))
