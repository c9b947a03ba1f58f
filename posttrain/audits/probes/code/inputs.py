"""Inputs to a program that no test has, and what programs return for them, in a sandbox."""

from __future__ import annotations

import ast
import json
import random
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from posttrain.audits.golds import GoldTask, parsed
from posttrain.audits.guard.running import calls, is_call
from posttrain.sandbox.box import Box, BoxLost
from posttrain.sandbox.guest.plain import NotPlain, encode

INPUTS = 24
SECONDS = 1.0
"""For one input."""
EVIDENCE = 4
"""Lists of two items and more that must be sorted, or without repetition, for this to count as what the task says."""
LONGER = 3
"""How many items a list may have more than any that was seen."""
INTEGER = re.compile(r"-?[0-9]+")


def seen_inputs(task: GoldTask) -> list[Any]:
    """The inputs of the tests of a task: lists of arguments, or the texts that programs read. Those of assertions are
    taken where they are literals."""
    found: list[Any] = []
    for name in ("cases", "hidden_cases"):
        for case in task.columns.get(name) or ():
            if isinstance(case, Mapping) and not case.get("kwargs"):
                found += [case[key] for key in ("args", "stdin") if key in case]
                if "args_literal" in case:
                    found.append(list(ast.literal_eval(case["args_literal"])))
    return found or [list(args) for args in calls(task)] or [case["args"] for case in cases(task)]


def cases(task: GoldTask) -> list[Mapping[str, Any]]:
    """The arguments and results of the tests of a task, as `args` and `expected`: of a column of objects or pairs, or
    else of assertions that a call equals something, where both are literals."""
    for value in task.columns.values():
        found = [_case(each) for each in value] if isinstance(value, list) else []
        if found and None not in found:
            return [each for each in found if each is not None]
    return _asserted(task)


def _case(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], list):
        return {"args": value[0], "expected": value[1]}
    if not isinstance(value, Mapping) or value.get("kwargs"):
        return None
    args = next((value[name] for name in ("args", "inputs", "input") if name in value), None)
    expected = [value[name] for name in ("expected", "output", "result") if name in value]
    return {"args": args, "expected": expected[0]} if isinstance(args, list) and expected else None


def _asserted(task: GoldTask) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for node in ast.walk(parsed(task.suite) or ast.Module([], [])):
        if isinstance(node, ast.Assert) and isinstance(test := node.test, ast.Compare) and is_call(test.left, task):
            with suppress(ValueError, TypeError, SyntaxError):
                args = [ast.literal_eval(argument) for argument in test.left.args]
                found.append({"args": args, "expected": ast.literal_eval(test.comparators[0])})
    return found


def other_inputs(seen: Sequence[Any], rng: random.Random, most: int = INPUTS) -> list[Any]:
    """Inputs like the seen ones, which the task allows as far as these show: integers of the same signs up to twice as
    far, lists of seen items, up to three more of them, texts of seen characters, sorted or distinct where all seen ones
    are (see EVIDENCE), each argument drawn apart. None of them is a seen one."""
    known = {repr(each) for each in seen}
    found: dict[str, Any] = {}
    for _ in range(4 * most):
        if len(found) == most:
            break
        drawn = _text_input(seen, rng) if isinstance(seen[0], str) else _arguments(seen, rng)
        if repr(drawn) not in known:
            found.setdefault(repr(drawn), drawn)
    return list(found.values())


def _arguments(seen: Sequence[Any], rng: random.Random) -> list[Any]:
    size = len(rng.choice(seen))
    return [_like([args[i] for args in seen if len(args) == size], rng) for i in range(size)]


def _text_input(seen: Sequence[str], rng: random.Random) -> str:
    """One of the seen texts with its integers drawn anew."""
    numbers = [int(each) for text in seen for each in INTEGER.findall(text)]
    return INTEGER.sub(lambda match: str(_like(numbers, rng)), rng.choice(seen))


def _like(values: Sequence[Any], rng: random.Random) -> Any:
    """A value like these."""
    kind = type(values[0])
    if any(type(value) is not kind for value in values):
        return rng.choice(values)
    if kind is int:
        low, high = min(values), max(values)
        span = max(1, high - low)
        below = low if low in (0, 1) else max(1, low - span) if low > 0 else low - span
        above = high if high in (0, -1) else min(-1, high + span) if high < 0 else high + span
        return rng.choice(values) if rng.random() < 0.25 else rng.randint(below, above)
    if kind is float:
        return rng.choice(values) + rng.choice((0.0, 0.5, 1.0))
    if kind in (list, tuple) and any(values):
        return kind(_items(values, rng))
    if kind is str and any(values):
        characters = sorted({character for value in values for character in value})
        return "".join(rng.choice(characters) for _ in range(_size(values, rng)))
    return rng.choice(values)


def _items(values: Sequence[Any], rng: random.Random) -> list[Any]:
    items = [item for value in values for item in value]
    alike = isinstance(items[0], int | list)
    drawn = [_like(items, rng) if alike else rng.choice(items) for _ in range(_size(values, rng))]
    telling = [value for value in values if len(value) > 1]
    if len(telling) < EVIDENCE:
        return drawn
    if all(len({repr(item) for item in value}) == len(value) for value in telling):
        drawn = list({repr(item): item for item in drawn}.values())
    return sorted(drawn) if all(map(_ascends, telling)) else drawn


def _ascends(value: Sequence[Any]) -> bool:
    try:
        return list(value) == sorted(value)
    except TypeError:
        return False


def _size(values: Sequence[Any], rng: random.Random) -> int:
    sizes = [len(value) for value in values]
    return rng.randint(min(sizes), max(sizes) + LONGER)


def outputs(source: str, entry_point: str | None, inputs: Sequence[Any]) -> list[str | None]:
    """What a program gives for each input, as text with exact types; None where it raises, or gives no plain data.
    Raises InputError where no sandbox starts."""
    if entry_point is None:
        return [_printed(source, text) for text in inputs]
    found: list[str | None] = []
    box: Box | None = None
    try:
        for arguments in inputs:
            box = box or _loaded(source, entry_point)
            if box is None:
                return [None] * len(inputs)
            try:
                found.append(_returned(box, arguments))
            except BoxLost:
                box.close()
                box = None
                found.append(None)
    finally:
        if box is not None:
            box.close()
    return found


def _loaded(source: str, entry_point: str) -> Box | None:
    box = Box("candidate", 10 * SECONDS)
    try:
        request = {"sources": [("", source)], "entry_point": entry_point}
        if box.ask(request, time.monotonic() + 2 * SECONDS) == ["loaded"]:
            return box
    except BoxLost:
        pass
    box.close()
    return None


def _returned(box: Box, arguments: Sequence[Any]) -> str | None:
    try:
        request = {name: json.loads(encode(value)) for name, value in (("args", list(arguments)), ("kwargs", {}))}
    except NotPlain:
        return None
    answer = box.ask(request, time.monotonic() + SECONDS)
    return json.dumps(answer[1:]) if answer[0] == "returned" else None


def _printed(source: str, text: str) -> str | None:
    try:
        with Box("candidate", 2 * SECONDS) as box:
            deadline = time.monotonic() + SECONDS
            box.send({"sources": [("", source)], "stdin": text.encode()}, deadline)
            output, status = box.output(1 << 16, deadline)
    except BoxLost:
        return None
    return output.decode(errors="replace").rstrip() if status == 0 else None
