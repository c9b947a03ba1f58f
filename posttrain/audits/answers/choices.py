"""Options of a multiple choice."""

from __future__ import annotations

import random
import re

from posttrain.audits.answers.variant import Variant, distinct, dressed
from posttrain.audits.golds import LETTER, GoldTask

LETTER_ASKED = re.compile(r"\bletters?\b", re.IGNORECASE)
"""Prompts in which the letter is the answer, and not the text behind it."""


def near_misses(task: GoldTask, rng: random.Random) -> list[Variant]:
    gold = _letter(task.gold)
    others = [letter for letter in task.options if letter != gold]
    if not others:
        return []
    near = min(others, key=lambda letter: abs(ord(letter) - ord(gold)))
    found = [Variant("the next option", near), Variant("another option", rng.choice(others))]
    if text := option_text(task, near):
        found.append(Variant("the next option with its text", f"{near}) {text}"))
    if LETTER_ASKED.search(task.task.asked) and (right := option_text(task, gold)):
        found.append(Variant("the right text under another letter", f"{near}) {right}"))
    return distinct(found)


def equivalents(task: GoldTask) -> list[Variant]:
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


def same(task: GoldTask, answer: str) -> bool:
    return bool(_letter(answer)) and _letter(answer) == _letter(task.gold)


def option_text(task: GoldTask, letter: str) -> str:
    """What the prompt says behind a letter, empty where it is not found."""
    match = re.search(
        rf"(?:^|[\s(]){letter}[).:]\s+(.+?)\s*(?=$|[\s(][A-J][).:]\s)", task.task.asked, re.MULTILINE | re.DOTALL
    )
    return match[1].strip().splitlines()[0].rstrip(" ,;") if match else ""


def _letter(text: str) -> str:
    match = LETTER.fullmatch(text.strip())
    return match[1].upper() if match else ""
