"""Readings of reference answers: which columns hold them, and how these are written as an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from posttrain.audits.answers.written import OTHER_WAYS, SEPARATORS, WAYS, Way, items, some_of
from posttrain.audits.forms import PLACE, filled, patterns, shown_keys
from posttrain.audits.golds import (
    LIKE_ANSWER,
    TEST_COLUMNS,
    AnswerType,
    GoldTask,
    as_json,
    check_column,
    final_of,
    is_short,
    prompt_of,
    text_of,
    with_golds,
)
from posttrain.audits.subject import NEAR, PAID, Attempt, Subject, by_model
from posttrain.rewards.scorer import Scorer
from posttrain.types import InputError, Task

READ_TASKS, FIRST_TASKS = 12, 3
"""Tasks that are enough to choose how reference answers are written, and to leave out what is hardly paid."""
SAMPLE = 200
"""Tasks on which readings are compared with each other."""
CALLS = (
    ("name", "tool", "tool_name", "function", "function_name"),
    ("arguments", "args", "parameters", "params", "kwargs"),
)
"""The names of the parts of a tool call."""
MOST_PAIRED = 4
"""Short columns of which pairs are made."""


@dataclass(frozen=True)
class Reading:
    """A column and a way to write it, or, of several columns, `parts`, the first one and a way to write them all."""

    column: str
    way: Way | None = None
    parts: tuple[str, ...] = ()

    def golds(self, tasks: Sequence[Task], read: Collection[str]) -> list[GoldTask]:
        """Raises InputError as `with_golds` does."""
        way = self.way
        golds = with_golds(tasks, self.column, read, way and (lambda task, value: way(task, _parsed(value))))
        if way is some_of:
            golds = [replace(g, accepted=tuple(map(str, _parsed(g.columns[self.column])))) for g in golds]
        if self.parts:
            kind: AnswerType = "json" if golds[0].type == "json" else "string"
            references = tuple(dict.fromkeys((*golds[0].references, *self.parts)))
            golds = [replace(gold, type=kind, references=references) for gold in golds]
        return golds


Known = list[tuple[Reading, list[GoldTask]]]
"""Readings with what they give for the first tasks."""


def read_golds(scorer: Scorer, tasks: Sequence[Task], column: str | None, read: Collection[str]) -> list[GoldTask]:
    """The tasks with their references in the reading that a reward pays most beyond the empty answer, in its best form,
    over the first tasks; of those that are near to it the first. `read` are the columns that the reward reads.

    First are tried the column of `with_golds` and the others that the reward reads. Other readings are tried one after
    another while none gets PAID, and win where the earlier are not paid on the scale of what they get: columns that the
    reward does not read, since it checks an answer by rules; answers made of several columns; other notations. Forms of
    the reward's source come last. Raises InputError as `with_golds` does."""
    try:
        plain, failed = with_golds(tasks, column, read), None
    except InputError as error:
        plain, failed = [], error
    if plain and plain[0].type == "code":
        return plain
    columns = check_column(tasks, column)
    own = plain[0].references if plain else ()
    known = [column] if column else [*dict.fromkeys((*own, *(name for name in columns if name in read)))]
    unread = [name for name in columns if name not in known and column is None]
    unread = sorted(unread, key=lambda name: not LIKE_ANSWER.search(name))
    sample = [gold.task for gold in plain][:SAMPLE] or tasks[:SAMPLE]
    prompts = [prompt_of(task) for task in sample]
    first = _distinct(_first(sample, known, read, prompts), sample, read, len(sample) if plain else 0)
    slow = by_model(scorer)
    if slow and len(first) == 1:  # an answer takes a tenth of a second
        return plain or first[0][0].golds(tasks, read)
    best, most = _best_paid(scorer, first)
    for stage in (
        _written(unread, WAYS, read, prompts),
        _made(sample, column, read, prompts),
        _written(known, OTHER_WAYS, read, prompts),
        _written(unread, OTHER_WAYS, read, prompts),
    ):
        if most < PAID and not slow and (others := _distinct(stage, sample, read)):
            other, paid = _best_paid(scorer, others)
            best, most = (other, paid) if most < PAID * paid else (best, most)
    if most <= 0 and first:
        other, most = _best_paid(scorer, first, by_source=True)
        best = other if most > 0 else None
    if best is None and first and not slow:  # all are paid no more than the empty answer: which is paid at all?
        every = first + _distinct(_written(unread, WAYS, read, prompts), sample, read)
        best, most = _best_paid(scorer, every, beyond=False)
        best = best if most > 0 or not plain else None
    if best is None and failed is not None:
        raise failed
    return best.golds(tasks, read) if best else plain


def _distinct(readings: Iterable[Reading], tasks: Sequence[Task], read: Collection[str], size: int = 0) -> Known:
    """Those that are not like an earlier one and have references for so many tasks, or for as many as any has."""
    found: dict[tuple[str, ...], tuple[Reading, list[GoldTask]]] = {}
    for reading in readings:
        with suppress(InputError):
            golds = reading.golds(tasks, read)
            found.setdefault(tuple(gold.gold for gold in golds), (reading, golds))
    size = size or max(map(len, found), default=0)
    return [each for golds, each in found.items() if len(golds) == size]


def _parsed(value: Any) -> Any:
    """A value, or the list or object that a text of JSON holds."""
    return as_json(value) if isinstance(value, str) and value.strip()[:1] in ("[", "{") else value


def _first(
    tasks: Sequence[Task], names: Sequence[str], read: Collection[str], prompts: Sequence[str]
) -> Iterator[Reading]:
    """Columns in WAYS; before or behind them the first one with the others that the prompts have places for."""
    parts, likely = _in_parts(tasks, names[0], read, prompts) if names else ([], False)
    yield from parts if likely else []
    yield from _written(names, WAYS, read, prompts)
    yield from [] if likely else parts


def _written(
    names: Sequence[str], ways: Sequence[Way], read: Collection[str], prompts: Sequence[str]
) -> Iterator[Reading]:
    """Columns as they are and in some ways; of a reward that runs tests, in a sandbox, as they are."""
    tested = any(name in read for name in TEST_COLUMNS)
    more = () if tested else (*ways, *(items(between) for between in _shown(SEPARATORS, prompts)))
    yield from (Reading(name, way) for name in names for way in (None, *more))


def _shown(texts: Iterable[str], prompts: Sequence[str]) -> list[str]:
    return [text for text in texts if 2 * sum(text in prompt for prompt in prompts) >= len(prompts)]


def _in_parts(
    tasks: Sequence[Task], name: str, read: Collection[str], prompts: Sequence[str]
) -> tuple[list[Reading], bool]:
    """The references as the prompts show them, where these have a place for the answer and one for each of the other
    short columns that the reward reads: `1863 [2]` for `Answer: <year> [n]`, where a column has the source. A place
    goes to the column that it or its label names, else to the next one; brackets stay where the prompt has `[1]`. They
    are likely where all are on one line or named."""
    shown = "\n".join(patterns(prompts))
    places = list(PLACE.finditer(shown))
    parts = [n for n in read if n != name and all(is_short(task.columns.get(n)) for task in tasks)]
    if len(places) != 1 + len(parts) or not parts or not is_short(tasks[0].columns.get(name)):
        return [], False
    left, order = [name, *parts], {}
    for k, place in enumerate(places):
        label = shown[places[k - 1].end() if k else 0 : place.end()].casefold()
        if named := [each for each in left if each.casefold() in label]:
            order[k] = named[0]
            left.remove(named[0])
    likely = "\n" not in shown or not {*parts} & {*left}
    order |= dict(zip([k for k in range(len(places)) if k not in order], left, strict=True))

    def way(task: Task, value: Any) -> str:
        marked = re.search(r"\[[0-9]+\]", task.asked)
        texts = [final_of(text_of(task.columns.get(order[k]))) for k in range(len(places))]
        signs = ["[]" if place[0][0] == "[" and marked else "" for place in places]
        values = [f"{sign[:1]}{text}{sign[1:]}" for sign, text in zip(signs, texts, strict=True)]
        return filled(shown, values) if all(texts) else ""

    return [Reading(name, way, tuple(parts))], likely


def _made(
    tasks: Sequence[Task], column: str | None, read: Collection[str], prompts: Sequence[str]
) -> Iterator[Reading]:
    """Answers of several columns: objects whose keys the prompts name and the columns are, all short columns that the
    reward reads, and pairs of short columns: a number and its unit, a day and a time."""
    columns = check_column(tasks, None)
    for keys in shown_keys(prompts[0]):
        held = tuple(next((name for name in (key, *_synonyms(key)) if name in columns), "") for key in keys)
        if all(held):
            yield Reading(held[0], _as_object(keys, held), held)
    short = [name for name in columns if all(_short_text(task.columns.get(name)) for task in tasks)]
    paired = sorted(short, key=lambda name: (name != column, name not in read))[:MOST_PAIRED]
    for names in (tuple(name for name in short if name in read), *permutations(paired, 2)):
        if len(names) > 1 and column in (None, *names):
            for between in (" ", ", ", "\n", *_shown(SEPARATORS, prompts)):
                yield Reading(names[0], _joined(names, between), names)


def _synonyms(key: str) -> list[str]:
    """The other names of a part of a tool call."""
    return [name for group in CALLS if key in group for name in group]


def _as_object(keys: Sequence[str], names: Sequence[str]) -> Way:
    return lambda task, value: json.dumps({k: task.columns.get(name) for k, name in zip(keys, names, strict=True)})


def _joined(names: Sequence[str], between: str) -> Way:
    return lambda task, value: between.join(_short_text(task.columns.get(name)) for name in names)


def _short_text(value: Any) -> str:
    """A short value as text; of numbers by key, such as the factors of units, the key of 1."""
    if isinstance(value, dict):
        return next((key for key, number in value.items() if number == 1), "")
    return text_of(value) if is_short(value) else ""


def _best_paid(
    scorer: Scorer, known: Known, by_source: bool = False, beyond: bool = True
) -> tuple[Reading | None, float]:
    """The reading that is paid most, the first of those near to it, and how much, `beyond` the empty answer. But for
    the first one, what gets less than half of the most on FIRST_TASKS is left out."""
    if not known:
        return None, 0.0
    common = Subject(scorer, known[0][1][:READ_TASKS], 0)
    common.by_source = by_source
    subjects = [common.over(golds[:READ_TASKS]) for _, golds in known]
    paid = [_paid(subject, FIRST_TASKS, beyond) for subject in subjects]
    kept = [k for k, each in enumerate(paid) if k == 0 or 0 < each >= PAID * max(paid)]
    paid = [_paid(subjects[k], READ_TASKS, beyond) for k in kept]
    most = max(paid)
    return next(known[k][0] for k, each in zip(kept, paid, strict=True) if each >= most - NEAR * max(0.0, most)), most


def _paid(subject: Subject, tasks: int, beyond: bool) -> float:
    """What the reference answers to the first tasks get in their best form, `beyond` the empty answer, in the mean."""
    some, forms = range(min(tasks, len(subject.tasks))), subject.tried
    values = subject.grade([subject.honest(i, form) for form in forms for i in some]).reshape(len(forms), len(some))
    empty = subject.grade([Attempt(i, "", "empty") for i in some]) if beyond else 0.0
    return float(np.nan_to_num(values - empty).mean(axis=1).max())
