"""JSON schemas of functions, from their type hints and docstrings.

The rules, and the texts of the errors, are those of `transformers.utils.get_json_schema`, which chat templates are
written for; that function imports torch, which takes seconds and hundreds of megabytes in every worker.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

SECTION = r"[\n\s]*(?:{}|\Z)"
SECTIONS = re.compile(r"Args:|Returns:|Raises:")
ARGUMENTS = re.compile(r"\n\s*Args:\n\s*(.*?)" + SECTION.format("Returns:|Raises:"), re.DOTALL)
RETURNS = re.compile(r"\n\s*Returns:\n\s*(.*?)" + SECTION.format("Raises:"), re.DOTALL)
ARGUMENT = re.compile(r"(?:^|\n)\s*(\w+):\s*(.*?)\s*(?=\n\s*\w+:|\Z)", re.DOTALL)
CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)
NAMES: Mapping[Any, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
    list: "array",
    tuple: "array",
    dict: "object",
}
MEDIA = {"torch.Tensor": "audio", "PIL.Image.Image": "image"}
"""Classes for which transformers has types of its own. JSON Schema does not know them, so a tool cannot take one."""

Schema = dict[str, Any]


class NoSchema(Exception):
    """A function that cannot be described. The message says why."""


def function_schema(function: Callable[..., Any]) -> Schema:
    """`{"type": "function", "function": {name, description, parameters, return}}`, without `return` for a function
    whose return value has no type hint.

    Raises NoSchema for a function without a docstring, for a parameter without a type hint or a description, and for a
    type hint that has no schema; NameError for a hint that names nothing."""
    name = getattr(function, "__name__", "operation")
    doc = (inspect.getdoc(function) or "").strip()
    if not doc:
        raise NoSchema(f"Cannot generate JSON schema for {name} because it has no docstring!")
    properties, required = _parameters(function, name)
    returned = properties.pop("return", None)
    if returned is not None and (found := RETURNS.search(doc)):
        returned["description"] = found.group(1).strip()
    descriptions = _descriptions(doc)
    for argument, schema in properties.items():
        if argument not in descriptions:
            raise NoSchema(
                f"Cannot generate JSON schema for {name} because the docstring has no description for the argument "
                f"'{argument}'"
            )
        _describe(schema, descriptions[argument])
    parameters = {"type": "object", "properties": properties} | ({"required": required} if required else {})
    about = {"name": name, "description": SECTIONS.split(doc, maxsplit=1)[0].strip(), "parameters": parameters}
    return {"type": "function", "function": about if returned is None else {**about, "return": returned}}


def _parameters(function: Callable[..., Any], name: str) -> tuple[dict[str, Schema], list[str]]:
    """The schemas of the parameters and of what is returned, and the names of those without a default."""
    hints = get_type_hints(function)
    parameters = dict(inspect.signature(function).parameters)
    first = next(iter(parameters), None)
    if first in ("self", "cls") and parameters[first].annotation is inspect.Parameter.empty:
        del parameters[first]
    for parameter in parameters.values():
        if parameter.annotation is inspect.Parameter.empty:
            raise NoSchema(f"Argument {parameter.name} is missing a type hint in function {name}")
    required = [n for n, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    return {n: _schema_of(hint) for n, hint in hints.items()}, required


def _descriptions(doc: str) -> dict[str, str]:
    """What the section `Args:` of a docstring says of each parameter."""
    found = ARGUMENTS.search(doc)
    lines = [line for line in found.group(1).strip().split("\n") if line.strip()] if found else []
    return {name: re.sub(r"\s*\n+\s*", " ", text.strip()) for name, text in ARGUMENT.findall("\n".join(lines))}


def _describe(schema: Schema, text: str) -> None:
    """Add a description, and the choices at its end, `(choices: ["tea", "coffee"])`, as an enumeration."""
    if choices := CHOICES.search(text):
        schema["enum"] = [c.strip() if isinstance(c, str) else c for c in json.loads(choices.group(1))]
        text = text[: choices.start()].strip()
    schema["description"] = text


def _schema_of(hint: Any) -> Schema:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None:
        return {} if hint is Any else {"type": NAMES.get(hint) or MEDIA.get(_full_name(hint), "object")}
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Literal:
        return _literal(arguments)
    if origin in (list, tuple, dict) and not arguments:
        return {"type": NAMES[origin]}
    if origin is list:
        return {"type": "array", "items": _schema_of(arguments[0])}
    if origin is tuple and len(arguments) > 1 and ... not in arguments:
        return {"type": "array", "prefixItems": [_schema_of(argument) for argument in arguments]}
    if origin is tuple:
        raise NoSchema(f"{hint} is a tuple of one element or of any number; use a list instead")
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1])}
    raise NoSchema("Couldn't parse this type hint, likely due to a custom class or object: ", hint)


def _full_name(hint: Any) -> str:
    return f"{getattr(hint, '__module__', '')}.{getattr(hint, '__qualname__', '')}"


def _union(members: tuple[Any, ...]) -> Schema:
    schemas = [_schema_of(member) for member in members if member is not type(None)]
    if len(schemas) == 1:
        union = schemas[0]
    elif all(schema.keys() == {"type"} and isinstance(schema["type"], str) for schema in schemas):
        names = sorted({schema["type"] for schema in schemas})
        union = {"type": names[0] if len(names) == 1 else names}
    else:
        union = {"anyOf": schemas}
    return union | ({"nullable": True} if type(None) in members else {})


def _literal(values: tuple[Any, ...]) -> Schema:
    if any(type(value) not in (int, float, str, bool, type(None)) for value in values):
        raise NoSchema("Only the valid python literals can be listed in typing.Literal.")
    names = list(dict.fromkeys(NAMES[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": list(values)}
