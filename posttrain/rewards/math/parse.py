"""From the text of a final answer to its parts: name, unit, list or relation or value.

`literals` parses the expressions inside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction

from posttrain.rewards.math.latex import (
    INFINITE,
    MAX_CHARACTERS,
    UNEVALUATED,
    NotLiteral,
    Term,
    Tree,
    added,
    exact,
    negated,
    parse_expression,
)
from posttrain.rewards.math.units import split_unit

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
MIXED = re.compile(r"(-?)([0-9]+)\s+([0-9]+)/([0-9]+)")
BASED = re.compile(r"([0-9A-F]+)_(?:\{([0-9]{1,2})\}|([0-9]{1,2}))")
WORDS = re.compile(r"[A-Za-z][A-Za-z'-]*(?: [A-Za-z][A-Za-z'-]*){0,2}")
ONE_NAME = r"(?:[A-Za-z]+|\\[a-z]+)(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}))?(?:\([a-z](?:,[a-z])*\))?'?"
NAME = re.compile(rf"{ONE_NAME}(?::{ONE_NAME})*|\({ONE_NAME}(?:,{ONE_NAME})+\)|\\frac\{{[A-Z]+\}}\{{[A-Z]+\}}")
RELATION = re.compile(r"(<=|>=|!=|<|>|=|\\(?:leq?|geq?|neq?|lt|gt)(?![A-Za-z]))")
SIGNS = {"<=": "≤", ">=": "≥", "!=": "≠", r"\le": "≤", r"\leq": "≤", r"\ge": "≥", r"\geq": "≥", r"\ne": "≠",
         r"\neq": "≠", r"\lt": "<", r"\gt": ">"}  # fmt: skip
MATRIX = re.compile(r"[(\[]?\\begin\{([pbv]?matrix)\}(.*)\\end\{\1\}[)\]]?", re.DOTALL)
ARRAY = re.compile(r"([(\[])\\begin\{array\}\{[clr|]*\}(.*)\\end\{array\}[)\]]", re.DOTALL)
PAIR = re.compile(r"[0-9]{1,3}(?:,[1-9][0-9]{2})+")
DOLLAR = re.compile(r"(?<!\\)\$")
WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "π": r"\pi ", "∞": r"\infty ",
    "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "°": r"^\circ ", "²": "^2",
    "³": "^3", "∅": r"\{\}",
}  # fmt: skip
SYNONYMS = (
    (re.compile(r"(?<=[0-9])(?:,\\!|\{,\}|\\,)\s*(?=[0-9]{3}(?![0-9]))"), ""),
    (re.compile(r"\\!|\\[hv]?phantom\s*\{[^{}]*\}"), ""),
    (re.compile(r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|textstyle)(?![A-Za-z])\.?"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:mathrm|text)\s*\{\s*e\s*\}"), "e"),
    (re.compile(r"\\(?:mathrm|mbox|textbf|textit|textnormal|mathbf|operatorname|textrm)(?=\s*\{)"), r"\\text"),
    (re.compile(r"^\\text\s*\{\s*([0-9.,]+)\s*\}$"), r"\1"),
    (re.compile(r"(?<=[0-9}$])\s*(?:\\text\s*\{\s*)?(?:percent(?:age)?|pct)(?:\s*\})?$"), "%"),
    (re.compile(r"(?<!\\)\\(?:quad|qquad|[,;: ])|~|\\text\s*\{\s*\}"), " "),
    (re.compile(r"(?<![A-Za-z\\])(sqrt|pi)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r",?\s*(?:\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))"), ","),
)


@dataclass(frozen=True)
class MathAnswer:
    """A finished answer. `kind` is value, relation, list, words or based (a number such as 204_5); `text` has no
    whitespace (for words: single blanks); `brackets` of a list are `()`, `[)`, `{}`, nothing, `∪`, `:`, or a matrix's
    shape; `undone` is what of `latex.UNEVALUATED` it leaves undone; `source` is the text as it was given, with single
    blanks. A relation is all of `relations`, each a tree that is `<`, `≤`, `=` or `≠` than 0."""

    kind: str
    text: str
    source: str = ""
    name: str = ""
    unit: str = ""
    value: Fraction | None = None
    decimal: bool = False
    letters: frozenset[str] = frozenset()
    tree: Tree = ()
    relations: tuple[tuple[Tree, str], ...] = ()
    interval: MathAnswer | None = None
    """The interval that a relation such as `0 < x ≤ 1` describes."""
    solved: bool = False
    """Whether a relation has a variable, or minus one, by itself on one side and numbers on the other."""
    brackets: str = ""
    items: tuple[MathAnswer, ...] = field(default=())
    undone: frozenset[str] = frozenset()

    @property
    def units(self) -> frozenset[str]:
        """Its unit, or those of its items."""
        return frozenset(filter(None, (self.unit, *(item.unit for item in self.items))))


def parse_answer(text: str, allowed: frozenset[str] = frozenset(), units: frozenset[str] = frozenset()) -> MathAnswer:
    """`allowed`: what of `latex.UNEVALUATED` may be left undone; `units`: those of the reference, recognised
    however they are written. Raises NotLiteral, saying why, for what is no finished answer."""
    if len(text) > MAX_CHARACTERS:
        raise NotLiteral(f"it is longer than {MAX_CHARACTERS} characters")
    cleaned = clean(text)
    if not cleaned:
        raise NotLiteral("it is empty")
    return replace(_answer(cleaned, allowed, units), source=" ".join(text.split()))


def clean(text: str) -> str:
    """The text without delimiters, spacing and synonyms of notation."""
    text = text.strip()
    while True:
        before = text
        text = text.removesuffix(".").strip()
        for opening, closing in (*WRAPPERS, (r"\boxed{", "}")):
            inner = text[len(opening) : -len(closing)]
            if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening + closing):
                text = inner.strip() if _wraps(opening, inner) else text
        if text == before:
            break
    # Words between formulas, such as `$1$ and $2$`, or a formula and its unit.
    text = DOLLAR.sub(" ", text) if len(DOLLAR.findall(text)) % 2 == 0 else text
    if text.isascii() and text.isdigit():
        return text
    if not text.isascii():
        for symbol, latex in SYMBOLS.items():
            text = text.replace(symbol, latex)
    for written, latex in (("**", "^"), (r"\%", "%"), (r"\emptyset", r"\{\}"), (r"\varnothing", r"\{\}")):
        text = text.replace(written, latex)
    for pattern, substitute in SYNONYMS:
        text = pattern.sub(substitute, text.strip())
    return ARRAY.sub(lambda match: rf"\begin{{pmatrix}}{match.group(2)}\end{{pmatrix}}", text.strip())


def _wraps(opening: str, inner: str) -> bool:
    r"""Whether what stands between delimiters is one formula: `$\$5$` and `$$5$` are an amount in math mode."""
    if opening == "$" and not inner.endswith("\\"):
        return not DOLLAR.search(inner) or re.fullmatch(r"\$\s*[0-9.,]+", inner) is not None
    return opening not in inner


def _answer(text: str, allowed: frozenset[str], units: frozenset[str]) -> MathAnswer:
    text = text.strip()
    if NUMBER.fullmatch(text):
        value = Fraction(text)
        return MathAnswer("value", text, value=value, tree=("number", value), decimal=not text.lstrip("+-").isdigit())
    if (words := _words(text)) is not None:
        if len(words) > 1:
            return MathAnswer("words", words)
        return MathAnswer("value", words, letters=frozenset(words), tree=("letter", words))
    if based := BASED.fullmatch(text):
        return MathAnswer("based", f"{based.group(1)}_{based.group(2) or based.group(3)}")
    name, body = _split_name(text)
    if (parts := _list(body, allowed, units)) is not None:
        return replace(parts, name=name)
    if r"\pm" in body or r"\mp" in body:
        both = (body.replace(r"\pm", "+").replace(r"\mp", "-"), body.replace(r"\pm", "-").replace(r"\mp", "+"))
        return _listed("", body, [_answer(one, allowed, units) for one in both], name)
    sides = RELATION.split(body)
    if len(sides) > 1:
        if name or len(sides) > 5 or (len(sides) > 3 and "=" in sides[1::2]):
            raise NotLiteral("a chain of relations is left undone")
        return _relation(sides, allowed)
    return replace(_value(body, allowed, units), name=name)


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
        left, equals, right = [*re.split(r"(\\in)(?![A-Za-z])", text, maxsplit=1), "", ""][:3]
    name = re.sub(r"\s+", "", left)
    # In `x=1, y=2` the first name belongs to the first item only.
    several = "=" in right and len(_split(right, ",;") or ()) > 1
    if equals and not several and NAME.fullmatch(name) and name not in (r"\pi", r"\infty", "e", "i"):
        return name, right.strip()
    return "", text


def _list(text: str, allowed: frozenset[str], units: frozenset[str]) -> MathAnswer | None:
    """A union, matrix, tuple, interval, set, ratio or plain list; None for anything else."""
    if len(union := re.split(r"\\cup(?![A-Za-z])", text)) > 1:
        return _listed("∪", text, [_answer(part, allowed, units) for part in union])
    if matrix := MATRIX.fullmatch(text):
        rows = [row.split("&") for row in re.split(r"\\\\", matrix.group(2).strip()) if row.strip()]
        shape = f"{'det' if matrix.group(1) == 'vmatrix' else 'matrix'} {[len(row) for row in rows]}"
        return _listed(shape, text, [_answer(cell, allowed, units) for row in rows for cell in row])
    for opening, closing in ((r"\{", r"\}"), ("{", "}"), ("(", ")"), ("(", "]"), ("[", ")"), ("[", "]")):
        if text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            parts = _split(inner, ",;")
            if PAIR.fullmatch(inner) and opening in "([":
                parts = inner.split(",")  # (12,102) is no number
            if parts is not None and (len(parts) > 1 or opening == r"\{"):
                brackets = opening.strip("\\") + closing.strip("\\")
                return _listed(brackets, text, [_answer(part, allowed, units) for part in parts])
    for separators, brackets in ((",;", ""), (":", ":")):
        parts = _split(text, separators)
        if parts is not None and len(parts) > 1:
            return _listed(brackets, text, [_answer(part, allowed, units) for part in parts])
    return None


def _listed(brackets: str, text: str, items: list[MathAnswer], name: str = "") -> MathAnswer:
    """A list; items that are plain lists themselves, from ±, become part of it where the order means nothing."""
    flat = [inner for item in items for inner in (item.items if item.kind == "list" and not item.brackets else (item,))]
    undone = frozenset[str]().union(*(item.undone for item in items))
    items = flat if brackets in ("", "{}") else items
    return MathAnswer("list", re.sub(r"\s+", "", text), name=name, brackets=brackets, items=tuple(items), undone=undone)


def _split(text: str, separators: str) -> list[str] | None:
    """The parts between separators outside brackets (a comma inside a number like 1,000 is none); None where the
    brackets do not match."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if depth < 0:
            return None
        if character in separators and depth == 0 and not _thousands(text, position):
            parts.append(text[start:position])
            start = position + 1
    if depth:
        return None
    return [part for part in [*parts, text[start:]] if part.strip()]


def _thousands(text: str, position: int) -> bool:
    """Whether this comma separates thousands: 1 to 3 digits before, groups of exactly 3 after, no blanks."""
    if text[position] != ",":
        return False
    before = re.search(r"(?:^|[^0-9,.])([0-9]{1,3}(?:,[0-9]{3})*)$", text[:position])
    after = re.match(r"[0-9]{3}(?![0-9])", text[position + 1 :])
    return bool(before and before.group(1)[0] != "0" and after)


def _relation(sides: list[str], allowed: frozenset[str]) -> MathAnswer:
    terms, undone = zip(*(parse_expression(side.strip(), allowed) for side in sides[::2]), strict=True)
    signs = [SIGNS.get(sign, sign) for sign in sides[1::2]]
    relations = []
    for left, sign, right in zip(terms, signs, terms[1:], strict=False):
        if sign in (">", "≥"):
            left, sign, right = right, {">": "<", "≥": "≤"}[sign], left
        relations.append((added(left, negated(right)).tree, sign))
    sources = [re.sub(r"\s+", "", side) for side in sides[::2]]
    return MathAnswer(
        "relation",
        "".join(re.sub(r"\s+", "", SIGNS.get(side, side)) for side in sides),
        letters=frozenset[str]().union(*(term.letters for term in terms)),
        relations=tuple(relations),
        interval=_interval(sources, list(terms), signs),
        solved=_solved(list(terms), sources),
        undone=frozenset[str]().union(*undone),
    )


def _solved(terms: list[Term], sources: list[str]) -> bool:
    variables = [source for term, source in zip(terms, sources, strict=True) if term.letters]
    return len(variables) == 1 and NAME.fullmatch(variables[0].lstrip("-")) is not None


def as_relation(answer: MathAnswer) -> MathAnswer:
    """`y = 2x`, a value with a name, as a relation. Raises NotLiteral where the name is no variable."""
    return _relation([answer.name, "=", answer.text], UNEVALUATED)


def _interval(texts: list[str], terms: list[Term], signs: list[str]) -> MathAnswer | None:
    """The interval of `a < x ≤ b`, `x < b`, `x ≥ a`, …; None for other relations."""
    if any(sign in ("=", "≠") for sign in signs):
        return None
    infinite = [_of_term(negated(INFINITE), r"-\infty"), _of_term(INFINITE, r"\infty")]
    if len(terms) == 2:
        at = 0 if NAME.fullmatch(texts[0]) and terms[0].letters else 1
        upward = (signs[0] in ("<", "≤")) == (at == 1)
        ends = [terms[1 - at], None] if upward else [None, terms[1 - at]]
    else:
        at = 1
        upward = signs[0] in ("<", "≤")
        if upward != (signs[1] in ("<", "≤")):
            return None
        ends = [terms[0], terms[2]] if upward else [terms[2], terms[0]]
        signs = signs if upward else signs[::-1]
    if not NAME.fullmatch(texts[at]) or not terms[at].letters or any(end and end.letters for end in ends):
        return None
    closed = ["≤" in sign or "≥" in sign for sign in (signs if len(signs) == 2 else signs * 2)]
    opening = "[" if ends[0] and closed[0] else "("
    closing = "]" if ends[1] and closed[1] else ")"
    items = [infinite[i] if end is None else _of_term(end, "") for i, end in enumerate(ends)]
    return MathAnswer("list", "", brackets=opening + closing, items=tuple(items))


def _of_term(term: Term, text: str) -> MathAnswer:
    return MathAnswer("value", text, value=term.value, decimal=term.decimal, letters=term.letters, tree=term.tree)


def _value(text: str, allowed: frozenset[str], units: frozenset[str]) -> MathAnswer:
    text, unit, scale = split_unit(text, units)
    text = text.strip()
    percent = text.endswith("%")
    text = text.removesuffix("%").strip()
    if match := MIXED.fullmatch(text):
        text = "{}{}\\frac{{{}}}{{{}}}".format(*match.groups())
    term, undone = parse_expression(text, allowed)
    if percent or scale > 1:
        if term.value is None:
            raise NotLiteral("a percentage or what is counted in millions must be a number")
        term = exact(term.value * scale / (100 if percent else 1), term.decimal)
    spaced = re.sub(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])", r"\1 ", text)  # `\pi r` must not become `\pir`
    compact = re.sub(r"(?<![A-Za-z])\s+|\s+(?![A-Za-z])", "", spaced) + ("\\%" if percent else "")
    compact += f"e{scale}" if scale > 1 else ""
    return replace(_of_term(term, compact), unit=unit, undone=undone)
