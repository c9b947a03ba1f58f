"""Tools of an environment: their JSON schemas, from type hints and docstrings, and calls of them by a model.

The rules of the schemas, and the texts of their errors, are those of `transformers.utils.get_json_schema`, which chat
templates are written for; that function imports torch, which takes seconds and hundreds of megabytes in every worker.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import best_match

from posttrain.types import InputError

NOT_TOOLS = frozenset(("reset", "reply", "get_reward"))
RESULT_CHARACTERS = 8192
"""The longest result of a tool or reply that a model sees; the rest is cut and the cut is marked."""

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
    return call["function"]["name"]


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


class NoSchema(Exception):
    """A function that cannot be described. The message says why."""


def function_schema(function: Callable[..., Any]) -> dict[str, Any]:
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


def _parameters(function: Callable[..., Any], name: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
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
    found = ARGUMENTS.search(doc)
    lines = [line for line in found.group(1).strip().split("\n") if line.strip()] if found else []
    return {name: re.sub(r"\s*\n+\s*", " ", text.strip()) for name, text in ARGUMENT.findall("\n".join(lines))}


def _describe(schema: dict[str, Any], text: str) -> None:
    """Add a description, and the choices at its end, `(choices: ["tea", "coffee"])`, as an enumeration."""
    if choices := CHOICES.search(text):
        schema["enum"] = [c.strip() if isinstance(c, str) else c for c in json.loads(choices.group(1))]
        text = text[: choices.start()].strip()
    schema["description"] = text


def _schema_of(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None:
        name = f"{getattr(hint, '__module__', '')}.{getattr(hint, '__qualname__', '')}"
        return {} if hint is Any else {"type": NAMES.get(hint) or MEDIA.get(name, "object")}
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


def _union(members: tuple[Any, ...]) -> dict[str, Any]:
    schemas = [_schema_of(member) for member in members if member is not type(None)]
    if len(schemas) == 1:
        union = schemas[0]
    elif all(schema.keys() == {"type"} and isinstance(schema["type"], str) for schema in schemas):
        names = sorted({schema["type"] for schema in schemas})
        union = {"type": names[0] if len(names) == 1 else names}
    else:
        union = {"anyOf": schemas}
    return union | ({"nullable": True} if type(None) in members else {})


def _literal(values: tuple[Any, ...]) -> dict[str, Any]:
    if any(type(value) not in (int, float, str, bool, type(None)) for value in values):
        raise NoSchema("Only the valid python literals can be listed in typing.Literal.")
    names = list(dict.fromkeys(NAMES[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": list(values)}
