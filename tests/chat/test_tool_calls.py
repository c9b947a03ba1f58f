"""A tool call is the same call however it is written: in a data file, in an Arrow table, and for every template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from posttrain.chat import ChatFormat
from posttrain.data.formats import load_preferences, load_sft, pooled_text
from posttrain.data.tables import from_arrow
from posttrain.engine.endpoint import _wire
from posttrain.models.tiny import tiny_tokenizer
from posttrain.rows import MessagesRow
from posttrain.types import InputError, Message
from tests.chat.test_chat import marked, tokenizer
from tests.chat_templates import STYLES, TOOL, styled_tokenizer

ARGUMENTS = {"a": 1, "b": {"é": [None, 1.5, '"']}}
CALL = {"id": "abcde1234", "type": "function", "function": {"name": "add", "arguments": ARGUMENTS}}
TEXT = '{"a":1,\n "b": {"\\u00e9": [null, 1.5, "\\""]}}'
"""The same arguments as another program would write them."""


def conversation(call: Any, **fields: Any) -> tuple[Message, ...]:
    asked = {"role": "assistant", "content": None, "tool_calls": [call], **fields}
    rows = [
        {"role": "user", "content": "q"},
        asked,
        {"role": "tool", "content": "7", "tool_call_id": "abcde1234", "name": "add"},
        {"role": "assistant", "content": "It is 7."},
    ]
    return tuple(map(Message.from_dict, rows))


@pytest.mark.parametrize(
    "call",
    [
        {**CALL, "function": {"name": "add", "arguments": TEXT}},
        {"id": "abcde1234", "name": "add", "arguments": TEXT},
        {"id": "abcde1234", "name": "add", "arguments": ARGUMENTS, "type": None, "function": None},
        {"id": "abcde1234", "function": {"name": "add", "arguments": ARGUMENTS}},
    ],
)
def test_every_way_to_write_a_call_is_the_same_message(call: dict[str, Any]) -> None:
    written = conversation(CALL)
    assert conversation(call) == written == tuple(Message.from_dict(m.to_dict()) for m in written)
    assert Message("assistant", "", tool_calls=(call,)).tool_calls == (CALL,)
    assert [json.loads(json.dumps(m.to_dict())) for m in written][1]["tool_calls"] == [CALL]


def test_the_calls_of_a_message_may_be_json_text() -> None:
    one = Message.from_dict({"role": "assistant", "tool_calls": [CALL]})
    assert Message.from_dict({"role": "assistant", "tool_calls": json.dumps([CALL])}) == one
    for nothing in ("", " ", "[]", "null"):
        assert Message.from_dict({"role": "assistant", "content": "a", "tool_calls": nothing}).tool_calls == ()


@pytest.mark.parametrize("names", [("reasoning",), ("reasoning_content",), ("thinking", "reasoning_content")])
def test_reasoning_has_several_names(names: tuple[str, ...]) -> None:
    row = {"role": "assistant", "content": "a", "reasoning": ""} | dict.fromkeys(names, "because")
    assert Message.from_dict(row) == Message("assistant", "a", reasoning="because")


@pytest.mark.parametrize("arguments", [None, "", " ", "{}", {}])
def test_a_call_without_arguments_has_none(arguments: object) -> None:
    message = Message("assistant", "", tool_calls=({"name": "now", "arguments": arguments}, {"name": "now"}))
    assert [call["function"] for call in message.tool_calls] == [{"name": "now", "arguments": {}}] * 2


def test_the_older_form_of_openai_is_read_as_the_newer() -> None:
    called = Message.from_dict(
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 1}'}}
    )
    assert called.tool_calls == ({"type": "function", "function": {"name": "add", "arguments": {"a": 1}}},)
    answered = Message.from_dict({"role": "function", "name": "add", "content": "7"})
    assert answered == Message("tool", "7", name="add")


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"tool_calls": [{"name": "add", "arguments": '{"a": 1'}]}, "call of 'add' are no JSON .*delimiter"),
        ({"tool_calls": [{"name": "add", "arguments": '{"a": NaN}'}]}, "NaN is not JSON"),
        ({"tool_calls": [{"name": "add", "arguments": '{"a": 1e999}'}]}, "call of 'add' are no JSON"),
        ({"tool_calls": [{"name": "add", "arguments": '{"a": "\\ud800"}'}]}, "call of 'add' are no JSON"),
        ({"tool_calls": [{"name": "add", "arguments": '{"a": 1, "a": 2}'}]}, "stands twice"),
        ({"tool_calls": [{"name": "add", "arguments": "[" * 100_000}]}, "nested too deeply"),
        ({"tool_calls": [{"name": "add", "arguments": "7"}]}, "must be an object or its JSON, not 7"),
        ({"tool_calls": [{"name": "add", "arguments": '"{}"'}]}, "must be an object or its JSON, not '{}'"),
        ({"tool_calls": [{"name": "add", "arguments": [1]}]}, r"must be an object or its JSON, not \[1\]"),
        ({"tool_calls": [{"arguments": {}}]}, "needs a 'function' with a 'name'"),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "x", "input": "y"}}]}, "type 'custom'"),
        ({"tool_calls": ["add"]}, "must be an object, not 'add'"),
        ({"tool_calls": "7"}, "must be a list of calls, not 7"),
        ({"tool_calls": "[{'name'"}, "'tool_calls' are no JSON"),
        ({"tool_calls": [{"name": "add", "parameters": {"a": 1}}]}, "has 'parameters' in place of 'arguments'"),
        ({"tool_calls": [{"function": {"name": "add", "input": {}}}]}, "has 'input' in place of 'arguments'"),
        ({"tool_calls": [CALL], "function_call": {"name": "add"}}, "'tool_calls' and 'function_call'"),
        ({"name": 3}, "'name' of a message must be text, not 3"),
        ({"reasoning": ["a"]}, r"'reasoning' of a message must be text, not \['a'\]"),
        ({"reasoning": "a", "thinking": "b"}, "several fields of reasoning that differ"),
    ],
)
def test_what_is_no_call_is_named(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        Message.from_dict({"role": "assistant", "content": "", **fields})


def test_the_row_of_a_broken_call_is_named(tmp_path: Path) -> None:
    call = {"name": "add", "arguments": "{a: 1}"}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    (tmp_path / "d.jsonl").write_text(json.dumps({"messages": turns}))
    with pytest.raises(
        InputError, match=r"d\.jsonl:1: column 'messages', message 2: the arguments of the call of 'add'"
    ):
        load_sft(str(tmp_path / "d.jsonl"))


@pytest.mark.parametrize("style", [*(s for s in STYLES if s != "gemma"), "tiny"])
def test_text_and_object_are_the_same_tokens_in_every_style(style: str) -> None:
    """And what is trained reads back as the call."""
    made = tiny_tokenizer() if style == "tiny" else styled_tokenizer(style)
    chat = ChatFormat(made)
    as_text = {**CALL, "function": {"name": "add", "arguments": TEXT}}
    rows = [
        chat.encode_sft(MessagesRow("f:1", conversation(call), (TOOL,)))  # type: ignore[arg-type]
        for call in (CALL, as_text)
    ]
    assert rows[0] == rows[1]
    ids = [id_ for id_, trained in zip(rows[0][0].token_ids, rows[0][0].mask, strict=True) if trained]
    end = ids.index(chat.turn_end)
    (read,) = chat.answer(ids[: end + 1], (TOOL,)).message.tool_calls
    assert read["function"] == CALL["function"]


HEAD = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
TAIL = "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CALLS = "{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} "
JOINED = HEAD + CALLS + "{{ '' + c.function.arguments }}</tool_call>{% endfor %}" + TAIL
PRINTED = HEAD + CALLS + "{{ c.function.arguments }}</tool_call>{% endfor %}" + TAIL
ASKED = (
    HEAD
    + CALLS
    + "{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}"
    + ("{{ c.function.arguments | tojson }}{% endif %}</tool_call>{% endfor %}" + TAIL)
)
ONLY_WITHOUT_CONTENT = (
    HEAD
    + "{% if m.content is none or m.content is undefined %}"  # transformers 5.24 drops keys whose value is None
    + CALLS.replace("{{ m.content or '' }}", "")
    + "{{ '' + c.function.arguments }}</tool_call>{% endfor %}{% else %}{{ m.content }}{% endif %}"
    + TAIL
)


@pytest.mark.parametrize("template", [JOINED, PRINTED, ASKED, ONLY_WITHOUT_CONTENT])
@pytest.mark.parametrize("arguments", ['{"a":1, "b":"é"}', {"a": 1, "b": "é"}])
def test_templates_that_expect_text_get_it(template: str, arguments: object) -> None:
    """Those that join the arguments to strings, print them, ask for their type, or write calls only without content."""
    made = tokenizer(template)
    (row,) = ChatFormat(made).encode_sft(MessagesRow("f:1", conversation({"name": "add", "arguments": arguments})))
    assert '«<tool_call>add {"a": 1, "b": "é"}</tool_call><|im_end|>»' in marked(made, row)


def test_an_endpoint_gets_the_text_that_its_protocol_wants() -> None:
    sent = _wire(Message("assistant", "", "why", (CALL,), name="helper"))
    assert json.loads(sent["tool_calls"][0]["function"].pop("arguments")) == ARGUMENTS
    call = {"id": "abcde1234", "type": "function", "function": {"name": "add"}}
    assert sent == {"role": "assistant", "content": "", "name": "helper", "tool_calls": [call]}


def schema(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TOWN = schema("forecast", {"town": {"type": "string", "enum": ["Oslo", "Bergen"]}})
SUM = schema("add", {"a": {"type": "integer"}, "b": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}})
ROWS: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "user", "content": "Weather?"}],
        "chosen": [
            {"role": "assistant", "content": "", "tool_calls": [{"name": "forecast", "arguments": {"town": "Oslo"}}]}
        ],
        "rejected": [{"role": "assistant", "content": "No idea."}],
        "tools": [TOWN, SUM],
        "note": [{"x": None, "y": 1}],
    },
    {
        "prompt": [
            {"role": "user", "content": "2 and 3?"},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"a": 2, "b": 3}}]},
            {"role": "tool", "content": "5", "name": "add"},
            {"role": "user", "content": "And now?"},
        ],
        "chosen": [{"role": "assistant", "content": "", "tool_calls": [{"name": "now", "arguments": {}}]}],
        "rejected": [{"role": "assistant", "content": "Six."}],
        "tools": [SUM, schema("now", {})],
        "note": [{"x": 2, "y": None}],
    },
]


def test_a_parquet_file_means_the_rows_it_was_made_from(tmp_path: Path) -> None:
    """Arrow gives every object of a column the fields of all the others, as null. Other columns keep their nulls."""
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    table = pyarrow.Table.from_pylist(ROWS)
    assert "None" in str(table.to_pylist()[0]["tools"])
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    chat = ChatFormat(tiny_tokenizer())
    plain, arrow = (load_preferences(str(tmp_path / name)) for name in ("d.jsonl", "d.parquet"))
    for a, b in zip(plain, arrow, strict=True):
        assert (a.prompt, a.chosen, a.rejected, a.tools, a.columns) == (
            b.prompt,
            b.chosen,
            b.rejected,
            b.tools,
            b.columns,
        )
        if str((a.prompt, a.chosen, a.tools)) == str((b.prompt, b.chosen, b.tools)):  # older Arrow sorts fields by name
            first, second = chat.encode_pair(a), chat.encode_pair(b)
            assert (first.prompt_ids, first.chosen_ids) == (second.prompt_ids, second.chosen_ids)
    pooled = [json.loads(line) for line in pooled_text([str(tmp_path / "d.parquet")]).splitlines()]
    assert [row["tools"] for row in pooled] == [row["tools"] for row in ROWS]


def test_maps_of_arrow_are_objects_and_a_null_in_jsonl_is_data(tmp_path: Path) -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"a": None}}]}
    rows = [{"messages": [{"role": "user", "content": "q"}, turn]}]
    (tmp_path / "d.jsonl").write_text(json.dumps(rows[0]))
    (kept,) = load_sft(str(tmp_path / "d.jsonl"))
    assert isinstance(kept, MessagesRow)
    assert kept.messages[1].tool_calls[0]["function"]["arguments"] == {"a": None}
    call = pyarrow.struct([("name", pyarrow.string()), ("arguments", pyarrow.map_(pyarrow.string(), pyarrow.int64()))])
    message = pyarrow.struct(
        [("role", pyarrow.string()), ("content", pyarrow.string()), ("tool_calls", pyarrow.list_(call))]
    )
    turn["tool_calls"] = [{"name": "add", "arguments": [("a", 7)]}]
    column = pyarrow.array([rows[0]["messages"]], type=pyarrow.list_(message))
    pyarrow.parquet.write_table(pyarrow.table({"messages": column}), tmp_path / "d.parquet")
    (mapped,) = load_sft(str(tmp_path / "d.parquet"))
    assert isinstance(mapped, MessagesRow)
    assert mapped.messages[1].tool_calls[0]["function"]["arguments"] == {"a": 7}


def test_which_columns_hold_messages_tools_and_calls_follows_from_what_stands_in_them() -> None:
    """As columns may have any name; what a reward reads keeps its nulls, and so do lists."""
    x = {"x": None}
    written = {
        "werkzeuge": [{"name": "f", "parameters": x}, {"name": "g", "parameters": None}],
        "schemas": [{"type": "function", "function": {"name": "f"} | x}],
        "functions": [{"name": "f"} | x],
        "expected": [{"name": "f", "arguments": {"a": 1} | x}],
        "chosen": {"role": "assistant", "tool_calls": [{"name": "f", "arguments": x}]},
        "input": {"messages": [{"role": "user", "content": "q"} | x], "seed": None},
    }
    assert from_arrow(written) == {
        "werkzeuge": [{"name": "f", "parameters": {}}, {"name": "g"}],
        "schemas": [{"type": "function", "function": {"name": "f"}}],
        "functions": [{"name": "f"}],
        "expected": [{"name": "f", "arguments": {"a": 1}}],
        "chosen": {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}]},
        "input": {"messages": [{"role": "user", "content": "q"}], "seed": None},
    }
    turns = [{"from": "human", "value": "q", "weight": None}]
    tests = [{"input": "1", "output": None}]
    row = {"talk": turns, "tests": tests, "tools": [{"enum": ["a", None], "default": None}], "answer": None}
    assert from_arrow(row) == {
        "talk": [{"from": "human", "value": "q"}],
        "tests": tests,
        "tools": [{"enum": ["a", None]}],
        "answer": None,
    }


NAMED = HEAD.replace("'\n'", "' ' + (m.name or '?') + '\n'") + "{{ m.content }}" + TAIL


def test_names_reach_the_template_and_the_records() -> None:
    made = tokenizer(NAMED)
    speakers = [("user", "Ann"), ("assistant", "Bot"), ("tool", "add"), ("user", None)]
    messages = tuple(Message(role, "x", name=name) for role, name in speakers)
    assert made.decode(ChatFormat(made).prompt_ids(messages)) == (
        "<|im_start|>user Ann\nx<|im_end|>\n<|im_start|>assistant Bot\nx<|im_end|>\n"
        "<|im_start|>tool add\nx<|im_end|>\n<|im_start|>user ?\nx<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tuple(Message.from_dict(message.to_dict()) for message in messages) == messages
    assert Message.from_dict({"role": "user", "content": "x", "name": None}) == Message("user", "x")
