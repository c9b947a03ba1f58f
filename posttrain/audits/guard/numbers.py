"""Numbers in text: every literal with the values that it may mean, and whether it is a given number.

Own code throughout: what decides that an answer is wrong must not fail where the reward under audit fails."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

LONGEST = 60
"""A literal of more characters is no answer that anybody writes."""
LARGEST_EXPONENT = 300
UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()  # noqa: SIM905
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
WORDS = {word: n for n, word in enumerate(UNITS)} | {word: 10 * n for n, word in enumerate(TENS, start=2)}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "k": 1000}
WORD = rf"(?:{'|'.join(sorted([*WORDS, 'hundred', 'thousand', 'million', 'billion'], key=len, reverse=True))})"
SPELLED = re.compile(rf"(?:(?:minus|negative)\s+)?\b{WORD}(?:(?:\s*-\s*|\s+(?:and\s+)?){WORD})*\b", re.IGNORECASE)
WHOLE = r"(?:[0-9]{1,3}(?:[,_' ][0-9]{3})+(?![0-9])|[0-9]+)"
LITERAL = re.compile(
    rf"(?P<sign>[-+]\s?|\bminus\s|\bnegative\s)?(?:[$€£¥]\s?)?(?P<digits>{WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?P<mixed>\s+(?:and\s+)?[0-9]{1,4}/[0-9]{1,4})?"
    r"(?:[eE](?P<exponent>[-+]?[0-9]{1,4})(?![0-9A-Za-z]))?"
    r"(?:\s?\*\s?10\s?\^\s?[{(]?(?P<ten>[-+]?[0-9]{1,4})[)}]?)?"
    r"(?:\s?/\s?(?P<below>[0-9]+(?:\.[0-9]+)?))?"
    r"(?P<percent>\s?%|\s?per\s?cent\b)?"
    r"(?P<scale>\s?(?:hundred|thousand|million|billion|k)\b)?",
    re.IGNORECASE,
)
REPLACED = {
    **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f", ""),
    **dict.fromkeys("\u00a0\u2009\u202f\u2002\u2003\u3000", " "),
    **dict.fromkeys("×·⋅", "*"),
    **dict.fromkeys("÷\u2044\u2215", "/"),
    **dict(zip("％，．＝（）“”‘’", "%,.=()\"\"''", strict=True)),
    **{digit: f"^{k}" for k, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}
ALONE = r"(?![0-9A-Za-z({]|\\[A-Za-z])"
"""A fraction that no factor follows: `\\frac{1}{2}x` is none of the numbers."""
LATEX = (
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox|operatorname|textrm)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:left|right|displaystyle|big|Big|bigg)(?![A-Za-z])|\\!"), ""),
    (re.compile(r"\\[,;: ]|\\q?quad(?![A-Za-z])|~"), " "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree"), " degrees "),
    (re.compile(r"\\([$%#&])"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=[0-9]) +(?=[0-9]{3}(?![0-9]))"), " "),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"(?<=[0-9])\s*\\frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}" + ALONE), r" \1/\2"),
    (re.compile(r"\\frac\s*\{\s*([-+]?[0-9.]+)\s*\}\s*\{\s*([0-9.]+)\s*\}" + ALONE), r"\1/\2"),
    (re.compile(r"(?<=[0-9])\s*\\frac\s*([0-9])\s*([0-9])" + ALONE), r" \1/\2"),
    (re.compile(r"\\frac\s*([0-9])\s*([0-9])" + ALONE), r"\1/\2"),
    (re.compile(r"\\(?:cdot|times)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\\(|\\\)|\\\[|\\\]"), " "),
    (re.compile(r"(?<![\w)}])\*\*|\*\*(?![\w(])|`"), " "),
)
UNLIKELY = Fraction(10**40 + 1, 10**40)
"""The value of digits that are no number by themselves, such as the 1 of x1."""


@dataclass(frozen=True)
class Literal:
    """A number in a text, from `start` to `end`. `value` is what it says, `percent` whether with a percent sign, and
    `perhaps` what it says too if read otherwise, such as with a decimal comma."""

    value: Fraction
    start: int
    end: int
    percent: bool = False
    places: int | None = None
    """The digits behind its decimal point; None of a fraction or a power."""
    perhaps: tuple[Fraction, ...] = ()


@lru_cache(64)  # many answers of a search are the same for all tasks
def plain(text: str) -> str:
    """Text with the digits, signs and blanks of ASCII, without LaTeX's spacing and fonts. A power such as 2⁴ is none
    of the digits."""
    text = "".join(REPLACED.get(c, c) if c < "\x80" or c in REPLACED else _ascii(c) for c in text)
    for pattern, new in LATEX:
        text = pattern.sub(new, text)
    return text


def _ascii(character: str) -> str:
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    shown = unicodedata.normalize("NFKC", character)
    if "\u2044" in shown and shown[0].isdigit():  # ½
        return " " + shown.replace("\u2044", "/")
    return character


@lru_cache(256)
def literals(text: str) -> tuple[Literal, ...]:
    """The numbers of a `plain` text, in order."""
    matches = (match for match in LITERAL.finditer(text) if match.end() - match.start() <= LONGEST)
    return tuple(literal for match in matches if (literal := _literal(match, text)) is not None)


def _literal(match: re.Match[str], text: str) -> Literal | None:
    digits, sign = match["digits"], match["sign"] or ""
    exponents = [int(found) for found in (match["exponent"], match["ten"]) if found]
    if any(abs(exponent) > LARGEST_EXPONENT for exponent in exponents):
        return None
    start = match.start()
    value = Fraction(int(digits)) if digits.isdigit() else Fraction(re.sub(r"[,_' ]", "", digits))
    before = text[start - 1] if start else " "
    if (before.isalpha() or before == "_") and not sign:  # the index of a name
        return Literal(UNLIKELY, start, match.end(), perhaps=(value,))
    perhaps = []
    if re.fullmatch(r"[0-9]+,[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+", digits):
        perhaps.append(Fraction(digits.replace(",", ".") if "," in digits else digits.replace(".", "")))
    if " " in digits:
        perhaps += [Fraction(part) for part in digits.split()]
    comma = re.match(r",[0-9]+", text[match.end("digits") :])
    if comma and re.fullmatch(r"[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+", digits):
        perhaps.append(Fraction(digits.replace(".", "") + "." + comma[0][1:]))
    if match["mixed"]:
        value += Fraction(match["mixed"].split()[-1]) if not match["mixed"].endswith("/0") else 0
    for exponent in exponents:
        value *= Fraction(10) ** exponent
    if match["below"] and (below := Fraction(match["below"])):
        value /= below
    if match["scale"]:
        perhaps.append(value)
        value *= SCALES[match["scale"].strip().casefold()]
    if sign.strip().isalpha():
        value = -value
    elif "-" in sign:
        line = text[:start].rstrip(" ")
        bullet = sign != "-" and (not line or line.endswith("\n"))
        if bullet or line[-1:].isalnum() or line[-1:] in (")", "]", "}"):  # a list, a difference or a hyphen
            perhaps.append(-value)
        else:
            value, perhaps = -value, [-each for each in perhaps]
    whole = not (match["below"] or exponents or match["mixed"] or match["scale"])
    places = len(digits.partition(".")[2]) if whole else None
    return Literal(value, start, match.end(), bool(match["percent"]), places, tuple(perhaps))


@lru_cache(256)
def spelled(text: str) -> tuple[Literal, ...]:
    """The numbers that a text has in English words, `twenty-four`; not the `million` of `2.5 million`."""
    return tuple(
        Literal(Fraction(_of_words(match[0])), match.start(), match.end(), places=0)
        for match in SPELLED.finditer(text)
        if match.end() - match.start() <= 2 * LONGEST and not re.search(r"[0-9]\s*$", text[: match.start()][-4:])
    )


def _of_words(text: str) -> int:
    total = current = 0
    for word in re.findall(r"[a-z]+", text.casefold()):
        if word in WORDS:
            current += WORDS[word]
        elif word in SCALES:
            current = max(current, 1) * SCALES[word]
            if SCALES[word] >= 1000:
                total, current = total + current, 0
    negative = re.match(r"minus|negative", text.strip(), re.IGNORECASE)
    return -(total + current) if negative else total + current


def same_number(gold: Literal, other: Literal) -> bool | None:
    """Whether a number is the gold; None where that depends on how one reads it: a rounding, a percent sign too many, a
    decimal comma."""
    mine, theirs = gold.value, other.value
    if gold.percent == other.percent:
        if mine == theirs:
            return True
        perhaps = mine in other.perhaps
    else:
        if mine / 100 == theirs if gold.percent else mine == theirs / 100:
            return True
        perhaps = any(mine in (each, each / 100, each * 100) for each in (theirs, *other.perhaps))
    if perhaps or any(each == theirs or each in other.perhaps for each in gold.perhaps):
        return None
    return None if _rounded(mine, other, abs(mine) >= 10) or _rounded(theirs, gold) else False


def _rounded(exact: Fraction, shown: Literal, whole: bool = False) -> bool:
    """Whether the shown number is the exact one with fewer decimal places; to a whole number only if that is said."""
    if exact.denominator == 1 or not (shown.places or (whole and shown.places == 0)):
        return False
    return abs(exact - shown.value) < Fraction(1, 2 * 10**shown.places)
