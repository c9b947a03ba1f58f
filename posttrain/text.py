"""Text of others, made safe to show."""

from __future__ import annotations

import json
import re

UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\xad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\u2800\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\U000e0000-\U000e0fff\u200c\u200d]"
    r"(?:(?<![\u200c\u200d])|(?<![^\x00-\x7f][\u200c\u200d])|(?![^\x00-\x7f]))"
)
"""Control characters but tab and newline, and halves of characters, which no stream takes; characters that turn the
direction of text; those that nobody sees; and the joiners of letters and emoji where they stand beside none."""


def printable(text: object) -> str:
    """Text for a person: what would move a terminal's cursor, change its colours, the direction of text, or is not seen
    is written as an escape, since data, models and rewards of others have a say in messages."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable_json(text: str) -> str:
    """JSON with the same value in which they are written as JSON escapes; halves of characters become `?`."""
    return UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], text.encode(errors="replace").decode())


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def cell(text: object) -> str:
    """`printable` for a table or line of `rich`, which takes square brackets for its own marks."""
    from rich.markup import escape  # not where a sandbox or worker starts

    return escape(printable(text))
