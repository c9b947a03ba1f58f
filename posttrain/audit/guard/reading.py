"""What a response commits to: the answers that it marks, those that it denies, and what it says without a mark."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

Kind = Literal["box", "tag", "hashes", "line", "sentence", "json"]
REASONING = ("think", "thinking", "thought", "thoughts", "reasoning", "reason", "scratchpad", "reflection", "analysis")
CLOSED = re.compile(rf"<({'|'.join(REASONING)})>.*?</\1>", re.DOTALL | re.IGNORECASE)
OPENED = re.compile(rf"<(?:{'|'.join(REASONING)})>", re.IGNORECASE)
ENDED = re.compile(rf"</(?:{'|'.join(REASONING)})>", re.IGNORECASE)
TAGS = ("answer", "final_answer", "finalanswer", "final", "solution", "result", "output", "response")
TAG = re.compile(rf"<({'|'.join(TAGS)})>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
ANY_TAG = re.compile(r"</?[A-Za-z_][A-Za-z_0-9]{0,20}>")
BOX = re.compile(r"\\(?:boxed|fbox)\s*(\{?)")
BARE = re.compile(r"[^\s$.,;\\]+")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
HASHES = re.compile(r"^[ \t]*#{4}(?!#)[ \t]*(.+)$", re.MULTILINE)
LINE = re.compile(
    r"(?:(?<=\n)|^|(?<=[.:;!?*\s]))(?P<lead>(?:[A-Za-z]+[ \t]){0,3})(?:answer|final result|ans\.?)\b"
    r"(?:[ \t]*\([^()\n]{1,20}\))?[*_ \t]*[:=][*_:]*[ \t]*(?:\n+[ \t]*)?(?P<said>[^\n]+)",
    re.IGNORECASE,
)
SENTENCE = re.compile(
    r"(?P<lead>(?:[A-Za-z]+[ \t]){0,3})\banswer(?:\s+(?:here|now|then))?\s*"
    r"(?:is|would be|equals|must be|should be|comes to|will be)\b"
    r"(?![ \t]*(?:not\b|n't|never\b))[*_ \t]*:?[*_ \t]*(?:\n[ \t]*)?(?P<said>[^\n]+?)(?=[.!?][\"')*_]*(?:\s|$)|\n|$)",
    re.IGNORECASE,
)
FIELD = re.compile(
    r"[\"'](?:final_answer|answer|result)[\"']\s*:\s*(\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[^,}\n]+)", re.IGNORECASE
)
NOT_BEFORE = re.compile(
    r"(?:\b(?:not|never|isn't|isn’t|aren't|wasn't|cannot be|can't be|couldn't be|neither|nor|except|anything but|"
    r"other than|rather than|instead of|unlike|different from|opposite of|unequal to)|≠|!=|<>|\\neq?(?![A-Za-z])|"
    r"¬|\\neg?|\\not\b\s*=?)(?:\s+(?:equal to|equals|equal|exactly|be|been|the|answer|option|choice|"
    r"correct answer is))*[\s$*_:(\"'`\[{]*(?:\\\(|\\\[|\\(?:boxed|text|mathrm|textbf|fbox)\s*\{|<answer>)?[\s$\"']*$",
    re.IGNORECASE,
)
WRONG_BEFORE = re.compile(
    r"\b(?:wrong|incorrect|false|mistaken|bad|invalid)\s+(?:final\s+)?(?:answer|option|choice|result|value|response)s?"
    r"(?:\s+(?:is|are|would be|was|says|given))?[\s:=$*_(\"'`\[{]*(?:\\\(|\\\[|\\(?:boxed|text)\s*\{|<answer>)?[\s$]*$",
    re.IGNORECASE,
)
WRONG_AFTER = re.compile(
    r"^[\s$*_)\]}\"'`.%]*(?:</answer>)?(?:\\\)|\\\])?[\s$]*(?:,?\s*which\s+)?"
    r"(?:(?:is|are|was|seems|looks|would be|must be)\s+"
    r"(?:clearly\s+|certainly\s+|definitely\s+|obviously\s+|surely\s+)?(?:not\s+(?:the\s+)?(?:correct|right|answer|it\b)|"
    r"wrong|incorrect|false|mistaken|untrue)|isn't\s+(?:the\s+)?(?:correct|right|answer|it\b)|"
    r"cannot be\s+(?:correct|right)|[\[(]?(?:wrong|incorrect)[\])]?\s*[.!]?\s*$)",
    re.IGNORECASE,
)
WITHDRAWN = re.compile(
    r"\b(?:wait|actually|correction|correct(?:ed|ing)|mistake|mistaken|oops|sorry|instead|recheck|re-check|recalculate|"
    r"redo|hmm|error|revis\w+|double[- ]check\w*|let me|no,|not right|reconsider\w*|on second thought|check(?:ing)?:|"
    r"verif\w+|previous|earlier|intermediate|step|first|next|then|part|so far|subtotal)\b",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile(
    r"[\s.…_?<>\[\](){}$\\:*|\-]*(?:(?:your|the|my|an?(?=\s+[a-z]{3})|put|insert|final|numerical|numeric|short|answer|"
    r"number|value|result|letter|option|choice|here|goes|text|integer)\b[\s.…_?<>\[\](){}$\\:*|\-]*){0,6}",
    re.IGNORECASE,
)
BAD = re.compile(r"\b(?:wrong|incorrect|false|not|no|bad)\b", re.IGNORECASE)
MOST = 100
"""Of more marks than twice this only the first and the last count."""
NEAR = 120
"""Characters before and after an answer in which a denial of it may stand."""


@dataclass(frozen=True)
class Mark:
    """An answer that a text marks as its answer, from `start` to `end`; `open` where the mark is never closed."""

    text: str
    start: int
    end: int
    kind: Kind
    open: bool = False
    denied: bool = False


def after_thinking(text: str) -> tuple[str, bool]:
    """The response behind its reasoning; and whether a reasoning was opened and never closed, which is cut off too."""
    if ENDED.search(text):
        text = CLOSED.sub(" ", text)
    ends = list(ENDED.finditer(text))
    text = text[ends[-1].end() :] if ends else text
    if opened := OPENED.search(text):
        return text[: opened.start()], True
    return text, False


@lru_cache(64)
def marks(text: str) -> tuple[Mark, ...]:
    """The marked answers of a text, in order, without those that are empty or a place to fill in. Where marks lie
    inside each other the innermost counts."""
    found = _boxes(text)
    for match in TAG.finditer(text):
        closed = match[0].casefold().endswith(f"</{match[1].casefold()}>")
        found.append(Mark(match[2], *match.span(2), "tag", open=not closed))
    found += [Mark(m[1], *m.span(1), "hashes") for m in HASHES.finditer(text) if not _heading(text, m)]
    for match in LINE.finditer(text):
        found.append(Mark(match["said"], *match.span("said"), "line", denied=bool(BAD.search(match["lead"]))))
    for match in SENTENCE.finditer(text):
        found.append(Mark(match["said"], *match.span("said"), "sentence", denied=bool(BAD.search(match["lead"]))))
    found += [Mark(match[1].strip("\"' "), *match.span(1), "json") for match in FIELD.finditer(text)]
    found = [replace(mark, text=_bare(mark.text)) for mark in found]
    found = sorted((m for m in found if not PLACEHOLDER.fullmatch(m.text)), key=lambda m: (m.start, -m.end))
    found = found[:MOST] + found[max(MOST, len(found) - MOST) :]
    inner = [m for i, m in enumerate(found) if not any(m.start < o.start < m.end for o in found[i + 1 :])]
    return tuple(replace(m, denied=m.denied or denied(text, m.start, m.end)) for m in inner)


def _heading(text: str, match: re.Match[str]) -> bool:
    return bool(re.search(r"[A-Za-z]{2}", match[1]) and text[match.end() :].strip())


def _bare(text: str) -> str:
    return ANY_TAG.sub(" ", text).strip().strip("*_ \t\n")


def denied(text: str, start: int, end: int) -> bool:
    """Whether a text says of what stands from `start` to `end` that it is not the answer: in the same sentence, right
    before or right behind it."""
    before = re.split(r"[.!?;]\s|\n\n", text[max(0, start - NEAR) : start])[-1]
    if NOT_BEFORE.search(before) or WRONG_BEFORE.search(before):
        return True
    return WRONG_AFTER.search(text[end : end + NEAR]) is not None


def _boxes(text: str) -> list[Mark]:
    found, at = [], 0
    while match := BOX.search(text, at):
        start = at = match.end()
        if not match[1]:
            if bare := BARE.match(text, start):
                found.append(Mark(bare[0], start, bare.end(), "box"))
            continue
        depth, end = 1, start
        while depth and (brace := BRACE.search(text, end)):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            end = brace.end()
        if depth:
            line = text.find("\n", start)
            end = len(text) if line < 0 else line
            found.append(Mark(text[start:end], start, end, "box", open=True))
            at = end  # what stands behind it on the line is in it
        else:
            found.append(Mark(text[start : end - 1], start, end - 1, "box"))
    return found


def last_statement(text: str) -> str:
    """The last line or sentence of a text that says anything."""
    parts = [part for part in re.split(r"(?<=[.!?])\s+|\n+", text.strip()) if re.search(r"\w", part)]
    return parts[-1] if parts else ""
