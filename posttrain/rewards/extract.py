"""Where the final answer of a response stands."""

from __future__ import annotations

import re

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
ANSWER_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
ANSWER_LINE = re.compile(
    r"^[^A-Za-z0-9\n]{0,10}(?:the[ \t]+)?(?:final[ \t]+)?answer[*_ \t]*:[*_ \t]*(.*)$", re.IGNORECASE | re.MULTILINE
)
HASHES = re.compile(r"^[ \t]{0,10}####(?!#)[ \t]*(.*)$", re.MULTILINE)


def strip_thinking(text: str) -> str:
    """The text after the reasoning.

    Everything up to the last `</think>` is reasoning (some chat templates open the tag in the prompt), and so is
    everything after a `<think>` that is never closed."""
    after = text.rpartition("</think>")[2]
    return after.partition("<think>")[0]


def boxes(text: str) -> list[str]:
    r"""The contents of every `\boxed{…}`, braces balanced; of nested boxes the outer one. A box that is never closed
    is an answer cut short: all of it is returned, `\boxed{` included, which is no answer to anything."""
    return [content for _, content in _boxes(text)]


def answer_tags(text: str) -> list[str]:
    """The contents of every `<answer>…</answer>`, of nested ones the innermost."""
    return [content.strip() for content in ANSWER_TAG.findall(text)]


def marked_answers(text: str) -> list[str]:
    r"""Every marked answer in the order of the text: boxes, `<answer>` tags, `Answer:` lines and `####` lines.

    A box in a tag or on a line is one mark, not two. `####` before words is a heading."""
    found = _boxes(text)
    for match in ANSWER_TAG.finditer(text):
        tag = match.group(1).strip()
        if not any(mark.search(tag) for mark in (BOX, ANSWER_LINE, HASHES)):
            found.append((match.start(), tag))
    for pattern in (ANSWER_LINE, HASHES):
        for match in pattern.finditer(text):
            line = match.group(1).strip(" \t\r*_")
            heading = pattern is HASHES and re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", line)
            if line and not BOX.search(line) and not heading:
                found.append((match.start(), line))
    return [content for _, content in sorted(found, key=lambda mark: mark[0])]


def _boxes(text: str) -> list[tuple[int, str]]:
    """Where each box starts, and its contents."""
    found, position = [], 0
    while match := BOX.search(text, position):
        depth, position = 1, match.end()
        while depth and (brace := BRACE.search(text, position)):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            position = brace.end()
        content = text[match.start() :] if depth else text[match.end() : position - 1].strip()
        found.append((match.start(), content))
        if depth:
            break
    return found
