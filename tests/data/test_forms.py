"""What stands in the columns of a row: pairs of an API, labels of conversations, what no text can say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain import console
from posttrain.data.check import check_data
from posttrain.data.formats import load_feedback, load_preferences, load_sft, load_tasks
from posttrain.rows import CompletionRow, MessagesRow, PreferenceRow, TextRow, UnpairedRow
from posttrain.types import InputError, Message

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
OTHER = {"role": "assistant", "content": "b"}
Q, A, B = Message("user", "q"), Message("assistant", "a"), Message("assistant", "b")
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


@pytest.fixture(autouse=True)
def _told_anew() -> None:
    console.info_once.cache_clear()


def jsonl(folder: Path, *rows: Any) -> str:
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("as_text", [False, True])
def test_pairs_of_openai(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_text: bool) -> None:
    given = {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": True}
    row = {
        "input": json.dumps(given) if as_text else given,
        "preferred_output": [ANSWER],
        "non_preferred_output": [OTHER],
    }
    (pair,) = load_preferences(jsonl(tmp_path, row))
    assert (pair.prompt, pair.chosen, pair.rejected, pair.tools) == ((Q,), (A,), (B,), (TOOL,))
    assert "read as OpenAI's pairs (prompt = input," in capsys.readouterr().err
    with pytest.raises(InputError, match=r"d\.jsonl:1: column 'input' must be an object with 'messages', not 'q'"):
        load_preferences(jsonl(tmp_path, row | {"input": "q"}))


@pytest.mark.parametrize("columns", [{"label": True}, {"label": 0.0}, {"kto_tag": False}])
def test_conversations_with_a_label(tmp_path: Path, columns: dict[str, Any]) -> None:
    talk = {"messages": [USER, ANSWER, USER, OTHER]} | columns
    shared = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "b"}]} | columns
    (row,), (short,) = (load_feedback(jsonl(tmp_path, one)) for one in (talk, shared))
    assert isinstance(row, UnpairedRow) and isinstance(short, UnpairedRow)
    assert (row.prompt, row.completion, row.label) == ((Q, A, Q), (B,), columns.get("label", False))
    assert (short.prompt, short.completion) == ((Q,), (B,))
    # the bad answers are not learnt by a run that looks at the messages alone, unless that is asked for
    with pytest.raises(InputError, match="posttrain sft needs .*dpo --loss kto; to learn from good and bad ones alike"):
        load_sft(jsonl(tmp_path, talk))
    assert isinstance(load_sft(jsonl(tmp_path, talk), {"messages": "messages"})[0], MessagesRow)
    alpaca = {"instruction": "q", "input": "", "output": "a", "kto_tag": True}
    assert isinstance(load_feedback(jsonl(tmp_path, alpaca))[0], UnpairedRow)
    assert isinstance(load_sft(jsonl(tmp_path, {"messages": [USER, ANSWER], "label": "physics"}))[0], MessagesRow)


@pytest.mark.parametrize("beside", [{"messages": [USER, ANSWER]}, {"prompt": "q", "completion": "a"}])
def test_older_functions_are_tools(tmp_path: Path, beside: dict[str, Any]) -> None:
    for functions in ([{"name": "add", "parameters": {}}], '[{"name": "add", "parameters": {}}]'):
        for tools in ({}, {"tools": []}, {"tools": None}):
            (row,) = load_sft(jsonl(tmp_path, beside | {"functions": functions} | tools))
            assert isinstance(row, MessagesRow | CompletionRow) and row.tools == (TOOL,)
    with pytest.raises(InputError, match="column 'functions' must be a list of objects"):
        load_sft(jsonl(tmp_path, beside | {"functions": "add"}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [USER, ANSWER], "images": ["a.png"]}, "column 'images' is not read, training is on text alone"),
        ({"prompt": "q", "completion": "a", "video": "a.mp4"}, "column 'video' is not read"),
        ({"messages": [USER, ANSWER], "chat_template_kwargs": {"enable_thinking": False}}, "templates get no options"),
        ({"text": "t", "tools": [TOOL]}, "'tools' cannot be offered in 'text'"),
        ({"text": "t", "role": "prompter", "parent_id": None}, "one message of a tree"),
        ({"prompt": "with the answer", "instruction": "q", "output": "a"}, "prompt=prompt,completion=output"),
        ({"question": "q", "query": "p", "answer": "a"}, "prompt=question,completion=answer"),
        ({"conversations": "[{'from': 'human', 'value': 'q'}]"}, "'conversations' holds a Python list as text"),
        ({"conversations": []}, "'messages' is an empty list"),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"d\.jsonl:1: .*{message}"):
        load_sft(jsonl(tmp_path, row))


def test_what_says_nothing_is_not_refused(tmp_path: Path) -> None:
    for nothing in (None, [], "", {}):
        row = {"messages": [USER, ANSWER], "images": nothing, "chat_template_kwargs": nothing}
        assert isinstance(load_sft(jsonl(tmp_path, row))[0], MessagesRow)
        assert isinstance(load_sft(jsonl(tmp_path, {"text": "t", "tools": nothing or None}))[0], TextRow)
    # an image may be what a reward compares an answer with
    assert load_tasks(jsonl(tmp_path, {"prompt": "Draw a square as SVG.", "image": "square.png"}))[0].columns


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "human", "value": "q"}, {"role": "gpt", "value": "a"}],
        [{"from": "human", "content": "q"}, {"from": "gpt", "content": "a"}],
        [{"from": "human", "value": "q", "content": None}, {"role": None, "from": "gpt", "value": "a"}],
    ],
)
def test_fields_of_sharegpt_in_any_mixture(tmp_path: Path, turns: list[dict[str, Any]]) -> None:
    (row,) = load_sft(jsonl(tmp_path, {"conversations": turns}))
    assert isinstance(row, MessagesRow) and row.messages == (Q, A)
    with pytest.raises(InputError, match="unknown field 'value'"):
        load_sft(jsonl(tmp_path, {"conversations": [turns[0] | {"content": "x", "value": "q"}, turns[1]]}))


PAIR = {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"prompt": "q"} | PAIR, {"completion": "chosen"}),
        (PAIR, {"messages": "chosen"}),
        ({"chosen": "a b", "rejected": "a c"}, {"text": "chosen"}),
    ],
)
def test_the_error_for_pairs_names_columns_that_train_the_chosen_ones(
    tmp_path: Path, row: dict[str, Any], names: dict[str, str]
) -> None:
    source = jsonl(tmp_path, row)
    ((field, column),) = names.items()
    with pytest.raises(InputError, match=f"to learn the chosen ones: --columns {field}={column}"):
        load_sft(source)
    (read,) = load_sft(source, names)
    assert not isinstance(read, PreferenceRow)


def test_the_error_for_tasks_names_columns_too(tmp_path: Path) -> None:
    source = jsonl(tmp_path, {"messages": [USER], "reference": "4"})
    with pytest.raises(InputError, match="where a column holds the prompt, say so: --columns prompt=COLUMN"):
        load_tasks(source)
    assert load_tasks(source, {"prompt": "messages"})[0].prompt == (Q,)
    source = jsonl(tmp_path, {"prompt": "q", "completion": "4"})
    with pytest.raises(InputError, match="--columns prompt=prompt,answer=completion"):
        load_tasks(source)
    assert load_tasks(source, {"prompt": "prompt", "answer": "completion"})[0].columns == {"answer": "4"}


def test_rows_that_are_taken_twice_are_repeated_prompts(tmp_path: Path) -> None:
    source = jsonl(tmp_path, {"prompt": "q", "completion": "a"}, {"prompt": "p", "completion": "a"})
    for text, count in ((source, 0), (f"{source}*2", 2), (f"{source},{source}*0.5", 1)):
        assert check_data(text).duplicates == count


def test_a_comma_or_star_in_the_name_of_a_file(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "q", "completion": "a"})
    names = [str(tmp_path / name) for name in ("a,b.jsonl", "c*2.jsonl", "d.jsonl")]
    for name in names:
        Path(name).write_text(row)
    for text, count in ((f"{names[0]}*2", 2), (",".join(names), 3), (f"{names[2]},{names[0]}*3, {names[1]}*2", 6)):
        assert len(load_sft(text)) == count
    for weight in ("nan", "inf", "-1", "1e3", "x"):
        with pytest.raises(InputError, match=r"what follows the \* must be a number above 0, as in .*d\.jsonl\*0\.3"):
            load_sft(f"{names[2]}*{weight}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", '[{"a": 1},\n{"a": 2}]', "at column 11; a .jsonl file has one whole object a line, and a list"),
        ("d.jsonl", '[{"a": 1}]', "not a list; a .jsonl file has one whole object a line"),
        ("d.jsonl", '{\n"a": 1}', "at column 2; a .jsonl file has one whole object a line"),
        ("d.csv", "prompt|completion\nq|a", "seems to be separated by bars"),
        ("d.csv", ",prompt,completion\n0,q,a", "column 1 of the CSV header has no name; name or remove it"),
        ("d.tsv", 'prompt\tcompletion\n"q" is\ta', "a cell that begins with a quote must be quoted whole"),
    ],
)
def test_the_message_says_what_the_form_of_a_file_should_be(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_sft(str(tmp_path / name))


def test_the_end_of_a_name_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "D.CSV").write_text("prompt,completion\nq,a\n")
    assert len(load_sft(str(tmp_path / "D.CSV"))) == 1
