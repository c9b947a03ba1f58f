"""From the text of a final answer to its parts: name, unit, list or equation or value.

`literals` parses the expressions inside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction

from posttrain.rewards.literals import FUNCTIONS, MAX_CHARACTERS, NotLiteral, parse_expression

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
MIXED = re.compile(r"(-?)([0-9]+)\s+([0-9]+)/([0-9]+)")
WORDS = re.compile(r"[A-Za-z][A-Za-z'-]*(?: [A-Za-z][A-Za-z'-]*){0,2}")
NAME = re.compile(r"(?:[A-Za-z]+|\\[a-z]+)(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}))?(?:\([a-z](?:,[a-z])*\))?'?")
UNIT = re.compile(
    r"(?:(?<=[0-9)}\]a-z])\s*\\text\{\s*([A-Za-z][A-Za-z ./]*?)\.?\s*\}"
    r"|(?<=[0-9)}\]])\s+([A-Za-z]{2,}(?: [A-Za-z]+){0,2}))"
    r"(?:\^\{?([23])\}?)?$"
)
DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)$")
RELATION = re.compile(r"(<=|>=|!=|<|>|=|\\(?:leq?|geq?|neq?|lt|gt)(?![A-Za-z]))")
CANONICAL = {"<=": r"\le", ">=": r"\ge", "!=": r"\ne", r"\leq": r"\le", r"\geq": r"\ge", r"\neq": r"\ne",
             r"\lt": "<", r"\gt": ">"}  # fmt: skip
MATRIX = re.compile(r"\\begin\{([pbv]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)
WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "π": r"\pi ", "∞": r"\infty ",
    "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "°": r"^\circ", "²": "^2",
    "³": "^3", "{,}": ",", "**": "^", r"\!": "", r"\%": "%",
}  # fmt: skip
SYNONYMS = (
    (re.compile(r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|textstyle)(?![A-Za-z])\.?"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:mathrm|mbox|textbf|textit|mathbf|operatorname|textrm)(?=\s*\{)"), r"\\text"),
    (re.compile(r"(?<!\\)\\(?:quad|qquad|[,;: ])|~|\\text\s*\{\s*\}"), " "),
    (re.compile(r"(?<![A-Za-z\\])(sqrt|pi)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\\text\s*\{\s*(and|or)\s*\}|(?<![A-Za-z])(and|or)(?![A-Za-z])"), ","),
)


@dataclass(frozen=True)
class Answer:
    """A finished answer. `kind` is value, relation, list or words; `text` has no whitespace (for words: single blanks);
    `brackets` of a list are `()`, `[)`, `{}`, nothing, `∪`, or a matrix's shape; `functions` are those the text uses;
    `source` is the text as it was given, with single blanks."""

    kind: str
    text: str
    source: str = ""
    name: str = ""
    unit: str = ""
    value: Fraction | None = None
    decimal: bool = False
    letters: frozenset[str] = frozenset()
    operators: tuple[str, ...] = ()
    brackets: str = ""
    items: tuple[Answer, ...] = field(default=())
    functions: frozenset[str] = frozenset()


def parse_answer(text: str, functions: frozenset[str] = frozenset()) -> Answer:
    """Raises NotLiteral, saying why, for what is no finished answer."""
    if len(text) > MAX_CHARACTERS:
        raise NotLiteral(f"it is longer than {MAX_CHARACTERS} characters")
    cleaned = clean(text)
    if not cleaned:
        raise NotLiteral("it is empty")
    used = frozenset(f for f in FUNCTIONS if re.search(re.escape(f) + r"(?![A-Za-z])", cleaned))
    return replace(_answer(cleaned, functions), functions=used, source=" ".join(text.split()))


def clean(text: str) -> str:
    """The text without delimiters, spacing and synonyms of notation."""
    text = text.strip()
    while True:
        before = text
        text = text.removesuffix(".").strip()
        for opening, closing in WRAPPERS:
            inner = text[len(opening) : -len(closing)]
            if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening + closing):
                text = inner.strip() if opening not in inner else text
        if text == before:
            break
    for symbol, latex in SYMBOLS.items():
        text = text.replace(symbol, latex)
    for pattern, substitute in SYNONYMS:
        text = pattern.sub(substitute, text)
    return re.sub(r"^(-?)\\?\$\s*(?=[0-9.])", r"\1", text.strip())


def _answer(text: str, functions: frozenset[str]) -> Answer:
    text = text.strip()
    if NUMBER.fullmatch(text):
        return Answer("value", text, value=Fraction(text), decimal=not text.lstrip("+-").isdigit())
    if (words := _words(text)) is not None:
        return Answer("words", words) if len(words) > 1 else Answer("value", words, letters=frozenset(words))
    name, body = _split_name(text)
    if (parts := _list(body, functions)) is not None:
        return replace(parts, name=name)
    if body.startswith(r"\pm") and not re.search(r"[-+,]|\\[mp]", body[3:]):
        both = (_answer(body[3:], functions), _answer("-" + body[3:].strip(), functions))
        return Answer("list", body, name=name, items=both)
    sides = RELATION.split(body)
    if len(sides) > 1:
        if name or len(sides) > 5 or (len(sides) > 3 and "=" in sides[1::2]):
            raise NotLiteral("a chain of relations is left undone")
        return _relation(sides, functions)
    return replace(_value(body, functions), name=name)


def _words(text: str) -> str | None:
    r"""`\text{Tuesday}`, `Tuesday`, `\text{(B)}`, `(B)`: the words, else None."""
    inner = text[6:-1].strip() if text.startswith(r"\text{") and text.endswith("}") else text
    if len(inner) == 3 and inner[0] == "(" and inner[2] == ")":
        inner = inner[1]
    wrapped = inner != text
    return inner if WORDS.fullmatch(inner) and (wrapped or len(inner) > 1) else None


def _split_name(text: str) -> tuple[str, str]:
    """`x = 5` and `x \\in [0,1]` as name and the rest; the name is empty where there is none."""
    left, equals, right = text.partition("=")
    if not equals:
        left, equals, right = text.partition(r"\in ")
    name = re.sub(r"\s+", "", left)
    if equals and NAME.fullmatch(name) and name not in (r"\pi", r"\infty", "e", "i") and not left.endswith("!"):
        return name, right.strip()
    return "", text


def _list(text: str, functions: frozenset[str]) -> Answer | None:
    """A union, matrix, tuple, interval, set or plain list; None for anything else."""
    compact = re.sub(r"\s+", "", text)
    if len(union := re.split(r"\\cup(?![A-Za-z])", text)) > 1:
        return Answer("list", compact, brackets="∪", items=tuple(_answer(part, functions) for part in union))
    if matrix := MATRIX.fullmatch(text):
        rows = [row.split("&") for row in re.split(r"\\\\", matrix.group(2).strip()) if row.strip()]
        items = tuple(_answer(cell, functions) for row in rows for cell in row)
        shape = f"{'det' if matrix.group(1) == 'vmatrix' else 'matrix'} {[len(row) for row in rows]}"
        return Answer("list", compact, brackets=shape, items=items)
    for opening, closing in ((r"\{", r"\}"), ("{", "}"), ("(", ")"), ("(", "]"), ("[", ")"), ("[", "]")):
        if text.startswith(opening) and text.endswith(closing):
            parts = _split_commas(text[len(opening) : -len(closing)])
            if parts is not None and (len(parts) > 1 or opening == r"\{"):
                brackets = opening.strip("\\") + closing.strip("\\")
                return Answer("list", compact, brackets=brackets, items=tuple(_answer(p, functions) for p in parts))
    parts = _split_commas(text)
    if parts is None or len(parts) < 2:
        return None
    return Answer("list", compact, items=tuple(_answer(part, functions) for part in parts))


def _split_commas(text: str) -> list[str] | None:
    """The parts between commas outside brackets (a comma inside a number like 1,000 is no separator); None where the
    brackets do not match."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if depth < 0:
            return None
        if character in ",;" and depth == 0 and not _thousands(text, position):
            parts.append(text[start:position])
            start = position + 1
    if depth:
        return None
    return [part for part in [*parts, text[start:]] if part.strip()]


def _thousands(text: str, comma: int) -> bool:
    before = re.search(r"(?<![0-9,.])([0-9]{1,3}(?:,[0-9]{3})*)$", text[:comma])
    return bool(before) and re.match(r",[0-9]{3}(?![0-9])", text[comma:]) is not None


def _relation(sides: list[str], functions: frozenset[str]) -> Answer:
    operators = tuple(CANONICAL.get(operator, operator) for operator in sides[1::2])
    terms = [parse_expression(side, functions) for side in sides[::2]]
    if not any(term.letters for term in terms):
        raise NotLiteral("a relation between numbers is no answer")
    letters = frozenset[str]().union(*(term.letters for term in terms))
    return Answer("relation", re.sub(r"\s+", "", "".join(sides)), letters=letters, operators=operators)


def _value(text: str, functions: frozenset[str]) -> Answer:
    unit = ""
    if match := UNIT.search(text):
        unit, text = (match.group(1) or match.group(2)).lower() + (match.group(3) or ""), text[: match.start()]
    elif match := DEGREES.search(text):
        unit, text = "degrees", text[: match.start()]
    text = text.strip()
    percent = text.endswith("%")
    text = text.removesuffix("%").strip()
    if match := MIXED.fullmatch(text):
        text = "{}{}\\frac{{{}}}{{{}}}".format(*match.groups())
    term = parse_expression(text, functions)
    value = term.value / 100 if percent and term.value is not None else term.value
    spaced = re.sub(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])", r"\1 ", text)  # `\pi r` must not become `\pir`
    compact = re.sub(r"(?<![A-Za-z])\s+|\s+(?![A-Za-z])", "", spaced) + ("\\%" if percent else "")
    return Answer("value", compact, unit=unit, value=value, decimal=term.decimal, letters=term.letters)
