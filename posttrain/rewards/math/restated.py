"""Does an answer only repeat an expression of the task?

"Expand (x+1)^2" has the value of its result in it, and a comparison by values takes the one for the other. So an answer
whose form is not that of the reference must not stand in the prompt: as an expression, in any notation and order; as a
number with work in it (6/8, 10^3); or as any number, where the prompt asks to write one in another form.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import Any

from posttrain.rewards.math.latex import UNEVALUATED, NotLiteral, Tree
from posttrain.rewards.math.parse import RELATION, MathAnswer, clean, parse_answer

MAX_PARTS, MAX_PROMPT = 200, 20_000
BREAK = re.compile(
    r"\$|\\[()\[\]](?!\w)|[?;:\n]|[.,](?![0-9])|(?<![\\A-Za-z])(?!(?:sqrt|pi|sin|cos|tan|log|ln)\b)[A-Za-z]{2,}"
)
CONVERSION = re.compile(
    r"\b(?:writ|express|convert|chang|rewrit|turn)\w*\b(?:[^.?!]|\.(?=[0-9])){0,120}?\b(?:as|to|into|in)\b",
    re.IGNORECASE,
)
FRACTION = re.compile(r"\\[dtc]?frac\s*\{?\s*([0-9]+)\s*\}?\s*\{?\s*([0-9]+)\s*\}?")
OPERATION = re.compile(r"[-+*/^\\<>=]|[0-9)][A-Za-z(]|[A-Za-z)]\(|[A-Za-z]{2}|[√²³×·≤≥]")


def restated(prompt: str, gold: MathAnswer, found: MathAnswer) -> bool:
    """Whether `found` has an expression of the prompt in it that the reference does not have."""
    golds, founds = _leaves(gold), _leaves(found)
    own = {form for leaf in golds if (form := _form(leaf)) is not None}
    forms = {form for leaf in founds if (form := _form(leaf)) is not None} - own
    if forms and forms & _expressions(prompt[:MAX_PROMPT]):
        return True
    converts = CONVERSION.search(prompt) is not None
    powers = any("^" in leaf.text for leaf in golds)
    written = {_written(leaf.text) for leaf in founds if _has_work(leaf, converts, powers)}
    written -= {_written(leaf.text) for leaf in golds}
    plain = _written(clean(prompt[:MAX_PROMPT])) if written else ""
    return any(re.search(rf"(?<![0-9.]){re.escape(text)}(?![0-9.]*[0-9])", plain) for text in written)


def _leaves(answer: MathAnswer) -> tuple[MathAnswer, ...]:
    return answer.items if answer.kind == "list" else (answer,)


def _form(answer: MathAnswer) -> Any:
    """What an expression says about itself, None for a number or a letter."""
    if answer.kind == "relation":
        return tuple(sorted((repr(form(tree)), sign) for tree, sign in answer.relations))
    if answer.kind != "value" or answer.tree[0] in ("number", "letter", "constant"):
        return None
    return repr(form(answer.tree))


def form(tree: Tree) -> Any:
    """The form of an expression without the order of its terms and factors, neutral 0 and 1, and equal factors written
    one by one; fractions are not reduced."""
    kind, *parts = tree
    if kind in ("number", "letter", "constant"):
        return (kind, *map(str, parts))
    if kind == "+":
        terms = sorted(repr(term) for term in _terms(tree) if term != ("number", "0"))
        return ("+", *terms) if len(terms) != 1 else next(t for t in _terms(tree) if repr(t) == terms[0])
    if kind in ("*", "/", "^"):
        return _product(tree)
    return (kind, *(form(part) if isinstance(part, tuple) else part for part in parts))


def _terms(tree: Tree) -> list[Any]:
    return [term for part in tree[1:] for term in _terms(part)] if tree[0] == "+" else [form(tree)]


def _product(tree: Tree) -> Any:
    """Numerator and denominator: a number and the exponent of each other factor."""
    numbers = {1: Fraction(1), -1: Fraction(1)}
    factors: dict[tuple[int, str], Any] = {}

    def collect(part: Tree, side: int) -> None:
        kind, *inner = part
        if kind in ("*", "/"):
            collect(inner[0], side)
            collect(inner[1], side if kind == "*" else -side)
        elif kind == "number":
            numbers[side] *= inner[0].numerator
            numbers[-side] *= inner[0].denominator
        elif kind == "^" and inner[1][0] == "number":
            exponent = inner[1][1]
            key = (side if exponent > 0 else -side, repr(form(inner[0])))
            factors[key] = factors.get(key, 0) + abs(exponent)
        else:
            key = (side, repr(form(part) if kind != "^" else ("^", *map(form, inner))))
            factors[key] = factors.get(key, 0) + 1

    collect(tree, 1)
    return ("*", str(numbers[1]), str(numbers[-1]), *sorted((s, f, str(n)) for (s, f), n in factors.items()))


@lru_cache(maxsize=64)
def _expressions(prompt: str) -> frozenset[Any]:
    """The forms of all expressions of a prompt, and of both sides of its equations."""
    found = set()
    for part in [part for part in BREAK.split(prompt) if OPERATION.search(part)][:MAX_PARTS]:
        for text in {part, *RELATION.split(part)[::2]}:
            try:
                answer = parse_answer(text, UNEVALUATED)
            except NotLiteral:
                continue
            found |= {_form(leaf) for leaf in _leaves(answer)}
    return frozenset(found - {None})


def _has_work(answer: MathAnswer, converts: bool, powers: bool) -> bool:
    """Whether a number is a fraction that can be reduced, or has a power in it; where a task `converts` numbers, any
    that is no integer, and where its result has `powers`, integers too."""
    if answer.value is None:
        return False
    numbers = re.fullmatch(r"-?([0-9]+)/([0-9]+)", _written(answer.text))
    reducible = bool(numbers and gcd(int(numbers[1]), int(numbers[2])) > 1)
    return "^" in answer.text or reducible or (converts and (powers or not answer.text.lstrip("+-").isdigit()))


def _written(text: str) -> str:
    return re.sub(r"\\left|\\right|[\s{}\\]|(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", FRACTION.sub(r"\1/\2", text))
