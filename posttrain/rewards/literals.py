r"""Which texts are a finished answer, and what they say.

A literal is a number (`1,234`, `-3.5`, `1.2 \times 10^5`, `3\frac12`, `5%`), fraction, root, power, π, polynomial, or a
pair, list, set, interval, matrix, equation or inequality of such; also a word or two (`\text{Tuesday}`). One
`name =` may stand in front and a unit behind. No literal is what leaves work undone: × or ÷ between numbers, a sum of
numbers, factorials, binomials, gcd, limits, integrals, function values, chains of `=`.

The parser is a recursive descent over tokens that computes the exact rational value where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

MAX_CHARACTERS, MAX_DEPTH, MAX_EXPONENT, MAX_BITS = 500, 20, 1000, 8192
FUNCTIONS = frozenset(
    (r"\sin", r"\cos", r"\tan", r"\cot", r"\sec", r"\csc", r"\arcsin", r"\arccos", r"\arctan", r"\sinh", r"\cosh",
     r"\tanh", r"\log", r"\ln", r"\exp", r"\binom", "!", "|", r"\lfloor", r"\lceil", r"\cdot")
)  # fmt: skip
GREEK = frozenset(
    (r"\alpha", r"\beta", r"\gamma", r"\delta", r"\epsilon", r"\varepsilon", r"\zeta", r"\eta", r"\theta", r"\kappa",
     r"\lambda", r"\mu", r"\nu", r"\xi", r"\rho", r"\sigma", r"\tau", r"\phi", r"\varphi", r"\chi", r"\psi", r"\omega",
     r"\Gamma", r"\Delta", r"\Theta", r"\Lambda", r"\Sigma", r"\Phi", r"\Psi", r"\Omega", r"\ell")
)  # fmt: skip
ENDS_PRODUCT = frozenset(("+", "-", r"\pm", r"\mp", ")", "}", "]", "|", r"\rfloor", r"\rceil"))
TOKEN = re.compile(
    r"(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"|(?P<command>\\[A-Za-z]+)|(?P<letter>[A-Za-z])|(?P<sign>[-+*/^_(){}\[\]|!])|(?P<space>\s+)"
)


class NotLiteral(Exception):
    """The text is no finished answer; the message says why."""


@dataclass(frozen=True)
class Term:
    """A parsed expression: its exact value if it is rational, whether a decimal point is in it, its variables."""

    value: Fraction | None = None
    decimal: bool = False
    letters: frozenset[str] = frozenset()
    form: str = ""
    """`number`, `fraction`, `power of ten` or `power` where another rule asks for it."""


def parse_expression(text: str, functions: Iterable[str] = ()) -> Term:
    """The expression that the whole text is. Raises NotLiteral."""
    parser = _Parser(_tokens(text), frozenset(functions))
    term = parser.sum()
    if parser.peek():
        raise NotLiteral(f"{parser.peek()!r} is not expected")
    return term


def _tokens(text: str) -> list[str]:
    if re.search(r"(?<![\\A-Za-z])[A-Za-z]{4,}", text):
        raise NotLiteral("it has words in it")
    tokens, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise NotLiteral(f"{text[position]!r} is not expected")
        position = match.end()
        if match.lastgroup != "space":
            tokens.append(match.group())
    return tokens


class _Parser:
    """sum := [±] product (± product)*; product := power ((* or /)? power)*; power := atom (^ exponent)?"""

    def __init__(self, tokens: list[str], functions: frozenset[str]) -> None:
        self._tokens, self._at, self._depth, self._functions = tokens, 0, 0, functions

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise NotLiteral("it ends too early")
        self._at += 1
        return token

    def expect(self, token: str) -> None:
        if (found := self.take()) != token:
            raise NotLiteral(f"{token!r} is expected, not {found!r}")

    def sum(self) -> Term:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotLiteral("it is nested too deeply")
        sign = self.take() if self.peek() in ("+", "-", r"\pm") else ""
        terms = [self.product()]
        while self.peek() in ("+", "-", r"\pm", r"\mp"):
            self.take()
            terms.append(self.product())
        self._depth -= 1
        if sum(term.value is not None for term in terms) > 1:
            raise NotLiteral("a sum of numbers is left undone")
        first, letters = terms[0], frozenset[str]().union(*(term.letters for term in terms))
        decimal = any(term.decimal for term in terms)
        if len(terms) > 1 or sign == r"\pm" or first.value is None:
            return Term(None, decimal, letters, first.form if len(terms) == 1 and not sign else "")
        return Term(-first.value if sign == "-" else first.value, decimal, letters, "" if sign else first.form)

    def product(self) -> Term:
        left = self.power()
        while (token := self.peek()) and token not in ENDS_PRODUCT:
            explicit = token in ("*", r"\cdot", r"\times")
            if token in (r"\div", "!"):
                raise NotLiteral(f"{token} is left undone")
            if token == "/":
                self.take()
                left = quotient(left, self.power())
                continue
            if explicit:
                self.take()
            elif token[0] in "0123456789.":
                raise NotLiteral("two numbers stand side by side")
            left = self._times(left, self.power(), explicit)
        return left

    def _times(self, left: Term, right: Term, explicit: bool) -> Term:
        letters, decimal = left.letters | right.letters, left.decimal or right.decimal
        if left.value is None or right.value is None:
            return Term(None, decimal, letters)
        if explicit and left.form == "number" and right.form == "power of ten":
            return Term(left.value * right.value, decimal, letters)
        mixed = not explicit and left.form == "number" and not left.decimal and right.form == "fraction"
        if mixed and 0 < right.value < 1:
            return Term(left.value + right.value, decimal, letters)
        if r"\cdot" in self._functions:  # the reference has a product of numbers itself
            return Term(left.value * right.value, decimal, letters)
        raise NotLiteral("a product of numbers is left undone")

    def power(self) -> Term:
        base = self.atom()
        while self.peek() == "!" and "!" in self._functions:
            self.take()
            base = Term(None, base.decimal, base.letters)
        if self.peek() != "^":
            return base
        self.take()
        exponent = self._argument(signed=True)
        if self.peek() == "^" or (exponent.form.startswith("power") and not exponent.letters):
            raise NotLiteral("a tower of powers is left undone")
        return raised(base, exponent)

    def atom(self) -> Term:
        token = self.take()
        if token[0] in "0123456789.":
            return Term(Fraction(token.replace(",", "")), "." in token, form="number")
        if token in ("(", "{", "["):
            inner = self.sum()
            self.expect({"(": ")", "{": "}", "[": "]"}[token])
            return Term(inner.value, inner.decimal, inner.letters, inner.form if token == "{" else "")
        if token == r"\frac":
            return quotient(self._argument(), self._argument())
        if token == r"\sqrt":
            return self._root()
        if token in (r"\pi", r"\infty", "e", "i"):
            return Term()
        if token in GREEK or token.isalpha():
            return Term(letters=frozenset((token + self._subscript(),)))
        if token in self._functions:
            return self._function(token)
        raise NotLiteral(f"{token!r} is no part of a finished answer")

    def _argument(self, signed: bool = False) -> Term:
        r"""A braced group or one token; in `\frac12` each digit is an argument of its own."""
        token = self.peek()
        if token[:1].isdigit() and len(token) > 1 and not signed:
            self._tokens[self._at : self._at + 1] = list(token)
        if signed and token == "-":
            self.take()
            inner = self.atom()
            return Term(None if inner.value is None else -inner.value, inner.decimal, inner.letters, inner.form)
        return self.atom()

    def _root(self) -> Term:
        degree = 2
        if self.peek() == "[":
            self.take()
            token = self.take()
            if not token.isdecimal() or not 2 <= len(token) + 1 <= 3 or int(token) < 2:
                raise NotLiteral("the degree of a root must be a small integer")
            degree = int(token)
            self.expect("]")
        inner = self._argument()
        if inner.value is None or inner.decimal:
            return Term(None, inner.decimal, inner.letters)
        return Term(exact_root(inner.value, degree), False, inner.letters)

    def _subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.take()
        if (token := self.take()) != "{":
            return "_" + token
        inner = ""
        while (token := self.take()) != "}":
            inner += token
        return "_" + inner

    def _function(self, token: str) -> Term:
        closing = {"|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}.get(token)
        if closing:
            inner = self.sum()
            self.expect(closing)
            return Term(None, inner.decimal, inner.letters)
        self._subscript()
        if self.peek() == "^":
            self.take()
            self._argument(signed=True)
        arguments = [self._argument(), self._argument()] if token == r"\binom" else [self.power()]
        return Term(None, any(a.decimal for a in arguments), frozenset[str]().union(*(a.letters for a in arguments)))


def quotient(over: Term, under: Term) -> Term:
    """A fraction; of numbers only where both are integers."""
    letters, decimal = over.letters | under.letters, over.decimal or under.decimal
    if under.value == 0:
        raise NotLiteral("it divides by 0")
    if over.value is None or under.value is None:
        return Term(None, decimal, letters)
    if decimal or over.value.denominator != 1 or under.value.denominator != 1:
        raise NotLiteral("a division of numbers is left undone")
    return Term(over.value / under.value, False, letters, "fraction")


def raised(base: Term, exponent: Term) -> Term:
    """A power; exact where base and result are rational and not too large to write down."""
    letters, decimal = base.letters | exponent.letters, base.decimal or exponent.decimal
    if exponent.value is not None and abs(exponent.value) > MAX_EXPONENT:
        raise NotLiteral("the exponent is too large")
    if base.value is None or exponent.value is None:
        return Term(None, decimal, letters, "power")
    if base.value == 0 and exponent.value <= 0:
        raise NotLiteral("0 has no such power")
    root = exact_root(base.value, exponent.value.denominator) if exponent.value.denominator <= 99 else None
    if root is None:
        return Term(None, decimal, letters, "power")
    bits = max(abs(root.numerator), root.denominator).bit_length() * abs(exponent.value.numerator)
    if bits > MAX_BITS:
        raise NotLiteral("the power is too large")
    ten = base.value == 10 and exponent.value.denominator == 1
    return Term(root**exponent.value.numerator, decimal, letters, "power of ten" if ten else "power")


def exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The rational root of a rational number, None if there is none (even roots of negatives included)."""
    if degree == 1:
        return value
    if value < 0:
        positive = exact_root(-value, degree) if degree % 2 else None
        return None if positive is None else -positive
    parts = []
    for part in (value.numerator, value.denominator):
        if part.bit_length() > MAX_BITS:
            return None
        low, high = 0, 1 << -(-part.bit_length() // degree)
        if degree == 2:
            low = high = isqrt(part)
        while low < high:  # integer bisection: floats would be off for large numbers
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= part else (low, middle - 1)
        if low**degree != part:
            return None
        parts.append(low)
    return Fraction(*parts)
