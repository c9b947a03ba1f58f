"""Reading single columns of a row: prompts, messages, responses, labels, tools. Every function raises InputError naming
the column, what stands in it and what should."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.rows import EQUAL, Response, Tools
from posttrain.types import InputError, Message, Prompt, located

STEPS = ("steps", "completions")
"""Columns that hold the steps of an answer, with `labels` beside them; the second is TRL's name."""
ASSISTANT_MARK = "\n\nAssistant:"
"""What an answer follows in the transcripts of HH-RLHF."""
LABELS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
"""What a label may say, as text."""
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_call": "assistant",
}
"""What ShareGPT and its descendants call a role."""


def parse_prompt(value: Any, column: str = "prompt") -> Prompt:
    """A string, or messages of which the last is from the user or a tool. Raises InputError otherwise."""
    if isinstance(value, str):
        if not value.strip():
            raise InputError(f"column '{column}' is empty")
        return value
    messages = parse_messages(value, column)
    if messages[-1].role not in ("user", "tool"):
        raise InputError(
            f"column '{column}' ends with a message from the {messages[-1].role}; the last must be from the user, or "
            "there is nothing to answer"
        )
    if not messages[-1].content.strip() and messages[-1].role == "user":
        raise InputError(f"column '{column}' ends with an empty message from the user")
    return messages


def parse_messages(value: Any, column: str) -> tuple[Message, ...]:
    """A list of at least one message, or one message, or the JSON text of these; messages of `from` and `value` too.
    Raises InputError naming column and message, and for one of the assistant that has weight 0 and is no prompt."""
    messages, trained = parse_weighted(value, column)
    if column != "prompt" and not all(trained):
        raise InputError(
            f"column '{column}', message {trained.index(False) + 1}: has weight 0; move it to the column 'prompt', or "
            "drop it"
        )
    return messages


def parse_weighted(value: Any, column: str) -> tuple[tuple[Message, ...], tuple[bool, ...]]:
    """Messages as `parse_messages` reads them, and which are to be trained: all but those of the assistant with
    `weight` 0 (OpenAI's fine-tuning format). Raises InputError naming column and message."""
    value = parsed_json(value, column)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        text = "" if column == "messages" else "text or "
        raise InputError(f"column '{column}' must be {text}a list of messages, not {short(value)}")
    if not value:
        raise InputError(f"column '{column}' is an empty list")
    messages, trained = [], []
    for number, item in enumerate(value, start=1):
        if not isinstance(item, dict):
            raise InputError(f"column '{column}', message {number}: must be an object with role and content")
        with located(f"column '{column}', message {number}"):
            if (weight := item.get("weight")) not in (None, 0, 1):
                raise InputError(f"'weight' must be 0 (not trained) or 1, not {short(weight)}")
            if weight is not None:
                item = {name: item[name] for name in item if name != "weight"}
            if "from" in item or "value" in item or str(item.get("role")) in ROLES:
                item = _with_role(item)
            message = Message.from_dict(item)
        messages.append(message)
        trained.append(message.role != "assistant" or weight != 0)
    return tuple(messages), tuple(trained)


def _with_role(item: Mapping[str, Any]) -> dict[str, Any]:
    """A message of ShareGPT in our words: `from` and `value`, roles by their names there, and a `function_call`, whose
    value is the JSON text of a call or a list of them (LLaMA-Factory), as tool calls."""
    theirs = {"from": "role", "value": "content"}
    names = {name: theirs[name] for name in theirs if name in item and item.get(theirs[name]) is None}
    out = {names.get(name, name): value for name, value in item.items() if name not in names.values()}
    role = out.get("role")
    if role == "function_call":
        calls = parsed_json(out.pop("content", None), "value")
        calls = [calls] if isinstance(calls, Mapping) else calls
        if not isinstance(calls, list) or not all(isinstance(c, Mapping) and "name" in c for c in calls):
            raise InputError(f"a function_call must be the JSON of a name and arguments, not {short(calls)}")
        out |= {"role": "assistant", "tool_calls": [{"type": "function", "function": call} for call in calls]}
    elif isinstance(role, str) and role in ROLES:
        out["role"] = ROLES[role]
    return out


def parsed_json(value: Any, column: str) -> Any:
    """A list, an object or null that is given as JSON text, as in CSV and where Arrow has no type for it; anything else
    as it is. Raises InputError naming the column for text that begins like JSON and is none."""
    if not isinstance(value, str) or not (value.lstrip().startswith(("[", "{")) or value.strip() == "null"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # a syntax error, endless digits, endless depth
        raise InputError(
            f"column '{column}' is not JSON: {short(value)}; write a list or the JSON text of one"
        ) from None


def parsed_list(value: Any, column: str, kind: type = object) -> list[Any] | None:
    """A list of items of one kind, or the JSON text of one; None for null. Raises InputError naming the column for
    anything else."""
    value = parsed_json(value, column)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(item, kind) for item in value):
        of = " of objects" if kind is Mapping else ""
        raise InputError(f"column '{column}' must be a list{of} or the JSON text of one, not {short(value)}")
    return list(value)


def after_prompt(prompt: Prompt, value: Any, column: str) -> tuple[Prompt, Response]:
    """Prompt and response in matching forms: a message response makes a string prompt one user message, and a response
    that repeats the prompt's messages, as some data sets do, loses them."""
    if isinstance(value, str):
        return prompt, value
    messages = parse_messages(value, column)
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    if messages[: len(turns)] == turns:
        messages = messages[len(turns) :]
    if not messages or messages[0].role != "assistant":
        raise InputError(f"column '{column}' must go on with a message from the assistant after the prompt")
    return turns, messages


def parse_pair(columns: Mapping[str, Any]) -> tuple[Prompt, Response, Response]:
    """Prompt, better and worse response from `chosen` and `rejected`, with `prompt` or a common beginning."""
    chosen, rejected = columns["chosen"], columns["rejected"]
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise InputError("columns 'chosen' and 'rejected' must both be text or both be lists of messages")
    if "prompt" in columns:
        prompt = parse_prompt(columns["prompt"])
        turns, better = after_prompt(prompt, chosen, "chosen")
        _, worse = after_prompt(prompt, rejected, "rejected")
    elif isinstance(chosen, str):
        turns, better, worse = _split_texts(chosen, rejected)
    else:
        turns, better, worse = _split_messages(parse_messages(chosen, "chosen"), parse_messages(rejected, "rejected"))
    for column, response in (("chosen", better), ("rejected", worse)):
        check_one_answer(response, column)
    return turns, better, worse


def check_one_answer(response: Response, column: str) -> None:
    """Raises InputError for messages other than one answer of the assistant."""
    if isinstance(response, tuple) and (len(response) != 1 or response[0].role != "assistant"):
        raise InputError(f"column '{column}' must hold exactly one message from the assistant after the prompt")


def parse_label(value: Any) -> bool:
    """True or false, also as the numbers 1 and 0 and as the text of either (CSV)."""
    if str(value).strip().lower() not in LABELS:
        raise InputError(f"column 'label' must be true or false, not {short(value)}; rename it if it is something else")
    return LABELS[str(value).strip().lower()]


def parse_steps(columns: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The steps of an answer, without line breaks around them, and how right each is: true, false or a number from 0
    to 1."""
    name = next(name for name in STEPS if name in columns)
    steps, labels = (parsed_json(columns[column], column) for column in (name, "labels"))
    if not isinstance(steps, list | tuple) or not all(isinstance(step, str) for step in steps):
        raise InputError(f"column '{name}' must be a list of texts, one a step, not {short(steps)}")
    if not isinstance(labels, list | tuple):
        raise InputError(f"column 'labels' must be a list, one label a step, not {short(labels)}")
    for k, label in enumerate(labels, start=1):
        if not isinstance(label, bool | int | float) or not 0 <= label <= 1:
            raise InputError(f"label {k} must be true, false or from 0 (wrong) to 1 (right), not {short(label)}")
    return tuple(step.strip("\r\n") for step in steps), tuple(map(float, labels))


def parse_probability(columns: Mapping[str, Any]) -> float:
    """The column `probability`, a number or the text of one (CSV); 1 where there is none."""
    value = columns.get("probability")
    if value is None or value == "":
        return 1.0
    try:
        if isinstance(value, bool):
            raise TypeError(value)
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            "column 'probability' must be a number, how likely 'chosen' is the better, not "
            f"{short(value)}; rename it if it is something else"
        ) from None


def parse_text(columns: Mapping[str, Any]) -> str:
    """The column `text`, where it is all that the row says."""
    text = columns["text"]
    if not isinstance(text, str) or not text:
        raise InputError(f"column 'text' must be text that is not empty, not {short(text)}")
    if parse_tools(columns):
        raise InputError("'tools' cannot be offered in 'text'; drop them, or write 'messages'")
    if {"role", "parent_id"} <= columns.keys():
        raise InputError(
            "the row is one message of a tree, as its 'role' and 'parent_id' say; write every thread of the tree as "
            "'messages', or drop 'parent_id' to train on each text alone"
        )
    return text


def parse_tools(columns: Mapping[str, Any]) -> Tools:
    """The column `tools`, a list of JSON schemas or the JSON text of one; () where there is none."""
    value = columns.get("tools")
    value = None if isinstance(value, str) and not value.strip() else parsed_json(value, "tools")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise InputError(f"column 'tools' must be a list of JSON schemas, not {short(value)}")
    return tuple(value)


def _split_messages(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[Prompt, tuple[Message, ...], tuple[Message, ...]]:
    shared = _alike(chosen, rejected)
    if shared == min(len(chosen), len(rejected)):
        raise InputError("'chosen' and 'rejected' must differ in their last message; one is the beginning of the other")
    if shared == 0:
        raise InputError("'chosen' and 'rejected' begin with no common message; add a column 'prompt'")
    prompt = chosen[:shared]
    if prompt[-1].role not in ("user", "tool"):
        raise InputError(
            "'chosen' and 'rejected' must differ in an answer of the assistant, after a message it answers"
        )
    return prompt, chosen[shared:], rejected[shared:]


def _split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """The common prefix as prompt. It ends after the last "\\n\\nAssistant:" in it (the HH transcripts) or, where there
    is none, before the word and the space at which the texts part."""
    cut = _alike(chosen, rejected)
    if (at := chosen.rfind(ASSISTANT_MARK, 0, cut)) >= 0:
        cut = at + len(ASSISTANT_MARK)
    else:
        while cut and not chosen[cut - 1].isspace():
            cut -= 1
        cut = len(chosen[:cut].rstrip(" "))
    if not chosen[:cut].strip():
        raise InputError("'chosen' and 'rejected' begin with no common text; add a column 'prompt'")
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _alike(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """How many characters or messages both begin with. Raises InputError where they are equal."""
    if chosen == rejected:
        raise InputError(EQUAL)
    pairs = enumerate(zip(chosen, rejected, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))


def short(value: Any) -> str:
    """A value as an error message shows it, at most 60 characters."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
