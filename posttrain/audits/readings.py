"""Readings of reference answers: which columns hold them, and how these are written as an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

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
from posttrain.audits.subject import NEAR, PAID, Attempt, Subject
from posttrain.rewards.scorer import Scorer
from posttrain.types import InputError, Task

READ_TASKS, FIRST_TASKS = 12, 3
"""Tasks that are enough to choose how reference answers are written, and to leave out what is hardly paid."""
MOST_PAIRED = 4
"""Short columns of which pairs are made."""
COUNT = re.compile("how_many|count|number|^[nk]$")
NUMBER_WORDS = "0 1 2 3 4 5 6 7 8 9 zero one two three four five six seven eight nine".split()  # noqa: SIM905
ASKED_FOR = re.compile(
    rf"\b(?:name|give|list|find|write|state|mention)\s+(?:me\s+)?(?:any\s+)?({'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE
)
"""Prompts that ask for some of several right answers."""
SEPARATORS = (" -> ", "->", " > ", " => ", " → ", " | ", " / ", " - ", "=", " = ", ": ")
"""What may stand between items where prompts show it."""
NOTATIONS = ("{}: {}", "{} = {}", "({}) {}", "{}) {}", "{}={}", "{} -> {}", "{} is {}", "{} is a {}", "{} is an {}")
"""How a key and its value are written, after the first one where prompts show what stands around the key."""

Way = Callable[[Task, Any], str]
"""A way to write a reference; empty where it is none for this value."""
Reading = list[GoldTask]


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


def _keyed(notation: str, between: str) -> Way:
    """The keys of an object and their values, in a notation whose signs the prompt shows."""

    def way(task: Task, value: Any) -> str:
        if not isinstance(value, dict) or not value:
            return ""
        known = notation == NOTATIONS[0] or notation.format(next(iter(value)), "").strip() in task.asked
        shown = known or notation[2:-2] in task.asked
        return between.join(notation.format(key, each) for key, each in value.items()) if shown else ""

    return way


def _in_places(task: Task, value: Any) -> str:
    """The values in the places of what the prompt shows, where there are as many, from the first place to the last."""
    values = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    shown = "\n".join(patterns([prompt_of(task)]))
    return filled(shown, values) if len(values) > 1 and len(PLACE.findall(shown)) == len(values) else ""


def _fraction(task: Task, value: Any) -> str:
    pair = isinstance(value, list) and len(value) == 2 and all(type(each) is int for each in value)
    return f"{value[0]}/{value[1]}" if pair else ""


def _option(first: int) -> Way:
    def way(task: Task, value: Any) -> str:
        return "ABCDEFGHIJ"[value - first : value - first + 1] if type(value) is int and value >= first else ""

    return way


def _json(task: Task, value: Any) -> str:
    return "" if isinstance(value, str) else json.dumps(value)


WAYS: tuple[Way, ...] = (
    *(some_of, _items("", ", "), _items("", "\n"), _items("- ", "\n"), _items("1. ", "\n"), _items("", "; ")),
    *(_items("", " "), _in_places, _fraction, _option(0), _option(1), _keyed(NOTATIONS[0], "\n"), _json),
)


def read_golds(scorer: Scorer, tasks: Sequence[Task], column: str | None, read: Collection[str]) -> Reading:
    """The tasks with their references in the reading that a reward pays most beyond the empty answer, in its best form,
    over the first tasks; of those that are near to it the first. `read` are the columns that the reward reads.

    First are tried the column of `with_golds` and the others that the reward reads. Columns that it does not read,
    since it checks an answer by rules, and answers made of several columns are tried where these get less than PAID,
    and win where these are not paid on the scale of what they get. Raises InputError as `with_golds` does."""
    prompts = [prompt_of(task) for task in tasks]
    known = [name for name in check_column(tasks, column) if name in read]
    failed: InputError | None = None
    try:
        plain = with_golds(tasks, column, read)
    except InputError as error:
        plain, failed = [], error
    if plain and plain[0].type == "code":
        return plain
    own = plain[0].references if plain else ()
    first = _distinct(_written(tasks, [column] if column else [*dict.fromkeys((*own, *known))], read, prompts, plain))
    best, most = _best_paid(scorer, first)
    if most < PAID:
        other, paid = _best_paid(scorer, _distinct(_made(tasks, column, read, prompts)))
        best = other if other and most < PAID * paid else best
    if not (best or plain) and failed is not None:
        raise failed
    return best or plain


def _distinct(readings: Iterable[Reading]) -> list[Reading]:
    """Those that are not like an earlier one and have references for as many tasks as the first."""
    found: dict[tuple[str, ...], Reading] = {}
    for reading in readings:
        size = len(next(iter(found.values()), reading))
        if len(reading) == size:
            found.setdefault(tuple(gold.gold for gold in reading), reading)
    return list(found.values())


def _reading(
    tasks: Sequence[Task], name: str, read: Collection[str], way: Way | None, parts: Sequence[str] = ()
) -> Iterator[Reading]:
    """The references of a column in a way, or of several columns, `parts`; nothing where there are none."""
    with suppress(InputError):
        golds = with_golds(tasks, name, read, way)
        if way is some_of:
            golds = [replace(gold, accepted=tuple(map(str, gold.columns[name]))) for gold in golds]
        if parts:
            kind: AnswerType = "json" if golds[0].type == "json" else "string"
            golds = [replace(g, type=kind, references=tuple(dict.fromkeys((*g.references, *parts)))) for g in golds]
        yield golds


def _written(
    tasks: Sequence[Task], names: Sequence[str], read: Collection[str], prompts: Sequence[str], plain: Reading
) -> Iterator[Reading]:
    """The references of columns in all ways; before and behind them the first column with the others that the prompts
    have places for."""
    parts = _in_parts(tasks, names[0], read, prompts) if plain and plain[0].type not in ("json", "text") else ([], [])
    yield from parts[0]
    ways: list[Way | None] = [None, *WAYS]
    ways += [_items("", between) for between in _shown(SEPARATORS, prompts)]
    ways += [_keyed(notation, between) for notation in NOTATIONS for between in ("\n", ", ")]
    tested = any(name in read for name in TEST_COLUMNS)  # a program takes a sandbox
    for name in names:
        for way in ways[:1] if tested else ways:
            yield from _reading(tasks, name, read, way)
    yield from parts[1]


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
    """The references of columns that the reward does not read, objects whose keys the prompts name and the columns are,
    and pairs of short columns: a number and its unit, a day and a time."""
    columns = check_column(tasks, None)
    if column is None:
        unread = sorted((n for n in columns if n not in read), key=lambda name: not LIKE_ANSWER.search(name))
        yield from _written(tasks, unread, read, prompts, [])

    def keyed(task: Task, value: Any) -> str:
        keys = [keys for keys in shown_keys(prompt_of(task)) if all(key in task.columns for key in keys)]
        return json.dumps({key: task.columns[key] for key in keys[0]}) if keys else ""

    for name in [column] if column else columns:
        yield from _reading(tasks, name, read, keyed, columns)
    short = [name for name in columns if all(_short_text(task.columns.get(name)) for task in tasks)]
    short = sorted(short, key=lambda name: (name != column, name not in read))[:MOST_PAIRED]
    for first, second in permutations(short, 2):
        if column in (None, first, second):
            for between in (" ", *_shown(SEPARATORS, prompts)):
                yield from _reading(tasks, first, read, _pair(first, second, between), (first, second))


def _pair(first: str, second: str, between: str) -> Way:
    return lambda task, value: between.join(_short_text(task.columns.get(name)) for name in (first, second))


def _short_text(value: Any) -> str:
    """A short value as text; of numbers by key, such as the factors of units, the key of 1."""
    if isinstance(value, dict):
        return next((key for key, number in value.items() if number == 1), "")
    return text_of(value) if is_short(value) else ""


def _best_paid(scorer: Scorer, readings: Sequence[Reading]) -> tuple[Reading, float]:
    """The reading that is paid most, the first of those near to it, and how much beyond the empty answer. What gets
    less than half of the most on FIRST_TASKS is left out."""
    if not readings:
        return [], 0.0
    subjects = [Subject(scorer, golds[:READ_TASKS], 0) for golds in readings]
    paid = [_paid(subject, FIRST_TASKS) for subject in subjects]
    most = max(max(each) for each in paid)
    kept = [k for k, each in enumerate(paid) if max(each) >= PAID * most]
    if most > 0:
        paid = [_paid(subjects[k], READ_TASKS) for k in kept]
    most = max(max(each) for each in paid)
    found = next(k for k, each in enumerate(paid) if max(each) >= most - NEAR * max(0.0, most))
    return list(readings[kept[found] if most > 0 else 0]), most


def _paid(subject: Subject, tasks: int) -> list[float]:
    """What the reference answers to the first tasks get in each form beyond the empty answer, in the mean."""
    some, forms = range(min(tasks, len(subject.tasks))), subject.tried
    values = subject.grade([subject.honest(i, form) for form in forms for i in some]).reshape(len(forms), len(some))
    empty = subject.grade([Attempt(i, "", "empty") for i in some])
    return [float(each) for each in np.nan_to_num(values - empty).mean(axis=1)]
