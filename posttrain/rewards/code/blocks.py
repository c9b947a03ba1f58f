"""Which part of a response is its code.

Nothing is parsed here that a model wrote: of the readings of a response, the sandbox takes the first that compiles.
"""

from __future__ import annotations

import ast
import re
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from posttrain.rewards.extract import strip_thinking

FENCE = re.compile(r"(?P<indent>[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)*)(?P<fence>```+|~~~+)[ \t]*(?P<info>[^\n]*)")
QUOTE = re.compile(r"[ \t]*>[ \t]?")
QUOTED_FENCE = re.compile(r"[ \t]*>[ \t]*(?:```|~~~)")
LANGUAGE = re.compile(r"\{?\.?([\w+#-]*)")
PYTHON = re.compile(r"(?:i?py|i?python|pypy)[\d-]*", re.IGNORECASE)
CALL = re.compile(r"[\w\])][ \t]*\(")
STARTS = re.compile(r"^([ \t]*)(?:async[ \t]+)?(?:def[ \t]+\w+[ \t]*\(|class[ \t]+\w+[ \t]*[:(])", re.MULTILINE)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
TAGS = 20
"""Of a response with more `</think>` what follows the last is taken, without a look at where they stand."""
Reading = tuple[str, str]
"""What a response may mean: the code that the prompt shows, whose errors count for nothing, and what runs after it."""
LONGER = 3
"""So many later fences are tried as the end of a block that does not compile, for the first may stand in a string; and
so many blocks before it are tried with those ends."""


@dataclass(frozen=True)
class Block:
    """A fenced block: `lines[start:end]` of a text are its content, and `end` is the line of the closing fence, or
    behind the last line. `language` is in lower case, `indent` in characters."""

    lines: list[str]
    start: int
    end: int
    fence: str
    indent: int
    language: str

    @property
    def text(self) -> str:
        return self._until(self.end)

    def longer(self, than: int) -> Iterator[str]:
        """What the block holds if the fences up to a line are part of it."""
        later = (n for n in range(than + 1, len(self.lines)) if closes(self.lines[n], self.fence) is not None)
        for end in islice(later, LONGER):
            yield self._until(end)

    def _until(self, end: int) -> str:
        """Without the indentation of the fence, where lines have it."""
        return "\n".join(re.sub(rf"^[ \t]{{0,{self.indent}}}", "", line) for line in self.lines[self.start : end])


def opens(line: str) -> tuple[str, int, str] | None:
    """Fence, indentation and language of a line that opens a block. One with more backticks is code in a sentence."""
    match = FENCE.match(line)
    if not match or ("`" in match["info"] and match["fence"][0] == "`"):
        return None
    language = LANGUAGE.match(match["info"])
    return match["fence"], len(match["indent"]), language[1].lower() if language else ""


def closes(line: str, fence: str) -> int | None:
    """The indentation of a line that can close a block; None for any other line."""
    bare = line.lstrip(" \t")
    rest = bare.lstrip(fence[0])
    if len(bare) - len(rest) < len(fence) or re.match(r"[ \t]*[\w\"'\\{.]", rest):
        return None
    return len(line) - len(bare)


def fenced(text: str) -> list[Block]:
    """Every fenced block; one that is never closed runs to the end. A block ends at the first fence that is not
    indented further than its own; if there is none before the next block opens, at the first fence."""
    lines = text.split("\n")
    blocks: list[Block] = []
    position = 0
    while position < len(lines):
        _unquote(lines, position)
        opening = opens(lines[position])
        position += 1
        if opening is not None:
            fence, indent, language = opening
            end = _end(lines, position, fence, indent)
            blocks.append(Block(lines, position, end, fence, indent, language))
            position = end + 1
    return blocks


def _unquote(lines: list[str], position: int) -> None:
    """Where a block opens in a quotation, take the marks off the lines of that."""
    if QUOTED_FENCE.match(lines[position]):
        while position < len(lines) and (mark := QUOTE.match(lines[position])):
            lines[position] = lines[position][mark.end() :]
            position += 1


def _end(lines: list[str], start: int, fence: str, indent: int) -> int:
    first: int | None = None
    for n in range(start, len(lines)):
        if (depth := closes(lines[n], fence)) is not None:
            if depth <= indent:
                return n
            first = n if first is None else first
        elif first is not None and (another := opens(lines[n])) and another[1] <= indent:
            break
    return len(lines) if first is None else first


def fenced_blocks(text: str) -> list[Block]:
    """The blocks that are Python by their name, or have none, also those of a block of Markdown."""
    blocks: list[Block] = []
    for block in fenced(text):
        if block.language in ("md", "markdown"):
            blocks += fenced_blocks(block.text)
        elif not block.language or _named(block):
            blocks.append(block)
    return blocks


def candidate_sources(response: str, entry_point: str | None, preamble: str) -> list[Reading]:
    """What the response may mean, the likeliest first; empty where there is no code.

    The last fenced block that defines the entry point; else the last that is named Python, or of those without a name
    the last with a call in it; else the response without a fence. What defines the entry point runs after `preamble`
    (the code that the prompt shows); what does not continues it."""
    blocks = fenced_blocks(after_thinking(response))
    name = re.split(r"\W", entry_point or "", maxsplit=1)[0]
    shown = finished(preamble)
    found: list[Reading] = []
    if blocks and name and (whole := _defining(blocks, name)):
        for text in _texts(whole, blocks):
            found += [(shown, text), (shown, textwrap.dedent(text))]
    elif blocks:
        for text in _texts(_main(blocks), blocks):
            found += _continuing(text, preamble) if name and preamble else [("", text)]
    else:
        # First with its tags: if that compiles, they stand in strings. Without a fence only the sandbox can tell.
        for text in (response, strip_thinking(response)):
            if not name or _defines(text, name):
                found.append((shown if name else "", text))
            elif preamble:
                found += _continuing(text, preamble)
    return [(before, source) for before, source in dict.fromkeys(found) if source.strip()]


def after_thinking(response: str) -> str:
    """What follows the reasoning: the last `</think>`, up to a `<think>` that is never closed. Tags in the code of a
    fenced block are no tags."""
    ends = [match.start() for match in re.finditer("</think>", response)]
    if len(ends) > TAGS:
        return strip_thinking(response)
    start = 0
    for end in ends:
        if not _in_code(response[start:], end - start):
            start = end + len("</think>")
    text = response[start:]
    blocks = fenced(text)
    for match in re.finditer("<think>", text):
        if not _holds(blocks, text.count("\n", 0, match.start())):
            return text[: match.start()]
    return text


def _in_code(text: str, position: int) -> bool:
    """Whether a `</think>` is code: in a block that is closed, behind something on its line or behind a `<think>` in
    its block. Else it may end a reasoning in which a block was never closed."""
    line = text.count("\n", 0, position)
    block = _holds(fenced(text), line)
    if block is None or block.end == len(block.lines):
        return False
    if any(opening[2] for n in range(line + 1, block.end) if (opening := opens(block.lines[n]))):
        return False  # a block inside a block: the first was not closed
    before = "\n".join(block.lines[block.start : line])
    return bool(text[text.rfind("\n", 0, position) + 1 : position].strip()) or "<think>" in before


def _holds(blocks: list[Block], line: int) -> Block | None:
    return next((block for block in blocks if block.start <= line < block.end), None)


def _named(block: Block) -> bool:
    return PYTHON.fullmatch(block.language) is not None


def _defining(blocks: list[Block], name: str) -> Block | None:
    """The last block that defines the name, at its left edge if there is one."""
    for indent in ("", r"[ \t]*"):
        if found := [block for block in blocks if _defines(block.text, name, indent, _named(block))]:
            return found[-1]
    return None


def _defines(text: str, name: str, indent: str = r"[ \t]*", annotated: bool = True) -> bool:
    sign = "[:=]" if annotated else "=(?!=)"
    definition = rf"^{indent}(?:(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|{name}[ \t]*{sign})"
    return re.search(definition, text, re.MULTILINE) is not None


def _main(blocks: list[Block]) -> Block:
    """The last block that is named Python, else the last that could do something, else the last."""
    named = [block for block in blocks if _named(block)]
    return (named or [block for block in blocks if CALL.search(block.text)] or blocks)[-1]


def _texts(block: Block, blocks: list[Block]) -> Iterator[str]:
    """What a block holds; then, since its fences may stand in a string, what it or a block before it would hold."""
    yield block.text
    before = [other for other in blocks if other.lines is block.lines and other.start < block.start]
    yield from block.longer(block.end)
    for other in before[: -1 - LONGER : -1]:
        yield from other.longer(block.end - 1)


def _continuing(body: str, preamble: str) -> list[Reading]:
    """How a body may continue the prompt's code: as it is, cut where the function ends, and with the indentation that
    all of it or its first line has lost."""
    if not body.strip():
        return []
    indent = " " * (_depth(preamble) + 4)
    texts = [body] if "think>" in body else [body, _first_suite(body)]  # else a reasoning could be cut off
    forms = [
        body,
        textwrap.indent(textwrap.dedent(body), indent),
        *texts,
        *(indent + text.lstrip(" ") for text in texts),
    ]
    return [("", preamble.rstrip("\n") + "\n" + form) for form in forms]


def python_of(prompt: str) -> str:
    """The code that a prompt shows: the whole of it, or its last fenced block; empty where there is none. Names of
    `typing` that it uses and does not import, as code to start from often does, are imported."""
    for text in (prompt, *(block.text for block in reversed(fenced_blocks(prompt)))):
        tree = _parsed(finished(text))
        if tree is not None and any(isinstance(node, DEFINITIONS) for node in tree.body):
            missing = _missing_types(tree)
            return f"from typing import {', '.join(missing)}\n{text}" if missing else text
    return ""


def finished(code: str) -> str:
    """The code, with a `pass` if it ends where a body must follow."""
    if _parsed(code) is None:
        longer = f"{code.rstrip()}\n{' ' * (_depth(code) + 4)}pass"
        return code if _parsed(longer) is None else longer
    return code


def _depth(code: str) -> int:
    """The indentation of the last line that begins a definition."""
    starts = STARTS.findall(code)
    return len(starts[-1].expandtabs(4)) if starts else 0


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _missing_types(tree: ast.Module) -> list[str]:
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    bound |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    if "*" in bound or any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body):
        return []
    return sorted({node.id for node in names} & set(typing.__all__) - bound)


def _first_suite(body: str) -> str:
    """Up to the first line after the first that is not indented."""
    lines = body.split("\n")
    end = next((i for i, line in enumerate(lines) if i and line.strip() and not line[0].isspace()), len(lines))
    return "\n".join(lines[:end]) + "\n"
