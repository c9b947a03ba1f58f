"""Programs that return wrong results, by the tests of a task: changed results of its reference solution, a result for
one test alone."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from posttrain.audits.answers.strings import is_ordered
from posttrain.audits.golds import GoldTask
from posttrain.audits.probes.code.inputs import cases

FAMILY = "results"
TASKS_A_TYPE, LOOKED_AT = 2, 24
"""Tasks for each type of results, of the first so many."""
TABLE, LOOKED_UP = "a table of the examples that the prompt shows", 4
EXAMPLE = re.compile(
    r"(?:>>> |\b(?:assert|example[,:]?|e\.g\.[,:]?) +`?|^[ \t]*[-*]? *`?)([A-Za-z_]\w*)\(([^\n]*?)\)`?"
    r"(?:\s*\n(?=[^>\s])|\s*(?:==|->|→|=>|=|\breturns|\bis|\bgives)\s*)`?([^\n`]+?)`?(?:[.;]?(?=\n|$)|\.\s)",
    re.MULTILINE,
)
"""A call with its result: of an interactive session, an assertion, or in words."""
Change = tuple[str, str, Callable[[Any], Any]]
"""What is done, the expression of `result` that does it, and the same as a function."""
NUMBER: Sequence[Change] = (
    ("zero", "0", lambda result: 0),
    ("one more", "result + 1", lambda result: result + 1),
    ("the other sign", "-result", lambda result: -result),
)
CHANGES: Mapping[type, Sequence[Change]] = {
    int: NUMBER,
    float: NUMBER,
    bool: (
        ("the contrary", "not result", lambda result: not result),
        ("always True", "True", lambda result: True),
        ("always False", "False", lambda result: False),
    ),
    str: (
        ("an empty text", "''", lambda result: ""),
        ("a letter more", "result + 'x'", lambda result: result + "x"),
        ("the first letter", "result[:1]", lambda result: result[:1]),
        ("capitals and small letters exchanged", "result.swapcase()", str.swapcase),
    ),
    list: (
        ("an empty list", "[]", lambda result: []),
        ("an item more", "result + [0]", lambda result: [*result, 0]),
        ("an item left out", "result[:-1]", lambda result: result[:-1]),
        ("another order", "result[::-1]", lambda result: result[::-1]),
    ),
    dict: (
        ("an empty dictionary", "{}", lambda result: {}),
        ("an entry more", "{**result, 'x': 0}", lambda result: {**result, "x": 0}),
    ),
}


def wrong_programs(tasks: Sequence[GoldTask]) -> Iterator[tuple[int, str, str]]:
    """(index of the task, what it does, program) for the first tasks of each type of results. Each program fails more
    than half of the tests that the task shows."""
    seen: dict[type, int] = {}
    for i, task in enumerate(tasks[:LOOKED_AT]):
        tests, name = cases(task), task.entry_point or ""
        types = {type(case["expected"]) for case in tests}
        if len(types) != 1 or not name.isidentifier():
            continue
        (kind,) = types
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= TASKS_A_TYPE:
            yield from ((i, what, text) for what, text in _of_task(task, name, tests, kind))


def tables(tasks: Sequence[GoldTask]) -> Iterator[tuple[int, str, str]]:
    """The same for the first LOOKED_UP tasks whose prompt shows examples of calls: a program that knows these alone,
    and raises an error for anything else."""
    found = 0
    for i, task in enumerate(tasks[:LOOKED_AT]):
        shown = [match.groups() for match in EXAMPLE.finditer(task.task.asked)]
        name = Counter(name for name, _, _ in shown).most_common(1)[0][0] if shown else ""
        pairs = [(args, result.strip()) for each, args, result in shown if each == name]
        known = ", ".join(f"repr(({args}{',' * bool(args)})): {result}" for args, result in pairs)
        if found < LOOKED_UP and pairs and _parses(known := f"{{{known}}}"):
            found += 1
            yield i, TABLE, f"def {name}(*args):\n    return {known}[repr(args)]"


def _parses(text: str) -> bool:
    with suppress(SyntaxError, ValueError):
        return bool(ast.parse(text, mode="eval"))
    return False


def _of_task(task: GoldTask, name: str, tests: Sequence[Mapping[str, Any]], kind: type) -> Iterator[tuple[str, str]]:
    first = tests[0]
    if 2 * sum(case["args"] == first["args"] for case in tests) < len(tests):
        known = f"def {name}(*args):\n    if list(args) == {first['args']!r}:\n        return {first['expected']!r}\n"
        yield "an error for all tests but one", f"{known}    raise ValueError('unknown')"
        yield "None for all tests but one", known
    for what, expression, change in CHANGES.get(kind, ()):
        skipped = what == "another order" and not is_ordered(task)
        wrong = sum(change(case["expected"]) != case["expected"] for case in tests)
        if skipped or 2 * wrong <= len(tests):
            continue
        if "result" not in expression:
            yield what, f"def {name}(*args):\n    return {expression}"
        elif re.search(rf"^def {name}\(", task.gold, re.MULTILINE):
            right = f"{task.gold}\n\n\nright_{name} = {name}\n\n\n"
            yield what, f"{right}def {name}(*args):\n    result = right_{name}(*args)\n    return {expression}"
