"""Numbers: exact values, near misses, renderings, and arithmetic that is left undone."""

from __future__ import annotations

import math
import random
import re
from contextlib import suppress
from fractions import Fraction

from posttrain.audits.answers.variant import Variant, distinct, dressed, other_digit
from posttrain.audits.golds import LONGEST_NUMBER, GoldTask
from posttrain.audits.guard import formulas

NUMBER = re.compile(r"([-+−]?)\s*\$?([0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:/([0-9]+)|(e[-+]?[0-9]{1,3}))?\s*%?")
FRACTION = re.compile(r"([-+−]?)\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
MIN_DISTANCE = Fraction(1, 10_000)
"""A near miss lies farther from the reference than 0.01%, a tolerance that verifiers have for floats."""
MIN_DISTANCE_ROUNDED = Fraction(1, 50)
"""The same, 2%, where the reference may be rounded: it is no integer, or the prompt asks for no exact number."""
ROUNDED = re.compile(
    r"\b(?:about|approximat\w+|roughly|around|estimat\w+|nearest|round(?:ed|ing)?|toleranc\w*|within|plus or minus|"
    r"accura\w+|decimal places?|significant|close to|margin|at (?:least|most)|force|voltage|current|resistance|energy|"
    r"joules?|newtons?|volts?|ohms?|watts?|density|velocity|acceleration|wavelength|frequency|half-life|pi)\b|[±≈%π]",
    re.IGNORECASE,
)
STATED = re.compile(
    r"(?:\b(?:within|plus or minus|toleranc|error|off by|deviat|(?:may|can) differ|accura)\w*|\+/-|"
    r"(?<![=(]\s)(?<![=(])±)\s*(?:(?:(?:up|at|most|less|no|not|more|than|to|by|of|is|are|about|an?|the|within)\b|[:±(])\s*)*"
    r"([0-9]+(?:\.[0-9]+)?)(?![0-9.])(?:(\s?(?:%|per ?cent))|(?!\s?(?:words?|characters?|letters?|tokens?|lines?|"
    r"sentences?|steps?|moves?|tries|attempts|decimal|signific|digits|places|figures)))",
    re.IGNORECASE,
)
AROUND = re.compile(
    r"([0-9]+(?:\.[0-9]+)?)\s?(?:%|per ?cent) (?:of the (?:true|exact|right|correct)|toleranc|error)", re.I
)
OF_ANSWERS = re.compile(r"answer|accept|result|value|toleran|allow|count|correct|right|exact|reply|respon|±", re.I)
FIGURES = re.compile(r"\b(one|two|three|four|five|[1-9])[ -]sig|\b(one|two|three|[0-9])[ -]decimal", re.I)
PLACES = re.compile(
    r"\bround\w* (?:off )?(?:to )?(one|two|three|four|five|[1-9])(?: decimal)? (?:places|decimals|digits)", re.I
)
CONSTANTS = re.compile(r"=\s*([0-9]+(?:\.[0-9]+)?)[^\n0-9=]{0,20}\bor\s+([0-9]+(?:\.[0-9]+)?)")
"""What a prompt says of tolerances: `within 2 %`, `± 0.5`, `3 significant figures`, `g = 9.8 or 9.81`."""
MEASURE = re.compile(r"([-+−]?[0-9][0-9,.]*)\s*(°?[A-Za-zµΩ%][^\s,;]{0,11})")
"""A number with its unit."""
NUMERAL = re.compile(r"(?<![0-9.])-?[0-9]+(?:\.[0-9]+)?")
COUNTS = "0 1 2 3 4 5 6 7 8 9 zero one two three four five".split()  # noqa: SIM905
LARGE = 1000
DOTS = re.compile(
    r"\b(?:with or without|optional) (?:\w+ ){0,2}(?:dots?|points?|separators?|punctuation)\b", re.IGNORECASE
)
COUNTED = re.compile(r"\bhow many ((?!of\b|more\b|different\b|distinct\b|ways\b)[a-z]{3,})", re.IGNORECASE)
LARGEST_FACTOR = 100_000
"""A product is looked for up to this factor: of a large prime the search would never end."""
SUM = re.compile(r"(?<![0-9.])[0-9][0-9.]*(?:\s*[-+*/×÷]\s*[0-9][0-9.]*)+")


def parse(text: str) -> Fraction | None:
    """The value of a literal number as it is written, without its percent or dollar sign; None where it is none."""
    text = text.strip()
    if len(text) > LONGEST_NUMBER:
        return None
    if match := FRACTION.fullmatch(text):
        sign, above, below = match.groups()
        return _signed(sign, Fraction(int(above), int(below))) if int(below) else None
    match = NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, digits, below, power = match.groups()
    if below is not None and not int(below):
        return None
    value = Fraction(digits.replace(",", "") + (power or "")) / int(below or 1)
    return _signed(sign, value)


def near_misses(task: GoldTask, rng: random.Random) -> list[Variant]:
    value = parse(task.gold)
    if value is None:
        return []
    around = _decorations(task.gold)
    digits = written(value)
    found = [
        ("one more", written(value + 1)),
        ("one less", written(value - 1)),
        ("5% more", written(value * Fraction(105, 100))),
        ("a factor of ten", written(value * 10)),
        ("a factor of a hundred", written(value * 100)),
        ("the other sign", written(-value)),
        ("two digits swapped", _swapped(digits, rng)),
        ("another digit", other_digit(digits, rng)),
        ("the last digit left out", digits[:-1] if digits[-2:-1].isdigit() else None),
        ("the digits turned round", digits[::-1] if digits.isdigit() and digits[-1] != "0" else None),
    ]
    if value.denominator == 1:
        dots = abs(value) >= LARGE and not DOTS.search(task.task.asked)
        found.append(("half a per cent more", written(value * Fraction(1005, 1000))))
        found.append(("a comma read as a point", written(value / 1000) if dots else None))
        found.append(("0.2 per cent more", written(Fraction(round(value * Fraction(1002, 1000))))))
    else:
        found += [("upside down", written(1 / value)), ("the decimals left out", written(Fraction(int(value))))]
    exact = value.denominator == 1 and not ROUNDED.search(task.task.asked)
    least = max((MIN_DISTANCE if exact else MIN_DISTANCE_ROUNDED) * abs(value), tolerance(task, value))
    far = [(kind, text, parse(text)) for kind, text in found if text is not None]
    return [
        Variant(kind, f"{around[0]}{text}{around[1]}")
        for kind, text, other in far
        if other is not None and abs(other - value) > least
    ]


def equivalents(task: GoldTask) -> list[Variant]:
    value, gold = parse(task.gold), task.gold
    if value is None:
        return []
    found = [*dressed(gold), Variant("in a formula", f"${gold}$")]
    if _decorations(gold) != ("", ""):
        return found
    whole, plain = value.denominator == 1, written(value)
    found += [Variant("no thousands separators", plain)] if "," in gold and plain == gold.replace(",", "") else []
    if whole and abs(value) >= 1000:
        found.append(Variant("thousands separators", f"{int(value):,}"))
    if whole and "." not in gold:
        found.append(Variant("a decimal point", f"{int(value)}.0"))
    elif "." in gold and "e" not in gold:
        found.append(Variant("a zero at the end", f"{gold}0"))
    if not whole:
        sign, above, below = "-" * (value < 0), abs(value.numerator), value.denominator
        found += [
            Variant("as a fraction", f"{sign}{above}/{below}"),
            Variant("as a LaTeX fraction", f"{sign}\\frac{{{above}}}{{{below}}}"),
        ]
        if "/" not in plain:
            found.append(Variant("as a decimal", plain))
        elif figures := PLACES.search(task.prompt):
            places = COUNTS.index(figures[1].lower()) % 10
            found.append(Variant("as a decimal that is rounded", f"{float(value):.{places}f}"))
    if match := COUNTED.search(task.task.asked):
        found.append(Variant("with the unit of the question", f"{gold} {match[1]}"))
    return distinct(found)


def unevaluated(task: GoldTask) -> list[Variant]:
    value = parse(task.gold)
    if value is None or _decorations(task.gold) != ("", ""):
        return []
    found = [Variant("a sum", f"{written(value - 2)} + 2"), Variant("a difference", f"{written(value + 8)} - 8")]
    if value.denominator == 1 and value > 1:
        n = int(value)
        factor = next((k for k in range(min(math.isqrt(n), LARGEST_FACTOR), 1, -1) if n % k == 0), 1)
        if factor > 1:
            found.append(Variant("a product", f"{factor}*{n // factor}"))
            found.append(Variant("a LaTeX product", f"{factor} \\times {n // factor}"))
        found += [Variant("a quotient", f"{2 * n}/2"), Variant("a root", f"\\sqrt{{{n * n}}}")]
    for match in SUM.finditer(task.task.asked):
        with suppress(OverflowError):
            result = formulas.value(match[0])
            same_value = result is not None and formulas.close(result, complex(value))
            if same_value and match[0].replace(" ", "") != task.gold.replace(" ", ""):
                found.insert(0, Variant("the question's own arithmetic", match[0].strip()))
                break
    return [each for each in found if value not in map(Fraction, re.findall(r"[0-9]+(?:\.[0-9]+)?", each.text))]


def same(task: GoldTask, answer: str) -> bool:
    gold = parse(task.gold)
    return gold is not None and gold == parse(answer)


def tolerance(task: GoldTask, value: Fraction) -> Fraction:
    """How far from the reference value an answer may lie by what the prompt says; 0 where it says nothing."""
    size, asked = abs(value), task.prompt
    said = " ".join(each for each in re.split(r"(?<=[.!?;])\s+|\n", asked) if OF_ANSWERS.search(each))
    found = [size * Fraction(each) / 100 for each in AROUND.findall(said)]
    found += [Fraction(each) * (size / 100 if percent else 1) for each, percent in STATED.findall(said)]
    found += [size * abs(Fraction(a) / Fraction(b) - 1) for a, b in CONSTANTS.findall(asked) if float(b)]
    for figures, places in FIGURES.findall(asked):
        n = COUNTS.index((figures or places).lower()) % 10
        found.append(size * 5 / Fraction(10) ** n if figures else Fraction(1, 2 * 10**n))
    return max(found, default=Fraction(0))


def tolerated(task: GoldTask, answer: str) -> bool:
    """Whether an answer is the reference with numbers that are near enough to its own, by what the prompt says; beside
    a unit those too that may be rounded otherwise."""
    if max(len(answer), len(task.gold)) > LONGEST_NUMBER or NUMERAL.sub("0", task.gold) != NUMERAL.sub("0", answer):
        return False
    rounded = MEASURE.fullmatch(task.gold) and ("." in task.gold or ROUNDED.search(task.task.asked))
    least = MIN_DISTANCE_ROUNDED if rounded else Fraction(0)
    pairs = [(Fraction(a), Fraction(b)) for a, b in zip(*map(NUMERAL.findall, (task.gold, answer)), strict=True)]
    return all(a == b or abs(a - b) <= max(least * abs(a), tolerance(task, a)) for a, b in pairs)


def written(value: Fraction) -> str:
    """The value as an integer, as a decimal where that is exact and short, else as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    for places in range(1, 13):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = str(abs(scaled.numerator)).rjust(places + 1, "0")
            return f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"
    return f"{value.numerator}/{value.denominator}"


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign in ("-", "−") else value


def _decorations(gold: str) -> tuple[str, str]:
    return "$" * ("$" in gold), "%" * ("%" in gold)


def _swapped(digits: str, rng: random.Random) -> str | None:
    """Two neighbouring digits that differ change places, without a 0 in front."""
    places = [
        i
        for i in range(len(digits) - 1)
        if digits[i : i + 2].isdigit() and digits[i] != digits[i + 1] and digits[i + 1] != "0"
    ]
    if not places:
        return None
    i = rng.choice(places)
    return digits[:i] + digits[i + 1] + digits[i] + digits[i + 2 :]
