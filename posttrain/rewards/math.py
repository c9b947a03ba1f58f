r"""Verifiable mathematics: is the final answer the reference answer?

Where the answer stands is found in `extract`; what counts as an answer at all is decided in `answers` and `literals`;
`identity` compares symbolic ones.
"""

from __future__ import annotations

import re
from contextlib import suppress
from fractions import Fraction
from typing import Any

from posttrain.rewards import identity
from posttrain.rewards.answers import Answer, as_relation, parse_answer
from posttrain.rewards.extract import BOX, marked_answers, strip_thinking
from posttrain.rewards.literals import UNDONE, NotLiteral

DECIMAL_DIGITS = 9
TOLERANCE = Fraction(1, 10**DECIMAL_DIGITS)
MAX_MARKS = 50
NOT_BEFORE = re.compile(
    r"(?:\b(?:not|never|anything but|other than|rather than|instead of|except)\b|n't|≠|\\neq?)[\s$(\[\\]{0,20}"
    + BOX.pattern,
    re.IGNORECASE,
)
NOT_AFTER = re.compile(
    r"\}[\s$)\].\\]{0,20}(?:(?:is|was|would be)\s+(?:not|wrong|incorrect|false|never)|isn't|wasn't|cannot be)\b",
    re.IGNORECASE,
)


def math(
    response: str, answer: Any = None, solution: Any = None, ground_truth: Any = None, *, lenient: bool = False
) -> float | None:
    r"""1.0 if the response's one final answer is the reference, else 0.0; does not apply where that is null.

    The reference is the column `answer`, else `solution`, else `ground_truth`: a literal, or a text that marks one with
    `\boxed{}` or `####`. The final answer stands after the thinking, in `\boxed{}` or `<answer>`, on an `Answer:` line
    or behind `####`; two distinct ones are wrong, unless `lenient`: then the last one counts. Without a mark the whole
    response must be one literal. It must be written out: fractions, roots, π, powers, polynomials and one `name =` in
    front are fine; products, quotients and sums of numbers, factorials and functions of numbers, gcd, limits,
    integrals and chains of `=` are work left undone and wrong, unless the reference leaves the same undone. A unit must
    be that of the reference or absent; 9% is 0.09. Integers and fractions are compared exactly, decimals to 1e-9
    relative (against an integer reference exactly), symbolic answers by their values to 40 digits.
    Range {0, 1}, no unit; None where all three columns are null. Fails where the reference cannot be parsed.
    Source: the rule-based accuracy reward of DeepSeek-R1 (arXiv:2501.12948), made strict; measured in docs/math.md."""
    given = next((column for column in (answer, solution, ground_truth) if column is not None), None)
    if given is None:
        return None
    gold = parse_reference(given)
    found = final_answer(response, gold, lenient)
    return float(found is not None and equal(gold, found))


def parse_reference(given: Any) -> Answer:
    """The reference as an answer. Raises TypeError or ValueError where there is none that can be parsed."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise TypeError(f"the reference answer {given!r} is neither text nor a number")
    text = str(given)
    marks = _distinct(marked_answers(text), UNDONE) or [text]
    if len(marks) > 1:
        raise ValueError(f"the reference has several answers: {', '.join(marks)[:200]}")
    try:
        return parse_answer(marks[0], UNDONE)
    except NotLiteral as why:
        raise ValueError(f"the reference answer {marks[0][:200]!r} cannot be parsed: {why}") from None


def final_answer(response: str, gold: Answer, lenient: bool = False) -> Answer | None:
    """The one answer that a response gives, None where it gives none, several, or no literal."""
    text = strip_thinking(response)
    if NOT_BEFORE.search(text) or NOT_AFTER.search(text):
        return None
    marks = marked_answers(text)
    marks = marks[-1:] if lenient else _distinct(marks, gold.undone)
    if len(marks) > 1:
        return None
    mark = marks[0] if marks else text
    try:
        return parse_answer(mark, gold.undone)
    except NotLiteral:
        # A reference may have a form that no answer may have otherwise; repeating it is right.
        return gold if " ".join(mark.split()) == gold.source else None


def _distinct(marks: list[str], allowed: frozenset[str]) -> list[str]:
    """One mark of each meaning: the same number written in two ways is one answer. Stops looking after MAX_MARKS."""
    seen: dict[object, str] = {}
    for mark in list(dict.fromkeys(marks))[:MAX_MARKS]:
        try:
            parsed = parse_answer(mark, allowed)
        except NotLiteral:
            seen.setdefault(" ".join(mark.split()), mark)
        else:
            plain = parsed.value is not None
            seen.setdefault((parsed.value, parsed.unit) if plain else (parsed.text, parsed.unit), mark)
    return list(seen.values())


def equal(gold: Answer, found: Answer) -> bool:
    """Whether two answers say the same; see `math` for the rule."""
    if gold.kind == "relation" and found.name and found.kind == "value":
        with suppress(NotLiteral):
            found = as_relation(found)
    if gold.name and found.name and gold.name != found.name:
        return False
    if found.unit and found.unit != gold.unit:
        return False
    if gold.kind == "relation" and found.kind == "list" and gold.interval:
        gold = gold.interval
    if gold.kind != found.kind:
        return False
    if gold.kind == "list":
        return _equal_lists(gold, found)
    if gold.text == found.text and gold.text:
        return True
    if gold.kind in ("words", "based"):
        return gold.text.casefold() == found.text.casefold()
    if not found.letters <= gold.letters:
        return False
    if gold.kind == "relation":
        return _equal_relations(gold, found)
    if gold.value is not None and found.value is not None:
        return equal_numbers(gold, found.value, gold.decimal or found.decimal)
    return _equal_symbols(gold, found)


def equal_numbers(gold: Answer, value: Fraction, decimal: bool) -> bool:
    """Exact, or to a relative 1e-9 where one side is a decimal and the reference is no integer."""
    assert gold.value is not None
    if not decimal or gold.value.denominator == 1:
        return gold.value == value
    return abs(gold.value - value) <= TOLERANCE * abs(gold.value)


def _equal_lists(gold: Answer, found: Answer) -> bool:
    """Tuples, intervals and matrices element by element; sets and plain lists in any order, unless the names of their
    items give one."""
    unordered = ("", "{}")
    if gold.brackets != found.brackets and not (gold.brackets in unordered and found.brackets in unordered):
        return False
    if len(gold.items) != len(found.items):
        return False
    # `x=1, y=2` for `1, 2`, or the other way round
    named = any(len({item.name for item in one.items}) > 1 for one in (gold, found)) and not (
        all(item.name for item in gold.items) and all(item.name for item in found.items)
    )
    if gold.brackets not in (*unordered, "∪") or named:
        return all(equal(g, f) for g, f in zip(gold.items, found.items, strict=True))
    left = list(found.items)
    for item in gold.items:
        match = next((i for i, other in enumerate(left) if equal(item, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _equal_symbols(gold: Answer, found: Answer) -> bool:
    """Equal to 40 digits wherever the reference is real. One decimal side may be 1e-9 away from an irrational one."""
    golds, founds = (identity.values(answer.tree, gold.letters) for answer in (gold, found))
    if gold.value is None and not (found.decimal and found.value is not None):
        return identity.same(golds, founds)
    decimal = gold if gold.value is not None else found
    if not decimal.decimal or decimal.value is None or None in (golds[0], founds[0]):
        return False
    near = identity.close(golds[0], founds[0], DECIMAL_DIGITS)
    # An exactly equal symbolic answer to a decimal reference is a rational number left undone.
    return near and not (decimal is gold and identity.same(golds, founds))


def _equal_relations(gold: Answer, found: Answer) -> bool:
    """The same relations to 0, in any order, up to a constant factor: of any sign for = and ≠, else positive."""
    left = [(identity.values(tree, gold.letters), sign) for tree, sign in found.relations]
    for tree, sign in gold.relations:
        values = identity.values(tree, gold.letters)
        for candidate in left:
            factor = identity.ratio(values, candidate[0]) if candidate[1] == sign else None
            if factor is not None and (sign in "=≠" or (identity.is_real(factor) and factor.real > 0)):
                left.remove(candidate)
                break
        else:
            return False
    return not left
