"""Where the answer of a response stands, and what it says: the strict parts that the rewards of the zoo share."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from fractions import Fraction
from typing import Any

NUMBER = re.compile(r"([-+−]?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(\.[0-9]+)?")
NEGATION = re.compile(r"\b(?:not|no|never|wrong|incorrect|false|isn't|doesn't)\b", re.IGNORECASE)


def after_thinking(response: str) -> str:
    return response.rpartition("</think>")[2]


def lines(response: str) -> list[str]:
    """What stands on the `Answer:` lines, without marks of emphasis and a full stop."""
    found = re.findall(r"^[ \t>*_#-]*(?:final )?answer[*_]*:(.*)$", response, re.IGNORECASE | re.MULTILINE)
    return [text.strip(" \t\r*_$`").removesuffix(".").strip(" *_$`") for text in found]


def line(response: str) -> str | None:
    """The one answer on `Answer:` lines, which must end the response; None for several and for none."""
    found, last = set(lines(response)), response.strip().rpartition("\n")[2]
    return found.pop() if len(found) == 1 and lines(last) else None


def box(response: str) -> str | None:
    """The content of the one `\\boxed{…}` after the thinking."""
    found = set(re.findall(r"\\boxed\{([^{}]*)\}", after_thinking(response)))
    return found.pop().strip() if len(found) == 1 else None


def tag(response: str) -> str | None:
    """The content of the one `<answer>…</answer>` after the thinking."""
    found = re.findall(r"<answer>(.*?)</answer>", after_thinking(response), re.DOTALL)
    return found[0].strip() if len(found) == 1 else None


def number(text: Any) -> Fraction | None:
    match = NUMBER.fullmatch(str(text).strip()[:40])
    if match is None:
        return None
    size = Fraction(match[2].replace(",", "") + (match[3] or ""))
    return -size if match[1] in ("-", "−") else size


def same_number(text: str | None, answer: Any) -> bool:
    return text is not None and (found := number(text)) is not None and found == number(answer)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def overlap(response: str, reference: str) -> float:
    """How far two texts have the same words in the same order, in [0, 1]."""
    return SequenceMatcher(None, words(response), words(reference), autojunk=False).ratio()


def record(response: str) -> dict[str, Any] | None:
    """The JSON object that a response is, alone or in one code block."""
    text = re.sub(r"^```(?:json)?\s*\n(.*?)\n```$", r"\1", response.strip(), flags=re.DOTALL)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def code_block(response: str) -> str:
    """The only code block, else the whole response."""
    found: Sequence[str] = re.findall(r"```(?:python)?\s*\n(.*?)```", response, re.DOTALL)
    return found[0] if len(found) == 1 else response
