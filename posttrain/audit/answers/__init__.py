"""What can be made of a reference answer, by its type: answers that are wrong, the same answer in other words, and work
that is left undone.

Nothing here shares code with a reward: what is wrong is so by exact arithmetic, by values at random points, or by its
construction."""

from __future__ import annotations

import random

from posttrain.audit.answers import expressions, numbers, programs, structures, words
from posttrain.audit.answers.variant import Variant
from posttrain.audit.golds import AnswerType, GoldTask

__all__ = ["GRADABLE", "Variant", "equivalents", "near_misses", "same", "unevaluated"]

GRADABLE: tuple[AnswerType, ...] = ("number", "expression", "choice", "string", "json")
"""Types of which it can be said without a judge that an answer is wrong."""
MODULES = {
    "number": numbers,
    "expression": expressions,
    "choice": words.CHOICES,
    "string": words.STRINGS,
    "json": structures,
}


def near_misses(task: GoldTask, rng: random.Random) -> list[Variant]:
    """Answers that are nearly the reference and wrong, one of a kind, as plain text without a form; none for code,
    whose mutants probe A20 runs, and for free text."""
    found = MODULES[task.type].near_misses(task, rng) if task.type in MODULES else []
    return [variant for variant in found if not same(task, variant.text)]


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
    """Whether an answer says what the reference says: equal numbers, equal values of expressions, equal JSON, else
    equal texts without regard to case, blanks and punctuation at the ends."""
    if " ".join(answer.split()).casefold() == " ".join(task.gold.split()).casefold():
        return True
    return task.type in MODULES and MODULES[task.type].same(task, answer)
