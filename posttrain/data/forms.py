"""What stands in the columns of a row: messages as JSON text, OpenAI's pairs and its older `functions`, conversations
with a label, and what no text can say.

Functions that change the columns of a row in place return what it was read as, or None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from posttrain.data.columns import LABELS, parsed_json, parsed_list, short
from posttrain.types import InputError

MESSAGES_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*(?P<quote>["'])(role|content|from|value)(?P=quote)\s*:""")
"""Python quotes with one mark, JSON with two."""
MEDIA = frozenset({"image", "images", "video", "videos", "audio", "audios"})
PREFERRED = {"preferred_output": "chosen", "non_preferred_output": "rejected"}


def preferences(out: dict[str, Any]) -> str | None:
    """OpenAI's pairs: `input` with messages and tools, `preferred_output` and `non_preferred_output`. Raises InputError
    for another `input`."""
    if not PREFERRED.keys() <= out.keys() or "input" not in out:
        return None
    given = parsed_json(out.pop("input"), "input")
    if not isinstance(given, Mapping) or "messages" not in given:
        raise InputError(f"column 'input' must be an object with 'messages', not {short(given)}")
    out["prompt"] = given["messages"]
    if given.get("tools"):
        out["tools"] = given["tools"]
    out |= {ours: out.pop(theirs) for theirs, ours in PREFERRED.items()}
    return "read as OpenAI's pairs (prompt = input, chosen = preferred_output, rejected = non_preferred_output)"


def labelled(out: dict[str, Any]) -> str | None:
    """Conversations of which the last answer is good or bad, as LLaMA-Factory has them for KTO (`label`, `kto_tag`)."""
    if "kto_tag" in out and "label" not in out:
        out["label"] = out.pop("kto_tag")
    if str(out.get("label")).lower() not in LABELS or {"completion", "chosen"} & out.keys():
        return None
    talk = parsed_json(out.get("messages"), "messages")
    if not isinstance(talk, list | tuple) or len(talk) < 2:
        return None
    del out["messages"]
    out |= {"prompt": list(talk[:-1]), "completion": [talk[-1]]}
    return "read as labelled answers (completion = the last of the messages)"


def functions(out: dict[str, Any]) -> None:
    """OpenAI's older `functions`, as `tools`. Raises InputError where they are no list of objects."""
    if "functions" in out and not out.get("tools") and {"messages", "completion", "chosen"} & out.keys():
        given = parsed_list(out.pop("functions"), "functions", Mapping)
        out["tools"] = [{"type": "function", "function": function} for function in given or ()]


def refuse_what_is_lost(columns: Mapping[str, Any], task: bool) -> None:
    """Raise InputError for a column that says that the row is more than its text, or to be written otherwise. In a task
    images may be for the reward."""
    if columns.get("chat_template_kwargs"):
        raise InputError("column 'chat_template_kwargs' is not read, templates get no options; drop the column")
    for name in sorted(MEDIA & columns.keys()):
        if columns[name] and not task:
            raise InputError(f"column '{name}' is not read, training is on text alone; drop such rows, or the column")


def as_messages(out: dict[str, Any], name: str) -> str | None:
    """Messages that stand in a column of text as JSON; and a word on their content where it is lists of parts."""
    value = out[name]
    if isinstance(value, str):
        if not MESSAGES_AS_TEXT.match(value):
            return None
        refuse_python(value, name)
        try:
            value = parsed_json(value, name)
        except InputError:
            return None
        if not is_messages(value):
            return None
        out[name] = value
        return f"{name} holds messages as JSON text"
    if is_messages(value) and any(isinstance(turn.get("content"), list | tuple) for turn in value):
        return f"the text parts of {name} are joined"
    return None


def refuse_python(value: Any, name: str) -> None:
    """Raise InputError for messages as Python prints them."""
    if isinstance(value, str) and (found := MESSAGES_AS_TEXT.match(value)) and found["quote"] == "'":
        raise InputError(f"column {name!r} holds a Python list as text; write JSON by json.dumps, or Parquet for CSV")


def is_messages(value: Any) -> bool:
    """Whether a value is a list of messages, or looks like the text of one."""
    if isinstance(value, str):
        return MESSAGES_AS_TEXT.match(value) is not None
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
