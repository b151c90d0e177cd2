import math

import pytest

from goldilocks.config.formula import FUNCTIONS, MAX_LENGTH, FormulaError, compile_formula, names_in


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 - t", 0.75),
        ("-t + +2", 1.75),
        ("2 ** 3 * t / 2 - 7 // 2 + 7 % 4", 1.0),
        ("min(t, 1, 2) + max(t, 1) + abs(-t)", 1.5),
        ("cos(pi) + sin(pi / 2) + exp(0) + log(exp(2)) + log2(8) + sqrt(4)", 8.0),
        ("t if t < 0.5 and not_ > 0 or t == 9 else 7", 0.25),
        ("(t <= 0.25) + (t >= 0.25) + (t != 0.25) + (0 < t < 1)", 3.0),
        (" 1e-2 ", 0.01),
    ],
)
def test_arithmetic(text, value):
    assert compile_formula(text, ["t", "not_"])(t=0.25, not_=1.0) == pytest.approx(value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_pythons(name):
    import builtins

    arguments = (0.5, 0.7) if name in ("min", "max") else (0.5,)
    expected = getattr(math, name, None) or getattr(builtins, name)
    written = ", ".join(map(str, arguments))
    assert compile_formula(f"{name}({written})", [])() == expected(*arguments)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t +",
        "x",
        "t.real",
        "t[0]",
        "(t, t)",
        "[t]",
        "{t}",
        "{t: t}",
        "f'{t}'",
        "'t'",
        "b't'",
        "True",
        "None",
        "...",
        "1j",
        "1e999",
        "t ^ 2",
        "t << 2",
        "~t",
        "not t",
        "t @ t",
        "t is t",
        "t in t",
        "t := 1",
        "t = 1",
        "t; t",
        "lambda: t",
        "(lambda: t)()",
        "[t for t in t]",
        "await t",
        "yield t",
        "*t",
        "min",
        "min(min, t)",
        "min(*t)",
        "min(**t)",
        "min(t, key=t)",
        "pi(t)",
        "t(t)",
        "cos(t)(t)",
        "open('file')",
        "eval('t')",
        "__import__('os')",
        "().__class__",
        "cos.__self__",
        "t" + " + t" * MAX_LENGTH,
        "(" * 400 + "t" + ")" * 90,
        "\0",
    ],
)
def test_all_else_is_refused_without_being_run(text):
    with pytest.raises(FormulaError) as caught:
        compile_formula(text, ["t"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["-" * 400 + "t", "abs(" * 90 + "t" + ")" * 90])
def test_deep_nesting_is_computed(text):
    assert compile_formula(text, ["t"])(t=0.5) == 0.5


@pytest.mark.parametrize(
    "text", ["9 ** 9 ** 9", "1 / (t - t)", "log(0)", "sqrt(-1)", "min()", "min(t)", "log(1, 2, 3)"]
)
def test_what_cannot_be_computed_is_told_at_once(text):
    with pytest.raises(FormulaError):
        compile_formula(text, ["t"])(t=0.5)


def test_the_root_of_a_negative_number_is_no_number():
    assert math.isnan(compile_formula("(t - 1) ** 0.5", ["t"])(t=0.5))


def test_the_words_of_a_formula():
    assert names_in("min(t, step) + pi") == {"min", "t", "step", "pi"}
    assert names_in("t +") == set()
