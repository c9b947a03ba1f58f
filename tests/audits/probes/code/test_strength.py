"""A20: the strength of a code task's tests."""

from __future__ import annotations

import random
from typing import Any

import pytest

from posttrain.audits.golds import with_golds
from posttrain.audits.probes.code.inputs import other_inputs, outputs, seen_inputs
from posttrain.audits.probes.code.mutants import mutants
from posttrain.audits.probes.code.strength import SHARE, strength
from posttrain.types import Task
from tests.audits import rewards
from tests.audits.subjects import subject, sums

FUNCTIONS: list[tuple[str, str, list[list[Any]], list[list[Any]]]] = [
    ("low", "def low(a, b):\n    return a if a < b else b", [[1, 1], [2, 2]], [[1, 2], [2, 1], [3, 5], [9, 4], [2, 2]]),
    (
        "size",
        "def size(xs):\n    return len(set(xs))",
        [[[1]], [[2, 3]]],
        [[[1, 1]], [[2, 2, 3]], [[]], [[1, 2, 3, 1]]],
    ),
    ("tidy", "def tidy(xs):\n    return sorted(xs)", [[[1]], [[2, 3]]], [[[3, 1]], [[2, 1, 2]], [[]], [[5, 4, 9, 1]]]),
    ("back", "def back(s):\n    return s[::-1]", [["aa"], ["aba"]], [["ab"], ["abc"], [""], ["xyz"]]),
]


def tasks(column: int) -> list[dict[str, Any]]:
    rows = []
    for row in FUNCTIONS:
        scope: dict[str, Any] = {}
        exec(row[1], scope)
        cases = [{"args": args, "expected": scope[row[0]](*args)} for args in row[column]]
        rows.append({"prompt": f"Write {row[0]}.", "entry_point": row[0], "cases": cases, "solution": row[1]})
    return rows


def test_weak_tests_and_strong_ones(in_process: None):
    (found,) = strength(subject("code(all_or_nothing=true)", tasks(2))).findings
    assert found.severity == "high" and found.effect["value"] == 1 and found.effect["n"] == 4
    assert found.shown is not None and "pass the tests of 4 tasks" in found.title

    strong = strength(subject("code(all_or_nothing=true)", tasks(3)))
    assert strong.findings == () and strong.measured[SHARE]["value"] == 0 and strong.n >= 12


def test_other_answers():
    assert strength(subject(rewards.strict, sums())).reason == "the answers are no code"


def test_mutants_have_one_fault_each():
    source = "def f(a, b):\n    if a < b and a:\n        return a + 1\n    return max(a, b)"
    found = mutants(source, random.Random(0), 100)
    texts = {text for _, text in found}
    for changed in (
        *("a <= b and a", "a > b and a", "if a < b:", "if a:", "not (a < b and a)", "if True:", "if False:"),
        *("a - 1", "a + 2", "a + 0", "min(a, b)", "    return a\n", "def f(a, b):\n    return b"),
    ):
        assert any(changed in f"{text}\n" for text in texts), changed
    assert len(texts) == len(found) and not any(text == source for text in texts)
    assert mutants(source, random.Random(1), 5) == mutants(source, random.Random(1), 5)
    kinds = [kind for kind, _ in mutants(source, random.Random(0), 4)]
    assert len(set(kinds)) == 4  # kinds come in turn
    with pytest.raises(SyntaxError):
        mutants("def f(:", random.Random(0), 1)


def test_inputs_are_like_those_of_the_tests():
    seen = [[[1, 3], "ab", 0], [[2, 5, 9], "b", 4], [[1, 2], "a", 1], [[3, 9], "ba", 2]]
    for numbers, text, n in other_inputs(seen, random.Random(0)):
        assert [numbers, text, n] not in seen
        assert numbers == sorted(set(numbers)) and all(1 <= number <= 17 for number in numbers)  # as all seen ones are
        assert set(text) <= set("ab") and 1 <= len(text) <= 5 and 0 <= n <= 8
    assert all(x < 0 < y for x, y in other_inputs([[-3, 4], [-1, 2]], random.Random(0)))
    assert all(text.endswith("\n") and int(text) > 0 for text in other_inputs(["3\n", "5\n"], random.Random(0), 4))


def test_inputs_of_assertions():
    test = "def check(candidate):\n    assert candidate([1], 2) == 3\n    assert candidate(x) == 4\n"
    rows = [{"entry_point": "f", "test": test, "canonical_solution": f"    return {k}"} for k in range(3)]
    golds = with_golds([Task(str(k), "def f(a, b):", row) for k, row in enumerate(rows)], None, ["test"])
    assert seen_inputs(golds[0]) == [[[1], 2]]


def test_what_programs_return():
    source = "def f(x):\n    if x == 2:\n        raise ValueError\n    return (x, 1.0)"
    first, raised, again = outputs(source, "f", [[1], [2], [1]])
    assert first == again is not None and raised is None
    assert outputs(source.replace("1.0", "1"), "f", [[1]]) != [first]  # types count
    assert outputs("print(int(input()) + 1)", None, ["3\n", "x\n"]) == ["4", None]
