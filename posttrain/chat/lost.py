"""What a chat template leaves out of a conversation: the model would be shown, or trained on, less than the data says.

Whether a template writes a message at all depends on the kind of conversation (its roles, calls and tools) and not on
the words in it. So each kind is rendered once with a word of its own in the place of every part, and those that do not
appear are lost. What is trained is compared with the rendered turn itself too, because templates look for reasoning in
it. That the reasoning of earlier turns is left out is what such models are made for, and names of speakers and ids of
calls are written by few templates: none of these is missed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from posttrain.chat.template import Template, Turn
from posttrain.rows import Tools
from posttrain.types import InputError, Message

MARKS = re.compile(r"</?think(?:ing)?>|\[/?THINK\]")
"""What parts reasoning from an answer in content; a template may write its own in their place."""
END = "</think>"
AS_A_STRING = "give this answer as a string ('completion', 'chosen', 'rejected'), which is trained as it stands"
OTHER = "(--chat-template hermes, or a Jinja file)"
"""How a user chooses another template."""
INSTEAD = {
    "system": "put its text into the user's message, or ",
    "developer": "give it the role 'system', or ",
    "assistant": "remove it, or ",
}


@dataclass(frozen=True)
class Part:
    """A part of a conversation that must be written: the content of message `index`, or its call number `call`. Of each
    of `words` one must appear."""

    index: int
    call: int | None
    words: tuple[tuple[str, ...], ...]


class Completeness:
    """Checks that a template writes the whole of a conversation."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._lost: dict[tuple[Any, ...], tuple[bool, Part | None]] = {}

    def check(self, messages: Sequence[Message], tools: Tools) -> None:
        """Raise InputError for the first message or call that the template does not write, and for tools that it
        ignores."""
        kind = (tuple(map(_kind, messages)), len(tools))
        if kind not in self._lost:
            self._lost[kind] = self._look(messages, tools)
        ignored, lost = self._lost[kind]
        if ignored:
            raise InputError(
                f"the chat template of {self._template.name} ignores tools; use one that writes them "
                f"{OTHER}, or drop 'tools'"
            )
        if lost is not None:
            raise InputError(f"message {lost.index + 1}: the chat template {self._told(messages[lost.index], lost)}")
        quoting = [i for i, message in enumerate(messages) if END in message.content and message.role != "assistant"]
        if quoting:
            self._check_quoted(messages, tools, quoting)

    def trained_turn(self, messages: tuple[Message, ...], index: int, tools: Tools) -> Turn:
        """Assistant turn `index`, or InputError if the template cannot write it or leaves out some of it."""
        turn = self._template.turn(messages, index, tools)
        if turn is None:
            prompt = self._template.render(messages[:index], tools, True)
            raise InputError(
                f"message {index + 1}: the chat template does not write this turn after its own generation prompt, "
                f"which ends in {prompt[-30:]!r}; give 'completion' as a string, just as the model is to continue that"
            )
        message = messages[index]
        if message.reasoning and not _written([message.reasoning], turn.text):
            raise InputError(
                f"message {index + 1}: the chat template drops 'reasoning'; "
                f"{self._place_for_reasoning(messages[: index + 1], tools)}"
            )
        if message.content not in turn.text and not _written(MARKS.split(message.content), turn.text):
            raise InputError(
                f"message {index + 1}: the chat template of {self._template.name} cuts a part out of the content "
                f"{_short(message.content)}, and writes {_short(turn.text)}; {AS_A_STRING}"
            )
        for call in message.tool_calls:
            name = call["function"]["name"]
            if name not in turn.text:
                raise InputError(f"message {index + 1}: the chat template drops the call of tool {name!r}")
        return turn

    def _check_quoted(self, messages: Sequence[Message], tools: Tools, quoting: Sequence[int]) -> None:
        """Raise InputError where a template takes what these messages quote for reasoning of the model."""
        text = self._template.render(messages, tools, messages[-1].role != "assistant")
        for i in quoting:
            if not _written(MARKS.split(messages[i].content), text):
                raise InputError(
                    f"message {i + 1}: the chat template of {self._template.name} cuts the content of this message "
                    f"from the {messages[i].role} at {END}; take that out, or use another model"
                )

    def _look(self, messages: Sequence[Message], tools: Tools) -> tuple[bool, Part | None]:
        """Whether the tools are ignored, and the first part that is lost. Raises InputError for a conversation that the
        template refuses, which says better what is wrong."""
        marked, parts = _marked(messages)
        generation = messages[-1].role != "assistant"
        self._template.render(messages, tools, generation)
        try:
            text = self._template.render(marked, tools, generation)
            ignored = bool(tools) and text == self._template.render(marked, (), generation)
        except InputError:  # it wants other words than these, and what that depends on cannot be found out
            return False, None
        lost = [part for part in parts if not all(any(word in text for word in either) for either in part.words)]
        return ignored, lost[0] if lost else None

    def _told(self, message: Message, lost: Part) -> str:
        if lost.call is not None:
            name = message.tool_calls[lost.call]["function"]["name"]
            return f"drops the call of tool {name!r}; use one that writes it {OTHER}"
        beside = " beside its calls" if message.tool_calls else ""
        return (
            f"of {self._template.name} drops the content{beside} of this message from the {message.role}; "
            f"{INSTEAD.get(message.role, '')}use a template that writes it {OTHER}"
        )

    def _place_for_reasoning(self, messages: tuple[Message, ...], tools: Tools) -> str:
        """Where this template would not drop reasoning."""
        *before, last = messages
        inside = replace(last, reasoning=None, content=f"<think>\n{last.reasoning}\n</think>\n\n{last.content}")
        try:
            self.trained_turn((*before, inside), len(before), tools)
        except InputError:
            return f"and out of 'content' too: {AS_A_STRING}, with the reasoning in it"
        return "put it into 'content', between <think> and </think>"


def _kind(message: Message) -> tuple[Any, ...]:
    """What a template can tell messages apart by, but for their words."""
    content = message.content
    return (
        message.role,
        bool(content) and not content.isspace(),
        message.reasoning is None,
        message.name is None,
        message.tool_call_id is None,
        tuple((bool(call["function"]["arguments"]), _named_by_id(call)) for call in message.tool_calls),
    )


def _named_by_id(call: Mapping[str, Any]) -> bool:
    """Whether the id of a call holds its name, and stands for it: Kimi K2's template writes such ids and no names."""
    return isinstance(id_ := call.get("id"), str) and call["function"]["name"] in id_


def _marked(messages: Sequence[Message]) -> tuple[list[Message], list[Part]]:
    """The conversation with a word of its own in the place of each content, name and arguments, and the parts."""
    marked, parts = [], []
    for i, message in enumerate(messages):
        calls = []
        for k, call in enumerate(message.tool_calls):
            name, value = f"sentinel_{i}_{k}_", f"sentinel_{i}_{k}_value_"
            arguments = {"x": value} if call["function"]["arguments"] else {}
            calls.append({**call, "function": {**call["function"], "name": name, "arguments": arguments}})
            names = (name, call["id"]) if _named_by_id(call) else (name,)
            parts.append(Part(i, k, (names, (value,)) if arguments else (names,)))
        content = message.content
        if content.strip():
            content = f"sentinel_{i}_content_"
            parts.append(Part(i, None, ((content,),)))
        marked.append(replace(message, content=content, tool_calls=tuple(calls)))
    return marked, parts


def _written(parts: Sequence[str], text: str) -> bool:
    """Whether the parts stand in the text in this order, up to whitespace, each as it is or as JSON writes it."""
    squeezed, position = _squeezed(text), 0
    for part in parts:
        forms = (_squeezed(part), _squeezed(json.dumps(part.strip(), ensure_ascii=False)[1:-1]))
        found = [(at, len(form)) for form in forms if (at := squeezed.find(form, position)) >= 0]
        if not found:
            return False
        position = sum(min(found))
    return True


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:30]} … {text[-27:]}")
