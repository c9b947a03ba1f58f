"""A reference answer with one part exchanged, whatever it is about: an operator, a word, an opposite, a negation.

Some of these may be right: another word may not matter. Most of a kind are wrong, so a reward that pays most of a kind
does not see such parts."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from posttrain.audits.answers.strings import FREE_CASE, contrary, is_ordered
from posttrain.audits.answers.variant import Variant, distinct
from posttrain.audits.golds import DATE, FORMULA, GoldTask

PAIRS = "< > ≤ ≥ & | ∧ ∨ ∪ ∩ ∈ ∉ ∀ ∃ ⊂ ⊃ ← → ↑ ↓ ♯ ♭ + - × ÷ <= >= == != AND OR".split()  # noqa: SIM905
OTHER = dict(zip(PAIRS[::2] + PAIRS[1::2], PAIRS[1::2] + PAIRS[::2], strict=True))
OTHER |= {"*": "+", "/": "*", "^": "*", "−": "+", "¬": "", "#": ""}
TWICE = "the last item twice"
ARITHMETIC = "-−+*/^&|"
OPERATOR = re.compile(
    r"(?<=[\w)\]}\"])(\s*)([-−+*/^&|<>×÷]|[<>=!]=)(?=\s*[\w({\[\\\"$])|()([∧∨∪∩∈∉⊂⊃≤≥←→↑↓♯♭∀∃¬]|(?<=\b[A-G])#|\b(?:AND|OR)\b)"
)
"""An operator between what it joins; those of arithmetic count in formulas alone."""
MARKUP = re.compile(r"</|/>|->|=>|⟶")
ARROW = re.compile(r"(\s*(?:->|→|=>|⟶)\s*)")
OPERANDS = re.compile(r"(?<![\w.^])([\w.]+)(\s*(?:<=?|>=?|≤|≥|-|−|/|÷|\^)\s*)([\w.]+)(?![\w.(^])")
"""Two parts around a sign that does not let them change places."""
BRACKETS = re.compile(r"\(([^()]*\w\s*[-+][^()]*)\)(?=\s*[*/^])|(?<=[*/-])\(([^()]*\w\s*[-+][^()]*)\)")
NEGATION = re.compile(r"\b(?:no|not|never)\s+|\s+(?:not|never)\b|(?<=\bcan)(?:not|['’]t)\b|(?<!ca)n['’]t\b", re.I)
WORD = re.compile(r"(?!the\b)[^\W\d_]{3,}", re.IGNORECASE)
CASED = re.compile(r"\b(?:title|camel|pascal|sentence|upper|lower|mixed)[- ]?case|capitali[sz]|capital letter", re.I)
MEANT = re.compile(r"\bgenotypes?\b|\balleles?\b|\bcase[- ]sensitive", re.IGNORECASE)
"""Prompts whose answer is text of theirs in other letters, and those in which capitals have a meaning."""


PREFIXED = re.compile(r"([0-9][0-9.,]* ?)([mMpP])(?=(?:[WVAJNΩF]|Hz|Pa|eV|Wh)$)")
"""Quantities in whose units m and M, p and P are other powers of ten."""


def exchanged(task: GoldTask, text: str, others: Sequence[str], rng: random.Random, words: bool) -> list[Variant]:
    """`text`, the reference answer or a text in it, with one part exchanged, one of a kind; `others` stand in the same
    place of other reference answers, and `words` says whether every word counts."""
    found = [
        ("another operator", _operator(task, text, rng)),
        ("the sides of an operator exchanged", _sides(task, text)),
        ("brackets left out", BRACKETS.sub(r"\1\2", text) if _is_formula(task, text) else text),
        ("the opposite of a word", contrary(text, "" if words else task.task.asked)),
        ("a negation left out", _affirmed(text)),
        ("other capitals", _capitals(task, text)),
    ]
    if is_ordered(task) and text.count(",") > 1:
        found.append((TWICE, f"{text},{text.rpartition(',')[2]}"))
    if words:
        found += [(f"the {where} word that of another answer", _word(text, others, at, rng))
                  for where, at in (("first", 0), ("last", -1))]  # fmt: skip
    if task.type == "text" and words:
        found.append(("a word left out", _shortened(text, rng)))
    return distinct(Variant(kind, each) for kind, each in found if each.split() != text.split())


def _is_formula(task: GoldTask, text: str) -> bool:
    """Whether signs of arithmetic join numbers and names, not the parts of a date, a word or an equation of
    reactions."""
    if MARKUP.search(text) or DATE.search(text):
        return False
    return task.type == "expression" or (
        FORMULA.search(text) is not None and re.search(r"[=^*(<>|&]", text) is not None
    )


def _operator(task: GoldTask, text: str, rng: random.Random) -> str:
    formula = _is_formula(task, text)
    found = [(e.start() + len(e[1] or ""), e[2] or e[4]) for e in OPERATOR.finditer(text)]
    found = [each for each in found if formula or (each[1] not in ARITHMETIC and not MARKUP.search(text))]
    if not found:
        return text
    start, sign = rng.choice(found)
    return text[:start] + OTHER[sign] + text[start + len(sign) :]


def _sides(task: GoldTask, text: str) -> str:
    """The two sides of the first arrow exchanged, else what stands around a sign that has an order."""
    sides = ARROW.split(text)
    if len(sides) > 2 and "</" not in text:
        return "".join([sides[2], sides[1], sides[0], *sides[3:]])
    for each in OPERANDS.finditer(text):
        ordered = each[2].strip() not in "-−/÷^" or _is_formula(task, text)
        if ordered and each[1] != each[3] and "</" not in text:
            return text[: each.start()] + each[3] + each[2] + each[1] + text[each.end() :]
    return text


def _affirmed(text: str) -> str:
    """Without the first negation; itself where nothing else would be left."""
    found = NEGATION.sub("", text, count=1)
    if not found.strip(" .!"):
        return text
    return found[0].upper() + found[1:] if text[0].isupper() else found


def _capitals(task: GoldTask, text: str) -> str:
    asked = task.task.asked
    if (prefixed := PREFIXED.match(text)) and not FREE_CASE.search(asked):
        return prefixed[1] + prefixed[2].swapcase() + text[prefixed.end() :]
    made = len(text.split()) > 1 and CASED.search(asked) and text not in asked and text.casefold() in asked.casefold()
    if FREE_CASE.search(asked) or not (made or MEANT.search(asked)):
        return text
    return text.lower() if text.lower() != text else text.upper()


def _word(text: str, others: Sequence[str], at: int, rng: random.Random) -> str:
    """The word of three letters or more in that place replaced by the one in the same place of another answer, which
    this one does not have."""
    words = list(WORD.finditer(text))
    if len(words) < 2:
        return text
    own = {word[0].casefold() for word in words}
    found = [each[at] for other in others if len(each := WORD.findall(other)) > 1 and each[at].casefold() not in own]
    return text[: words[at].start()] + rng.choice(found) + text[words[at].end() :] if found else text


def _shortened(text: str, rng: random.Random) -> str:
    words = list(re.finditer(r"\s\w{5,}(?=\s)", text))
    word = rng.choice(words) if words else None
    return text[: word.start()] + text[word.end() :] if word else text
