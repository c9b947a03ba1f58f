"""What all configuration classes share: kinds of numbers, frozen, unknown keys refused."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator

from posttrain.functions import FunctionText, as_text

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
UnitFloat = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


SaveDtype = Literal["float32", "bfloat16", "float16", "auto"]


@dataclass(frozen=True)
class TakesRun:
    """Marks a flag that may be given a run folder on the command line, of which the settings are then taken."""


Resume = Annotated[bool, TakesRun()]


RENAMED: Mapping[str, str] = {"engine_slots": "max_concurrent"}
"""Options that have another name since the last version. The old one is read for one version more, see
`console.current_names`."""


def option_name(field: str) -> str:
    """`batch_size` is `--batch-size`."""
    return "--" + field.replace("_", "-")


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
    close = difflib.get_close_matches(str(fault["input"]).lower(), choices, n=1)
    return f"; did you mean {close[0]}?" if fault["type"] == "literal_error" and close else ""


def as_tuple(value: Any) -> Any:
    """One name is a tuple of one, as recipes write it."""
    return (value,) if isinstance(value, str) else value


def named_or_given(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """A text, or a function or class of Python as its text, which carries it."""
    text = as_text(value)
    if not isinstance(text, str):
        raise ValueError("must be a text, or in Python a function or class")
    return text if isinstance(text, FunctionText) else handler(text)


Named = Annotated[str, WrapValidator(named_or_given)]
"""A reward or environment: named by a text, or from Python the function or class itself."""


Columns = Annotated[dict[str, str] | None, BeforeValidator(read_columns)]
"""Which columns of a data file are which fields of ours."""


@dataclass(frozen=True)
class Group:
    """Begins a group of options in the help: it stands in a config class before the fields of the group. One that is
    `last` is shown after all others, wherever its class stands among those that a configuration is made of."""

    title: str
    last: bool = False


class Config(BaseModel):
    """Frozen; unknown keys are refused."""

    EXAMPLES: ClassVar[tuple[str, ...]] = ()
    """Command lines that work from the folder of a clone; those that name a run need the command that makes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @classmethod
    def defaults(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What the fields are that are not given beside these settings."""
        return {name: field.get_default() for name, field in cls.model_fields.items() if not field.is_required()}

    @classmethod
    def groups(cls) -> dict[str, list[str]]:
        """The fields under the titles of their groups, in order. A field that a subclass declares anew stays where it
        was."""
        titles: dict[str, str] = {}
        last: set[str] = set()
        for owner in reversed(cls.__mro__):
            title = None
            for name in inspect.get_annotations(owner):
                if isinstance(marker := owner.__dict__.get(name), Group):
                    title = marker.title
                    last |= {title} if marker.last else set()
                elif name in cls.model_fields and title is not None:
                    titles.setdefault(name, title)
        ordered = sorted(dict.fromkeys(titles.values()), key=lambda title: title in last)
        return {t: [name for name in titles if titles[name] == t] for t in ordered}
