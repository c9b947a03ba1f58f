"""Tools of an environment: their schemas, and calls of them from what a model wrote."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import best_match

from posttrain.envs.schemas import NoSchema, function_schema
from posttrain.types import InputError

NOT_TOOLS = frozenset(("reset", "reply", "get_reward"))
RESULT_CHARACTERS = 8192
"""The longest result of a tool or reply that a model sees; the rest is cut and the cut is marked."""

Tool = Callable[..., Any]
Schema = Mapping[str, Any]


class BadCall(Exception):
    """A call that no tool can take. The message is for the model."""


def tools_of(instance: Any) -> dict[str, Tool]:
    """The public methods of an environment but for `reset`, `reply` and `get_reward`, by name.

    They are looked for in the class: to list those of an instance would evaluate its properties."""
    members = inspect.getmembers(type(instance), predicate=inspect.isfunction)
    return {name: getattr(instance, name) for name, _ in members if name not in NOT_TOOLS and not name.startswith("_")}


def schemas_of(instance: Any) -> list[dict[str, Any]]:
    """The JSON schemas of the tools, from signatures and docstrings, as chat templates read them.

    Raises InputError for a tool without type hints or a description of each of its parameters."""
    schemas = []
    for name, method in tools_of(instance).items():
        try:
            schema = function_schema(method)
            Draft202012Validator.check_schema(schema["function"]["parameters"])
        except (NoSchema, NameError, SchemaError) as error:
            why = error.message if isinstance(error, SchemaError) else error
            raise InputError(
                f"every public method of an environment is a tool, and {type(instance).__name__}.{name} cannot be "
                f"described: {why}. Give it a docstring whose 'Args:' has a line `name: what it is` for each "
                "parameter, and each parameter a type hint; or begin its name with an underscore if it is no tool"
            ) from None
        schemas.append(schema)
    return schemas


def read_call(call: Mapping[str, Any], schemas: Sequence[Schema]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a call of a message (see `tool_calls.read_calls`). Raises BadCall where they do not fit the
    schema of a tool."""
    name, arguments = tool_name(call), dict(call["function"]["arguments"])
    known = {schema["function"]["name"]: schema["function"]["parameters"] for schema in schemas}
    if name not in known:
        raise BadCall(f"there is no tool {name!r}; there are: {', '.join(known) or 'none'}")
    _check(name, arguments, known[name])
    return name, arguments


def tool_name(call: Mapping[str, Any]) -> str:
    """What a call of a message says is to be called, which some templates write with the result too."""
    name: str = call["function"]["name"]
    return name


def result_text(result: Any) -> str:
    """What a tool returned as text: a string as it is, anything else as JSON, else as `str` writes it."""
    if isinstance(result, str):
        return result
    try:
        return json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(result)


def cut(text: str) -> str:
    """Text that every tokenizer takes, of at most RESULT_CHARACTERS and a note on what was cut."""
    text = text.encode(errors="replace").decode()  # half characters (lone surrogates) become question marks
    if len(text) <= RESULT_CHARACTERS:
        return text
    return f"{text[:RESULT_CHARACTERS]}… [cut: {RESULT_CHARACTERS} of {len(text)} characters]"


def _check(name: str, arguments: Mapping[str, Any], parameters: Schema) -> None:
    properties = parameters["properties"]
    if missing := [other for other in parameters.get("required", ()) if other not in arguments]:
        raise BadCall(f"{name} needs the argument {missing[0]!r}; {_described(parameters)}")
    if extra := [other for other in arguments if other not in properties]:
        raise BadCall(f"{name} has no argument {extra[0]!r}; {_described(parameters)}")
    for argument, value in arguments.items():
        if fault := best_match(Draft202012Validator(_nullable(properties[argument])).iter_errors(value)):
            why = " ".join(fault.message.split())[:200]
            raise BadCall(f"the argument {argument!r} of {name} does not fit: {why}; {_described(parameters)}")


def _nullable(schema: Any) -> Any:
    """The schema with `nullable`, which JSON Schema does not know, as a choice."""
    if isinstance(schema, list):
        return [_nullable(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    plain = {name: _nullable(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain


def _described(parameters: Schema) -> str:
    required = parameters.get("required", ())
    arguments = [
        f"{argument} ({_type(schema)}{'' if argument in required else ', optional'})"
        for argument, schema in parameters["properties"].items()
    ]
    return f"its arguments are: {', '.join(arguments)}" if arguments else "it takes no arguments"


def _type(schema: Schema) -> str:
    kind = schema.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(kind)
