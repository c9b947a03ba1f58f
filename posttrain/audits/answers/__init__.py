"""What can be made of a reference answer, by its type: answers that are wrong, the same answer in other words, and work
that is left undone.

Nothing here shares code with a reward: what is wrong is so by exact arithmetic, by values at random points, or by its
construction."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Protocol

from posttrain.audits.answers import choices, expressions, numbers, programs, strings, structures, texts
from posttrain.audits.answers.variant import Variant
from posttrain.audits.golds import AnswerType, GoldTask

__all__ = ["GRADABLE", "Variant", "equivalents", "far", "near_misses", "same", "unevaluated"]

GRADABLE: tuple[AnswerType, ...] = ("number", "expression", "choice", "string", "json")
"""Types of which it can be said without a judge that an answer is wrong."""
LONGEST = 1000
"""A text of more characters is read for nothing but equality: it may be made to take long."""
FREE_CHOICE = re.compile(
    r"\b(?:give|name|find|suggest|pick|choose)\s+(?:me\s+)?(?:an?|any|some)\b"
    r"(?!\s+(?:short|brief|single|full|final|exact|json|object|dictionary|table|translation|summary))"
    r"|\bany (?:one )?of\b",
    re.IGNORECASE,
)
"""Prompts that have several right answers, so that another one need not be wrong."""
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
    if task.type not in MODULES or FREE_CHOICE.search(task.task.asked):
        return []
    return [variant for variant in MODULES[task.type].near_misses(task, rng) if not same(task, variant.text)]


def far(task: GoldTask) -> str:
    """An answer as far from any right one as its type allows, so that a graded reward pays nothing for it."""
    return structures.far(task) if task.type == "json" else FAR[task.type]


def equivalents(task: GoldTask) -> list[Variant]:
    """The reference answer in other renderings, one of a kind, which a reader takes for the same answer."""
    if task.type == "code":
        return programs.equivalents(task)
    found = MODULES[task.type].equivalents(task) if task.type in MODULES else []
    return [variant for variant in found if variant.text != task.gold]


def unevaluated(task: GoldTask) -> list[Variant]:
    """Expressions that equal a number and are not written out: `6*7` for 42; none for other types."""
    return numbers.unevaluated(task) if task.type == "number" else []


def same(task: GoldTask, answer: str) -> bool:
    """Whether an answer says what the reference says, or one of several right answers that the task lists: equal
    numbers, equal values of expressions, equal JSON, else equal texts without regard to case and punctuation."""
    if _plain(answer) == _plain(task.gold) or _plain(answer) in _right_answers(task):
        return True
    return len(answer) <= LONGEST and task.type in MODULES and MODULES[task.type].same(task, answer)


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
