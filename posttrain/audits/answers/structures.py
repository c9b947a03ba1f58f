"""JSON: a field changed or left out, and the same values in another layout."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from posttrain.audits.answers import parts
from posttrain.audits.answers.numbers import ROUNDED
from posttrain.audits.answers.variant import Variant, distinct
from posttrain.audits.golds import GoldTask, as_json

Path = tuple[str | int, ...]
RANGE = re.compile(
    r"\b(?:estimat\w+|confidence interval|credible interval|range (?:that|which)|bounds?)\b", re.IGNORECASE
)
MIN_LETTERS = 4
"""One letter of a text of so many is no short form of it."""


def near_misses(task: GoldTask, rng: random.Random) -> list[Variant]:
    gold = as_json(task.gold)
    found: list[tuple[str, Any]] = []
    leaves = list(_leaves(gold))
    if leaves:
        path = rng.choice(leaves)
        found.append(("a value changed", _with(gold, path, _changed(_at(gold, path), task))))
        path = rng.choice(leaves)
        found.append(("a value null", _with(gold, path, None)))
        found.append(("all values null", _each(gold, leaves, lambda value: None)))
        found.append(("all values empty", _each(gold, leaves, _empty)))
    texts = [path for path in leaves if isinstance(value := _at(gold, path), str) and value.strip()]
    if texts:
        path = rng.choice(texts)
        found.append(("an empty text", _with(gold, path, "")))
        if len(long := str(_at(gold, path))) >= MIN_LETTERS:
            found.append(("one letter of a text", _with(gold, path, long[0])))
    if lists := [path for path in _lists(gold) if path]:
        found.append(("an empty list", _with(gold, rng.choice(lists), [])))
    if isinstance(gold, dict) and gold:
        left = rng.choice(sorted(gold))
        found.append(("a field left out", {k: v for k, v in gold.items() if k != left}))
        found.append(("a key misspelt", {k + "s" * (k == left): v for k, v in gold.items()}))
        strings = [k for k in gold if isinstance(gold[k], str)]
        if len({gold[k] for k in strings}) > 1:
            first = rng.choice(strings)
            second = rng.choice([k for k in strings if gold[k] != gold[first]])
            found.append(("two values swapped", {**gold, first: gold[second], second: gold[first]}))
    if isinstance(gold, list) and gold:
        found.append(("an item left out", gold[:-1]))
        found.append(("an item more", [*gold, _changed(gold[-1])]))
    if not isinstance(gold, dict):  # an object may be looked for between its brackets
        found.append(("inside a list", [gold]))
    return distinct(Variant(kind, _dumped(value)) for kind, value in found)


def exchanged(task: GoldTask, others: Sequence[str], rng: random.Random) -> list[Variant]:
    """The object with one part of one of its texts exchanged (`parts.exchanged`), one of a kind."""
    gold, found = as_json(task.gold), []
    loaded = [as_json(other) for other in others]
    for path in _leaves(gold):
        if isinstance(text := _at(gold, path), str):
            there = [each for other in loaded if isinstance(each := _found(other, path), str)]
            made = parts.exchanged(task, text, there, rng, words=True)
            found += [Variant(each.kind, _dumped(_with(gold, path, each.text))) for each in made]
    rng.shuffle(found)
    return list({each.kind: each for each in found}.values())


def everything(task: GoldTask) -> list[Variant]:
    """Of an estimate such as [120, 480] the ranges that hold any value: wrong, however wide a range may be."""
    gold = as_json(task.gold)
    pair = isinstance(gold, list) and len(gold) == 2 and all(map(_is_number, gold)) and gold[0] < gold[1]
    if not pair or not RANGE.search(task.task.asked):
        return []
    return [Variant(f"a range from {low}", _dumped([low, 1e20])) for low in (0, -1, -1e20)]


def equivalents(task: GoldTask) -> list[Variant]:
    gold = as_json(task.gold)
    found = [
        Variant("on one line", json.dumps(gold, ensure_ascii=False), "layout"),
        Variant("without blanks", json.dumps(gold, ensure_ascii=False, separators=(",", ":")), "layout"),
        Variant("indented", json.dumps(gold, ensure_ascii=False, indent=2), "layout"),
    ]
    if isinstance(gold, dict):
        found.append(Variant("keys in another order", _dumped(dict(reversed(gold.items()))), "layout"))
    if not task.gold.isascii():
        found.append(Variant("escaped characters", json.dumps(gold)))
    return distinct(found)


def same(task: GoldTask, answer: str) -> bool:
    mine, theirs = (json.dumps(as_json(text), sort_keys=True) for text in (task.gold, answer))
    return mine == theirs  # as texts: true is not 1


def far(task: GoldTask) -> str:
    """The structure of the reference with every value wrong."""
    gold = as_json(task.gold)
    return _dumped(_each(gold, [*_leaves(gold)], lambda value: -987654321 if _is_number(value) else "zzqx"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path
    else:
        for key, inside in items:
            yield from _leaves(inside, (*path, key))


def _lists(value: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of lists that are not empty."""
    if isinstance(value, list) and value:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield from _lists(inside, (*path, key))


def _each(value: Any, paths: Sequence[Path], new: Callable[[Any], Any]) -> Any:
    for path in paths:
        value = _with(value, path, new(_at(value, path)))
    return value


def _empty(value: Any) -> Any:
    return "" if isinstance(value, str) else 0 if _is_number(value) else value


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _found(value: Any, path: Path) -> Any:
    """The value at a path; None where there is none."""
    with suppress(LookupError, TypeError):
        return _at(value, path)


def _with(value: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


def _changed(value: Any, task: GoldTask | None = None) -> Any:
    """Another value: of a number one more, and a tenth more where the prompt leaves room for rounding."""
    if isinstance(value, bool):
        return not value
    if _is_number(value):
        rounded = task is not None and ROUNDED.search(task.task.asked)
        return value + (max(1, abs(value) // 10) if rounded else 1)
    return f"un{value}" if isinstance(value, str) else 0
