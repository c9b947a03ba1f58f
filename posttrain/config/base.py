"""What all configuration classes share: kinds of numbers, frozen, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


SaveDtype = Literal["float32", "bfloat16", "float16", "auto"]


@dataclass(frozen=True)
class TakesRun:
    """Marks a flag that may be given a run folder on the command line, of which the settings are then taken."""


Resume = Annotated[bool, TakesRun()]


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


def as_tuple(value: Any) -> Any:
    """One name is a tuple of one, as recipes write it."""
    return (value,) if isinstance(value, str) else value


Columns = Annotated[dict[str, str] | None, BeforeValidator(read_columns)]
"""Which columns of a data file are which fields of ours."""


class Config(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
