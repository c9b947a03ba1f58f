"""A text that is made of a reference answer."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["layout", "notation"]
"""How far an equivalent is from the reference as it is written. layout: blanks and order that do not count in the
language of the answer (JSON, Python, a formula). notation: another notation of the value (1,234 for 1234), or signs
around it (bold, a full stop, blanks), which a strict reward may refuse."""


@dataclass(frozen=True)
class Variant:
    """`kind` says in a few words what was done; `level` only counts for equivalents."""

    kind: str
    text: str
    level: Level = "notation"


def dressed(text: str) -> list[Variant]:
    """The text with blanks and signs around it."""
    return [
        Variant("a blank in front", f" {text}"),
        Variant("a blank behind", f"{text} "),
        Variant("a final full stop", f"{text}."),
        Variant("bold", f"**{text}**"),
    ]


def distinct(variants: Iterable[Variant]) -> list[Variant]:
    """The variants without repeated texts."""
    return list({variant.text: variant for variant in reversed(list(variants))}.values())[::-1]


def other_digit(text: str, rng: random.Random) -> str | None:
    """The text with one digit replaced, not with a 0 in front; None where it has no digit."""
    places = [match.start() for match in re.finditer("[0-9]", text)]
    if not places:
        return None
    at = rng.choice(places)
    digit = rng.choice([d for d in "123456789" if d != text[at]])
    return text[:at] + digit + text[at + 1 :]
