"""Text of others, made safe to show."""

from __future__ import annotations

import re

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that turn the direction of text."""


def printable(text: object) -> str:
    """Text for a terminal: what would move its cursor, change its colours or its direction is written as an escape,
    since data, models and rewards of others have a say in messages."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
