"""Ways to write the value of a reference column as an answer: a list, an object, a number, an option."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from posttrain.audits.forms import PLACE, filled, patterns
from posttrain.audits.golds import GOLD_COLUMNS, prompt_of
from posttrain.types import Task

Way = Callable[[Task, Any], str]
"""A way to write a value; empty where it is none for this value."""

COUNT = re.compile("how_many|count|number|^[nk]$")
NUMBER_WORDS = "0 1 2 3 4 5 6 7 8 9 zero one two three four five six seven eight nine".split()  # noqa: SIM905
ASKED_FOR = re.compile(
    rf"\b(?:name|give|list|find|write|state|mention)\s+(?:me\s+)?(?:any\s+)?({'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE
)
"""Prompts that ask for some of several right answers."""
SEPARATORS = (" -> ", "->", " > ", " => ", " → ", " | ", " / ", " - ", "=", " = ", ": ")
"""What may stand between items where prompts show it."""
ALIKE = re.compile(r"(?<![^\s('\"`])([^\s\d'\"`(]*(?:\d/)?)(\d+)([^\s\d,;+]*)( ?[-+,;|>*&]{1,2} ?)\1\d+\3(?!\d)")
"""Two items with numbers that are written alike, and what stands between them."""
LETTERS = "ABCDEFGHIJ"
VALUE_KEYS = (*GOLD_COLUMNS, "value", "text", "name")
"""Keys of an object under which the answer may be, as in `{"value": "Oslo", "aliases": [...]}`."""


def some_of(task: Task, value: Any) -> str:
    """As many items of a list as the prompt asks for, or a column of that name says; else the first."""
    if not isinstance(value, list) or not value:
        return ""
    word = ASKED_FOR.search(task.asked)
    counts = [n for name, n in task.columns.items() if type(n) is int and COUNT.search(name)]
    count = counts[0] if counts else NUMBER_WORDS.index(word[1].casefold()) % 10 if word else 1
    return ", ".join(map(str, value[: max(1, count)]))


def items(between: str, before: str = "", around: str = "", in_row: str = ", ") -> Way:
    """The items of a list or object, `around` in front of and behind all, `in_row` between those of an inner list."""

    def way(task: Task, value: Any) -> str:
        rows = value if isinstance(value, list) else [*value.values()] if isinstance(value, dict) else []
        texts = [in_row.join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
        text = between.join(f"{before.replace('1', str(k))}{text}" for k, text in enumerate(texts, 1))
        return f"{around[:1]}{text}{around[1:]}" if text else ""

    return way


def keyed(notation: str, between: str) -> Way:
    """The keys of an object and their values, in a notation whose signs the prompt shows."""

    def way(task: Task, value: Any) -> str:
        if not isinstance(value, dict) or not value:
            return ""
        before, signs = notation.format(next(iter(value)), "\0").partition("\0")[0], notation.split("{}")
        shown = notation == "{}: {}" or before.strip() in task.asked or (len(signs) > 1 and signs[1] in task.asked)
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


def _as_example(task: Task, value: Any) -> str:
    """The items of a list as those of an example with numbers: `1/3 + 1/42` for `such as 1/2 + 1/5`."""
    shown = ALIKE.search(task.asked) if isinstance(value, list) and len(value) > 1 else None
    return shown[4].join(f"{shown[1]}{item}{shown[3]}" for item in value) if shown else ""


def _option(first: int) -> Way:
    def way(task: Task, value: Any) -> str:
        return LETTERS[value - first : value - first + 1] if type(value) is int and value >= first else ""

    return way


def _offered(letter: bool) -> Way:
    """The letter of an option that is named, or the option that has this number or letter, of a column of options."""

    def way(task: Task, value: Any) -> str:
        for options in (each for each in task.columns.values() if isinstance(each, list) and len(each) <= len(LETTERS)):
            if letter and value in options:
                return LETTERS[options.index(value)]
            at = value if type(value) is int else LETTERS.find(str(value)) if len(str(value)) == 1 else -1
            if not letter and 0 <= at < len(options):
                return str(options[at])
        return ""

    return way


def _number(form: str, factor: float = 1) -> Way:
    def way(task: Task, value: Any) -> str:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return form.format(value * factor) if number else ""

    return way


def _inner(task: Task, value: Any) -> str:
    """The answer in an object, under its key or alone."""
    while isinstance(value, Mapping | list) and value:
        key = next((key for key in VALUE_KEYS if key in value), next(iter(value), None))
        value = value[0] if isinstance(value, list) else value[key]
    return str(value) if isinstance(value, str | int | float) else ""


def _verdict(yes: str, no: str) -> Way:
    return lambda task, value: (yes if value else no) if isinstance(value, bool) else ""


def _json(task: Task, value: Any) -> str:
    return "" if isinstance(value, str) else json.dumps(value)


WAYS: tuple[Way, ...] = (
    *(some_of, items(", "), items("\n"), items("\n", "- "), items("\n", "1. "), items("; "), items(" "), _in_places),
    *(_fraction, _as_example, _option(0), _option(1), keyed("{}: {}", "\n"), _json),
)
OTHER_WAYS: tuple[Way, ...] = (
    *(
        keyed(notation, between)
        for notation in ("{}: {}", "{} = {}", "({}) {}", "{}) {}", "{}={}", "{} -> {}", "{} is {}", "{} is a {}")
        for between in ("\n", ", ")
    ),
    *(keyed("<{0}>{1}</{0}>", "\n"), items("\n", in_row=" "), items("\n", in_row=""), items(""), _inner),
    *(items(", ", around=around) for around in ("()", "{}", "[]")),
    *(_offered(letter=True), _offered(letter=False), _verdict("yes", "no"), _verdict("true", "false")),
    *(_number("{:.2f}"), _number("{:,.2f}"), _number("{:,}"), _number("{:.1f}"), _number("{:g}%", 100)),
)
"""Ways for where none of WAYS is paid."""
