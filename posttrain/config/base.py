"""What all configuration classes share: kinds of numbers, frozen, unknown keys refused."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def read_columns(value: Any) -> Any:
    """`prompt=question,completion=answer`, or the mapping that it is."""
    if not isinstance(value, str):
        if isinstance(value, Mapping) and not value:
            raise ValueError("must name a column, as in prompt=question")
        return value
    names: dict[str, str] = {}
    for part in value.split(","):
        field, equals, column = (text.strip() for text in part.partition("="))
        if not (field and equals and column):
            raise ValueError("must be FIELD=COLUMN,FIELD=COLUMN as in prompt=question,completion=answer")
        if field in names:
            raise ValueError(f"must name each field once, and names {field} twice")
        names[field] = column
    return names


def close_choice(fault: Mapping[str, Any]) -> str:
    """`; did you mean NAME?` for a value that is none of its choices, from the fault that pydantic reports."""
    choices = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
    close = difflib.get_close_matches(str(fault["input"]), choices, n=1)
    return f"; did you mean {close[0]}?" if fault["type"] == "literal_error" and close else ""


def as_tuple(value: Any) -> Any:
    """One name is a tuple of one, as recipes write it."""
    return (value,) if isinstance(value, str) else value


Columns = Annotated[dict[str, str] | None, BeforeValidator(read_columns)]
"""Which columns of a data file are which fields of ours."""


class Config(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
