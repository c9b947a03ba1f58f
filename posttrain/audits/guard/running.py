"""Code: a response is wrong if what it computes differs from the tests of the task or from the reference solution."""

from __future__ import annotations

import ast
import json
import math
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeGuard

from posttrain.audits.golds import GoldTask, parsed
from posttrain.audits.guard.reading import after_thinking
from posttrain.sandbox.box import Box, BoxLost, OutOfTime
from posttrain.sandbox.guest.plain import NotPlain, decode, encode

SECONDS = 3.0
"""What all calls of one response may take."""
INPUTS, NEW_INPUTS, ENOUGH = 20, 16, 5
"""How many inputs of the tests are tried, how many new ones are drawn, and of how many results one can tell."""
BLOCK = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)|\Z)", re.DOTALL | re.MULTILINE)
Outcome = tuple[str, Any]
"""`("returned", value)`, `("late", None)`, or `("failed", None)`: it raised, ended, or returned what is no data."""


@dataclass(frozen=True)
class Input:
    """The arguments of a call, or what a program reads; `expected` where a test says it."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    stdin: str | None = None
    expected: Outcome | None = None


class Runs:
    """Runs a response in a sandbox on the inputs of the task's tests and, beside the reference solution, on new ones
    like them. Wrong: a result that a test does not expect, however one compares (`alike`), or other results than the
    reference on at least half of the new inputs. Right: the results of the reference on at least ENOUGH new inputs.
    None: no reference, too few inputs, out of time."""

    name = "the tests and the reference solution of code"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._references: dict[str, list[tuple[Input, Outcome]]] = {}

    def __call__(self, items: Sequence[tuple[GoldTask, str]]) -> list[bool | None]:
        return [self.wrong(task, text) for task, text in items]

    def wrong(self, task: GoldTask, text: str) -> bool | None:
        known = inputs(task)
        found = outcomes(task, text, known)
        if found is None:
            return True  # nothing that could run
        verdicts = [agree(each.expected, got) for each, got in zip(known, found, strict=True)]
        if False in verdicts:
            return True
        reference = self._reference(task, known)
        if not reference:
            return None
        new = outcomes(task, text, [each for each, _ in reference]) or []
        verdicts = [agree(said, got) for (_, said), got in zip(reference, new, strict=True)]
        verdicts = [verdict for verdict in verdicts if verdict is not None]
        if len(verdicts) < ENOUGH:
            return None
        return False if all(verdicts) else True if verdicts.count(False) * 2 >= len(verdicts) else None

    def _reference(self, task: GoldTask, known: Sequence[Input]) -> list[tuple[Input, Outcome]]:
        """New inputs on which the reference returns something, and the inputs of tests that say nothing themselves;
        empty where the reference is no code, or fails the tests itself."""
        key = task.task.id
        if key not in self._references:
            own = outcomes(task, task.solution, known)
            right = own is not None and all(agree(i.expected, o) is not False for i, o in zip(known, own, strict=True))
            new = [each for each in known if each.expected is None]
            new += more(known, random.Random(f"{self._seed}/{key}"))
            got = (outcomes(task, task.solution, new) or []) if right and new else []
            self._references[key] = [(i, o) for i, o in zip(new, got, strict=bool(got)) if o[0] == "returned"]
        return self._references[key]


def inputs(task: GoldTask) -> list[Input]:
    """The inputs of the tests of a task: its cases, and the calls with literal arguments in a suite."""
    columns = task.columns
    found = []
    for name in ("cases", "hidden_cases"):
        cases = columns.get(name) or []
        cases = json.loads(cases) if isinstance(cases, str) else cases
        found += [_input(case) for case in cases if isinstance(case, Mapping)]
    if not found:
        found = [Input(args) for args in calls(task)]
    return found[:INPUTS]


def _input(case: Mapping[str, Any]) -> Input:
    if "stdin" in case or "stdout" in case:
        return Input(stdin=str(case.get("stdin", "")), expected=("returned", str(case.get("stdout", ""))))
    values = {}
    for name in ("args", "kwargs", "expected"):
        if name in case:
            values[name] = case[name]
        elif f"{name}_literal" in case:
            values[name] = ast.literal_eval(case[f"{name}_literal"])
    expected = ("returned", values["expected"]) if "expected" in values else None
    return Input(tuple(values.get("args") or ()), values.get("kwargs"), expected=expected)


def calls(task: GoldTask) -> Iterator[tuple[Any, ...]]:
    """The arguments of each call of the task's function in its suite, where they are literals."""
    for node in ast.walk(parsed(task.suite) or ast.Module([], [])):
        if is_call(node, task):
            with suppress(ValueError, TypeError, SyntaxError):
                yield tuple(ast.literal_eval(each) for each in node.args)


def is_call(node: ast.AST, task: GoldTask) -> TypeGuard[ast.Call]:
    names = ("candidate", task.entry_point)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def more(known: Sequence[Input], rng: random.Random) -> list[Input]:
    """New inputs like those of the tests: each argument is that of some test, changed a little (`varied`)."""
    calls = [each for each in known if each.stdin is None and each.args and not each.kwargs]
    sizes = {len(each.args) for each in calls}
    if len(sizes) != 1:
        return []
    columns = list(zip(*(each.args for each in calls), strict=True))
    return [Input(tuple(varied(rng.choice(column), column, rng) for column in columns)) for _ in range(NEW_INPUTS)]


def varied(value: Any, column: Sequence[Any], rng: random.Random) -> Any:
    """A value of the same type and sign in the range of a column; of texts and lists another order."""
    if isinstance(value, bool) or value is None:
        return rng.choice(column)
    if isinstance(value, int):
        numbers = [each for each in column if type(each) is int and (each > 0) == (value > 0)]
        return rng.randint(min(numbers), max(numbers)) if numbers and value else value
    if isinstance(value, str):
        return "".join(rng.sample(value, len(value)))
    if isinstance(value, list) and len({type(each) for each in value}) == 1:
        return rng.sample(value, len(value))
    return value


def agree(said: Outcome | None, got: Outcome) -> bool | None:
    """Whether a result is the expected one; None where nothing is expected or the time was up."""
    if said is None or got[0] == "late":
        return None
    if got[0] != "returned":
        return False
    if got[1] is None and said[1] is not None:
        return None  # it may have changed its argument
    return alike(said[1], got[1])


def alike(a: Any, b: Any) -> bool:
    """Whether two values are equal in the kindest reading: numbers up to rounding, lists as tuples, texts but for
    blanks."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) or (a != a and b != b)
    if isinstance(a, str) and isinstance(b, str):
        return a.split() == b.split()
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return len(a) == len(b) and all(key in b and alike(a[key], b[key]) for key in a)
    if isinstance(a, set | frozenset) or isinstance(b, set | frozenset):
        groups = (set, frozenset, list, tuple)
        return isinstance(a, groups) and isinstance(b, groups) and sorted(map(repr, a)) == sorted(map(repr, b))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    return bool(a == b)


def sources(task: GoldTask, text: str) -> list[str]:
    """What a response may mean as code, the likeliest first; empty where it defines nothing that the tests call."""
    said, _ = after_thinking(text)
    name = (task.entry_point or "").partition(".")[0]
    blocks = [match[2] for match in BLOCK.finditer(said)] or [said]
    defines = [block for block in blocks if name and re.search(rf"\b(?:def|class)\s+{name}\b|^{name}\s*=", block, re.M)]
    found = list(reversed(defines)) or ([] if name else blocks[::-1])
    shown = task.task.asked
    if name and not found and re.search(rf"def\s+{name}\b", shown):
        found = [f"{shown.rstrip()}\n{form}" for block in blocks[::-1] for form in (block, _indented(block))]
    prefix = shown if re.search(r"^(?:import|from|def|class)\b", shown, re.M) and parsed(shown) else ""
    return [f"{prefix}\n{each}" if prefix and each in defines else each for each in found if each.strip()]


def _indented(block: str) -> str:
    return "\n".join(f"    {line}" for line in block.splitlines())


def outcomes(task: GoldTask, text: str, asked: Sequence[Input]) -> list[Outcome] | None:
    """What the code of a response gives for each input; None where there is no code. Raises InputError where no sandbox
    starts."""
    code = sources(task, text)
    if not any(parsed(each) for each in code):
        return None
    if any(each.stdin is not None for each in asked):
        return [_program(code, each.stdin or "") for each in asked]
    return _calls_of(code, task.entry_point or "", asked)


def _calls_of(code: Sequence[str], name: str, asked: Sequence[Input]) -> list[Outcome]:
    found: list[Outcome] = []
    with Box("candidate", SECONDS) as box:
        deadline = time.monotonic() + SECONDS
        try:
            if box.ask({"sources": [("", each) for each in code], "entry_point": name}, deadline) != ["loaded"]:
                return [("failed", None)] * len(asked)
            for each in asked:
                given = {"args": list(each.args), "kwargs": dict(each.kwargs or {})}
                tree = {name: json.loads(encode(value)) for name, value in given.items()}
                found.append(_outcome(box.ask(tree, deadline)))
        except BoxLost as lost:
            left = "late" if isinstance(lost, OutOfTime) else "failed"
            found += [(left, None)] * (len(asked) - len(found))
    return found


def _outcome(answer: list[Any]) -> Outcome:
    match answer:
        case ["returned", tree, _]:
            try:
                return ("returned", decode(tree))
            except (NotPlain, TypeError, ValueError, RecursionError):
                pass
    return ("failed", None)


def _program(code: Sequence[str], stdin: str) -> Outcome:
    with Box("candidate", SECONDS) as box:
        deadline = time.monotonic() + SECONDS
        try:
            box.send({"sources": [("", each) for each in code], "stdin": stdin.encode()}, deadline)
            output, status = box.output(1 << 20, deadline)
        except OutOfTime:
            return ("late", None)
        except BoxLost:
            return ("failed", None)
    return ("returned", output.decode(errors="replace")) if status == 0 else ("failed", None)
