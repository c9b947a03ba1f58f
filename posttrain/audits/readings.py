"""Readings of reference answers: which columns hold them, and how these are written as an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
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
MOST_PAIRED = 4
"""Short columns of which pairs are made."""
Reading = list[GoldTask]


def read_golds(scorer: Scorer, tasks: Sequence[Task], column: str | None, read: Collection[str]) -> Reading:
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
    prompts, columns = [prompt_of(task) for task in tasks], check_column(tasks, column)
    own = plain[0].references if plain else ()
    known = [column] if column else [*dict.fromkeys((*own, *(name for name in columns if name in read)))]
    unread = [name for name in columns if name not in known and column is None]
    unread = sorted(unread, key=lambda name: not LIKE_ANSWER.search(name))
    first = _distinct(_first(tasks, known, read, prompts, plain), len(plain))
    if by_model(scorer) and len(first) == 1:  # an answer takes a tenth of a second
        return first[0]
    best, most = _best_paid(scorer, first)
    for stage in (
        _written(tasks, unread, read, prompts, WAYS),
        _made(tasks, column, read, prompts),
        _written(tasks, known, read, prompts, OTHER_WAYS),
        _written(tasks, unread, read, prompts, OTHER_WAYS),
    ):
        if most < PAID and not by_model(scorer) and (others := _distinct(stage)):
            other, paid = _best_paid(scorer, others)
            best, most = (other, paid) if most < PAID * paid else (best, most)
    if most <= 0 and first:
        other, paid = _best_paid(scorer, first, by_source=True)
        best = other if paid > 0 else best
    if not (best or plain) and failed is not None:
        raise failed
    return best or plain


def _distinct(readings: Iterable[Reading], size: int = 0) -> list[Reading]:
    """Those that are not like an earlier one and have references for so many tasks, or for as many as any has."""
    found: dict[tuple[str, ...], Reading] = {}
    for reading in readings:
        found.setdefault(tuple(gold.gold for gold in reading), reading)
    size = size or max(map(len, found.values()), default=0)
    return [reading for reading in found.values() if len(reading) == size]


def _reading(
    tasks: Sequence[Task], name: str, read: Collection[str], way: Way | None, parts: Sequence[str] = ()
) -> Iterator[Reading]:
    """The references of a column in a way, or of several columns, `parts`; nothing where there are none."""
    with suppress(InputError):
        golds = with_golds(tasks, name, read, way and (lambda task, value: way(task, _parsed(value))))
        if way is some_of:
            golds = [replace(gold, accepted=tuple(map(str, _parsed(gold.columns[name])))) for gold in golds]
        if parts:
            kind: AnswerType = "json" if golds[0].type == "json" else "string"
            golds = [replace(g, type=kind, references=tuple(dict.fromkeys((*g.references, *parts)))) for g in golds]
        yield golds


def _first(
    tasks: Sequence[Task], names: Sequence[str], read: Collection[str], prompts: Sequence[str], plain: Reading
) -> Iterator[Reading]:
    """The references of columns in WAYS; before or behind them the first column with the others that the prompts have
    places for."""
    parts = _in_parts(tasks, names[0], read, prompts) if plain and plain[0].type not in ("json", "text") else ([], [])
    yield from parts[0]
    yield from _written(tasks, names, read, prompts, WAYS)
    yield from parts[1]


def _parsed(value: Any) -> Any:
    """A value, or the list or object that a text of JSON holds."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _written(
    tasks: Sequence[Task], names: Sequence[str], read: Collection[str], prompts: Sequence[str], ways: Sequence[Way]
) -> Iterator[Reading]:
    """The references of columns as they are and in some ways; of a reward that runs tests, in a sandbox, as they
    are."""
    tested = any(name in read for name in TEST_COLUMNS)
    every = [None, *ways, *(items(between) for between in _shown(SEPARATORS, prompts))]
    for name in names:
        for way in every[:1] if tested else every:
            yield from _reading(tasks, name, read, way)


def _shown(texts: Iterable[str], prompts: Sequence[str]) -> list[str]:
    return [text for text in texts if 2 * sum(text in prompt for prompt in prompts) >= len(prompts)]


def _in_parts(
    tasks: Sequence[Task], name: str, read: Collection[str], prompts: Sequence[str]
) -> tuple[list[Reading], list[Reading]]:
    """The references as the prompts show them, where these have a place for the answer and one for each of the other
    short columns that the reward reads: `1863 [2]` for `Answer: <year> [n]`, where a column has the source. A place
    goes to the column that it or its label names, else to the next one; brackets stay where the prompt has `[1]`. The
    first list has those that are likely: all on one line, or all named."""
    shown = "\n".join(patterns(prompts))
    places = list(PLACE.finditer(shown))
    left = [name, *(n for n in read if n != name and all(is_short(task.columns.get(n)) for task in tasks))]
    parts = left[1:]
    if len(places) != len(left) or not parts:
        return [], []
    order: dict[int, str] = {}
    for k, place in enumerate(places):
        label = shown[places[k - 1].end() if k else 0 : place.end()].casefold()
        if named := [each for each in left if each.casefold() in label]:
            order[k] = named[0]
            left.remove(named[0])
    likely = "\n" not in shown or not {*parts} & {*left}
    order |= dict(zip([k for k in range(len(places)) if k not in order], left, strict=True))

    def way(task: Task, value: Any) -> str:
        marked = re.search(r"\[[0-9]+\]", task.asked)
        texts = [final_of(text_of(task.columns[order[k]])) for k in range(len(places))]
        signs = ["[]" if place[0][0] == "[" and marked else "" for place in places]
        return filled(shown, [f"{sign[:1]}{text}{sign[1:]}" for sign, text in zip(signs, texts, strict=True)])

    found = list(_reading(tasks, name, read, way, parts))
    return (found, []) if likely else ([], found)


def _made(
    tasks: Sequence[Task], column: str | None, read: Collection[str], prompts: Sequence[str]
) -> Iterator[Reading]:
    """Answers of several columns: objects whose keys the prompts name and the columns are, all short columns that the
    reward reads, and pairs of short columns: a number and its unit, a day and a time."""
    columns = check_column(tasks, None)

    def keyed(task: Task, value: Any) -> str:
        keys = [keys for keys in shown_keys(prompt_of(task)) if all(key in task.columns for key in keys)]
        return json.dumps({key: task.columns[key] for key in keys[0]}) if keys else ""

    for name in [column] if column else columns:
        yield from _reading(tasks, name, read, keyed, columns)
    short = [name for name in columns if all(_short_text(task.columns.get(name)) for task in tasks)]
    known = [name for name in short if name in read]
    if len(known) > 1 and column in (None, *known):
        for between in (" ", ", ", "\n", *_shown(SEPARATORS, prompts)):
            yield from _reading(tasks, known[0], read, _joined(known, between), known)
    short = sorted(short, key=lambda name: (name != column, name not in read))[:MOST_PAIRED]
    for first, second in permutations(short, 2):
        if column in (None, first, second):
            for between in (" ", *_shown(SEPARATORS, prompts)):
                yield from _reading(tasks, first, read, _joined((first, second), between), (first, second))


def _joined(names: Sequence[str], between: str) -> Way:
    return lambda task, value: between.join(_short_text(task.columns.get(name)) for name in names)


def _short_text(value: Any) -> str:
    """A short value as text; of numbers by key, such as the factors of units, the key of 1."""
    if isinstance(value, dict):
        return next((key for key, number in value.items() if number == 1), "")
    return text_of(value) if is_short(value) else ""


def _best_paid(scorer: Scorer, readings: Sequence[Reading], by_source: bool = False) -> tuple[Reading, float]:
    """The reading that is paid most, the first of those near to it, and how much beyond the empty answer. But for the
    first reading, what gets less than half of the most on FIRST_TASKS is left out."""
    if not readings:
        return [], 0.0
    common = Subject(scorer, readings[0][:READ_TASKS], 0)
    common.by_source = by_source
    subjects = [common.over(golds[:READ_TASKS]) for golds in readings]
    paid = [_paid(subject, FIRST_TASKS) for subject in subjects]
    kept = [k for k, each in enumerate(paid) if k == 0 or 0 < each >= PAID * max(paid)]
    paid = [_paid(subjects[k], READ_TASKS) for k in kept]
    most = max(paid)
    return next(readings[k] for k, each in zip(kept, paid, strict=True) if each >= most - NEAR * max(0.0, most)), most


def _paid(subject: Subject, tasks: int) -> float:
    """What the reference answers to the first tasks get in their best form beyond the empty answer, in the mean."""
    some, forms = range(min(tasks, len(subject.tasks))), subject.tried
    values = subject.grade([subject.honest(i, form) for form in forms for i in some]).reshape(len(forms), len(some))
    empty = subject.grade([Attempt(i, "", "empty") for i in some])
    return float(np.nan_to_num(values - empty).mean(axis=1).max())
