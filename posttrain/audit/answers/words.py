"""Options of a multiple choice, and short texts."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from posttrain.audit.answers import numbers
from posttrain.audit.answers.variant import Variant, distinct, dressed, other_digit
from posttrain.audit.golds import LETTER, GoldTask

OPPOSITES = {"yes": "no", "true": "false", "left": "right", "more": "less", "increase": "decrease", "on": "off"}
OPPOSITES |= {b: a for a, b in OPPOSITES.items()}
ORDERED = re.compile(r"\b(?:(?<!any )(?<!which )(?<!what )order|sort(?:ed)?|rank|arrange)\b", re.IGNORECASE)
UNORDERED = re.compile(
    r"\b(?:any|whatever|whichever|no (?:particular|specific|special)) order|in order to", re.IGNORECASE
)
CASE_MATTERS = re.compile(
    r"\b(?:case|capital letters?|uppercase|lowercase|cipher|decode|password|code)\b", re.IGNORECASE
)
UNITS = ("kg", "km", "seconds", "litres")
MIN_LETTERS = 5
"""A shorter word may become another right word by one letter."""


def option_text(task: GoldTask, letter: str) -> str:
    """What the prompt says behind a letter, empty where it is not found."""
    match = re.search(
        rf"(?:^|[\s(]){letter}[).:]\s+(.+?)\s*(?=$|[\s(][A-J][).:]\s)", task.task.asked, re.MULTILINE | re.DOTALL
    )
    return match[1].strip().splitlines()[0].rstrip(" ,;") if match else ""


def _letter(text: str) -> str:
    match = LETTER.fullmatch(text.strip())
    return match[1].upper() if match else ""


@dataclass(frozen=True)
class _Choices:
    def near_misses(self, task: GoldTask, rng: random.Random) -> list[Variant]:
        gold = _letter(task.gold)
        others = [letter for letter in task.options if letter != gold]
        if not others:
            return []
        near = min(others, key=lambda letter: abs(ord(letter) - ord(gold)))
        found = [Variant("the next option", near), Variant("another option", rng.choice(others))]
        if text := option_text(task, near):
            found.append(Variant("the next option with its text", f"{near}) {text}"))
        return distinct(found)

    def equivalents(self, task: GoldTask) -> list[Variant]:
        gold = _letter(task.gold)
        found = [
            *dressed(gold),
            Variant("the letter in brackets", f"({gold})"),
            Variant("a bracket behind", f"{gold})"),
            Variant("a small letter", gold.lower()),
        ]
        if text := option_text(task, gold):
            found += [
                Variant("with the option's text", f"{gold}) {text}"),
                Variant("with the option's text in brackets", f"({gold}) {text}"),
            ]
        return distinct(found)

    def same(self, task: GoldTask, answer: str) -> bool:
        return bool(_letter(answer)) and _letter(answer) == _letter(task.gold)


@dataclass(frozen=True)
class _Strings:
    def near_misses(self, task: GoldTask, rng: random.Random) -> list[Variant]:
        gold = task.gold
        if (opposite := OPPOSITES.get(gold.casefold())) is not None:
            return [Variant("the opposite", opposite.capitalize() if gold[0].isupper() else opposite)]
        found = [Variant("a word more that denies it", f"not {gold}")]
        words = [match for match in re.finditer(rf"[^\W\d_]{{{MIN_LETTERS},}}", gold)]
        if words:
            word = rng.choice(words)
            at = rng.randrange(word.start() + 1, word.end())
            letter = rng.choice([c for c in "aeiklmnorstu" if c != gold[at].lower()])
            found += [
                Variant("another letter", gold[:at] + letter + gold[at + 1 :]),
                Variant("a letter left out", gold[:at] + gold[at + 1 :]),
            ]
        places = [
            i for i in range(len(gold) - 1) if gold[i : i + 2].isalpha() and gold[i].lower() != gold[i + 1].lower()
        ]
        if len(places) >= MIN_LETTERS - 1:
            i = rng.choice(places)
            found.append(Variant("two letters swapped", f"{gold[:i]}{gold[i + 1]}{gold[i]}{gold[i + 2 :]}"))
        if (changed := other_digit(gold, rng)) is not None:
            found.append(Variant("another digit", changed))
        if ", " in gold:
            found.append(Variant("two items joined", gold.replace(", ", "", 1)))
            found.append(Variant("an item left out", gold.partition(", ")[2]))
        found += _measure(gold, rng)
        if ORDERED.search(UNORDERED.sub("", task.task.asked)) and (mixed := _mixed(gold, rng)) != gold:
            found.append(Variant("another order", mixed))
        return distinct(found)

    def equivalents(self, task: GoldTask) -> list[Variant]:
        gold = task.gold
        found = [*dressed(gold), Variant("in quotation marks", f'"{gold}"')]
        if any(c.isalpha() for c in gold) and not CASE_MATTERS.search(task.task.asked):
            found += [
                Variant("small letters", gold.lower()),
                Variant("capital letters", gold.upper()),
            ]
        if ", " in gold:
            found.append(Variant("no blanks behind commas", gold.replace(", ", ",")))
        return distinct(found)

    def same(self, task: GoldTask, answer: str) -> bool:
        gold, other = numbers.parse(task.gold), numbers.parse(answer)
        return _bare(answer) == _bare(task.gold) or (gold is not None and gold == other)


def _measure(gold: str, rng: random.Random) -> list[Variant]:
    """A number with a unit: the number near it, and another unit of the same kind of letters."""
    match = re.fullmatch(r"([-+−]?[0-9][0-9,.]*)\s*([^\W\d_]{1,12})", gold)
    if match is None:
        return []
    number, unit = match.groups()
    value = numbers.parse(number)
    if value is None:
        return []
    other = rng.choice([each for each in UNITS if each != unit.casefold()])
    return [
        Variant("one more", f"{numbers.written(value + 1)} {unit}"),
        Variant("a factor of ten", f"{numbers.written(value * 10)} {unit}"),
        Variant("another unit", f"{number} {other}"),
    ]


def _bare(text: str) -> list[str]:
    """The words, without case, articles and punctuation."""
    return [word for word in re.findall(r"[^\W_]+", text.casefold()) if word not in ("the", "a", "an")]


def _mixed(gold: str, rng: random.Random) -> str:
    """The items of a list with commas, two neighbours in the other order."""
    items = gold.strip("()[]{}").split(",")
    if len(items) < 2:
        return gold
    at = rng.randrange(len(items) - 1)
    items[at], items[at + 1] = items[at + 1].strip(), items[at].strip()
    inside = ", ".join(item.strip() for item in items)
    return inside if gold[0] not in "([{" else f"{gold[0]}{inside}{gold[-1]}"


CHOICES, STRINGS = _Choices(), _Strings()
