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
    """What follows the reasoning; nothing where that is never closed."""
    return response.rpartition("</think>")[2].partition("<think>")[0]


def lines(response: str) -> list[str]:
    """What stands on the `Answer:` lines, without marks of emphasis and a full stop."""
    mark = r"^[ \t>*_#-]*(?:the )?(?:final )?answer[*_]*[ \t]?:(.*)$"
    return [plain(text) for text in re.findall(mark, after_thinking(response), re.IGNORECASE | re.MULTILINE)]


def plain(text: str) -> str:
    text = text.strip(" \t\r\n*_$`").removesuffix(".").strip(" *_$`")
    return text.removeprefix("\\boxed{").removesuffix("}") if text.startswith("\\boxed{") else text


def line(response: str) -> str | None:
    """The one answer on `Answer:` lines, which must end the response; None for several and for none."""
    found, last = set(lines(response)), response.strip().rpartition("\n")[2]
    return found.pop() if len(found) == 1 and lines(last) else None


def first_step(response: str) -> str | None:
    """The number of the first step of work."""
    found = re.search(r"(?:First I get|It is) ([0-9]{1,6})\b", response)
    return found[1] if found else None


def box(response: str) -> str | None:
    """The content of the one `\\boxed{…}` after the thinking."""
    found = set(re.findall(r"\\boxed\{([^{}]*)\}", after_thinking(response)))
    return found.pop().strip() if len(found) == 1 else None


def tag(response: str) -> str | None:
    """The content of the one `<answer>…</answer>` after the thinking."""
    parts = re.split("(</?answer>)", after_thinking(response))
    return plain(parts[2]) if parts[1::2] == ["<answer>", "</answer>"] else None


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
    """The JSON object that a response is, alone or in one code block; None where a key occurs twice."""
    text = re.sub(r"^```(?:json)?[ \t]*\n(.*?)\n```$", r"\1", response.strip(), flags=re.DOTALL)
    try:
        value = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(value := dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return value


def code_block(response: str) -> str:
    """The only code block, else the whole response."""
    found: Sequence[str] = re.findall(r"```(?:python)?[ \t]*\n(.*?)```", response, re.DOTALL)
    return found[0] if len(found) == 1 else response
