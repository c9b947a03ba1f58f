r"""Which texts are a finished answer, and what they say.

A literal is a number (`1,234`, `-3.5`, `1.2 \times 10^5`, `3\frac12`, `5%`), fraction, root, power, π, polynomial, or a
pair, list, set, interval, matrix, ratio, equation or inequality of such; also a word or two (`\text{Tuesday}`). One
`name =` may stand in front and a unit behind. No literal is what leaves work undone: × or ÷ between numbers, a sum of
numbers, a fraction that is an integer, a power or root that is a rational number (but 10^6 is a way to write one),
factorials, binomials and functions of numbers, calculations with ∞, gcd, limits, integrals, sums, chains of `=`.

The parser is a recursive descent over tokens. It computes the exact rational value where there is one, and a tree that
`identity` can evaluate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Any

MAX_CHARACTERS, MAX_DEPTH, MAX_EXPONENT, MAX_BITS = 500, 20, 10_000, 1 << 15
FUNCTIONS = frozenset(
    (r"\sin", r"\cos", r"\tan", r"\cot", r"\sec", r"\csc", r"\arcsin", r"\arccos", r"\arctan", r"\sinh", r"\cosh",
     r"\tanh", r"\log", r"\ln", r"\exp", r"\binom", "!", "|", r"\lfloor", r"\lceil")
)  # fmt: skip
UNEVALUATED = FUNCTIONS | {"sum", "product", "quotient", "tower", "power", "root"}
"""What a reference may leave undone, and an answer only if its reference does: these between or of numbers."""
GREEK = frozenset(
    (r"\alpha", r"\beta", r"\gamma", r"\delta", r"\epsilon", r"\varepsilon", r"\zeta", r"\eta", r"\theta", r"\kappa",
     r"\lambda", r"\mu", r"\nu", r"\xi", r"\rho", r"\sigma", r"\tau", r"\phi", r"\varphi", r"\chi", r"\psi", r"\omega",
     r"\Gamma", r"\Delta", r"\Theta", r"\Lambda", r"\Sigma", r"\Phi", r"\Psi", r"\Omega", r"\ell")
)  # fmt: skip
CONSTANTS = {r"\pi": "pi", r"\infty": "infinity", "e": "e", "i": "i"}
CLOSING = {"(": ")", "{": "}", "[": "]", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
ENDS_PRODUCT = frozenset(("+", "-", ")", "}", "]", r"\rfloor", r"\rceil"))
TOKEN = re.compile(
    r"(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"|(?P<command>\\[A-Za-z]+)|(?P<letter>[A-Za-z])|(?P<sign>[-+*/^_(){}\[\]|!])|(?P<space>\s+)"
)
Tree = tuple[Any, ...]
"""`("number", Fraction)`, `("letter", name)`, `("constant", name)`, or an operation and its trees."""


class NotLiteral(Exception):
    """The text is no finished answer; the message says why."""


@dataclass(frozen=True)
class Term:
    """A parsed expression: its tree, its exact value if it is rational, whether a decimal point is in it, its
    variables."""

    tree: Tree
    value: Fraction | None = None
    decimal: bool = False
    letters: frozenset[str] = frozenset()
    form: str = ""
    """`number`, `fraction`, `power of ten` or `power` where another rule asks for it."""


def exact(value: Fraction, decimal: bool = False, form: str = "") -> Term:
    """A rational number."""
    return Term(("number", value), value, decimal, form=form)


INFINITE = Term(("constant", "infinity"))


def operation(kind: str, *terms: Term) -> Term:
    """A symbolic operation on terms."""
    letters = frozenset[str]().union(*(term.letters for term in terms))
    return Term((kind, *(term.tree for term in terms)), None, any(term.decimal for term in terms), letters)


def parse_expression(text: str, allowed: Iterable[str] = ()) -> tuple[Term, frozenset[str]]:
    """The expression that the whole text is, and what of `allowed` it makes use of. Raises NotLiteral."""
    parser = _Parser(_tokens(text), frozenset(allowed))
    term = parser.sum()
    if parser.peek():
        raise NotLiteral(f"{parser.peek()!r} is not expected")
    if r"\infty" in text and term.tree not in (INFINITE.tree, negated(INFINITE).tree):
        raise NotLiteral("a calculation with ∞ is left undone")
    return term, frozenset(parser.used)


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

    def __init__(self, tokens: list[str], allowed: frozenset[str]) -> None:
        self._tokens, self._at, self._depth, self._bars = tokens, 0, 0, 0
        self._allowed, self.used = allowed, set[str]()

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

    def require_allowed(self, what: str, why: str) -> None:
        """Note that work is left undone here. Raises NotLiteral, saying why, where that is not allowed."""
        if what not in self._allowed:
            raise NotLiteral(why)
        self.used.add(what)

    def sum(self) -> Term:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotLiteral("it is nested too deeply")
        sign = self.take() if self.peek() in ("+", "-") else ""
        total = self.product()
        if sign:
            total = negated(total) if sign == "-" else Term(total.tree, total.value, total.decimal, total.letters)
        numbers = int(total.value is not None)
        while self.peek() in ("+", "-"):
            minus = self.take() == "-"
            term = self.product()
            numbers += term.value is not None
            if numbers > 1:
                self.require_allowed("sum", "a sum of numbers is left undone")
            total = added(total, negated(term) if minus else term)
        self._depth -= 1
        return total

    def product(self) -> Term:
        left = self.power()
        while (token := self.peek()) and token not in ENDS_PRODUCT and not (token == "|" and self._bars):
            explicit = token in ("*", r"\cdot", r"\times")
            if token in ("/", r"\div"):
                self.take()
                left = self._quotient(left, self.power(), token)
                continue
            if explicit:
                self.take()
            elif token[0] in "0123456789.":
                raise NotLiteral("two numbers stand side by side")
            left = self._times(left, self.power(), explicit)
        return left

    def _times(self, left: Term, right: Term, explicit: bool) -> Term:
        if left.value is None or right.value is None:
            return operation("*", left, right)
        decimal = left.decimal or right.decimal
        mixed = not explicit and left.form == "number" and not left.decimal and right.form == "fraction"
        if mixed and 0 < right.value < 1:
            return exact(left.value + right.value)
        if not (explicit and left.form == "number" and right.form == "power of ten"):
            self.require_allowed("product", "a product of numbers is left undone")
        return exact(left.value * right.value, decimal)

    def _quotient(self, over: Term, under: Term, sign: str = "/") -> Term:
        """A fraction; of numbers only where both are integers and it is none itself."""
        if under.value == 0:
            raise NotLiteral("it divides by 0")
        if sign == r"\div":
            self.require_allowed("quotient", "a division is left undone")
        if over.value is None or under.value is None:
            return operation("/", over, under)
        value = over.value / under.value
        if over.decimal or under.decimal or over.value.denominator * under.value.denominator > 1:
            self.require_allowed("quotient", "a division of numbers is left undone")
        elif value.denominator == 1:
            self.require_allowed("quotient", "a fraction that is an integer is a division left undone")
        return exact(value, over.decimal or under.decimal, "fraction")

    def power(self) -> Term:
        base = self.atom()
        while self.peek() == "!":
            self.take()
            base = self._applied("!", "!", base)
        if self.peek() != "^":
            return base
        self.take()
        exponent = self._argument(signed=True)
        if self.peek() == "^" or (exponent.form.startswith("power") and not exponent.letters):
            self.require_allowed("tower", "a tower of powers is left undone")
        result = raised(base, exponent)
        if result.form == "power" and result.value is not None:
            self.require_allowed("power", "a power that is a rational number is left undone")
        return result

    def atom(self) -> Term:
        token = self.take()
        if token[0] in "0123456789.":
            return exact(Fraction(token.replace(",", "")), "." in token, "number")
        if token in ("(", "{", "["):
            inner = self._until(CLOSING[token])
            return inner if token == "{" else Term(inner.tree, inner.value, inner.decimal, inner.letters)
        if token == r"\frac":
            return self._quotient(self._argument(), self._argument())
        if token == r"\sqrt":
            return self._root()
        if token in CONSTANTS:
            return Term(("constant", CONSTANTS[token]))
        if token in FUNCTIONS:
            return self._function(token)
        if token in GREEK or token.isalpha():
            name = token + self._subscript()
            if token in ("f", "g") and self.peek() == "(":
                argument = self.atom()
                return Term(("application", name, argument.tree), None, argument.decimal, argument.letters | {name})
            return Term(("letter", name), letters=frozenset((name,)))
        raise NotLiteral(f"{token!r} is no part of a finished answer")

    def _until(self, closing: str) -> Term:
        inner = self.sum()
        self.expect(closing)
        return inner

    def _argument(self, signed: bool = False) -> Term:
        r"""A braced group or one token; in `\frac12` each digit is an argument of its own."""
        token = self.peek()
        if token[:1].isdigit() and len(token) > 1 and not signed:
            self._tokens[self._at : self._at + 1] = list(token)
        if signed and token == "-":
            self.take()
            return negated(self.atom())
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
        root = None if inner.value is None or inner.decimal else exact_root(inner.value, degree)
        if root is None:
            return operation("^", inner, exact(Fraction(1, degree)))
        self.require_allowed("root", "a root that is a rational number is left undone")
        return exact(root)

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
        name = token.lstrip("\\")
        if token in CLOSING:
            self._bars += token == "|"
            inner = self.sum()
            self._bars -= token == "|"
            self.expect(CLOSING[token])
            return self._applied(token, {"|": "abs", r"\lfloor": "floor", r"\lceil": "ceil"}[token], inner)
        if token == r"\binom":
            return self._applied(token, "binomial", self._argument(), self._argument())
        base = exponent = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                base = self._argument(signed=True)
            else:
                exponent = self._argument(signed=True)
        if exponent and exponent.value == -1:
            name, exponent = "arc" + name, None
        argument = self._operand()
        if base and name == "log":
            result = self._applied(token, "log to base", base, argument)
        elif (
            name in ("arcln", "arclog", "arcexp", "arcsinh", "arccosh", "arctanh") or name.startswith("arcarc") or base
        ):
            raise NotLiteral(f"{token!r} has an index that is not known")
        else:
            result = self._applied(token, name, argument)
        return raised(result, exponent) if exponent else result

    def _operand(self) -> Term:
        r"""What a function is applied to: a group, or factors up to the next sign or function (`\sin 2x`)."""
        if self.peek() in ("(", "{", "["):
            return self.atom()
        argument = self.power()
        while (token := self.peek()) and (token.isalpha() or token in GREEK or token == r"\pi"):
            argument = operation("*", argument, self.power())
        return argument

    def _applied(self, token: str, name: str, *arguments: Term) -> Term:
        result = operation(name, *arguments)
        if not result.letters:
            self.require_allowed(token, f"{token} of numbers is left undone")
        return result


def negated(term: Term) -> Term:
    """Minus a term."""
    if term.value is not None:
        return exact(-term.value, term.decimal, "" if term.form == "number" else term.form)
    return Term(("*", ("number", Fraction(-1)), term.tree), None, term.decimal, term.letters, term.form)


def added(left: Term, right: Term) -> Term:
    """The sum of two terms."""
    if left.value is None or right.value is None:
        return operation("+", left, right)
    return exact(left.value + right.value, left.decimal or right.decimal)


def raised(base: Term, exponent: Term) -> Term:
    """A power; exact where base and result are rational and not too large to write down."""
    symbolic = operation("^", base, exponent)
    symbolic = Term(symbolic.tree, None, symbolic.decimal, symbolic.letters, "power")
    if exponent.value is not None and abs(exponent.value) > MAX_EXPONENT:
        raise NotLiteral("the exponent is too large")
    if base.value is None or exponent.value is None:
        return symbolic
    if base.value == 0 and exponent.value <= 0:
        raise NotLiteral("0 has no such power")
    root = exact_root(base.value, exponent.value.denominator) if exponent.value.denominator <= 99 else None
    if root is None:
        return symbolic
    bits = max(abs(root.numerator), root.denominator).bit_length() * abs(exponent.value.numerator)
    if bits > MAX_BITS:
        raise NotLiteral("the power is too large")
    ten = base.value == 10 and exponent.value.denominator == 1
    return exact(root**exponent.value.numerator, symbolic.decimal, "power of ten" if ten else "power")


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
