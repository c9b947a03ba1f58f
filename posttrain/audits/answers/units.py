"""Quantities in the units that a prompt permits."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from posttrain.audits.answers.numbers import written
from posttrain.audits.golds import GoldTask

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


def permitted(task: GoldTask) -> list[str]:
    """The reference in the units of examples that the prompt gives with an `or` between (`like 1 h 20 min, or like
    80 min`), and in those that it names: `in metres or centimetres`."""
    asked = task.prompt
    pairs = [(a, b) for a, b in pairwise(EXAMPLE.finditer(asked)) if re.search(r"\bor\b", asked[a.end() : b.start()])]
    shown = [each[0] for a, b in pairs if ". " not in asked[a.end() : b.start()] for each in (a, b)]
    abbreviated = re.search("[A-Za-z]{4}", task.gold) is None
    shown += [f"1 {word}" for words in NAMED.findall(asked) for word in words if abbreviated <= (len(word) < 4)]
    found = [_written(task.gold, match[0]) for each in shown if (match := re.search(QUANTITY, each))]
    return [text for text in dict.fromkeys(found) if text and text.replace(" ", "") != task.gold.replace(" ", "")]


def _written(gold: str, shown: str) -> str:
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
