"""A calculator as a tool."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction

MAX_CHARACTERS, MAX_BITS = 500, 4096
SYMBOLS = str.maketrans({"^": "**", "×": "*", "·": "*", "÷": "/", "−": "-"})
BINARY: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction | int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class Calculator:
    """One tool, `calculate`. The rewards of the run say what the answer is worth.

    It has no reward of its own."""

    def reset(self) -> None: ...

    def calculate(self, expression: str) -> str:
        """Work out an arithmetic expression.

        Args:
            expression: Numbers, + - * / // % ** and brackets, such as 3*(4.5+2).

        Returns:
            The result: exact if it is an integer or a short decimal, else rounded to 12 significant digits.
        """
        return written(value_of(expression))


def value_of(expression: str) -> Fraction:
    """The exact value of an arithmetic expression in Python's notation; `^` is a power and `×`, `÷` work too.

    The text is parsed and never run. Raises ValueError for anything else, ZeroDivisionError, and ValueError for numbers
    of more than MAX_BITS."""
    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"the expression is longer than {MAX_CHARACTERS} characters")
    try:
        tree = ast.parse(expression.translate(SYMBOLS).strip(), mode="eval")
        return _value(tree.body)
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"{expression!r} is no arithmetic expression") from None


def written(value: Fraction) -> str:
    """A number as a decimal: exact if that takes no more than 12 digits behind the point, else 12 significant ones."""
    if value.denominator == 1:
        return str(value.numerator)
    if 10**12 % value.denominator == 0 and abs(value) < 10**12:
        digits = f"{abs(value.numerator) * (10**12 // value.denominator):013d}"
        return f"{'-' if value < 0 else ''}{digits[:-12]}.{digits[-12:].rstrip('0')}"
    return f"{float(value):.12g}"


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Fraction(repr(number))  # 0.1 is a tenth, not the nearest binary fraction
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _value(inner)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in BINARY:
            value = Fraction(BINARY[type(kind)](_value(left), _value(right)))
            if _bits(value) > MAX_BITS:
                raise ValueError("the number is too large")
            return value
    raise ValueError(f"{ast.unparse(node)!r} is no arithmetic; use numbers, + - * / // % ** and brackets")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        root = float(base) ** float(exponent)
        if isinstance(root, complex):
            raise ValueError("a negative number has no such power")
        return Fraction(repr(root))
    if _bits(base) * abs(exponent) > MAX_BITS:
        raise ValueError("the power is too large")
    return Fraction(base**exponent.numerator)


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())
