"""Programs that are no functions of Python: queries of SQL, regular expressions, programs of a stack machine, formulas
and expressions of one line. Another text may do the same, so none of the changes is wrong at every task."""

from __future__ import annotations

import random
import re
from contextlib import suppress

from posttrain.audits.answers.variant import Variant, distinct, other_digit
from posttrain.audits.golds import PATTERNS, GoldTask

SQL = re.compile(r"\s*(?:select\b.*\bfrom|with\b.*\bselect)\b", re.IGNORECASE | re.DOTALL)
COLUMNS = re.compile(r"\s*select\s+(?:distinct\s+)?(.*?)\s+from\b", re.IGNORECASE | re.DOTALL)
TABLE = re.compile(r"\bfrom\s+(\w+)", re.IGNORECASE)
CONDITION = re.compile(r"\s+where\b.*?(?=\s+(?:group\s+by|order\s+by|having|limit|union)\b|;|$)", re.I | re.DOTALL)
DIRECTION = re.compile(r"(\border\s+by\s+[\w.()*]+)(?:\s+(asc|desc))?(?![\w,]|\s*,)(?!.*\blimit\b)", re.I | re.DOTALL)
SORTED = re.compile(r"\b(?:sort|order|descending|ascending|alphabetical|highest first|lowest first)", re.IGNORECASE)
ALL = re.compile(r"\b(?:all|every|each|list)\b", re.IGNORECASE)
ONE_ROW = re.compile(r"\b(?:count|sum|avg|min|max|limit)\b", re.IGNORECASE)
REGEX = re.compile(r"\bregular expression|\bregex", re.IGNORECASE)
CLASS = re.compile(r"\[[^\]]+\]|\\[dws]")
MANY = re.compile(r"(?:[*+]|\{[0-9,]+\}|\\[dws]|\.|\[[^\]]+\])")
WORDS = {"+": "-", "-": "+", "*": "+", "/": "*", "max": "min", "min": "max"}
WORDS |= {"add": "sub", "sub": "add", "mul": "add", "div": "mul", "swap": "dup", "dup": "drop"}
SHELL = re.compile(r"\b(?:shell|bash|awk|sed) (?:command|one-liner|script)", re.IGNORECASE)
STACK = re.compile(r"\bstack machine|\breverse polish|\bRPN\b|\bpostfix\b", re.IGNORECASE)
ALONE = re.compile(r"\b(?:only|alone|exactly|single|nothing else)\b", re.IGNORECASE)
PROSE = re.compile(r"(?:\b[a-z]{2,} ){4}")
LONGEST = 80
"""Characters of an example that a prompt shows."""


def is_query(task: GoldTask) -> bool:
    """Whether the reference is a program that is no function of Python."""
    if task.type not in ("string", "text", "expression"):
        return False
    asked, gold = task.task.asked, task.gold
    if SQL.match(gold) or STACK.search(asked) or gold.startswith("="):
        return True
    return PATTERNS.search(asked) is not None and not PROSE.search(gold)


def exchanged(task: GoldTask, rng: random.Random) -> list[Variant]:
    """Programs that do something else, one of a kind; of a query of SQL such as return no row at all."""
    asked, gold = task.task.asked, task.gold.strip()
    if SQL.match(gold):
        found = _of_sql(asked, gold.rstrip(";").rstrip())
    elif REGEX.search(asked):
        found = _of_pattern(task, gold)
    elif STACK.search(asked):
        found = _of_words(gold, rng)
        found += [("a value more on the stack", f"7 {gold}")] if ALONE.search(asked) else []
    else:
        found = [("a command that does nothing", "true")] if SHELL.search(asked) else []
        found += [("another number", other_digit(gold, rng) or gold)]
        found += [("a list in place of a range", gold.replace(":", ",", 1))] if gold.startswith("=") else []
    return distinct(Variant(kind, text) for kind, text in found if text.split() != gold.split())


def _of_sql(asked: str, gold: str) -> list[tuple[str, str]]:
    inner = f"SELECT * FROM ({gold})"
    found = [
        ("a condition that nothing meets", f"{inner} WHERE 1 = 0"),
        ("the condition left out", CONDITION.sub("", gold, count=1)),
    ]
    columns = COLUMNS.match(gold)
    if columns is not None and "*" not in columns[1].replace("(*)", ""):
        count = len(re.sub(r"\([^()]*\)", "", columns[1]).split(","))
        zeros = ", ".join(["0"] * count)
        found.append(("zeros in place of the values", f"SELECT {zeros} FROM ({gold})"))
    if ALL.search(asked) and not ONE_ROW.search(gold):
        found.append(("the first row alone", f"{inner} LIMIT 1"))
    if table := TABLE.search(gold):
        found.append(("all rows deleted", f"DELETE FROM {table[1]}"))
        found.append(("all rows deleted before the query", f"DELETE FROM {table[1]}; {gold}"))
    if SORTED.search(asked):
        found.append(("the other order", DIRECTION.sub(_turned, gold)))
    return found


def _turned(order: re.Match[str]) -> str:
    return order[1] + ("" if (order[2] or "").casefold() == "desc" else " DESC")


def _of_pattern(task: GoldTask, gold: str) -> list[tuple[str, str]]:
    found = [("any character in place of a class", CLASS.sub(".", gold))]
    shown = examples(task)
    if shown and MANY.search(gold):
        found.append(("the examples that the prompt shows", "|".join(map(re.escape, shown))))
    return found


def examples(task: GoldTask) -> list[str]:
    """The texts that a prompt shows and that the pattern matches: its words and what stands between commas or quotes,
    and texts in columns of the task that it has too."""
    with suppress(re.error):
        pattern = re.compile(task.gold.strip())
        asked = task.task.asked
        listed = [text for value in task.columns.values() if isinstance(value, list) for text in value]
        words = [*re.split(r"\s+", asked), *re.split(r"[,;\n]\s*|[\"'`]", asked)]
        words += [word.strip("\"'`,.;:()") for word in words]
        found = [text for text in (*listed, *words) if isinstance(text, str) and 0 < len(text) <= LONGEST]
        return [text for text in dict.fromkeys(found) if text in asked and pattern.fullmatch(text)]
    return []


def _of_words(gold: str, rng: random.Random) -> list[tuple[str, str]]:
    words = gold.split()
    places = [i for i, word in enumerate(words) if word.casefold() in WORDS]
    at = rng.choice(places) if places else 0
    other = WORDS.get(words[at].casefold(), words[at])
    other = other.upper() if words[at].isupper() else other
    return [
        ("another word", " ".join((*words[:at], other, *words[at + 1 :]))),
        ("another number", other_digit(gold, rng) or gold),
        ("the last word left out", " ".join(words[:-1])),
    ]
