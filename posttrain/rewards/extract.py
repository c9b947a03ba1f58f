"""Where the final answer of a response stands."""

from __future__ import annotations

import re

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
ANSWER_LINE = re.compile(
    r"^[ \t>*_#-]*(?:the\s+)?(?:final\s+)?answer[*_ \t]*:[*_ \t]*(.*)$", re.IGNORECASE | re.MULTILINE
)
HASHES = re.compile(r"^[ \t]*####(?!#)[ \t]*(.*)$", re.MULTILINE)


def strip_thinking(text: str) -> str:
    """The text after the reasoning.

    Everything up to the last `</think>` is reasoning (some chat templates open the tag in the prompt), and so is
    everything after a `<think>` that is never closed."""
    after = text.rpartition("</think>")[2]
    return after.partition("<think>")[0]


def boxes(text: str) -> list[str]:
    r"""The contents of every `\boxed{…}`, braces balanced; of nested boxes the outer one. A box that is never closed
    is an answer cut short: all of it is returned, `\boxed{` included, which is no answer to anything."""
    found, position = [], 0
    while match := BOX.search(text, position):
        depth, position = 1, match.end()
        while position < len(text) and depth:
            escaped = text[position - 1] == "\\"
            depth += 0 if escaped else {"{": 1, "}": -1}.get(text[position], 0)
            position += 1
        found.append(text[match.start() :] if depth else text[match.end() : position - 1].strip())
    return found


def answer_tags(text: str) -> list[str]:
    """The contents of every `<answer>…</answer>`."""
    return [content.strip() for content in ANSWER_TAG.findall(text)]


def marked_answers(text: str) -> list[str]:
    r"""Every marked answer: boxes, `<answer>` tags, `Answer:` lines and `####` lines.

    A box in a tag or on a line is one mark, not two. `####` before words is a heading."""
    found = boxes(text)
    found += [tag for tag in answer_tags(text) if not any(mark.search(tag) for mark in (BOX, ANSWER_LINE, HASHES))]
    for pattern in (ANSWER_LINE, HASHES):
        for match in pattern.finditer(text):
            line = match.group(1).strip()
            heading = pattern is HASHES and re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", line)
            if line and not BOX.search(line) and not heading:
                found.append(line)
    return found
