"""Tool calls read out of the text of a sampled answer, in the way the model's chat template writes them.

A reader takes the text and returns what is not a call, and the calls. It raises ValueError for a call that is there but
cannot be read; a text without any is no fault. Arguments are an object of finite JSON. What stands in finished
reasoning (before the last `</think>`) is never a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.rows import Tools
from posttrain.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Call = Mapping[str, Any]
"""`{"name": …, "arguments": {…}}`, with an `id` where the model gave one."""
Reader = Callable[[str], tuple[str, list[Call]]]

PROBE_NAME = "sentinel_tool"
PROBE_VALUE = "sentinel_value"
PROBE_CALL = {"id": "call00000", "type": "function", "function": {"name": PROBE_NAME, "arguments": {"x": PROBE_VALUE}}}
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": PROBE_NAME,
        "description": "d",
        "parameters": {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}},
    },
}

TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
FENCED = re.compile(r"```(tool_code|tool_call|json)[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class ParsedTurn:
    """A sampled turn as a message. `fault` says why a tool call in it could not be read; the message then is the whole
    text, without calls."""

    message: Message
    fault: str | None = None


@dataclass(frozen=True)
class CallStyle:
    """How a template writes calls. `written`: whether it writes those of a message at all; if it does not, their text
    has to stay in the content, or the model would not see later what it called."""

    read: Reader
    written: bool

    @staticmethod
    def of(rendered: str, written: bool) -> CallStyle:
        """The style of a call that a template has rendered; Hermes tags where nothing else is recognised."""
        readers = {
            "<tool_call>": read_tagged,
            "[TOOL_CALLS]": read_listed,
            "```": read_fenced,
            '"parameters"': read_bare,
        }
        return CallStyle(next((read for mark, read in readers.items() if mark in rendered), read_tagged), written)


def read_tagged(text: str) -> tuple[str, list[Call]]:
    """Hermes, Qwen, SmolLM2: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number of them."""
    rest = TAGGED.sub("", text)
    if "<tool_call>" in rest:
        raise ValueError("a <tool_call> is not closed by </tool_call>")
    blocks = TAGGED.findall(text)
    return (rest.rstrip() if blocks else text), [_call(_json(block)) for block in blocks]


def read_bare(text: str) -> tuple[str, list[Call]]:
    """Llama 3: the whole message is `{"name": …, "parameters": {…}}`, perhaps after `<|python_tag|>`."""
    body = text.strip().removeprefix("<|python_tag|>").strip()
    return ("", [_call(_json(body))]) if _looks_like_call(body) else (text, [])


def read_listed(text: str) -> tuple[str, list[Call]]:
    """Mistral: `[TOOL_CALLS] [{"name": …, "arguments": {…}}, …]` at the end of the message."""
    before, marker, after = text.partition("[TOOL_CALLS]")
    if not marker:
        return text, []
    calls = _json(after)
    if not isinstance(calls, list) or not calls:
        raise ValueError("after [TOOL_CALLS] stands no list of calls")
    return before.rstrip(), [_call(call) for call in calls]


def read_fenced(text: str) -> tuple[str, list[Call]]:
    """Gemma: the same objects as JSON in a fence named tool_code or tool_call, or json where it looks like a call."""
    blocks = [m for m in FENCED.finditer(text) if m[1] != "json" or _looks_like_call(m[2].strip())]
    rest = text
    for block in reversed(blocks):
        rest = rest[: block.start()] + rest[block.end() :]
    if "```tool_c" in rest:
        raise ValueError("a fence of a tool call is not closed")
    return (rest.rstrip() if blocks else text), [_call(_json(block[2])) for block in blocks]


def read_answer(text: str, plain: str, style: CallStyle, first_call: int) -> ParsedTurn:
    """The message of a sampled `text`; `plain` is the same without special tokens, and the content if there is no call.
    Calls are numbered from `first_call`."""
    reasoning, mark, said = text.rpartition("</think>")
    try:
        content, calls = style.read(said)
    except ValueError as error:
        return ParsedTurn(Message("assistant", plain), str(error))
    kept = plain if not (calls and style.written) else reasoning + mark + content
    return ParsedTurn(Message("assistant", kept, tool_calls=_numbered(calls, first_call)))


def read_declared(
    tokenizer: PreTrainedTokenizerBase, text: str, plain: str, prefix: str, tools: Tools, first_call: int
) -> ParsedTurn:
    """The same by the `response_template` that a tokenizer comes with; `prefix` is the prompt before the answer."""
    try:
        parsed = tokenizer.parse_response(text, prefix=prefix, tools=[dict(tool) for tool in tools])
        calls = [_call(call) for call in parsed.get("tool_calls") or ()]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return ParsedTurn(Message("assistant", plain), str(error))
    content = str(parsed.get("content") or "")
    return ParsedTurn(Message("assistant", content, parsed.get("thinking"), _numbered(calls, first_call)))


def _numbered(calls: list[Call], first: int) -> tuple[Mapping[str, Any], ...]:
    """Calls in the form of messages. Their ids are the nine letters and digits that Mistral's templates ask for; the
    model's own stay, as it reads them again beside the result."""
    return tuple(
        {
            "id": call.get("id", f"call{first + i:05d}"),
            "type": "function",
            "function": {"name": call["name"], "arguments": call["arguments"]},
        }
        for i, call in enumerate(calls)
    )


def _looks_like_call(body: str) -> bool:
    return body.startswith("{") and '"name"' in body and ('"parameters"' in body or '"arguments"' in body)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"a tool call is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("a tool call is nested too deeply") from None


def _call(value: Any) -> Call:
    """Name and arguments of a call. Raises ValueError where either is missing, for a number that is not finite, and for
    half a character, which no tokenizer takes."""
    id_ = None
    if isinstance(value, dict):
        id_, value = value.get("id"), value.get("function", value)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise ValueError('a tool call must be an object with "name" and "arguments"')
    call = {"name": value["name"], "arguments": value.get("arguments", value.get("parameters"))}
    if not isinstance(call["arguments"], dict):
        raise ValueError(f'the call of {call["name"]} must have an object of "arguments"')
    try:
        json.dumps(call, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise ValueError(f"the call of {call['name']} holds a number or text that JSON cannot carry") from None
    return {**call, "id": id_} if isinstance(id_, str) and re.fullmatch("[a-zA-Z0-9]{9}", id_) else call
