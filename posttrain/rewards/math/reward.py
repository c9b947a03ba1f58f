r"""Verifiable mathematics: is the final answer the reference answer?

Where the answer stands is found in `extract`; what counts as an answer at all is decided in `answers` and `literals`;
`identity` compares symbolic ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import combinations
from typing import Any

from posttrain.rewards.extract import Mark, marked_answers, marks, strip_thinking
from posttrain.rewards.math import equality as identity
from posttrain.rewards.math.denials import denied
from posttrain.rewards.math.latex import UNEVALUATED, NotLiteral
from posttrain.rewards.math.parse import MathAnswer, as_relation, parse_answer
from posttrain.rewards.math.restated import restated
from posttrain.rewards.math.units import same_unit

DECIMAL_DIGITS = 9
TOLERANCE = Fraction(1, 10**DECIMAL_DIGITS)
MAX_MARKS = 50
PROSE = re.compile(r"(?:(?<![\\A-Za-z])[A-Za-z'’]+[ ,]+){2}[A-Za-z]")
CLAIM = re.compile(r"\b(?:is|are|was|equals?|gives?)\b|=")
"""What a sentence says stands after the last of these: 12 in "The total is 12"."""


def math(
    response: str,
    answer: Any = None,
    solution: Any = None,
    ground_truth: Any = None,
    prompt: str | None = None,
    *,
    lenient: bool = False,
) -> float | None:
    r"""1.0 if the response's one final answer is the reference, else 0.0; does not apply where that is null.

    The reference is the column `answer`, else `solution`, else `ground_truth`: a literal, or a text that marks one with
    `\boxed{}` or `####`. The final answer stands after the thinking, in `\boxed{}` or `<answer>`, on an `Answer:` line
    or behind `####`; it may be given several times, but two distinct ones are wrong, unless `lenient`: then the last
    one counts. A mark that holds no answer (`\boxed{}`, `\boxed{?}`) is none. Without a mark the whole response must be
    one literal. It must be written out: fractions, roots, π, powers, polynomials and one `name =` in front are fine;
    products, quotients and sums of numbers, powers and roots that are rational numbers (but 10^6), factorials and
    functions of numbers, gcd, limits, integrals and chains of `=` are work left undone and wrong, unless the reference
    leaves the same undone. Wrong is also what the text denies ("that is wrong"), and an expression of the `prompt` that
    the reference does not have: "expand (x+1)^2" is not answered by (x+1)^2. A unit must be that of the reference or
    absent; 9% is 0.09. Integers and fractions are compared exactly, decimals to 1e-9 relative (against an integer
    reference exactly), symbolic answers by their values to 40 digits.
    Range {0, 1}, no unit; None where all three columns are null. Fails where the reference cannot be parsed.
    Source: the rule-based accuracy reward of DeepSeek-R1 (arXiv:2501.12948), made strict; measured in docs/math.md."""
    given = next((column for column in (answer, solution, ground_truth) if column is not None), None)
    if given is None:
        return None
    gold = parse_reference(given)
    text = strip_thinking(response)
    found = marks(text)[-1 if lenient else 0 :]
    answers = final_answers(found, gold) if found else _parsed([text], gold)
    right = bool(answers) and all(equal(gold, one) for one in answers)
    if right and any(denied(text, mark) for mark in found):
        return 0.0
    return float(right and not (prompt and any(restated(prompt, gold, one) for one in answers)))


def parse_reference(given: Any) -> MathAnswer:
    """The reference as an answer. Raises TypeError or ValueError where there is none that can be parsed."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise TypeError(f"the reference answer {given!r} is neither text nor a number")
    texts = list(dict.fromkeys(marked_answers(str(given)) or [str(given)]))
    try:
        answers = [parse_answer(text, UNEVALUATED) for text in texts[:MAX_MARKS]]
    except NotLiteral as why:
        if len(texts) == 1:
            raise ValueError(f"the reference answer {texts[0][:200]!r} cannot be parsed: {why}") from None
        answers = []
    if not one_answer(answers):
        raise ValueError(f"the reference has several answers: {', '.join(texts)[:200]}")
    return max(answers, key=lambda each: (bool(each.unit), bool(each.name)))


def one_answer(answers: Sequence[MathAnswer]) -> bool:
    """Whether all of them say the same."""
    return bool(answers) and all(equal(a, b) or equal(b, a) for a, b in combinations(answers, 2))


def same_answer(texts: Sequence[str]) -> bool:
    """Whether all texts give one answer, in whatever forms; texts that are no literals must be alike."""
    if len(set(texts)) == 1:
        return True
    try:
        return one_answer([parse_answer(text, UNEVALUATED) for text in texts[:MAX_MARKS]])
    except NotLiteral:
        return False


def final_answers(found: Sequence[Mark], gold: MathAnswer) -> list[MathAnswer]:
    """What the marks of a response say, each as a literal; nothing where one of them says no literal.

    A sentence after `Answer:` beside another mark is no mark, but what it ends in (`The total is 12.`) must agree."""
    prose = {mark.text for mark in found if mark.kind != "box" and PROSE.search(mark.text)}
    prose = {text for text in prose if not _parsed([text], gold)}
    if len(prose) == len(texts := dict.fromkeys(mark.text for mark in found)):
        return []
    claims = [said[-1].strip(" .*") for text in prose if len(said := CLAIM.split(text)) > 1]
    claims = [claim for claim in claims if re.search("[0-9]", claim)]
    return _parsed([text for text in texts if text not in prose] + claims, gold)


def _parsed(texts: Sequence[str], gold: MathAnswer) -> list[MathAnswer]:
    """The answers, none where one is no literal. A reference may have a form that no answer may have otherwise;
    repeating it is right."""
    answers: list[MathAnswer] = []
    for text in texts[: MAX_MARKS + 1]:
        try:
            answers.append(parse_answer(text, gold.undone, gold.units))
        except NotLiteral:
            if " ".join(text.split()) != gold.source:
                return []
            answers.append(gold)
    return answers if len(answers) <= MAX_MARKS else []


def equal(gold: MathAnswer, found: MathAnswer) -> bool:
    """Whether two answers say the same; see `math` for the rule."""
    if gold.kind == "relation" and found.name and found.kind == "value":
        with suppress(NotLiteral):
            found = as_relation(found)
    if gold.name and found.name and gold.name != found.name:
        return False
    if not same_unit(gold.unit, found.unit):
        if gold.unit or not gold.letters or not gold.source:
            return False
        with suppress(NotLiteral):  # `18 m` as the reference of `18\text{ m}`
            gold = parse_answer(gold.source, UNEVALUATED, found.units)
        if gold.unit != found.unit:
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
        return (found.solved or not gold.solved) and _equal_relations(gold, found)
    if gold.value is not None and found.value is not None:
        return equal_numbers(gold, found.value, gold.decimal or found.decimal)
    return _equal_symbols(gold, found)


def equal_numbers(gold: MathAnswer, value: Fraction, decimal: bool) -> bool:
    """Exact, or to a relative 1e-9 where one side is a decimal and the reference is no integer."""
    assert gold.value is not None
    if not decimal or gold.value.denominator == 1:
        return gold.value == value
    return abs(gold.value - value) <= TOLERANCE * abs(gold.value)


def _equal_lists(gold: MathAnswer, found: MathAnswer) -> bool:
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


def _equal_symbols(gold: MathAnswer, found: MathAnswer) -> bool:
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


def _equal_relations(gold: MathAnswer, found: MathAnswer) -> bool:
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
