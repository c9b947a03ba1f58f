"""Whether a marked answer is the gold: True, False, or None where that depends on how one reads it. By answer type."""

from __future__ import annotations

import ast
import difflib
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from posttrain.audit.golds import GoldTask
from posttrain.audit.guard import formulas
from posttrain.audit.guard.numbers import Literal, literals, plain, same_number, spelled
from posttrain.audit.guard.reading import denied

LETTER = re.compile(r"(?<![A-Za-z0-9'])\(?([A-Ja-j])(?:[).:\]]|(?![A-Za-z0-9'-]))")
ARTICLE_AFTER = re.compile(r"['’]|\s+(?!(?:and|or|is|was|because|since|not|as)\b)[a-z]")
SEPARATED = re.compile(r"(?:[\s,;/|&()\[\]{}$*.:\-]|\band\b|\bor\b|\\boxed|\\text)*", re.IGNORECASE)
HEDGE = re.compile(r"\b(?:or|either|perhaps|maybe|possibly|alternatively)\b|(?<!\w)[/|](?!\w)", re.IGNORECASE)
LABEL_WORDS = 4
"""A reference of at most so many words is a label, which excludes other labels."""
MANY = 60
"""More numbers are a list, in which nothing is denied."""
ALIKE = 0.8
"""Two words of at least this similarity may be one with a slip of the pen."""
ARTICLES = re.compile(r"\b(?:the|a|an)\b")


def same(task: GoldTask, text: str, others: Collection[str] = ()) -> bool | None:
    """Whether the content of a mark is the gold of the task. `others` are the golds of all tasks, which show that a
    text holds several."""
    return BY_TYPE[task.type](task, text, others)


def gold_number(task: GoldTask) -> Literal | None:
    return _number(task.gold)


@lru_cache(4096)
def _number(gold: str) -> Literal | None:
    found = literals(plain(gold))
    return found[0] if found else None


def asserted(text: str) -> Sequence[Literal]:
    """The numbers of a plain text that it does not deny; of a long list all."""
    found = literals(text) or spelled(text)
    return found if len(found) > MANY else [each for each in found if not denied(text, each.start, each.end)]


def number(task: GoldTask, text: str, _: Collection[str] = ()) -> bool | None:
    gold = gold_number(task)
    text = plain(text)
    if gold is None:
        return string(task, text)
    found = asserted(text)
    verdicts = [same_number(gold, each) for each in found]
    if not any(verdict is not False for verdict in verdicts):
        denies = any(same_number(gold, each) is not False for each in literals(text))
        return False if denies else _rescued(gold, text)
    if len(_distinct(found)) == 1:
        return verdicts[0]
    if (chain := _chain(gold, text)) is not None:
        return chain
    return False if hedged(text, found, verdicts) else None


def _rescued(gold: Literal, text: str) -> bool | None:
    """An answer that does not hold the gold as a number: None where it has its value, as 6*7 has."""
    words = [same_number(gold, each) for each in spelled(text)]
    if any(verdict is not False for verdict in words):
        return words[0] if len(words) == 1 else None
    for part in {text, text.rpartition("=")[2], re.sub(r"[A-Za-z]{2,}[A-Za-z ]*", "", text)}:
        found = formulas.value(part)
        if found is not None and abs(found - float(gold.value)) <= 1e-6 * max(1.0, abs(found)):
            return None
    return None if re.search(r"\\(?:sum|prod|int|binom|lfloor|lceil|frac|sqrt)|[0-9)]!|_[0-9]", text) else False


def _distinct(found: Sequence[Literal]) -> set[tuple[Fraction, bool]]:
    return {(each.value, each.percent) for each in found}


def _chain(gold: Literal, text: str) -> bool | None:
    """An equation: its last side is the answer, and all sides that are numbers must be equal, else it says nothing:
    41 = 42 is no answer."""
    sides = [side.strip(" $.") for side in text.split("=")]
    last = literals(sides[-1])
    if len(sides) < 2 or len(_distinct(last)) != 1:
        return None
    values = [value for side in sides if (value := formulas.value(side)) is not None]
    if any(abs(value - values[0]) > 1e-2 * max(1.0, abs(value)) for value in values):
        return False
    return True if same_number(gold, last[0]) is True else None


def hedged(text: str, found: Sequence[Literal], verdicts: Sequence[bool | None]) -> bool:
    """Whether a text gives several numbers to choose from: nothing but a list of them, or the gold beside another
    number with an `or` between."""
    gaps = [text[a.end : b.start] for a, b in zip(found, found[1:], strict=False)]
    edges = text[: found[0].start], text[found[-1].end :]
    signs = [text[b.start] in "+-" and bool(re.search(r"\w[ \t]*\Z", text[: b.start][-9:])) for b in found[1:]]
    if all(SEPARATED.fullmatch(gap) for gap in (*gaps, *edges)) and not any(signs):
        return len(found) > 2 or None not in verdicts
    for k, gap in enumerate(gaps):
        if SEPARATED.fullmatch(gap) and HEDGE.search(gap) and any(verdicts[k : k + 2]) and not all(verdicts[k : k + 2]):
            return True
    return False


def letters(text: str) -> list[str]:
    """The option letters that a text gives and does not deny."""
    found = [m for m in LETTER.finditer(text) if not _word(text, m)]
    return [m[1].upper() for m in found if not denied(text, m.start(), m.end())]


def _word(text: str, match: re.Match[str]) -> bool:
    """Whether a letter may be a word: in lower case, unless it stands in brackets or alone, and `A` or `I` before
    another word."""
    if match[0][0] == "(" or len(text.strip()) <= 3:
        return False
    return match[1].islower() or (match[1] in "AI" and ARTICLE_AFTER.match(text, match.end(1)) is not None)


def only_letters(text: str) -> bool:
    """Whether a text is nothing but option letters, in a list or together."""
    words = [word for word in re.findall(r"\w+", text) if word.casefold() not in ("and", "or")]
    return bool(words) and (all(re.fullmatch("[A-Ja-j]", w) for w in words) or re.fullmatch("[A-J]{2,10}", text) is not None)


@lru_cache(1024)
def _options(prompt: str) -> Mapping[str, str]:
    """The text of each option of a prompt, folded."""
    parts = re.split(r"(?:^|[\s(])([A-J])[).:]\s", prompt)
    return {letter: folded(text.split("\n")[0]) for letter, text in zip(parts[1::2], parts[2::2], strict=True)}


def option_texts(task: GoldTask, text: str) -> set[str]:
    """The letters of the options whose text stands in a text."""
    words = f" {folded(text)} "
    return {letter for letter, option in _options(task.task.asked).items() if option and f" {option} " in words}


def choice(task: GoldTask, text: str, _: Collection[str] = ()) -> bool | None:
    gold = (LETTER.search(task.gold) or [task.gold, task.gold])[1].upper()
    text = plain(text).strip(" $*.")
    named = option_texts(task, text)
    options = set(_options(task.task.asked)) or set("ABCDEFGHIJ")
    if only_letters(text):
        return set(re.findall(r"\b[A-J]\b", text.upper()) or text.upper()) == {gold}
    found = set(letters(text)) & options
    if found == {gold}:
        return True if not named or gold in named else None
    if gold in found:
        rest = re.sub(r"\([A-J]\)|\b[A-J]\b|\band\b|\bor\b|\bboth\b|option|[^\w]", "", text)
        return None if rest and not HEDGE.search(text) else False
    if gold in named:
        return True if named == {gold} and not found and _only(task, gold, text) else None
    return False


def _only(task: GoldTask, gold: str, text: str) -> bool:
    return folded(text) == _options(task.task.asked)[gold]


def folded(text: str) -> str:
    """A text for comparison: NFKC, lower case, words and numbers alone, without articles."""
    text = unicodedata.normalize("NFKC", plain(text)).casefold()
    text = re.sub(r"[^\w%+\-./]|_|(?<!\d)[.,]|[.,](?!\d)", " ", text)
    text = re.sub(r"(?<=[^\W\d])-(?=[^\W\d])", " ", text)
    return " ".join(ARTICLES.sub(" ", text).split())


SYNONYMS = {"true": "yes", "false": "no", "correct": "yes", "incorrect": "no", "y": "yes", "n": "no", "t": "yes"}


def string(task: GoldTask, text: str, others: Collection[str] = ()) -> bool | None:
    gold, said = folded(task.gold), folded(text)
    if said == gold:
        return True
    if not gold:
        return task.gold.strip() == text.strip()
    together = said.replace(" ", "") == gold.replace(" ", "") and not re.search(r"\d", gold)
    if SYNONYMS.get(said, said) == SYNONYMS.get(gold, gold) or together or sorted(said.split()) == sorted(gold.split()):
        return None
    if f" {gold} " in f" {said} ":
        return False if only_denied(text, task.gold) or several(gold, said, others) else None
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
    if len(gold) < 4 and len(said) < 4 or not said:
        return False
    if "".join(word[0] for word in own) == said or "".join(word[0] for word in words) == gold or f" {said} " in f" {gold} ":
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


def json_value(task: GoldTask, text: str, _: Collection[str] = ()) -> bool | None:
    gold = as_json(task.gold)
    try:
        return same_value(gold, as_json(text))
    except ValueError:
        pass
    verdicts = [same_value(gold, each) for each in documents(text)]
    return None if any(verdict is not False for verdict in verdicts) else False


def compact(text: str) -> str:
    return re.sub(r"[\s$\\!,;:.]|left|right|displaystyle|dfrac|tfrac|cdot|\*|\{|\}", "", plain(text)).casefold()


def expression(task: GoldTask, text: str, _: Collection[str] = ()) -> bool | None:
    gold, said = plain(task.gold), plain(text).strip(" $.*")
    if only_denied(said, gold):
        return False
    if compact(gold) == compact(said):
        return True
    if "=" not in gold and _unequal_sides(said):
        return False
    for part in dict.fromkeys((said, said.rpartition("=")[2], said.rpartition(" is ")[2])):
        if formulas.same_formula(gold, part):
            return True
    verdicts = _parts(gold, said)
    if verdicts is not None:
        return verdicts
    if formulas.same_formula(gold, said) is False:
        return False
    return None if compact(gold) in compact(said) or re.search(r"[\\^=*/+]|\d", said) else False


def _unequal_sides(said: str) -> bool:
    """Whether an equation cannot hold; on its left a name as `y` or `f(x)` may stand, which it defines."""
    left, sign, right = said.partition("=")
    named = re.fullmatch(r"\W*[A-Za-z]'*(?:\([A-Za-z]\))?\W*", left) is not None
    return bool(sign) and not named and formulas.same_formula(left, right) is False


@cache
def _commas(text: str) -> tuple[str, ...]:
    """The parts between commas that stand in no bracket; of a text in brackets those of its inside."""
    text = text.strip().removeprefix("\\").strip()
    if len(text) > 2 and text[0] in "([{" and text[-1] in ")]}":
        text = text[1:-1].removesuffix("\\")
    parts, depth, start = [], 0, 0
    for k, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:k])
            start = k + 1
    return (*parts, text[start:])


def _parts(gold: str, said: str) -> bool | None:
    mine, theirs = _commas(gold), _commas(said.rpartition("=")[2] if "=" not in gold else said)
    if len(mine) < 2 or len(mine) != len(theirs):
        return None
    verdicts = [formulas.same_formula(a, b) for a, b in zip(mine, theirs, strict=True)]
    if all(verdicts):
        return True if gold.strip()[0] == said.strip()[0] and gold.strip()[-1] == said.strip()[-1] else None
    unordered = all(any(formulas.same_formula(a, b) is not False for b in theirs) for a in mine)
    return None if None in verdicts or (unordered and gold.strip()[0] not in "([") else False


BY_TYPE: Mapping[str, Callable[[GoldTask, str, Collection[str]], bool | None]] = {
    "number": number,
    "choice": choice,
    "string": string,
    "json": json_value,
    "expression": expression,
}
