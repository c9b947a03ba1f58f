"""Expressions, plain or in LaTeX: near misses, and other ways to write them. Two are the same where their values are,
see `guard.formulas`."""

from __future__ import annotations

import random
import re
from fractions import Fraction

from posttrain.audits.answers.variant import Variant, distinct, dressed, other_digit
from posttrain.audits.golds import GoldTask
from posttrain.audits.guard import formulas

LARGEST_DENOMINATOR = 10_000
ONCE = re.compile(
    r"\b(?:us(?:e|es|ed|ing)|numbers?|digits?|each|all)\b[^.]{0,60}\b(?:once|one time)\b"
    r"|\b(?:not|never|without) (?:be )?reus",
    re.IGNORECASE,
)
"""Prompts in which a number may be used a single time, so that an expression of the same value may be wrong."""
EACH = re.compile(r"\b(?:each|every|all)\b(?!.*\bat most\b)", re.IGNORECASE)
NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def values(text: str) -> list[complex] | None:
    """The values at some points, `7x` of `y = 7x`; None where the text is no expression, or has none at one of them."""
    return formulas.values(_right_side(text))


def same(task: GoldTask, answer: str) -> bool:
    """Whether the values agree; where each number may be used once, the numbers too."""
    gold, other = values(task.gold), values(answer)
    if ONCE.search(task.task.asked) and sorted(NUMBERS.findall(task.gold)) != sorted(NUMBERS.findall(answer)):
        return False
    return gold is not None and other is not None and all(map(formulas.close, gold, other))


def near_misses(task: GoldTask, rng: random.Random) -> list[Variant]:
    gold, letters = task.gold, re.findall(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", task.gold)
    if values(gold) is None:
        return []
    found = [Variant("one more", f"{gold} + 1"), Variant("the other sign", f"-({_right_side(gold)})")]
    if (changed := other_digit(gold, rng)) is not None:
        found.append(Variant("another digit", changed))
    if letters:
        letter = rng.choice(letters)
        other = next(c for c in "xyzabcnmt" if c not in letters)
        text = re.sub(rf"(?<![\\a-zA-Z]){letter}(?![a-zA-Z])", other, gold)
        found.append(Variant("another letter", text))
    if ONCE.search(task.task.asked) and (numbers := NUMBERS.findall(gold)):
        number = rng.choice(numbers)
        found.append(Variant("a number used again", f"{gold} + {number} - {number}"))
        found.append(Variant("a number used again as a factor", f"({gold}) * {number} / {number}"))
        value = formulas.value(gold)
        if EACH.search(task.task.asked) and len(numbers) > 1 and value is not None and not value.imag:
            found.append(Variant("the value alone", f"{Fraction(value.real).limit_denominator(LARGEST_DENOMINATOR)}"))
    if (inside := re.sub(r"\\?sqrt\{?\(?([^(){}]*)[)}]", r"(\1)", gold)) != gold:
        found.append(Variant("the root left out", inside))
    return [v for v in distinct(found) if values(v.text) is not None and not same(task, v.text)]


def equivalents(task: GoldTask) -> list[Variant]:
    gold = task.gold
    found = [*dressed(gold), Variant("in a formula", f"${gold}$")]
    if values(gold) is not None:
        spaced = re.sub(r"\s*([-+])\s*", r" \1 ", gold).strip() if not re.match(r"\s*[-+]", gold) else gold
        written = [
            ("without blanks", re.sub(r"(?<=[^a-zA-Z])\s+|\s+(?=[^a-zA-Z])", "", gold)),
            ("blanks around signs", spaced),
            ("powers in braces", re.sub(r"\^([0-9a-zA-Z])(?![0-9])", r"^{\1}", gold)),
            ("a dot for times", re.sub(r"\s*(?<!\*)\*(?!\*)\s*", r" \\cdot ", gold)),
            ("left and right brackets", gold.replace("(", "\\left(").replace(")", "\\right)")),
            ("large fractions", gold.replace("\\frac", "\\dfrac")),
            ("the terms in another order", _reordered(gold)),
        ]
        found += [
            Variant(kind, text, "layout" if "blanks" in kind else "notation")
            for kind, text in written
            if text != gold and same(task, text)
        ]
    return distinct(found)


def _reordered(gold: str) -> str:
    """`b + a` for `a + b`, where the two terms stand in no bracket."""
    depth = 0
    for i, character in enumerate(gold):
        depth += (character in "({[") - (character in ")}]")
        if character == "+" and not depth and i and "=" not in gold and "-" not in gold:
            return f"{gold[i + 1 :].strip()} + {gold[:i].strip()}"
    return gold


def _right_side(text: str) -> str:
    """`7x` of `y = 7x`."""
    match = re.fullmatch(r"\s*\$?\s*[a-zA-Z](?:\([a-zA-Z]\))?\s*=\s*([^=]+)", text)
    return match[1] if match else text
