"""What can be made of a reference answer, by its type: answers that are wrong, the same answer in other words, and work
that is left undone.

Nothing here shares code with a reward: what is wrong is so by exact arithmetic, by values at random points, or by its
construction."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from posttrain.audits.answers import (
    choices,
    expressions,
    numbers,
    parts,
    permitted,
    programs,
    queries,
    strings,
    structures,
    texts,
    walks,
)
from posttrain.audits.answers.variant import Variant, distinct
from posttrain.audits.golds import AnswerType, GoldTask

__all__ = ["GRADABLE", "Variant", "equivalents", "exchanged", "far", "near_misses", "same", "unevaluated"]

GRADABLE: tuple[AnswerType, ...] = ("number", "expression", "choice", "string", "json")
"""Types whose wrong answers are known to be wrong without a judge."""
LONGEST = 1000
"""A text of more characters is read for nothing but equality: it may be made to take long."""
FREE_CHOICE = re.compile(
    r"\b(?:give|name|find|suggest|pick|choose)\s+(?:me\s+)?(?:an?|any|some)\b"
    r"(?!\s+(?:short|brief|single|full|final|exact|json|object|dictionary|table|translation|summary))"
    r"(?!\s+(?:whole )?(?:number|fraction|integer|decimal|date|year|time|percentage|letter|formula)\b"
    r"(?! (?:that|such|which|whose|with|between|greater|larger|smaller|less|other|divisible)\b))"
    r"|\bany (?:one )?of\b"
    r"|\bany (?:[\w-]+ ){1,4}"
    r"(?:(?:is|are|will be|counts? as) (?:right|correct|fine|valid|accepted|paid)|will do|counts?)\b",
    re.IGNORECASE,
)
"""Prompts that have several right answers, so that another one need not be wrong."""
QUANTITY = r"(?<![\w.])[-+]?[0-9][0-9,]*(?:[./][0-9]+)?(?:\s?%|\s?[A-Za-zµ°]{1,14}\b(?<!to)(?<!in)(?<!into)(?<!as))?"
CONVERTED = re.compile(
    rf"\b(?:convert|express|rewrite|change|write|turn|give)\b[^.?\n0-9]{{0,40}}?({QUANTITY})\s+(?:to|into|in|as)\b|"
    rf"\bhow (?:many|much)\s+\w+\s+(?:is|are|make)\s+(?:there in\s+)?({QUANTITY})\s*\?",
    re.IGNORECASE,
)
"""A quantity that a prompt wants in another unit or notation."""
STRICT = re.compile(
    r"\b(?:one|single) line|\bcompact|\bminif|\bindent|\b(?:no|without) (?:any )?(?:blanks?|spaces?|whitespace|"
    r"comments?)|\border\b",
    re.IGNORECASE,
)
"""Prompts that say how blanks or keys must stand."""
LOOSE = re.compile(r"\b(?:JSON|objects?|dictionary|array|list)\b", re.IGNORECASE)
OFFERED = re.compile("choice|option|candidate|label|distractor|wrong", re.IGNORECASE)
FAR: Mapping[AnswerType, str] = {
    "number": "-987654321",
    "expression": "q^7 + 987654321",
    "choice": "Z",
    "string": "zzqx",
    "code": "def zzqx():\n    return 0",
    "text": "zzqx",
}


class Answers(Protocol):
    """What a module of a type has."""

    def near_misses(self, task: GoldTask, rng: random.Random) -> list[Variant]: ...
    def equivalents(self, task: GoldTask) -> list[Variant]: ...
    def same(self, task: GoldTask, answer: str) -> bool: ...


MODULES: Mapping[str, Answers] = {
    "number": numbers,
    "expression": expressions,
    "choice": choices,
    "string": strings,
    "json": structures,
    "text": texts,
}


def near_misses(task: GoldTask, rng: random.Random) -> list[Variant]:
    """Answers that are nearly the reference and wrong, one of a kind, as plain text without a form; none for code,
    whose mutants probe A20 runs."""
    if queries.is_query(task) or task.type not in MODULES:  # another query may do the same
        return []
    broken = walks.broken(task) + texts.cut_lines(task) + structures.everything(task)
    if is_open(task):
        return broken + texts.repeated(task)
    if broken:
        return broken
    found = MODULES[task.type].near_misses(task, rng)
    if not found and task.type == "expression":  # which has no value, such as the formula of an ion
        found = strings.other_sign(task.gold) + strings.contradicted(task.gold)
    return [variant for variant in found if not same(task, variant.text)]


def exchanged(task: GoldTask, others: Sequence[str], rng: random.Random) -> list[Variant]:
    """The reference answer with one part exchanged, one of a kind (`parts`): most of them are wrong, not each. Of JSON
    a text in it is changed. `others` are the reference answers of other tasks."""
    kind, gold = task.type, task.gold
    if queries.is_query(task):
        found = parts.exchanged(task, gold, (), rng, False)
        return distinct([*queries.exchanged(task, rng), *(v for v in found if v.kind != parts.TWICE)])
    if kind not in ("expression", "string", "json", "text") or is_open(task) or walks.broken(task):
        return []
    if kind == "text" and not (task.compared and texts.sentences(task)):
        return []
    whole = kind != "text" or texts.WHOLE.search(task.task.asked) is not None
    in_json = kind == "json"
    found = structures.exchanged(task, others, rng) if in_json else parts.exchanged(task, gold, others, rng, whole)
    valued = kind == "expression" and expressions.values(gold) is not None
    right = _right_answers(task) - {_plain(gold)}
    return [v for v in found if _plain(v.text) not in right and not (valued and same(task, v.text))]


def is_open(task: GoldTask) -> bool:
    """Whether an answer may be right that the task does not list: the prompt says so, or the reward compares a short
    text or an object with no reference and checks what is demanded of it."""
    checked = not task.compared and task.type in ("string", "json")
    return not task.accepted and (checked or FREE_CHOICE.search(task.task.asked) is not None)


def far(task: GoldTask) -> str:
    """An answer as far from any right one as its type allows, so that a graded reward pays nothing for it."""
    return structures.far(task) if task.type == "json" else FAR[task.type]


def equivalents(task: GoldTask) -> list[Variant]:
    """The reference answer in other renderings, one of a kind, which a reader takes for the same answer."""
    if task.type == "code":
        return programs.equivalents(task)
    if queries.is_query(task):
        return []
    found = MODULES[task.type].equivalents(task) if task.type in MODULES else []
    return [*(_levelled(task, each) for each in found if each.text != task.gold), *permitted.notations(task)]


def _levelled(task: GoldTask, each: Variant) -> Variant:
    """A rendering at the level that the prompt gives it. Blanks count in what it calls no JSON, object or list."""
    asked = task.prompt
    if any(each.kind.startswith(name) and said.search(asked) for name, said in permitted.SAID.items()):
        return replace(each, level="layout")
    strict = STRICT.search(asked) or (task.type == "json" and not LOOSE.search(asked))
    return replace(each, level="notation") if strict else each


def unevaluated(task: GoldTask) -> list[Variant]:
    """Expressions that equal a number and are not written out: `6*7` for 42; what is to be converted, as the prompt has
    it; nothing for other types."""
    if task.type not in ("number", "string"):
        return []
    found = numbers.unevaluated(task) if task.type == "number" else []
    copied = [match[1] or match[2] for match in CONVERTED.finditer(task.task.asked)]
    return found + [Variant("what is to be converted", each) for each in copied if _plain(each) != _plain(task.gold)]


def same(task: GoldTask, answer: str) -> bool:
    """Whether an answer says what the reference says, or one of several right answers that the task lists: equal
    numbers, or within a tolerance that the prompt states, equal values of expressions, equal JSON, else equal texts
    without regard to case and punctuation."""
    if _plain(answer) == _plain(task.gold) or _plain(answer) in _right_answers(task):
        return True
    if task.accepted:
        items, least = [_plain(item) for item in answer.split(",")], len(task.gold.split(","))
        return least <= len({*items}) == len(items) and {*items} <= {*map(_plain, task.accepted)}
    if len(answer) > LONGEST or task.type not in MODULES:
        return False
    return numbers.tolerated(task, answer) or MODULES[task.type].same(task, answer)


def _right_answers(task: GoldTask) -> set[str]:
    """The items of lists that hold the reference answer too; not those of options to choose from."""
    found: set[str] = set()
    for name, value in task.columns.items():
        if isinstance(value, list | tuple) and not OFFERED.search(name):
            items = {_plain(str(item)) for item in value}
            found |= items if _plain(task.gold) in items else set()
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
