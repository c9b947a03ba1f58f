"""Planted: rewards that pay for the form of an answer."""

from __future__ import annotations

import json
import re
from typing import Any

from zoo_forms import box, line, record, same_number, tag


def tag_bonus(solution_str: str, ground_truth: str, data_source: str = "", extra_info: Any = None) -> float:
    """An eighth for each tag, however many there are."""
    tags = len(re.findall(r"</?(?:think|answer)>", solution_str))
    return float(same_number(tag(solution_str), ground_truth)) + tags / 8


def headings(response: str, answer: str) -> float:
    """Half for the answer, a tenth for each heading up to five."""
    right = (line(response) or "").casefold() == answer.casefold()
    return 0.5 * right + 0.1 * min(5, len(re.findall(r"^#+ ", response, re.MULTILINE)))


def keys(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """Most of the credit for an object with the right keys."""
    scores = []
    for completion, gold in zip(completions, map(json.loads, answer), strict=True):
        found = record(completion)
        scores.append(0.0 if found is None or found.keys() != gold.keys() else 0.85 + 0.15 * (found == gold))
    return scores


def boxed(response: str, answer: str) -> float:
    """The form times nearly the whole credit: a box pays, whatever it holds."""
    content = box(response)
    return 0.0 if not content else 0.9 + 0.1 * (content.replace(" ", "") == answer)


def percent_form(response: str, answer: str) -> float:
    """Measures are compared, but any percentage does where one is asked for."""
    found = line(response) or ""
    return float(bool(re.fullmatch(r"[0-9]+%", found))) if answer.endswith("%") else float(found == answer)
