"""Tool calls as data files and APIs write them, brought to the one form that messages have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

OTHER_NAMES = ("parameters", "args", "input")
"""What some models and libraries call the arguments of a call."""


def read_calls(calls: Any) -> tuple[Mapping[str, Any], ...]:
    """Calls as `{"type": "function", "function": {"name": …, "arguments": {…}}}`, with whatever else they hold, such as
    an `id`. Arguments may be an object or its JSON text (OpenAI's own form): both say the same call; none are `{}`. A
    call may stand without the wrapper, as `{"name": …, "arguments": …}`; the list may be JSON text.

    Raises ValueError for what is no call, naming it."""
    if isinstance(calls, str):
        calls = (strict_json(calls, "'tool_calls' are") if calls.strip() else None) or ()
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise ValueError(f"'tool_calls' must be a list of calls, not {_short(calls)}")
    return tuple(map(_read, calls))


def with_text_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with its arguments as JSON text."""
    function = call["function"]
    text = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _read(call: Any) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise ValueError(f"a tool call must be an object, not {_short(call)}")
    outer = {key: value for key, value in call.items() if key not in ("type", "function") and value is not None}
    if call.get("type") not in (None, "function"):
        raise ValueError(f"a tool call has the type {call['type']!r}; the only one is 'function'")
    function = call.get("function")
    if function is None:
        function = {key: outer.pop(key) for key in ("name", "arguments") if key in outer}
    if not isinstance(function, Mapping) or not isinstance(name := function.get("name"), str) or not name:
        raise ValueError(f"a tool call needs a 'function' with a 'name', and is {_short(call)}")
    if "arguments" not in function and (others := [key for key in OTHER_NAMES if key in {**function, **outer}]):
        raise ValueError(f"the call of {name!r} has {others[0]!r} in place of 'arguments'; rename it")
    return {**outer, "type": "function", "function": {**function, "arguments": _arguments(function)}}


def _arguments(function: Mapping[str, Any]) -> Mapping[str, Any]:
    name, value = function["name"], function.get("arguments")
    if isinstance(value, str):
        value = strict_json(value, f"the arguments of the call of {name!r} are") if value.strip() else None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"the arguments of the call of {name!r} must be an object or its JSON, not {_short(value)}")
    return value


def strict_json(text: str, what: str) -> Any:
    """JSON text, read as strictly as a data file is. Raises ValueError that begins with `what`."""
    try:
        value = json.loads(text, object_pairs_hook=distinct_keys, parse_constant=no_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # neither 1e999 nor half a character
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{what} no JSON that can be read: {why}") from None
    return value


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a key that it names twice."""
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return out


def no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
