"""Tool calls in sampled text: the styles of the common templates, and what is wrong with a call."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.chat import ChatFormat
from posttrain.chat.calls import (
    CallStyle,
    Reader,
    read_bare,
    read_fenced,
    read_listed,
    read_tagged,
)
from posttrain.types import Message
from tests.chat_templates import TOOL, styled_tokenizer

ADD = {"name": "add", "arguments": {"a": 1}}
CALL = '{"name": "add", "arguments": {"a": 1}}'


@pytest.mark.parametrize(
    ("read", "text", "content", "calls"),
    [
        (read_tagged, f"I add.\n<tool_call>\n{CALL}\n</tool_call>", "I add.", [ADD]),
        (read_tagged, f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", "", [ADD, ADD]),
        (read_tagged, "no call \n", "no call \n", []),
        (read_bare, '\n{"name": "add", "parameters": {"a": 1}}', "", [ADD]),
        (read_bare, f"<|python_tag|>{CALL}", "", [ADD]),
        (read_bare, '{"name": "Ada"}', '{"name": "Ada"}', []),
        (read_bare, f"Like {CALL}", f"Like {CALL}", []),
        (read_listed, f"[TOOL_CALLS] [{CALL}, {CALL}]", "", [ADD, ADD]),
        (read_listed, f"so [TOOL_CALLS][{CALL}]", "so", [ADD]),
        (read_listed, f"[{CALL}]", f"[{CALL}]", []),
        (read_fenced, f"so\n```tool_code\n{CALL}\n```", "so", [ADD]),
        (read_fenced, f"```json\n{CALL}\n```", "", [ADD]),
        (read_fenced, '```json\n{"a": 1}\n```', '```json\n{"a": 1}\n```', []),
    ],
)
def test_calls_are_read(read: Reader, text: str, content: str, calls: list[dict[str, object]]) -> None:
    assert read(text) == (content, calls)


@pytest.mark.parametrize(
    ("read", "text", "fault"),
    [
        (read_tagged, f"<tool_call>{CALL}", "not closed"),
        (read_tagged, f"<tool_call>{CALL}</tool_call><tool_call>", "not closed"),
        (read_tagged, "<tool_call>add(1)</tool_call>", "not JSON"),
        (read_tagged, "<tool_call>[1]</tool_call>", '"name" and "arguments"'),
        (read_tagged, '<tool_call>{"arguments": {}}</tool_call>', '"name" and "arguments"'),
        (read_tagged, '<tool_call>{"name": "add"}</tool_call>', 'the call of add must have an object of "arguments"'),
        (read_tagged, '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>', "cannot carry"),
        (read_tagged, '<tool_call>{"name": "add", "arguments": {"a": 1e999}}</tool_call>', "cannot carry"),
        (read_tagged, '<tool_call>{"name": "add", "arguments": {"a": "\\ud800"}}</tool_call>', "cannot carry"),
        (read_tagged, f"<tool_call>{'[' * 100_000}</tool_call>", "nested too deeply"),
        (read_bare, '{"name": "add", "parameters": {"a": 1}', "not JSON"),
        (read_bare, f"{CALL}; {CALL}", "not JSON"),
        (read_listed, "[TOOL_CALLS] []", "no list of calls"),
        (read_listed, f"[TOOL_CALLS] {CALL}", "no list of calls"),
        (read_fenced, f"```tool_code\n{CALL}", "not closed"),
        (read_fenced, "```tool_code\nadd(1)\n```", "not JSON"),
    ],
)
def test_a_call_that_cannot_be_read_says_why(read: Reader, text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read(text)


@given(st.text(alphabet='<>tool_cal/{}[]":,ab1`\n ', max_size=60))
@settings(deadline=None)
def test_no_text_breaks_a_reader(text: str) -> None:
    """A reader returns finite JSON or raises ValueError."""
    for read in (read_tagged, read_bare, read_listed, read_fenced):
        try:
            content, calls = read(text)
        except ValueError:
            continue
        json.dumps([content, calls], allow_nan=False)


@pytest.mark.parametrize(
    ("style", "read"),
    [("chatml", read_tagged), ("qwen3", read_tagged), ("llama3", read_bare), ("mistral", read_listed)],
)
def test_the_style_is_what_the_template_writes(style: str, read: Reader) -> None:
    """The call in the rendering of a message reads back as that message."""
    tokenizer = styled_tokenizer(style)
    chat = ChatFormat(tokenizer)
    assert chat.template.call_style == CallStyle(read, True)
    call = {"id": "abcde1234" if style == "mistral" else "call00007", "type": "function", "function": ADD}
    messages = (Message("user", "q"), Message("assistant", "", tool_calls=(call,)))
    before, whole = (
        tokenizer.apply_chat_template([m.to_dict() for m in part], tools=[TOOL], tokenize=False)
        for part in (messages[:1], messages)
    )
    sampled = tokenizer(whole[len(before) :], add_special_tokens=False)["input_ids"]
    if style != "mistral":
        sampled = sampled[len(chat.prompt_ids("q", (TOOL,))) - len(tokenizer(before)["input_ids"]) :]
    sampled = sampled[: sampled.index(chat.turn_end) + 1]
    answer = chat.answer(sampled, (TOOL,), first_call=7)
    assert answer.fault is None and answer.message.tool_calls == (call,)
    assert answer.message.content == ("<think>\n\n</think>" if style == "qwen3" else "")  # it is sampled, so it stays
    # without tools on offer it is all text
    assert chat.answer(sampled).message.tool_calls == ()


def test_a_template_that_writes_no_calls_keeps_their_text() -> None:
    tokenizer = styled_tokenizer("chatml")
    tokenizer.chat_template = (
        "{{ tools | tojson if tools else '' }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{{ m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    text = f"so <tool_call>{CALL}</tool_call>"
    answer = ChatFormat(tokenizer).answer(tokenizer(text)["input_ids"], (TOOL,))
    assert answer.message.content == text and answer.message.tool_calls[0]["function"] == ADD


def test_calls_in_reasoning_are_none_and_reasoning_stays_in_the_content() -> None:
    tokenizer = styled_tokenizer("qwen3")
    chat = ChatFormat(tokenizer)
    thought = f"<think>perhaps <tool_call>{CALL}</tool_call></think>"
    only = chat.answer(tokenizer(thought + "no")["input_ids"], (TOOL,)).message
    assert (only.content, only.tool_calls) == (thought + "no", ())
    called = chat.answer(tokenizer(f"{thought}yes <tool_call>{CALL}</tool_call>")["input_ids"], (TOOL,)).message
    assert (called.content, len(called.tool_calls)) == (thought + "yes", 1)


def test_a_faulty_call_is_text_without_special_tokens() -> None:
    tokenizer = styled_tokenizer("mistral")
    answer = ChatFormat(tokenizer).answer(tokenizer("[TOOL_CALLS] add</s>")["input_ids"], (TOOL,))
    assert answer.message == Message("assistant", " add") and "not JSON" in (answer.fault or "")


def test_the_response_template_of_a_tokenizer_is_used() -> None:
    """Reasoning becomes a field, and arguments take the types of the tool's schema."""
    tokenizer = styled_tokenizer("qwen3")
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "thinking": {"open": "<think>", "close": "</think>", "content": "text"},
            "tool_calls": {
                "open_pattern": r"\s*<tool_call>",
                "close": "</tool_call>",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            },
            "content": {"close_pattern": r"<\|im_end\|>", "content": "text"},
        },
    }
    chat = ChatFormat(tokenizer)
    ids = tokenizer(f"<think>why</think>so<tool_call>{CALL}</tool_call><|im_end|>")["input_ids"]
    answer = chat.answer(ids, (TOOL,), first_call=2)
    call = {"id": "call00002", "type": "function", "function": ADD}
    assert answer.message == Message("assistant", "so", "why", (call,)) and answer.fault is None
    broken = chat.answer(tokenizer("<tool_call>{</tool_call><|im_end|>")["input_ids"], (TOOL,))
    assert broken.message == Message("assistant", "<tool_call>{</tool_call>") and "JSON" in (broken.fault or "")
