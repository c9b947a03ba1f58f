"""Are two expressions the same function? Decided by their values, so that it always comes to an end.

Both are evaluated to 60 digits at eight fixed pseudo-random points (constants once). Different expressions of the size
of an answer practically never agree there to 40 digits, and nothing is simplified. Roots of odd degree and powers with
an odd denominator are real for negative numbers, as in school. Points at which the reference is not real lie outside
its domain and do not count, unless too few are left.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

from posttrain.rewards.math.latex import Tree

DIGITS, AGREE, POINTS, ENOUGH = 60, 40, 8, 3
MAX_LOG2 = 1_000_000
"""Values above 2**MAX_LOG2 are not computed."""


def values(tree: Tree, letters: frozenset[str]) -> list[Any]:
    """The value at each point, None where it is undefined or too large. `letters` decides how many points."""
    points = [_point(k, letters) for k in range(POINTS if letters else 1)]
    return [_evaluate(tree, point) for point in points]


def same(gold: list[Any], found: list[Any]) -> bool:
    """Whether `found` agrees with `gold` wherever that is real."""
    pairs = _domain(gold, found)
    return bool(pairs) and all(f is not None and close(g, f, AGREE) for g, f in pairs)


def ratio(gold: list[Any], found: list[Any]) -> Any:
    """The constant c other than 0 with gold = c·found, None if there is none."""
    pairs = _domain(gold, found)
    if not pairs or any(f is None or not f or not g for g, f in pairs):
        return None
    ratios = [g / f for g, f in pairs]
    return ratios[0] if all(close(ratios[0], other, AGREE) for other in ratios) else None


def close(a: Any, b: Any, digits: int) -> bool:
    """Equal to a relative 10**-digits; infinities by their sign."""
    mp = _context()
    if mp.isinf(a) or mp.isinf(b):
        return bool(a == b)
    return bool(abs(a - b) <= mp.mpf(10) ** -digits * max(abs(a), abs(b)))


def number(value: Fraction) -> Any:
    """The value to 60 digits."""
    return _context().mpf(value.numerator) / value.denominator


def is_real(value: Any) -> bool:
    """Whether a value has no imaginary part beyond rounding."""
    mp = _context()
    return bool(abs(mp.im(value)) <= mp.mpf(10) ** -AGREE * abs(value)) if mp.isfinite(value) else True


def _domain(gold: list[Any], found: list[Any]) -> list[tuple[Any, Any]]:
    defined = [(g, f) for g, f in zip(gold, found, strict=True) if g is not None]
    real = [(g, f) for g, f in defined if is_real(g)]
    return real if len(real) >= min(ENOUGH, len(gold)) else defined


@cache
def _context() -> Any:
    from mpmath import MPContext  # slow import

    context = MPContext()
    context.dps = DIGITS
    return context


def _point(k: int, letters: frozenset[str]) -> dict[str, Any]:
    """Values between 1/4 and 9/4, half of the points with mixed signs."""
    point = {}
    for letter in letters:
        source = random.Random(f"{letter} {k}")
        size = _context().mpf(source.getrandbits(80)) / 2**79 + 0.25
        point[letter] = -size if k >= POINTS // 2 and source.random() < 0.5 else size
    return point


def _evaluate(tree: Tree, point: Mapping[str, Any]) -> Any:
    try:
        value = _value(tree, point)
    except (ArithmeticError, ValueError):
        return None
    return None if _context().isnan(value) else value


def _value(tree: Tree, point: Mapping[str, Any]) -> Any:
    mp, (kind, *parts) = _context(), tree
    if kind == "number":
        return number(parts[0])
    if kind == "letter":
        return point[parts[0]]
    if kind == "constant":
        return {"pi": mp.pi, "e": mp.e, "i": mp.j, "infinity": mp.inf}[parts[0]] * 1
    if kind == "^":
        return _power(_value(parts[0], point), parts[1], point)
    if kind == "application":
        return _unknown(f"{parts[0]}({mp.nstr(_value(parts[1], point), 30)})")
    arguments = [_value(part, point) for part in parts]
    if kind not in ("+", "*", "/") and any(mp.mag(a) > 60 for a in arguments if a):
        raise OverflowError
    return _operations()[kind](*arguments)


def _power(base: Any, exponent: Tree, point: Mapping[str, Any]) -> Any:
    mp = _context()
    power = _value(exponent, point)
    if base and abs(power) * (abs(mp.mag(base)) + 1) > MAX_LOG2:
        raise OverflowError
    exact = exponent[1] if exponent[0] == "number" else None
    if isinstance(exact, Fraction) and exact.denominator % 2 and exact.denominator > 1 and is_real(base):
        root = mp.re(base)
        if root < 0:
            return (-1) ** exact.numerator * (-root) ** power
    return base**power


def _unknown(key: str) -> Any:
    """A value for what is known by its name only, such as f(2)."""
    return _context().mpf(random.Random(key).getrandbits(80)) / 2**79 + 0.25


@cache
def _operations() -> dict[str, Callable[..., Any]]:
    mp = _context()
    trigonometric = ("sin", "cos", "tan", "cot", "sec", "csc")
    named = {name: getattr(mp, name) for name in (*trigonometric, "sinh", "cosh", "tanh", "floor", "binomial")}
    inverse = {f"arc{name}": getattr(mp, f"a{name}") for name in trigonometric}
    return {
        **named,
        **inverse,
        "+": lambda a, b: a + b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "ln": mp.ln,
        # Whether log means base 10, 2 or e is not known, so it equals none of them and keeps the laws of logarithms.
        "log": lambda a: mp.ln(a) * _unknown("log"),
        "log to base": lambda base, a: mp.ln(a) / mp.ln(base),
        "exp": _exp,
        "ceil": mp.ceil,
        "abs": abs,
        "!": _factorial,
    }


def _exp(a: Any) -> Any:
    if abs(a) > MAX_LOG2:
        raise OverflowError
    return _context().exp(a)


def _factorial(a: Any) -> Any:
    if abs(a) > 10_000:
        raise OverflowError
    return _context().factorial(a)
