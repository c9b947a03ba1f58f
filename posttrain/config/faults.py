"""What pydantic finds wrong with a configuration, in sentences for whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import ValidationError

from posttrain.config.base import Config, close_choice


def messages(
    config_class: type[Config], error: ValidationError, placed: Callable[[str], str], named: Callable[[str], str]
) -> list[str]:
    """A line for each fault, which begins with where the field was `placed`. `named` is how its reader writes a field:
    `--batch-size` for `batch_size`."""
    lines = []
    for fault in error.errors(include_url=False):
        if not fault["loc"]:  # a rule between fields, which it names as Python does
            lines.append(_with_names(config_class, fault["msg"].removeprefix("Value error, "), named))
            continue
        name = placed(str(fault["loc"][0]))
        if fault["type"] in ("missing", "too_short"):
            lines.append(f"{name} is required")
        else:
            rule = fault["msg"].removeprefix("Value error, ").split(", unable to parse")[0]
            rule = rule.replace("Input should be", "must be")
            lines.append(f"{name} {rule}, not {fault['input']!r}{close_choice(fault)}")
    return lines


def _with_names(config_class: type[Config], message: str, named: Callable[[str], str]) -> str:
    """`batch_size` as it is written. Names without an underscore may be plain words and stay, but for the first word
    of the message."""
    first = message.partition(" ")[0]
    if first in config_class.model_fields and "_" not in first:
        message = named(first) + message[len(first) :]
    for field in config_class.model_fields:
        if "_" in field:
            message = re.sub(rf"\b{field}\b", named(field), message)
    return message
