"""Tasks of code for the zoo: functions with strong and with weak tests, and programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from tests.audits.zoo.facts import FUNCTIONS

Row = dict[str, Any]
FORM = "Reply with one Python code block."


def integers(rng: Random) -> list[int]:
    return [rng.randint(-9, 9) for _ in range(rng.randint(2, 6))]


def text(rng: Random) -> str:
    return "".join(rng.choice("abAEo xY") for _ in range(rng.randint(1, 6)))


def mirror(rng: Random) -> str:
    half = text(rng)
    return half + half[rng.randint(0, 1) :: -1] if rng.random() < 0.5 else half + half[::-1]


def sides(rng: Random) -> list[int]:
    """Three lengths, of which one is often the sum of the others."""
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return rng.sample([a, b, a + b if rng.random() < 0.6 else rng.randint(1, 18)], 3)


ARGUMENTS: dict[str, Callable[[Random], list[Any]]] = {
    **dict.fromkeys(("total", "largest", "count_even", "distinct", "median", "differences"), lambda r: [integers(r)]),
    **dict.fromkeys(("mirrored", "vowels"), lambda r: [text(r)]),
    **dict.fromkeys(("merge", "common"), lambda r: [sorted(integers(r)), sorted(integers(r))]),
    **dict.fromkeys(("factorial", "digits"), lambda r: [r.randint(0, 8)]),
    "is_palindrome": lambda r: [mirror(r)],
    "clamp": lambda r: [r.randint(-9, 9), -r.randint(1, 4), r.randint(1, 4)],
    "second": lambda r: [[*integers(r), 11, 12]],
    "flatten": lambda r: [[integers(r) for _ in range(r.randint(1, 4))]],
    "gcd": lambda r: [r.randint(1, 60), r.randint(1, 60)],
    "leap": lambda r: [r.choice((r.randint(16, 24) * 100, r.randint(1600, 2400)))],
    "initials": lambda r: [" ".join(r.sample(["ada", "Grace", "alan", "Kurt", "emmy"], r.randint(1, 3)))],
    "rotate": lambda r: [integers(r), r.randint(0, 12)],
    "power_of_two": lambda r: [r.choice((2 ** r.randint(0, 9), r.randint(1, 99)))],
    "longest": lambda r: [["x" * r.randint(1, 5) + c for c in r.sample("abcdef", 4)]],
    "swap": lambda r: [{c: c.upper() * r.randint(1, 2) for c in r.sample("abcdef", 3)}],
    "triangle": sides,
}


def source(name: str, parameters: str, expression: str) -> str:
    return f"def {name}({parameters}):\n    return {expression}"


def call(code: str, name: str, arguments: list[Any]) -> Any:
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope[name](*arguments)


def cases(code: str, name: str, arguments: Iterable[list[Any]]) -> list[Row]:
    return [{"args": args, "expected": call(code, name, args)} for args in arguments]


def functions(rng: Random) -> list[Row]:
    """Functions with 20 tests each."""
    rows = []
    for name, parameters, what, expression, _, strong, weak in FUNCTIONS:
        code = source(name, parameters, expression)
        drawn = [ARGUMENTS[name](rng) for _ in range(16)]
        ask = f"Write a Python function {name}({parameters}) that returns {what}. {FORM}"
        tests = cases(code, name, [*strong, *weak, *drawn])
        rows.append({"prompt": ask, "entry_point": name, "cases": tests, "solution": code})
    return rows


def weak_functions(rng: Random) -> list[Row]:
    """The same functions with two tests each, which a wrong function passes (see `mutant`)."""
    rows = []
    for row, (name, *_, weak) in zip(functions(rng), FUNCTIONS, strict=True):
        rows.append({**row, "cases": cases(row["solution"], name, weak)})
    return rows


def mutant(entry_point: str) -> str:
    """A wrong function that passes the weak tests and not the strong ones."""
    name, parameters, _, _, wrong, *_ = next(row for row in FUNCTIONS if row[0] == entry_point)
    return source(name, parameters, wrong)


def programs(rng: Random) -> list[Row]:
    """Programs that read two integers and print one."""
    rows = []
    for k in range(24):
        a, b = k + 2, rng.randint(2, 9)
        what, expression = [
            (f"{a} times the first plus the second", f"{a} * x + y"),
            (f"the product of both minus {a}", f"x * y - {a}"),
            (f"the larger of both plus {a}", f"max(x, y) + {a}"),
            (f"the first plus {b} times the second", f"x + {b} * y"),
        ][k % 4]
        code = f"x, y = int(input()), int(input())\nprint({expression})"
        pairs = [(rng.randint(1, 20), rng.randint(1, 20)) for _ in range(5)]
        tests = [{"stdin": f"{x}\n{y}\n", "stdout": f"{eval(expression, {'x': x, 'y': y})}\n"} for x, y in pairs]
        (x, y), shown = pairs[0], tests[0]["stdout"].strip()
        ask = f"Write a Python program that reads two integers, one a line, and prints {what}."
        rows.append({"prompt": f"{ask} For {x} and {y} it prints {shown}. {FORM}", "cases": tests, "solution": code})
    return rows
