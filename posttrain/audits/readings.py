"""Readings of reference answers: how a list, an object or the number of an option is written as an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from posttrain.audits.forms import PLACE, filled, patterns
from posttrain.audits.golds import LIKE_ANSWER, GoldTask, check_column, prompt_of, with_golds
from posttrain.audits.subject import NEAR, Attempt, Subject
from posttrain.rewards.scorer import Scorer
from posttrain.types import InputError, Task

READ_TASKS = 12
"""Tasks that are enough to choose how reference answers are written."""
COUNT = re.compile("how_many|count|number|^[nk]$")
NUMBER_WORDS = "0 1 2 3 4 5 6 7 8 9 zero one two three four five six seven eight nine".split()  # noqa: SIM905
ASKED_FOR = re.compile(
    rf"\b(?:name|give|list|find|write|state|mention)\s+(?:me\s+)?(?:any\s+)?({'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE
)
"""Prompts that ask for some of several right answers."""

Way = Callable[[Task, Any], str]
"""A way to write a reference; empty where it is none for this value."""


def some_of(task: Task, value: Any) -> str:
    """As many items of a list as the prompt asks for, or a column of that name says; else the first."""
    if not isinstance(value, list) or not value:
        return ""
    word = ASKED_FOR.search(task.asked)
    counts = [n for name, n in task.columns.items() if type(n) is int and COUNT.search(name)]
    count = counts[0] if counts else NUMBER_WORDS.index(word[1].casefold()) % 10 if word else 1
    return ", ".join(map(str, value[: max(1, count)]))


def _items(before: str, between: str) -> Way:
    def way(task: Task, value: Any) -> str:
        rows = value if isinstance(value, list) else [*value.values()] if isinstance(value, dict) else []
        texts = [", ".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
        return between.join(f"{before.replace('1', str(k))}{text}" for k, text in enumerate(texts, 1))

    return way


def _in_places(task: Task, value: Any) -> str:
    """The values in the places of what the prompt shows, where there are as many, from the first place to the last."""
    values = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    shown = "\n".join(patterns([prompt_of(task)]))
    return filled(shown, values) if len(values) > 1 and len(PLACE.findall(shown)) == len(values) else ""


def _option(first: int) -> Way:
    def way(task: Task, value: Any) -> str:
        return "ABCDEFGHIJ"[value - first : value - first + 1] if type(value) is int and value >= first else ""

    return way


WAYS: tuple[Way, ...] = (
    *(some_of, _items("", ", "), _items("", "\n"), _items("- ", "\n"), _items("1. ", "\n"), _items("", "; ")),
    *(_items("", " "), _in_places, _option(0), _option(1)),
    lambda task, value: "\n".join(f"{key}: {each}" for key, each in value.items()) if isinstance(value, dict) else "",
    lambda task, value: "" if isinstance(value, str) else json.dumps(value),
)


def readings(tasks: Sequence[Task], column: str | None, read: Collection[str]) -> list[list[GoldTask]]:
    """`with_golds`, and the same with the references written in other ways, where these are lists, objects or numbers
    of options; then with those of other columns that the reward reads or that are named like answers. Raises
    InputError as `with_golds` does."""
    found = [with_golds(tasks, column, read)]
    if any(gold.type == "code" for gold in found[0]):
        return found
    own = found[0][0].references
    others = [n for n in check_column(tasks, None) if n in read or LIKE_ANSWER.search(n)]
    names = [column] if column else dict.fromkeys((*own, *others))
    for name in names:
        for way in (None, *WAYS):
            with suppress(InputError):
                golds = with_golds(tasks, name, read, way)
                if way is some_of:
                    golds = [replace(gold, accepted=tuple(map(str, gold.columns[name]))) for gold in golds]
                if len(golds) == len(found[0]) and [g.gold for g in golds] not in [[g.gold for g in e] for e in found]:
                    found.append(golds)
    return found


def best_paid(scorer: Scorer, readings: Sequence[Sequence[GoldTask]]) -> list[GoldTask]:
    """The reading of the reference answers that a reward pays most beyond the empty answer, in its best form, over the
    first tasks; of those that are near to it the first."""
    paid = []
    for golds in readings if len(readings) > 1 else ():
        subject = Subject(scorer, golds[:READ_TASKS], 0)
        tasks = range(len(subject.tasks))
        values = [subject.grade([subject.honest(i, form) for i in tasks]) for form in subject.tried]
        empty = subject.grade([Attempt(i, "", "empty") for i in tasks])
        paid.append(float(np.nan_to_num(np.array(values) - empty).mean(axis=1).max()))
    near = [k for k, each in enumerate(paid) if each >= max(paid) - NEAR * max(0.0, max(paid))]
    return list(readings[near[0] if near else 0])
