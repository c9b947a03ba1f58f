"""Texts and JSON values: whether they are equal, and when nobody can tell."""

from __future__ import annotations

import ast
import difflib
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from posttrain.audit.guard.numbers import plain
from posttrain.audit.guard.reading import denied

ALIKE = 0.8
"""Two words of at least this similarity may be one with a slip of the pen."""
ARTICLES = re.compile(r"\b(?:the|a|an)\b")
LABEL_WORDS = 4
"""A reference of at most so many words is a label, which excludes other labels."""


def folded(text: str) -> str:
    """A text for comparison: NFKC, lower case, words and numbers alone, without articles."""
    text = unicodedata.normalize("NFKC", plain(text)).casefold()
    text = re.sub(r"[^\w%+\-./]|_|(?<!\d)[.,]|[.,](?!\d)", " ", text)
    text = re.sub(r"(?<=[^\W\d])-(?=[^\W\d])", " ", text)
    return " ".join(ARTICLES.sub(" ", text).split())


SYNONYMS = {"true": "yes", "false": "no", "correct": "yes", "incorrect": "no", "y": "yes", "n": "no", "t": "yes"}


def same_text(reference: str, text: str, others: Collection[str] = ()) -> bool | None:
    """Whether a text is the reference, up to case, marks and articles; None where it may be: a synonym, another order,
    a slip, or the reference with more around it. False where it denies it, or gives several of `others` to choose
    from."""
    gold, said = folded(reference), folded(text)
    if said == gold:
        return True
    if not gold:
        return reference.strip() == text.strip()
    together = said.replace(" ", "") == gold.replace(" ", "") and not re.search(r"\d", gold)
    if SYNONYMS.get(said, said) == SYNONYMS.get(gold, gold) or together or sorted(said.split()) == sorted(gold.split()):
        return None
    if f" {gold} " in f" {said} ":
        return False if only_denied(text, reference) or several(gold, said, others) else None
    return None if _alike(gold, said) else False


def is_sentence(gold: str) -> bool:
    return len(folded(gold).split()) > LABEL_WORDS


def states(gold: str, text: str) -> bool:
    """Whether a text holds a string and does not only deny it."""
    return f" {folded(gold)} " in f" {folded(text)} " and not only_denied(text, gold)


def only_denied(text: str, gold: str) -> bool:
    """Whether a text holds a string, and denies it wherever it does."""
    places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(gold.strip())}(?!\w)", text, re.IGNORECASE)]
    return bool(places) and all(denied(text, *place) for place in places)


def several(gold: str, said: str, others: Collection[str]) -> bool:
    """Whether a folded text that holds the gold is one of several answers: golds of other tasks with an `or` between,
    or a list of nothing but golds."""
    listed = [each for each in _folded(frozenset(others)) if each != gold and f" {each} " in f" {said} "]
    listed = [each for each in listed if each not in gold and gold not in each]
    if not listed:
        return False
    rest = f" {said} "
    for each in sorted([gold, *listed], key=len, reverse=True):
        rest = rest.replace(f" {each} ", "  ")
    if not re.sub(r"\b(?:and|or|either|maybe|both|neither)\b|[^\w]", "", rest):
        return True
    return any(re.search(rf"\b{re.escape(a)} or {re.escape(b)}\b", said) for each in listed
               for a, b in ((gold, each), (each, gold)))  # fmt: skip


@lru_cache(64)
def _folded(others: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted({folded(each) for each in others if len(each) < 80} - {""}))


def _alike(gold: str, said: str) -> bool:
    """Whether a text may hold the gold with slips of the pen, a part of it or its initials."""
    words, own = said.split(), gold.split()
    if (len(gold) < 4 and len(said) < 4) or not said:
        return False
    if (
        "".join(word[0] for word in own) == said
        or "".join(word[0] for word in words) == gold
        or f" {said} " in f" {gold} "
    ):
        return True
    windows = [words[k : k + len(own)] for k in range(max(1, len(words) - len(own) + 1))][:400]
    return any(len(window) == len(own) and all(map(_slip, own, window)) for window in windows)


def _slip(word: str, other: str) -> bool:
    if word == other or re.search(r"\d", word + other) or abs(len(word) - len(other)) > 2:
        return word == other
    return difflib.SequenceMatcher(None, word, other).ratio() >= ALIKE


def as_json(text: str) -> Any:
    """The value of a JSON text; of Python's literals too. Raises ValueError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            raise ValueError("no JSON") from None


def documents(text: str) -> list[Any]:
    """The JSON objects and lists of a text, the outermost ones, in order."""
    found, at, decoder = [], 0, json.JSONDecoder()
    for _ in range(50):
        starts = [k for k in (text.find("{", at), text.find("[", at)) if k >= 0]
        if not starts:
            break
        at = min(starts)
        try:
            value, at = decoder.raw_decode(text, at)
            found.append(value)
        except (ValueError, RecursionError):
            at += 1
    return found


def same_value(gold: Any, other: Any) -> bool | None:
    """Whether two JSON values are equal: numbers by value, objects in any order of keys. None for strings that differ
    in case and blanks, numbers that are written as strings, and objects with further keys."""
    if isinstance(gold, Mapping) and isinstance(other, Mapping):
        if not set(gold) <= set(other):
            folded_keys = {str(key).casefold() for key in other}
            return None if {str(key).casefold() for key in gold} <= folded_keys else False
        return _all([*(same_value(gold[key], other[key]) for key in gold), None if set(other) - set(gold) else True])
    if isinstance(gold, list | tuple) and isinstance(other, list | tuple):
        if len(gold) != len(other):
            return False
        verdict = _all([same_value(a, b) for a, b in zip(gold, other, strict=True)])
        return None if verdict is False and sorted(map(repr, gold)) == sorted(map(repr, other)) else verdict
    if isinstance(gold, bool) or isinstance(other, bool) or gold is None or other is None:
        return gold is other or (None if str(gold).casefold() == str(other).casefold() else False)
    if isinstance(gold, int | float) and isinstance(other, int | float):
        return gold == other
    if str(gold) == str(other):
        return None if type(gold) is not type(other) else True
    return None if folded(str(gold)) == folded(str(other)) else False


def _all(verdicts: list[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True
