"""Formulas: values at fixed points, by a small parser for LaTeX and plain mathematics. No algebra is done: two formulas
are the same if their values are, at positive points that nobody chose."""

from __future__ import annotations

import cmath
import math
import random
import re
from collections.abc import Callable, Mapping

from posttrain.audits.guard.numbers import plain

POINTS = 5
TOLERANCE = 1e-8
LONGEST = 400
DEEPEST = 40
LARGEST_POWER = 500
TOKEN = re.compile(r"\s*([0-9]*\.?[0-9]+|\\?[A-Za-z]+|\*\*|[-+*/^(){}\[\]|!_])")
FUNCTIONS: Mapping[str, Callable[[complex], complex]] = {
    **{name: getattr(cmath, name) for name in "sin cos tan asin acos atan sinh cosh tanh exp log sqrt".split()},  # noqa: SIM905
    **{f"arc{name}": getattr(cmath, f"a{name}") for name in ("sin", "cos", "tan")},
    "cot": lambda x: 1 / cmath.tan(x),
    "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x),
    "ln": cmath.log,
    "abs": abs,
}
CLOSING = {"(": ")", "{": "}", "[": "]"}


class NoFormula(ValueError):
    """A text cannot be read as a formula."""


def same_formula(gold: str, other: str) -> bool | None:
    """Whether two formulas have the same values at POINTS points; None where one of them cannot be read. Of equations
    `y = f` the side behind the sign counts where only one text has it; else both sides, up to a constant factor."""
    try:
        mine, theirs = _sides(gold), _sides(other)
        if len(mine) != len(theirs):
            mine, theirs = mine[-1:], theirs[-1:]
        values = [(_difference(mine, k), _difference(theirs, k)) for k in range(POINTS)]
    except (NoFormula, ArithmeticError, ValueError, RecursionError):
        return None
    if len(mine) == 1:
        return all(close(a, b) for a, b in values)
    return all(close(a * values[0][1], b * values[0][0]) for a, b in values)


def values(text: str) -> list[complex] | None:
    """The values of a formula at the points; None where it cannot be read or has none at one of them."""
    try:
        return [Reader(text, k).all() for k in range(POINTS)]
    except (NoFormula, ArithmeticError, ValueError, RecursionError):
        return None


def value(text: str) -> complex | None:
    """The value of a formula without variables; None where it has some or cannot be read."""
    found = values(text)
    return found[0] if found and close(found[0], found[1]) else None


def _sides(text: str) -> list[str]:
    sides = re.split(r"(?<![<>!=\\])=", text)
    if not 1 <= len(sides) <= 2:
        raise NoFormula(text)
    return sides


def _difference(sides: list[str], point: int) -> complex:
    values = [Reader(side, point).all() for side in sides]
    return values[0] - sum(values[1:])


def close(a: complex, b: complex) -> bool:
    return abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))


class Reader:
    """A recursive descent over a formula that computes its value at a point: sum, product, power, atom."""

    def __init__(self, text: str, point: int) -> None:
        text = plain(text).strip().strip("$").strip().rstrip(".")
        if not text or len(text) > LONGEST:
            raise NoFormula(text[:40])
        self.tokens: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            match = TOKEN.match(text, at)
            if not match:
                raise NoFormula(text)
            self.tokens.append(match[1])
            at = match.end()
        self.point, self.at, self.depth = point, 0, 0

    def all(self) -> complex:
        found = self.sum()
        if self.at < len(self.tokens):
            raise NoFormula(self.tokens[self.at])
        if not math.isfinite(abs(found)):
            raise NoFormula("infinite")
        return found

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    @property
    def factor(self) -> bool:
        """Whether a factor follows without a sign between."""
        return self.next in CLOSING or self.next[:1].isalnum() or self.next[:1] == "\\"

    def take(self) -> str:
        token = self.next
        self.at += 1
        return token

    def sum(self) -> complex:
        self.depth += 1
        if self.depth > DEEPEST:
            raise NoFormula("too deep")
        total = self.product()
        while self.next in ("+", "-"):
            total = total + self.product() if self.take() == "+" else total - self.product()
        self.depth -= 1
        return total

    def product(self) -> complex:
        if self.next in ("+", "-"):
            return self.product() if self.take() == "+" else -self.product()
        total = self.power()
        while True:
            if self.next == "*":
                self.take()
                total *= self.signed()
            elif self.next == "/":
                self.take()
                total /= self.signed()
                if self.factor:
                    raise NoFormula("1/2x, which may be either")
            elif self.factor:
                total *= self.power()
            else:
                return total

    def signed(self) -> complex:
        if self.next in ("+", "-"):
            return self.signed() if self.take() == "+" else -self.signed()
        return self.power()

    def power(self) -> complex:
        base = self.atom()
        while self.next == "!":
            self.take()
            if base.imag or base.real != int(base.real) or not 0 <= base.real <= 20:
                raise NoFormula("factorial")
            base = complex(math.factorial(int(base.real)))
        if self.next in ("^", "**"):
            self.take()
            exponent = self.signed()
            if abs(exponent) > LARGEST_POWER:
                raise NoFormula("power")
            return complex(base**exponent)
        return base

    def atom(self) -> complex:
        token = self.take()
        if token in CLOSING:
            inside = self.sum()
            if self.take() != CLOSING[token]:
                raise NoFormula("brackets")
            return inside
        if token == "|":
            inside = self.sum()
            if self.take() != "|":
                raise NoFormula("bars")
            return complex(abs(inside))
        if token[:1].isdigit() or token[:1] == ".":
            return complex(float(token))
        if token[:1].isalpha() or token[:1] == "\\":
            return self.name(token)
        raise NoFormula(token)

    def name(self, token: str) -> complex:
        name = token.removeprefix("\\")
        if name == "frac":
            return self.argument() / self.argument()
        if name == "sqrt" and self.next == "[":
            self.take()
            root = self.sum()
            if self.take() != "]":
                raise NoFormula("root")
            return complex(self.argument() ** (1 / root))
        if name in FUNCTIONS:
            if self.next in ("^", "_"):
                raise NoFormula("a function with an index")
            return complex(FUNCTIONS[name](self.argument()))
        if name in ("pi", "π"):
            return complex(math.pi)
        if token[0] == "\\":
            if len(name) > 8 or name in ("in", "leq", "geq", "le", "ge", "ne", "neq", "cup", "pm", "approx", "infty"):
                raise NoFormula(token)
            return self.variable(name)
        if len(name) > 3:
            raise NoFormula(token)  # a word
        if len(name) > 1:  # a product of variables
            self.tokens[self.at : self.at] = list(name[1:])
        return self.variable(name[0])

    def argument(self) -> complex:
        """What a function applies to: a bracket, or one power that no other factor follows."""
        bracket = self.next in CLOSING
        found = self.power()
        if not bracket and self.factor:
            raise NoFormula("sin 2x, which may be either")
        return found

    def variable(self, name: str) -> complex:
        if self.next == "_":
            self.take()
            index = [self.take()]
            while index[0] == "{" and index[-1] not in ("}", ""):
                index.append(self.take())
            name += "_" + "".join(index).strip("{}")
        if name == "e":
            return complex(math.e)
        if name == "i":
            return 1j
        return complex(random.Random(f"{name}/{self.point}").uniform(0.4, 2.6))
