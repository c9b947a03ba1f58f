"""What pydantic finds wrong with a configuration, in sentences for whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from posttrain.config.base import Config, close_choice

LONGEST = 200
"""Characters shown of a wrong value."""


def messages(
    config_class: type[Config], error: ValidationError, placed: Callable[[str], str], named: Callable[[str], str]
) -> list[str]:
    """A line for each fault, which begins with where the field was `placed`. `named` is how its reader writes a field:
    `--batch-size` for `batch_size`."""
    lines = []
    for fault in _one_each(error):
        if not fault["loc"]:  # a rule between fields, which it names as Python does
            lines.append(_with_names(config_class, fault["msg"].removeprefix("Value error, "), named))
            continue
        name = placed(str(fault["loc"][0]))
        if fault["type"] in ("missing", "too_short"):
            lines.append(f"{name} is required")
        else:
            rule = fault["msg"].removeprefix("Value error, ").split(", unable to parse")[0]
            rule = rule.replace("Input should be", "must be")
            lines.append(f"{name} {rule}, not {_shown(fault['input'])}{close_choice(fault)}")
    return lines


def _shown(value: object) -> str:
    """What was given, the beginning of it where it is long."""
    first, *more = repr(value).split("\n")
    return f"{first[:LONGEST]}…" if more or len(first) > LONGEST else first


def _one_each(error: ValidationError) -> Iterator[ErrorDetails]:
    """The faults; of a value that is of none of several types, as a number or `auto`, one that says all it may be."""
    faults = error.errors(include_url=False)
    for _, group in groupby(faults, lambda fault: fault["loc"][:1]):
        first, *others = group
        kinds = [o for o in others if first["loc"] and o["type"] == "literal_error" and o["input"] == first["input"]]
        if kinds and first["type"] != "literal_error":
            words = [kind["msg"].removeprefix("Input should be ") for kind in kinds]
            rule = first["msg"].split(", unable to parse")[0]
            yield {**first, "msg": " or ".join([rule, *words])}
        else:
            yield first
            yield from others


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
