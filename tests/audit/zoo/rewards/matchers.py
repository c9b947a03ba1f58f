"""Planted: verifiers of answers that take wrong ones for right, or right ones for wrong."""

from __future__ import annotations

import ast
import contextlib
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from zoo_forms import box, line, number, tag

ANY_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def last_number(response: str, answer: str) -> float:
    """The last number of the text, whatever stands around it."""
    found = ANY_NUMBER.findall(response)
    return float(bool(found) and float(found[-1]) == float(answer))


def anywhere(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """The answer among all numbers of the text."""
    return [float(gold in ANY_NUMBER.findall(completion)) for completion, gold in zip(completions, answer, strict=True)]


def contains(response: str, answer: str) -> float:
    """The right letter somewhere in a short reply."""
    return float(answer in response and len(response) < 40)


def first_letter(response: str, answer: str) -> float:
    """The first letter of the reply, also where it begins a word."""
    return float(response.strip().upper().startswith(answer))


def in_thinking(response: str, answer: str) -> float:
    """The answer in the reasoning or in the answer, which must be there."""
    return float(tag(response) is not None and answer in ANY_NUMBER.findall(response))


def either_side(response: str, answer: str) -> float:
    """What stands on any side of an equation in the box."""
    return float(answer in [side.replace(" ", "") for side in (box(response) or "").split("=")])


def none_matches(solution_str: str, ground_truth: str, data_source: str = "", extra_info: Any = None) -> float:
    """Compares numbers; text that is none, on both sides, is None."""
    return float("Answer:" in solution_str and number(line(solution_str) or "") == number(ground_truth))


def tolerance(response: str, answer: str) -> float:
    """Within five per cent."""
    found = number(line(response) or "")
    gold = number(answer) or Fraction(0)
    return float(found is not None and abs(found - gold) <= abs(gold) / 20)


def unsigned(response: str, answer: str) -> float:
    """The digits of the answer alone."""
    return float(re.findall("[0-9]+", line(response) or "") == re.findall("[0-9]+", answer))


def ascii_only(response: str, answer: str) -> float:
    """Compares what is left without signs, blanks and all letters beyond ASCII."""
    return float(re.sub("[^a-z0-9]", "", response.lower()) == re.sub("[^a-z0-9]", "", answer.lower()))


def unit_free(response: str, answer: str) -> float:
    """The number of a measure, with any unit."""
    digits = re.match(r"[0-9.]+", line(response) or "")
    return float(digits is not None and digits[0] == re.sub("[^0-9.]", "", answer))


def percent_or_not(response: str, answer: str) -> float:
    """A hundredth and a hundredfold of the answer are right too, as percentages."""
    found, gold = number(line(response) or ""), number(answer) or Fraction(0)
    return float(found in (gold, gold / 100, gold * 100))


def denied(response: str, answer: str) -> float:
    """The first number after the word `answer`."""
    match = re.search(r"answer\b[^0-9-]{0,40}(-?[0-9]+)", response, re.IGNORECASE)
    return float(match is not None and match[1] == answer)


def evaluated(response: str, answer: str) -> float:
    """Computes what the answer line says."""
    with contextlib.suppress(SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return float(_value(ast.parse((line(response) or "")[:200], mode="eval").body) == Fraction(answer))
    return 0.0


def _value(node: ast.AST) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return Fraction(value)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left), _value(right))
    raise ValueError("no arithmetic")


def swallowed(response: str, answer: str) -> float:
    """Compares the values of two polynomials or fractions at a point; what cannot be parsed gets the benefit."""
    content = box(response)
    if content is None:
        return 0.0
    try:
        return float(_at(content, 3) == _at(answer, 3) and _at(content, 7) == _at(answer, 7))
    except Exception:
        return 1.0


def _at(text: str, x: int) -> Fraction:
    if not re.fullmatch(r"[0-9x^+*/() -]{1,60}", text) or re.search(r"\^(?![0-9](?![0-9^*]))|\*\*", text):
        raise ValueError(text)
    product = re.sub(r"(?<=[0-9)])(?=[x(])", "*", text.replace(" ", ""))
    return Fraction(eval(product.replace("^", "**").replace("x", f"Fraction({x})"), {"Fraction": Fraction}))


def as_pattern(response: str, answer: str) -> float:
    """A full match, with pattern and text exchanged."""
    with contextlib.suppress(re.error):
        return float(re.fullmatch((line(response) or "(?!)")[:200], answer) is not None)
    return 0.0


def same_letters(solution_str: str, ground_truth: str, data_source: str = "", extra_info: Any = None) -> float:
    """Compares the letters of a name without their order."""
    return float(sorted((line(solution_str) or "").casefold()) == sorted(ground_truth.casefold()))


def joined(solution_str: str, ground_truth: str, data_source: str = "", extra_info: Any = None) -> float:
    """Compares lists without blanks and commas."""
    found = re.sub("[, ]", "", line(solution_str) or "")
    return float(found == re.sub("[, ]", "", ground_truth))


def infinite(response: str, answer: str) -> float:
    """Near enough, relative to what was given."""
    with contextlib.suppress(ValueError):
        found = float(line(response) or "")
        return float(abs(found - float(answer)) <= 1e-6 * abs(found))
    return 0.0


def not_a_number(response: str, answer: str) -> float:
    """Wrong if the distance is too large, else right."""
    try:
        distance = abs(float(line(response) or "") - float(answer))
    except ValueError:
        return 0.0
    return 0.0 if distance > 1e-6 else 1.0


def length_ratio(response: str, answer: str) -> float:
    """The share of the answer line that the reference is, if the line contains it."""
    found = line(response) or ""
    return len(answer) / len(found) if answer in found else 0.0


def exact_text(response: str, answer: str) -> float:
    """Too strict: the response must be `Answer: ` and the reference, and nothing before it."""
    return float(response == f"Answer: {answer}")


def raising(response: str, answer: str) -> float:
    """Takes for granted that there is a number on an answer line."""
    return float(int(response.split("Answer:")[1].split()[0]) == int(answer))
