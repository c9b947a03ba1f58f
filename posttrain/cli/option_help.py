"""The help of a command: what it does, examples, and its options in groups, all from its config class."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from posttrain.cli.fields import choices, metavar, number_type, repeats
from posttrain.config import Config
from posttrain.config.base import TakesRun, option_name

INDENT = 22
WIDEST = 110
EVERYWHERE = {
    "--config FILE": "Options in YAML, one a line, as in `batch_size: 32`; the config.yaml of a run folder is one. "
    "Options on the command line go over it.",
    "--json": "Print the result, or the error, as one JSON object on standard output, and nothing else there; with "
    "--help the options.",
}
"""Options of every command, which are no part of its configuration."""
TAKES_RUN = "With a folder, --resume RUN continues the run there with its own settings."


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
        lines += [*_wrapped(_plain(paragraph, config), width), ""]
    if config.EXAMPLES:
        lines += ["Examples:", *(f"  {example}" for example in config.EXAMPLES), ""]
    for title, names in config.groups().items():
        lines.append(f"{title}:")
        for name in names:
            lines += _option(config, name, positional.get(name), width)
        lines.append("")
    lines.append("Everywhere:")
    for written, about in EVERYWHERE.items():
        lines += [f"  {written}", *_wrapped(about, max(width, 2 * INDENT), " " * INDENT)]
    return "\n".join(lines)


def help_data(config: type[Config], positional: Mapping[str, str]) -> dict[str, Any]:
    """The same as data: what the command does, examples, and its options."""
    groups = {name: title for title, names in config.groups().items() for name in names}
    options = [_option_data(config, name, positional.get(name)) | {"group": group} for name, group in groups.items()]
    about = _plain(inspect.getdoc(config) or "", config)
    return {"about": about, "examples": config.EXAMPLES, "options": options, "everywhere": EVERYWHERE}


def _option_data(config: type[Config], name: str, place: str | None) -> dict[str, Any]:
    field = config.model_fields[name]
    return {
        "name": place or option_name(name),
        "positional": place is not None,
        "type": _type(field),
        "choices": choices(field) or None,
        "default": None if field.is_required() else field.get_default(call_default_factory=True),
        "required": field.is_required(),
        "repeatable": repeats(field),
        "help": _plain(field.description or "", config),
    }


def _type(field: FieldInfo) -> str:
    if field.annotation is bool:
        return "flag"
    number = number_type(field)
    if choices(field):
        return number.__name__ if number else "choice"
    return metavar(field).lower()


def _option(config: type[Config], name: str, place: str | None, width: int) -> Iterator[str]:
    """The lines of an option: how it is written, and its docstring beside or below that."""
    field = config.model_fields[name]
    value = metavar(field) if field.annotation is not bool else "[RUN]" if TakesRun() in field.metadata else ""
    written = place or f"{option_name(name)} {value}".rstrip()
    words = [_plain(field.description or "", config), TAKES_RUN if TakesRun() in field.metadata else ""]
    about = " ".join(filter(None, [*words, _hint(field, repeats(field) and place is None)]))
    lines = _wrapped(about, max(width, 2 * INDENT), " " * INDENT)
    if len(written) + 4 > INDENT:
        yield f"  {written}"
        yield from lines
    else:
        yield f"  {written}".ljust(INDENT) + lines[0][INDENT:]
        yield from lines[1:]


def _plain(text: str, config: type[Config]) -> str:
    """A docstring as one paragraph, with `max_steps` as --max-steps: the help breaks its own lines."""
    fields = config.model_fields
    named = re.sub(r"`(\w+)`", lambda word: option_name(word[1]) if word[1] in fields else word[0], text)
    return re.sub(r"\s+", " ", named).strip()


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _hint(field: FieldInfo, several: bool) -> str:
    words = ["repeatable"] if several else []
    if field.is_required():
        words.append("required")
    elif field.default not in (None, ()) and field.annotation is not bool:
        default = field.default
        words.append(f"default: {', '.join(map(str, default)) if isinstance(default, tuple) else default}")
    return f"({', '.join(words)})" if words else ""
