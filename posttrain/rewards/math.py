r"""Verifiable mathematics: is the final answer the reference answer?

math-verify compares symbolic answers; what counts as an answer at all is decided here and in `literals`, since
math-verify alone also accepts unevaluated work, negated answers, wrong units and `41=42`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from posttrain.rewards.answers import Answer, parse_answer
from posttrain.rewards.extract import BOX, marked_answers, strip_thinking
from posttrain.rewards.literals import FUNCTIONS, NotLiteral

TOLERANCE = Fraction(1, 10**9)
NEGATED_BOX = re.compile(r"(?:\bnot|n't|\bnever|≠|\\neq?)[\s$(\[\\]*" + BOX.pattern)


def math(response: str, answer: Any = None, solution: Any = None, ground_truth: Any = None) -> float | None:
    r"""1.0 if the response's one final answer is the reference, else 0.0; does not apply where that is null.

    The reference is the column `answer`, else `solution`, else `ground_truth`: a literal, or a text that marks one with
    `\boxed{}` or `####`. The final answer stands after the thinking, in `\boxed{}` or `<answer>`, on an `Answer:` line
    or behind `####`; two distinct ones are wrong. Without a mark the whole response must be one literal. It must be
    written out: fractions, roots, π, powers, polynomials and one `name =` in front are fine; products and sums of
    numbers, factorials, binomials, gcd, limits, integrals and chains of `=` are work left undone and wrong. A unit must
    be that of the reference or absent; 9% is 0.09. Integers and fractions are compared exactly, decimals to 1e-9
    relative (against an integer reference exactly), symbolic answers by math-verify.
    Range {0, 1}, no unit; None where all three columns are null. Fails where the reference cannot be parsed, and where
    a comparison does not come to an end.
    Source: math-verify 0.9, made strict; the rule-based accuracy reward of DeepSeek-R1 (arXiv:2501.12948)."""
    given = next((column for column in (answer, solution, ground_truth) if column is not None), None)
    if given is None:
        return None
    gold = parse_reference(given)
    found = final_answer(response, gold)
    return float(found is not None and equal(gold, found))


def parse_reference(given: Any) -> Answer:
    """The reference as an answer. Raises TypeError or ValueError where there is none that can be parsed."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise TypeError(f"the reference answer {given!r} is neither text nor a number")
    text = str(given)
    marks = _distinct(marked_answers(text), FUNCTIONS) or [text]
    if len(marks) > 1:
        raise ValueError(f"the reference has several answers: {', '.join(marks)[:200]}")
    try:
        return parse_answer(marks[0], FUNCTIONS)
    except NotLiteral as why:
        raise ValueError(f"the reference answer {marks[0][:200]!r} cannot be parsed: {why}") from None


def final_answer(response: str, gold: Answer) -> Answer | None:
    """The one answer that a response gives, None where it gives none, several, or no literal.

    Functions (sin, log, binomials, …) are allowed only if the reference itself has them."""
    text = strip_thinking(response)
    if NEGATED_BOX.search(text):
        return None
    marks = _distinct(marked_answers(text), gold.functions) or [text]
    if len(marks) > 1:
        return None
    try:
        return parse_answer(marks[0], gold.functions)
    except NotLiteral:
        # A reference may have a form that no answer may have otherwise; repeating it is right.
        return gold if " ".join(marks[0].split()) == gold.source else None


def _distinct(marks: list[str], functions: frozenset[str]) -> list[str]:
    """One mark of each meaning: the same number written in two ways is one answer."""
    seen: dict[object, str] = {}
    for mark in marks:
        try:
            parsed = parse_answer(mark, functions)
        except NotLiteral:
            seen.setdefault(" ".join(mark.split()), mark)
        else:
            plain = parsed.value is not None
            seen.setdefault((parsed.value, parsed.unit) if plain else (parsed.text, parsed.unit), mark)
    return list(seen.values())


def equal(gold: Answer, found: Answer) -> bool:
    """Whether two answers say the same; see `math` for the rule."""
    if gold.name and found.name and gold.name != found.name:
        return False
    if found.unit and found.unit != gold.unit:
        return False
    if gold.kind != found.kind:
        return False
    if gold.kind == "list":
        return _equal_lists(gold, found)
    if gold.text == found.text:
        return True
    if gold.kind == "words":
        return gold.text.casefold() == found.text.casefold()
    if gold.value is not None:
        return found.value is not None and equal_numbers(gold, found.value, gold.decimal or found.decimal)
    if gold.operators != found.operators or not found.letters <= gold.letters:
        return False
    return _equal_symbols(gold, found)


def equal_numbers(gold: Answer, value: Fraction, decimal: bool) -> bool:
    """Exact, or to a relative 1e-9 where one side is a decimal and the reference is no integer."""
    assert gold.value is not None
    if not decimal or gold.value.denominator == 1:
        return gold.value == value
    return abs(gold.value - value) <= TOLERANCE * abs(gold.value)


def _equal_lists(gold: Answer, found: Answer) -> bool:
    """Tuples, intervals and matrices element by element; sets and plain lists in any order."""
    if gold.brackets != found.brackets or len(gold.items) != len(found.items):
        return False
    if gold.brackets not in ("", "{}", "∪"):
        return all(equal(g, f) for g, f in zip(gold.items, found.items, strict=True))
    left = list(found.items)
    for item in gold.items:
        match = next((i for i, other in enumerate(left) if equal(item, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _equal_symbols(gold: Answer, found: Answer) -> bool:
    """math-verify's verdict, reference first; a decimal against an irrational number is compared here instead, since
    math-verify rounds to six digits. Raises math-verify's TimeoutException."""
    import sympy  # slow imports, so only where needed
    from math_verify import parse, verify

    left = parse(f"${gold.text}$", raise_on_error=True)
    right = parse(f"${found.text}$")
    if found.value is not None and found.decimal and left and isinstance(left[0], sympy.Expr):
        exact = sympy.N(left[0], 30)
        return bool(exact.is_real) and abs(Fraction(str(exact)) - found.value) <= TOLERANCE * abs(Fraction(str(exact)))
    return bool(verify(left, right, raise_on_error=True))
