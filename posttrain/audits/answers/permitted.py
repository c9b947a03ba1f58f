"""A reference in the other notations that a prompt permits in so many words: units, dates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from fractions import Fraction
from itertools import pairwise

from posttrain.audits.answers.numbers import written
from posttrain.audits.answers.strings import FREE_CASE, FREE_ORDER
from posttrain.audits.answers.variant import Variant
from posttrain.audits.golds import GoldTask

EITHER = re.compile(r"\b(?:fraction|decimal)s?\b[^.,;]{0,30} or (?:as )?(?:an? )?(?:exact )?(?:decimal|fraction)", re.I)
SAID: Mapping[str, re.Pattern[str]] = {
    "the items in another order": FREE_ORDER,
    "small letters": FREE_CASE,
    "capital letters": FREE_CASE,
    "as a fraction": EITHER,
    "as a decimal": EITHER,
    "thousands separators": re.compile(r"\bwith or without (?:thousands )?(?:separator|comma)s?", re.I),
    "with the unit": re.compile(r"\bwith or without (?:the |a )?unit", re.I),
}
"""Renderings that a prompt may permit in so many words; where it does, a reward that refuses them is at fault."""
LISTED = (
    "day:86400 d:86400 hour:3600 hr:3600 h:3600 minute:60 min:60 m:60 second:1 sec:1 s:1",
    "kilometre:1000 kilometer:1000 km:1000 metre:1 meter:1 m:1 centimetre:.01 centimeter:.01 cm:.01 mm:.001",
    "tonne:1000 kilogram:1 kilo:1 kg:1 gram:.001 g:.001 mg:.000001",
    "litre:1 liter:1 l:1 cl:.01 millilitre:.001 milliliter:.001 ml:.001",
)
SIZES = [{name: Fraction(size) for name, _, size in (u.partition(":") for u in text.split())} for text in LISTED]
PART = r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)"
QUANTITY = rf"{PART}(?:,? (?:and )?{PART})*"
EXAMPLE = re.compile(rf"(?:\b(?:like|such as|as in|e\.g\.|example)[,:]? ['\"`]?|[(\"'`]){QUANTITY}", re.IGNORECASE)
NAMED = re.compile(r"\bin (?:either )?([a-z]+),? or (?:in )?([a-z]+)")
MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
DATES = {
    "%Y-%m-%d": r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}\b",
    "%Y/%m/%d": r"\b[0-9]{4}/[0-9]{2}/[0-9]{2}\b",
    "%d.%m.%Y": r"\b[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}\b",
    "{day} %B %Y": rf"\b[0-9]{{1,2}} {MONTH} [0-9]{{4}}\b",
    "%B {day}, %Y": rf"\b{MONTH} [0-9]{{1,2}}, [0-9]{{4}}\b",
}
OPEN = re.compile(
    r"\bany (?:\w+ ){0,2}(?:form|format|notation|style)s?\b|"
    r"\b(?:is|are) (?:all |also |both |equally )?(?:fine|accepted|permitted|allowed|okay|ok)\b",
    re.IGNORECASE,
)
"""Sentences that leave the notation open, and show some."""


def notations(task: GoldTask) -> list[Variant]:
    """The reference in other units and as another date, where the prompt permits these."""
    made = {
        "in other units that the prompt permits": _in_units(task),
        "as a date that the prompt permits": _dates(task),
    }
    return [Variant(f"{kind} {k}", text, "layout") for kind, texts in made.items() for k, text in enumerate(texts, 1)]


def _in_units(task: GoldTask) -> list[str]:
    """The reference in the units of examples that the prompt gives with an `or` between (`like 1 h 20 min, or like
    80 min`), and in those that it names: `in metres or centimetres`."""
    asked = task.prompt
    pairs = [(a, b) for a, b in pairwise(EXAMPLE.finditer(asked)) if re.search(r"\bor\b", asked[a.end() : b.start()])]
    shown = [each[0] for a, b in pairs if ". " not in asked[a.end() : b.start()] for each in (a, b)]
    abbreviated = re.search("[A-Za-z]{4}", task.gold) is None
    shown += [f"1 {word}" for words in NAMED.findall(asked) for word in words if abbreviated <= (len(word) < 4)]
    found = [_in_words_of(task.gold, match[0]) for each in shown if (match := re.search(QUANTITY, each))]
    return [text for text in dict.fromkeys(found) if text and text.replace(" ", "") != task.gold.replace(" ", "")]


def _in_words_of(gold: str, shown: str) -> str:
    """The quantity in the words of another one; empty where it cannot be, or has nothing in one of the units."""
    if not re.fullmatch(QUANTITY, gold):
        return ""
    mine, theirs = ([(n, unit.rstrip("s") or unit) for n, unit in re.findall(PART, text)] for text in (gold, shown))
    sizes = next((each for each in SIZES if all(unit in each for _, unit in mine + theirs)), None)
    if sizes is None:
        return ""
    rest = sum((Fraction(n) * sizes[unit] for n, unit in mine), Fraction(0))
    values = []
    for k, (_, unit) in enumerate(theirs, 1):
        values.append(rest / sizes[unit] if k == len(theirs) else rest // sizes[unit])
        rest -= values[-1] * sizes[unit]
    texts = iter([written(Fraction(value)) for value in values])
    text = re.sub(PART, lambda match: f"{next(texts)}{match[0][len(match[1]) :]}", shown)
    return text if all(values) and "/" not in text and len(text) <= 2 * len(shown) + 6 else ""


def _dates(task: GoldTask) -> list[str]:
    """The date of a reference such as 2024-03-05 in the other notations that the prompt shows where it permits them."""
    said = " ".join(each for each in re.split(r"(?<=[.!?;])\s+|\n", task.prompt) if OPEN.search(each))
    value = _date(task.gold)
    if value is None:
        return []
    forms = [form for form, pattern in DATES.items() if re.search(pattern, said)]
    found = [value.strftime(form.format(day=value.day)) for form in forms]
    return [text for text in found if text != task.gold]


def _date(text: str) -> date | None:
    for form, pattern in DATES.items():
        if re.fullmatch(pattern, text):
            try:
                return datetime.strptime(text, form.format(day="%d")).date()
            except ValueError:
                return None
    return None
