"""Draws reasoning-gym items; runs as a process of its own: `python -m posttrain.data.gym_items`.

Some generators iterate over sets of strings, so their items depend on Python's hash seed, which is fixed when a process
starts: the parent starts this one with PYTHONHASHSEED=0. A request comes on standard input as JSON, the answer goes to
standard output as a pickle, because verifiers of grid tasks tell tuples from lists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import pickle
import random
import sys
from collections.abc import Mapping
from typing import Any

from posttrain.types import InputError

POOL = 20_000
"""The size every generator is told, whatever slice is asked for: a few draw their whole list at once, split by size."""


def normalised(text: str) -> str:
    """Text with every run of whitespace as one space: two prompts are the same if these are."""
    return " ".join(text.split())


def distinct_items(dataset: Any, count: int) -> list[dict[str, Any]]:
    """The first `count` items with different questions, in drawing order; fewer if the generator is exhausted.

    Exhausted: it has no further item, or more than 100 + 20·d draws in a row repeated one of the d questions found.
    Were one more of d + 1 equally likely questions left, the probability of that would be under e^-20."""
    items: list[dict[str, Any]] = []
    seen: set[str] = set()
    index = misses = 0
    while len(items) < count and misses <= 100 + 20 * len(items):
        try:
            item = dataset[index]
        except IndexError:
            break
        index += 1
        key = normalised(item["question"])
        misses = misses + 1 if key in seen else 0
        if key not in seen:
            seen.add(key)
            items.append(item)
    return items


def make_dataset(name: str, seed: int, config: Mapping[str, str]) -> Any:
    """The generator of one task, from the text values of a specification.

    Raises InputError for an unknown name or key, a value of the wrong type, or a configuration it refuses."""
    from reasoning_gym.factory import DATASETS, create_dataset  # takes over a second

    if name not in DATASETS:
        raise InputError(f"reasoning-gym has no task {name!r}{_close(name, DATASETS)}")
    fields = {f.name: f for f in dataclasses.fields(DATASETS[name][1]) if f.name not in ("seed", "size")}
    values: dict[str, Any] = {}
    for key, text in config.items():
        if key not in fields:
            known = ["size", "start", "seed", "instruction", *fields]
            raise InputError(f"reasoning-gym:{name} has no option {key!r}{_close(key, known)}")
        values[key] = _typed(name, fields[key], text)
    try:
        return create_dataset(name, seed=seed, size=POOL, **values)
    except (AssertionError, ValueError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"reasoning-gym:{name} refuses this configuration: {reason}") from None


def _typed(name: str, field: dataclasses.Field[Any], text: str) -> Any:
    """A value as JSON (numbers, true, false, null, lists), else as text; checked against the type of the default."""
    plain = {"true": True, "false": False, "none": None}
    try:
        value = plain[text.lower()] if text.lower() in plain else json.loads(text)
    except json.JSONDecodeError:
        value = text
    default, wanted = field.default, type(field.default)
    if wanted is str:
        return text
    if wanted is float and type(value) is int:
        return float(value)
    if wanted in (bool, int, float) and type(value) is not wanted:
        raise InputError(f"reasoning-gym:{name}: {field.name}={text} must be of type {wanted.__name__}, like {default}")
    return value


def _close(word: str, known: Any) -> str:
    matches = difflib.get_close_matches(word, list(known), n=5, cutoff=0.5)
    return f"; did you mean {', '.join(matches)}?" if matches else f"; it has {', '.join(sorted(known))}"


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """`{"items": …}` for `{"name", "seed", "count", "config"}`, or `{"error": message}`."""
    random.seed(request["seed"])
    try:
        dataset = make_dataset(request["name"], request["seed"], request["config"])
    except InputError as error:
        return {"error": str(error)}
    return {"items": distinct_items(dataset, request["count"])}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        reply = answer(json.load(sys.stdin))
    pickle.dump(reply, sys.stdout.buffer)
