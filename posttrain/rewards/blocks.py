"""Which part of a response is its code.

Nothing is parsed here that a model wrote: of the readings of a response, the sandbox takes the first that compiles.
"""

from __future__ import annotations

import ast
import re

from posttrain.rewards.extract import strip_thinking

FENCE = re.compile(r"[ \t]*(```+|~~~+)[ \t]*([\w+.-]*)")
PYTHON = ("", "py", "python", "python3")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def fenced_blocks(text: str) -> list[str]:
    """The contents of every fenced Python block; a fence that is never closed runs to the end."""
    blocks: list[str] = []
    fence, lines, python = "", [""], False
    for line in text.splitlines():
        match = FENCE.match(line)
        if fence:
            if match and match[1].startswith(fence) and not match[2]:
                blocks += ["\n".join(lines)] if python else []
                fence = ""
            else:
                lines.append(line)
        elif match:
            fence, lines, python = match[1], [], match[2].lower() in PYTHON
    return [*blocks, "\n".join(lines)] if fence and python else blocks


def readings(response: str, entry_point: str | None, preamble: str) -> list[str]:
    """Source texts that the response may mean, the likeliest first; empty where there is no code.

    The last fenced block that defines the entry point, else the last block, else the response without a fence. What
    defines the entry point runs after `preamble` (the code that the prompt shows); what does not continues it."""
    text = strip_thinking(response)
    blocks = fenced_blocks(text)
    name = re.split(r"\W", entry_point or "", maxsplit=1)[0]
    defines = re.compile(rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|^{name}[ \t]*[:=]", re.MULTILINE)
    if not name:
        return blocks[-1:] or ([text] if text.strip() else [])
    whole = [block for block in blocks if defines.search(block)]
    if not blocks and defines.search(text):
        whole = [text]
    if whole:
        return [f"{preamble}\n{whole[-1]}", whole[-1]] if preamble else [whole[-1]]
    body = blocks[-1] if blocks else text
    if not preamble or not body.strip():
        return []
    variants = (body, _first_suite(body), "    " + body.lstrip(" "), "    " + _first_suite(body).lstrip(" "))
    return [preamble.rstrip("\n") + "\n" + variant for variant in dict.fromkeys(variants)]


def python_of(prompt: str) -> str:
    """The code that a prompt shows: the whole of it, or its last fenced block; empty where there is none."""
    return next((text for text in (prompt, *reversed(fenced_blocks(prompt))) if _is_code(text)), "")


def _is_code(text: str) -> bool:
    try:
        return any(isinstance(node, DEFINITIONS) for node in ast.parse(text).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _first_suite(body: str) -> str:
    """Up to the first line after the first that is not indented."""
    lines = body.splitlines()
    end = next((i for i, line in enumerate(lines) if i and line.strip() and not line[0].isspace()), len(lines))
    return "\n".join(lines[:end]) + "\n"
