"""Dates in the notations that a prompt permits."""

from __future__ import annotations

import re
from datetime import date, datetime

from posttrain.audits.golds import GoldTask

MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
SHOWN = {
    "%Y-%m-%d": r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}\b",
    "%Y/%m/%d": r"\b[0-9]{4}/[0-9]{2}/[0-9]{2}\b",
    "%d.%m.%Y": r"\b[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}\b",
    "{day} %B %Y": rf"\b[0-9]{{1,2}} {MONTH} [0-9]{{4}}\b",
    "%B {day}, %Y": rf"\b{MONTH} [0-9]{{1,2}}, [0-9]{{4}}\b",
}
PERMITTED = re.compile(
    r"\bany (?:\w+ ){0,2}(?:form|format|notation|style)s?\b|"
    r"\b(?:is|are) (?:all |also |both |equally )?(?:fine|accepted|permitted|allowed|okay|ok)\b",
    re.IGNORECASE,
)
"""Sentences that leave the notation open, and show some."""


def permitted(task: GoldTask) -> list[str]:
    """The date of a reference such as 2024-03-05 in the other notations that the prompt shows where it permits them."""
    said = " ".join(each for each in re.split(r"(?<=[.!?;])\s+|\n", task.prompt) if PERMITTED.search(each))
    value = _read(task.gold)
    if value is None:
        return []
    forms = [form for form, pattern in SHOWN.items() if re.search(pattern, said)]
    found = [value.strftime(form.format(day=value.day)) for form in forms]
    return [text for text in found if text != task.gold]


def _read(text: str) -> date | None:
    for form, pattern in SHOWN.items():
        if re.fullmatch(pattern, text):
            try:
                return datetime.strptime(text, form.format(day="%d")).date()
            except ValueError:
                return None
    return None
