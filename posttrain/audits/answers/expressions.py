r"""Expressions, plain or in LaTeX: their values at points, near misses, and other ways to write them.

Two expressions are the same where their values agree at the points of `POINTS`. Rational values are exact, others
floats: an answer counts as wrong only where they differ by far more than rounding."""

from __future__ import annotations

import cmath
import math
import random
import re
from collections.abc import Mapping
from fractions import Fraction

from posttrain.audits.answers.variant import Variant, distinct, dressed, other_digit
from posttrain.audits.golds import GoldTask

Value = Fraction | complex
MAX_CHARACTERS, MAX_POWER, MAX_DEPTH = 400, 64, 40
POINTS = 3
CLOSE = 1e-9
TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|\\([a-zA-Z]+)|(sqrt|pi)(?![a-z])|(\*\*)|([a-zA-Z])|(.))")
SPACING = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[,;:! ]|\\quad(?![a-z])|[$]")
ROOTS, FRACTIONS = ("sqrt",), ("frac", "dfrac", "tfrac")
SIGNS = {"cdot": "*", "times": "*", "div": "/", "**": "^", "×": "*", "÷": "/", "−": "-", "·": "*"}
ONCE = re.compile(
    r"\b(?:us(?:e|es|ed|ing)|numbers?|digits?|each|all)\b[^.]{0,60}\b(?:once|one time)\b"
    r"|\b(?:not|never|without) (?:be )?reus",
    re.IGNORECASE,
)
"""Prompts in which a number may be used a single time, so that an expression of the same value may be wrong."""
EACH = re.compile(r"\b(?:each|every|all)\b(?!.*\bat most\b)", re.IGNORECASE)
NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
OPEN = {"(": ")", "{": "}", "[": "]"}


def value_of(text: str, point: Mapping[str, Fraction]) -> Value:
    """The value of an expression where its letters are as `point` says. Raises ValueError for what is none, is too
    large, or is not defined there."""
    try:
        return _Reader(text, point).read()
    except (ArithmeticError, RecursionError) as why:
        raise ValueError(f"{text[:80]!r} has no value: {why}") from None


def values(text: str) -> list[Value] | None:
    """The values at the points; None where the text is no expression, or has none at one of them."""
    text = _right_side(text)
    letters = sorted(set(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", re.sub(r"\\[a-zA-Z]+", " ", text))))
    letters += [letter for letter in re.findall("[a-zA-Z]", text) if letter not in letters]
    try:
        return [value_of(text, _point(letters, k)) for k in range(POINTS)]
    except ValueError:
        return None


def same(task: GoldTask, answer: str) -> bool:
    """Whether the values agree; where each number may be used once, the numbers too."""
    gold, other = values(task.gold), values(answer)
    if ONCE.search(task.task.asked) and sorted(NUMBERS.findall(task.gold)) != sorted(NUMBERS.findall(answer)):
        return False
    return gold is not None and other is not None and all(map(_close, gold, other))


def near_misses(task: GoldTask, rng: random.Random) -> list[Variant]:
    gold, letters = task.gold, re.findall(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", task.gold)
    if values(gold) is None:
        return []
    signs = [match.start() for match in re.finditer(r"(?<=[^\s({^=])\s*[-+]", gold)]
    found = [Variant("one more", f"{gold} + 1"), Variant("the other sign", f"-({_right_side(gold)})")]
    if (changed := other_digit(gold, rng)) is not None:
        found.append(Variant("another digit", changed))
    if signs:
        start = rng.choice(signs)
        flipped = re.sub("[-+]", lambda sign: "-" if sign[0] == "+" else "+", gold[start:], count=1)
        found.append(Variant("a sign changed", gold[:start] + flipped))
    if letters:
        letter = rng.choice(letters)
        other = next(c for c in "xyzabcnmt" if c not in letters)
        text = re.sub(rf"(?<![\\a-zA-Z]){letter}(?![a-zA-Z])", other, gold)
        found.append(Variant("another letter", text))
    if ONCE.search(task.task.asked) and (numbers := NUMBERS.findall(gold)):
        number = rng.choice(numbers)
        found.append(Variant("a number used again", f"{gold} + {number} - {number}"))
        found.append(Variant("a number used again as a factor", f"({gold}) * {number} / {number}"))
        value = values(gold)
        if EACH.search(task.task.asked) and len(numbers) > 1 and value and isinstance(value[0], Fraction):
            found.append(Variant("the value alone", f"{value[0]}"))
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


def _point(letters: list[str], k: int) -> dict[str, Fraction]:
    """Positive values of no simple relation to each other, so that roots and logarithms are defined."""
    return {c: Fraction(random.Random(f"{c}/{k}").randrange(1_000, 100_000), 9973) for c in letters}


def _close(a: Value, b: Value) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    return abs(complex(a) - complex(b)) <= CLOSE * max(abs(complex(a)), abs(complex(b)), 1e-30)


class _Reader:
    """Reads an expression from left to right and computes its value."""

    def __init__(self, text: str, point: Mapping[str, Fraction]) -> None:
        if len(text) > MAX_CHARACTERS:
            raise ValueError("too long")
        self.tokens = [_token(match) for match in TOKEN.finditer(SPACING.sub(" ", text).strip())]
        self.point, self.at, self.depth = point, 0, 0

    def read(self) -> Value:
        value = self.sum()
        if self.at < len(self.tokens):
            raise ValueError(f"{self.tokens[self.at]!r} follows an expression")
        return value

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1] if self.at <= len(self.tokens) else ""

    def sum(self) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        value = self.product()
        while self.next in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            value = value + sign * self.product()
        self.depth -= 1
        return value

    def product(self) -> Value:
        value = self.signed()
        while self.next and self.next not in ("+", "-", ")", "}", "]", "=", ","):
            if self.next == "/":
                self.take()
                value = value / self.signed()
                continue
            if self.next == "*":
                self.take()
                value = value * self.signed()
            elif self.next[0].isdigit():
                raise ValueError("a number behind a factor")
            else:
                value = value * self.power()
        return value

    def signed(self) -> Value:
        if self.next in ("+", "-"):
            return self.signed() if self.take() == "+" else -self.signed()
        return self.power()

    def power(self) -> Value:
        base = self.atom()
        if self.next != "^":
            return base
        self.take()
        exponent = self.signed()
        if abs(complex(exponent)) > MAX_POWER or abs(complex(base)) > 1e12:
            raise ValueError("too large")
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return base ** int(exponent)
        return _plain(complex(base) ** complex(exponent))

    def atom(self) -> Value:
        token = self.take()
        if token in OPEN:
            value = self.sum()
            if self.take() != OPEN[token]:
                raise ValueError("a bracket is not closed")
            return value
        if token[:1].isdigit() or token[:1] == ".":
            return Fraction(token)
        if token == "pi":
            return complex(math.pi)
        if token in FRACTIONS:
            return self.atom() / self.atom()
        if token in ROOTS:
            degree = self.atom() if self.next == "[" else Fraction(2)
            return (
                _plain(cmath.exp(cmath.log(complex(inside)) / complex(degree))) if (inside := self.atom()) else inside
            )
        if token in self.point:
            return self.point[token]
        raise ValueError(f"{token!r} is no part of an expression")


def _token(match: re.Match[str]) -> str:
    token = next(group for group in match.groups() if group is not None)
    return SIGNS.get(token, token)


def _plain(value: complex) -> complex:
    if not cmath.isfinite(value):
        raise ValueError("not finite")
    return value
