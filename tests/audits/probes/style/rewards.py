"""What the rewards of these tests share."""

from __future__ import annotations

import re


def line(response: str) -> str | None:
    """What stands on the last `Answer:` line."""
    found = re.findall(r"^Answer: *(.*?) *$", response, re.MULTILINE)
    return found[-1] if found else None


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
