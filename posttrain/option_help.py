"""The help of a command: what it does, examples, and its options in groups, all from its config class."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping

from pydantic.fields import FieldInfo

from posttrain.config import Config
from posttrain.options import metavar, option_name, repeats

INDENT = 22
WIDEST = 110


def command_help(config: type[Config], prog: str, positional: Mapping[str, str], width: int | None = None) -> str:
    """The help of the command `prog` in lines of `width`, by default those of the terminal up to 110."""
    width = width or min(WIDEST, shutil.get_terminal_size().columns)
    required = [
        f"{option_name(name)} {metavar(field)}"
        for name, field in config.model_fields.items()
        if field.is_required() and name not in positional
    ]
    usage = " ".join(["usage:", prog, *positional.values(), *required, "[OPTIONS]"])
    lines = [*textwrap.wrap(usage, width, subsequent_indent=" " * 7), ""]
    for paragraph in (inspect.getdoc(config) or "").split("\n\n"):
        lines += [*textwrap.wrap(_plain(paragraph), width), ""]
    if config.EXAMPLES:
        lines += ["Examples:", *(f"  {example}" for example in config.EXAMPLES), ""]
    for title, names in config.groups().items():
        lines.append(f"{title}:")
        for name in names:
            lines += _option(name, config.model_fields[name], positional.get(name), width)
        lines.append("")
    return "\n".join(lines).rstrip()


def _option(name: str, field: FieldInfo, place: str | None, width: int) -> Iterator[str]:
    """The lines of an option: how it is written, and its docstring beside or below that."""
    written = place or (option_name(name) if field.annotation is bool else f"{option_name(name)} {metavar(field)}")
    about = f"{_plain(field.description or '')} {_hint(field, repeats(field) and place is None)}".strip()
    gap = " " * INDENT
    lines = textwrap.wrap(about, max(width, 2 * INDENT), initial_indent=gap, subsequent_indent=gap)
    if len(written) + 4 > INDENT:
        yield f"  {written}"
        yield from lines
    else:
        yield f"  {written}".ljust(INDENT) + lines[0][INDENT:]
        yield from lines[1:]


def _plain(text: str) -> str:
    """A docstring as one paragraph: its lines are broken for the source, the help breaks its own."""
    return re.sub(r"\s+", " ", text).strip()


def _hint(field: FieldInfo, several: bool) -> str:
    words = ["repeatable"] if several else []
    if field.is_required():
        words.append("required")
    elif field.default not in (None, ()) and field.annotation is not bool:
        default = field.default
        words.append(f"default: {', '.join(map(str, default)) if isinstance(default, tuple) else default}")
    return f"({', '.join(words)})" if words else ""
