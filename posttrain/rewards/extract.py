"""Where the final answer of a response stands."""

from __future__ import annotations

import re
from dataclasses import dataclass

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
GROUP = r"\{(?:[^{}]|\{[^{}]*\}){0,200}\}"
ARGUMENT = rf"\s*(?:{GROUP}|[0-9])"
COMMAND = (
    rf"\\[dtc]?frac{ARGUMENT}{ARGUMENT}|\\sqrt(?:\[[0-9]\])?{ARGUMENT}|\\(?:text|textbf|mathrm|mathbf)\s*{GROUP}"
    r"|\\(?:pi|infty)(?![A-Za-z])"
)
UNBRACED = re.compile(
    rf"(?:[-+]?(?:[0-9]+(?:[.,][0-9]+)*|{COMMAND})(?:{COMMAND}|[_^](?:{GROUP}|[0-9A-Za-z])|[A-Za-z](?![A-Za-z])|%|\\%"
    rf"|/[0-9]+)*|[A-Za-z](?=\s*(?:\$|\\[)\]])))"
)
"""What `\\boxed 2` and `\\boxed\\frac12` put into the box: a number or a command with its arguments, and what is
written without a blank behind it; a letter only where the formula ends with it, since prose may follow `\\boxed`."""
ANSWER_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
ANSWER_LINE = re.compile(
    r"^[^A-Za-z0-9\n]{0,10}(?:the[ \t]+)?(?:final[ \t]+)?answer[*_ \t]*:[*_ \t]*(.*)$", re.IGNORECASE | re.MULTILINE
)
HASHES = re.compile(r"^[ \t]{0,10}####(?!#)[ \t]*(.*)$", re.MULTILINE)
SPACING = re.compile(
    rf"\\[hv]?phantom\s*{GROUP}|\\rule\s*{GROUP}\s*{GROUP}|\\[hv]space\*?\s*{GROUP}"
    r"|\\(?:text|textbf|textit|mathrm|mbox|underline|q?quad|[lc]?dots|square|Box|strut|mathstrut|hfill)(?![A-Za-z])"
    r"|\\(?:left|right)?(?=[\[\]()<>])|\\[_,;:! ]|(?<!\\)[{}]|[\s?.…_□◻▢☐~$*\[\]()<>]"
)
PLACEHOLDER = re.compile(r"(?:(?:insert|put|your|the|my|final|answer|here|goes|is)(?:,\s)?)*", re.IGNORECASE)


@dataclass(frozen=True)
class Mark:
    """An answer that a text marks, from `start` to `end`. `kind`: box, tag, or line."""

    start: int
    end: int
    text: str
    kind: str


def strip_thinking(text: str) -> str:
    """The text after the reasoning.

    Everything up to the last `</think>` is reasoning (some chat templates open the tag in the prompt), and so is
    everything after a `<think>` that is never closed."""
    after = text.rpartition("</think>")[2]
    return after.partition("<think>")[0]


def boxes(text: str) -> list[str]:
    r"""The contents of every `\boxed{…}`, braces balanced, and of `\boxed 2`; of nested boxes the outer one. Boxes that
    hold no answer are left out. A box that is never closed is an answer cut short: all of it is returned, `\boxed{`
    included, which is no answer to anything."""
    return [mark.text for mark in _boxes(text) if holds_answer(mark.text)]


def answer_tags(text: str) -> list[str]:
    """The contents of every `<answer>…</answer>` that hold an answer, of nested ones the innermost."""
    return [content.strip() for content in ANSWER_TAG.findall(text) if holds_answer(content)]


def marked_answers(text: str) -> list[str]:
    return [mark.text for mark in marks(text)]


def marks(text: str) -> list[Mark]:
    r"""Every marked answer in the order of the text: boxes, `<answer>` tags, `Answer:` lines and `####` lines.

    A box in a tag or on a line is one mark, not two. `####` before words is a heading. What holds no answer is no
    mark."""
    found = _boxes(text)
    for match in ANSWER_TAG.finditer(text):
        tag = match.group(1).strip()
        if not any(mark.search(tag) for mark in (BOX, ANSWER_LINE, HASHES)):
            found.append(Mark(match.start(), match.end(), tag, "tag"))
    for pattern in (ANSWER_LINE, HASHES):
        for match in pattern.finditer(text):
            line = match.group(1).strip(" \t\r*_")
            heading = pattern is HASHES and re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", line)
            if not BOX.search(line) and not heading:
                found.append(Mark(match.start(), match.end(), line, "line"))
    return sorted((mark for mark in found if holds_answer(mark.text)), key=lambda mark: mark.start)


def holds_answer(content: str) -> bool:
    r"""Whether a mark holds more than blanks, dots, question marks, `\phantom{…}`, or words such as "your answer": a
    place to fill in, as instructions and questions have it."""
    if content.isalnum() and "answer" not in content.casefold():
        return True
    return len(content) > 200 or not PLACEHOLDER.fullmatch(SPACING.sub("", content))


def _boxes(text: str) -> list[Mark]:
    found, position = [], 0
    while match := BOX.search(text, position):
        position = match.end()
        if text[position : position + 1] != "{":
            if bare := UNBRACED.match(text, position):
                position = bare.end()
                found.append(Mark(match.start(), position, bare.group(), "box"))
            continue
        depth, position = 1, position + 1
        while depth and (brace := BRACE.search(text, position)):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            position = brace.end()
        if depth:
            return [*found, Mark(match.start(), len(text), text[match.start() :], "box")]
        found.append(Mark(match.start(), position, text[match.end() + 1 : position - 1].strip(), "box"))
    return found
