"""Text of others, made safe to show."""

from __future__ import annotations

import re

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, those that turn the direction of text, and halves of characters, which no
stream takes."""


def printable(text: object) -> str:
    """Text for a terminal: what would move its cursor, change its colours or its direction is written as an escape,
    since data, models and rewards of others have a say in messages."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable_json(text: str) -> str:
    """JSON with the same value in which they are written as JSON escapes; halves of characters become `?`."""
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text.encode(errors="replace").decode())


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def cell(text: object) -> str:
    """`printable` for a table or line of `rich`, which takes square brackets for its own marks."""
    from rich.markup import escape  # not where a sandbox or worker starts

    return escape(printable(text))
