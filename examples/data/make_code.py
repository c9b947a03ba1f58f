"""Small Python functions with test cases: every outer operation around every inner one."""

from __future__ import annotations

import random
from typing import Any

Row = dict[str, Any]

NUMBERS = ((3, 5), (-2, 7), (10, 4), (0, -6))
LISTS = (([3, 1, 2],), ([5],), ([-4, 0, 9, 9],), ([2, 8],))
INNER = (
    # parameters, in words, in Python, arguments of the cases
    ("a, b", "the sum of a and b", "a + b", NUMBERS),
    ("a, b", "the difference a minus b", "a - b", NUMBERS),
    ("a, b", "the product of a and b", "a * b", NUMBERS),
    ("a, b", "the larger of a and b", "max(a, b)", NUMBERS),
    ("a, b", "the smaller of a and b", "min(a, b)", NUMBERS),
    ("a, b", "the absolute difference of a and b", "abs(a - b)", NUMBERS),
    ("a, b", "the sum of a squared and b", "a ** 2 + b", NUMBERS),
    ("x", "the sum of the list x", "sum(x)", LISTS),
    ("x", "the length of the list x", "len(x)", LISTS),
    ("x", "the first element of the list x", "x[0]", LISTS),
    ("x", "the last element of the list x", "x[-1]", LISTS),
    ("x", "the largest element of the list x", "max(x)", LISTS),
    ("x", "the smallest element of the list x", "min(x)", LISTS),
)
OUTER = (
    ("{}", "{}"),
    ("twice {}", "2 * ({})"),
    ("one more than {}", "{} + 1"),
    ("{} as a string", "str({})"),
    ("whether {} is positive", "{} > 0"),
    ("{} in a list of one element", "[{}]"),
    ("the negative of {}", "-({})"),
    ("half of {}", "({}) / 2"),
    ("the square of {}", "({}) ** 2"),
    ("ten more than {}", "{} + 10"),
)
NAMES = ("f", "g", "compute", "solve", "result", "value")


def files() -> dict[str, list[Row]]:
    """The rows by file name: of one shuffled list of distinct functions the first are shown, more are tasks, and the
    rest are held out."""
    draw = random.Random(9)
    functions = [(inner, outer) for inner in INNER for outer in OUTER]
    draw.shuffle(functions)
    rows = [function(*parts, name=draw.choice(NAMES)) for parts in functions]
    tasks = [{name: value for name, value in row.items() if name != "completion"} for row in rows]
    return {
        "code_demos.jsonl": [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows[:40]],
        "code_tasks.jsonl": tasks[:90],
        "code_test.jsonl": tasks[90:],
    }


def function(inner: tuple[str, str, str, Any], outer: tuple[str, str], name: str) -> Row:
    """A task with the program that solves it, which also says what the cases expect."""
    parameters, words, expression, arguments = inner
    source = outer[1].format(expression)
    solve = eval(f"lambda {parameters}: {source}")  # of the tables above
    cases = [{"args": list(args), "expected": solve(*args)} for args in arguments]
    return {
        "prompt": f"Write a Python function {name}({parameters}) that returns {outer[0].format(words)}. Code only.",
        "completion": f"def {name}({parameters}):\n    return {source}",
        "entry_point": name,
        "cases": cases[:2],
        "hidden_cases": cases[2:],
    }
