"""What kind of value an option takes, from the field of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

METAVARS: Mapping[Any, str] = {int: "INT", float: "FLOAT", Path: "PATH", dict[str, str]: "FIELD=COLUMN,..."}


def repeats(field: FieldInfo) -> bool:
    """Whether the option may be given several times."""
    return get_origin(field.annotation) is tuple


def metavar(field: FieldInfo) -> str:
    """What the help shows for a value: the choices of a Literal, `INT`, `FLOAT`, `PATH` or `TEXT`; `INT|auto` for a
    number that a word may stand for."""
    found, number = choices(field), number_type(field)
    if found and number is None:
        return "{" + ",".join(map(str, found)) + "}"
    leaves = _leaf_types(field.annotation)
    name = next((name for kind, name in METAVARS.items() if kind in leaves), "TEXT")
    return "|".join([name, *map(str, found)])


def choices(field: FieldInfo) -> tuple[Any, ...]:
    """The values that a Literal allows; none for another type."""
    return next((get_args(leaf) for leaf in _leaf_types(field.annotation) if get_origin(leaf) is Literal), ())


def number_type(field: FieldInfo) -> type[int] | type[float] | None:
    """int or float where the option takes a number."""
    leaves = _leaf_types(field.annotation)
    return next((kind for kind in (int, float) if kind in leaves), None)


def _leaf_types(kind: Any) -> list[Any]:
    origin = get_origin(kind)
    if origin is Annotated:
        return _leaf_types(get_args(kind)[0])
    if origin in (Union, UnionType):
        return [leaf for part in get_args(kind) if part is not type(None) for leaf in _leaf_types(part)]
    return [kind]
