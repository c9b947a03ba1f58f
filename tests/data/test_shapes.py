"""Rows as other projects write them, the names of columns, weights of sources, and the files rows come in."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from posttrain import console
from posttrain.cli.main import main
from posttrain.cli.options import parse_options
from posttrain.config import AdversarialConfig, CheckDataConfig, EvalConfig, Recipe, SftConfig
from posttrain.data import raw
from posttrain.data.builtin import builtin_tasks
from posttrain.data.check import check_data
from posttrain.data.formats import (
    load_feedback,
    load_judged,
    load_preferences,
    load_prompts,
    load_sft,
    load_tasks,
    pooled_text,
)
from posttrain.data.readers import iter_rows
from posttrain.data.sources import parse_source, split_sources, weighted
from posttrain.rewards.code.reward import code
from posttrain.rewards.math.reward import math
from posttrain.rewards.rules.ifeval import constraints
from posttrain.rows import CompletionRow, MessagesRow, PreferenceRow, StepwiseRow, TextRow, UnpairedRow
from posttrain.train.settings import data_hash
from posttrain.types import InputError, Message
from tests.recipe_helpers import check_stages


def read_rows(source: str) -> list[tuple[dict[str, Any], str]]:
    """Columns and place of every row."""
    return [(row.checked(), row.where) for row in iter_rows(source)]


@pytest.fixture(autouse=True)
def _told_anew() -> None:
    console.info_once.cache_clear()


def jsonl(folder: Path, *rows: Any, name: str = "d.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def refused(message: str) -> Any:
    return pytest.raises(InputError, match=message)


def pairs_of(source: str, names: dict[str, str] | None = None) -> list[tuple[Any, Any]]:
    return [(row.prompt, row.completion) for row in load_sft(source, names) if isinstance(row, CompletionRow)]


USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
Q, A = Message("user", "q"), Message("assistant", "a")


# Shapes


@pytest.mark.parametrize(
    ("row", "prompt", "completion", "told"),
    [
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n1 2", "3", "read as Alpaca (prompt = instr"),
        ({"instruction": "Hi", "input": "", "output": "a", "text": "Below"}, "Hi", "a", "not read: text"),
        ({"instruction": "Hi", "input": None, "output": "a"}, "Hi", "a", "read as Alpaca"),
        ({"instruction": "Sum up.", "context": "x", "response": "y"}, "Sum up.\nx", "y", "instruction/response"),
        ({"question": "q", "answer": "so\n#### 42"}, "q", "so\n#### 42", "question/answer (prompt = question, compl"),
        ({"prompt": "q", "response": "a"}, "q", "a", "read as prompt/response"),
        ({"prompt": "q", "output": "a", "id": 3}, "q", "a", "not read: id"),
        ({"input": "q", "output": "a"}, "q", "a", "input/output"),
        ({"query": "q", "response": "a", "type": "x"}, "q", "a", "query/response (prompt = query, completion = resp"),
        ({"problem": "q", "solution": "a"}, "q", "a", "problem/solution"),
        ({"question": "q", "completion": "a"}, "q", "a", "question/completion"),
        ({"prompt": json.dumps([USER]), "completion": "a"}, (Q,), "a", "prompt holds messages as JSON text"),
    ],
)
def test_questions_and_answers_under_other_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: Any, prompt: Any, completion: Any, told: str
) -> None:
    source = jsonl(tmp_path, row, row)
    assert pairs_of(source) == [(prompt, completion)] * 2
    said = capsys.readouterr().err
    assert said.startswith(f"{source}: ") and told in said and said.count("\n") == 1
    load_sft(source)
    assert capsys.readouterr().err == ""


def test_rows_of_our_own_columns_are_read_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_sft(jsonl(tmp_path, {"messages": [USER, ANSWER], "source": "x"}))
    load_sft(jsonl(tmp_path, {"prompt": "[1] is what?", "completion": '{"a": 1}', "answer": 3}))
    load_tasks(jsonl(tmp_path, {"prompt": "q", "answer": "a"}, {"prompt": "p", "answer": "a"}))
    assert capsys.readouterr().err == ""


def test_system_and_history_stand_before_the_question(tmp_path: Path) -> None:
    system, before = Message("system", "Be brief."), (Message("user", "q0"), Message("assistant", "a0"))
    row = {"instruction": "q", "input": "", "output": "a", "system": "Be brief.", "history": [["q0", "a0"]]}
    # answers of the history are trained too
    assert pairs_of(jsonl(tmp_path, row)) == [((system, before[0]), (before[1], Q, A))]
    assert pairs_of(jsonl(tmp_path, row | {"history": [], "system": ""})) == [("q", "a")]
    assert pairs_of(jsonl(tmp_path, {"prompt": "q", "completion": "a", "system": "Be brief."})) == [((system, Q), "a")]
    assert load_tasks(jsonl(tmp_path, row))[0].prompt == (system, *before, Q)
    (talk,) = load_sft(jsonl(tmp_path, {"messages": [USER, ANSWER], "system": "Be brief."}))
    assert isinstance(talk, MessagesRow) and talk.messages == (system, Q, A)
    own = [{"role": "system", "content": "Be long."}, USER, ANSWER]
    with refused("'system' beside another system message in 'messages'"):
        load_sft(jsonl(tmp_path, {"messages": own, "system": "Be brief."}))
    with refused("'system' must be text, the system message, not 3"):
        load_sft(jsonl(tmp_path, {"messages": own, "system": 3}))
    with refused("'history' must be a list of pairs"):
        load_sft(jsonl(tmp_path, row | {"history": ["q0"]}))


def test_sharegpt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = [
        {"from": "system", "value": "s", "weight": None},
        {"from": "human", "value": "q", "weight": 0.0},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "a", "weight": 1.0},
    ]
    schema = {"type": "function", "function": {"name": "add"}}
    source = jsonl(tmp_path, {"conversations": talk, "tools": json.dumps([schema]), "id": "x"})
    (row,) = load_sft(source)
    assert isinstance(row, MessagesRow) and row.tools == (schema,)
    call = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
    assert row.messages == (
        Message("system", "s"),
        Q,
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "2"),
        A,
    )
    assert f"{source}: read as ShareGPT (messages = conversations)" in capsys.readouterr().err
    for value in ([USER, ANSWER], json.dumps([USER, ANSWER])):
        (row,) = load_sft(jsonl(tmp_path, {"conversations": value}))
        assert isinstance(row, MessagesRow) and row.messages == (Q, A)
    chosen, rejected = {"from": "gpt", "value": "a"}, {"from": "gpt", "value": "b"}
    pair = jsonl(tmp_path, {"conversations": talk[1:2], "chosen": chosen, "rejected": rejected})
    (judged,) = load_preferences(pair)
    assert (judged.prompt, judged.chosen, judged.rejected) == ((Q,), (A,), (Message("assistant", "b"),))
    with refused("message 2: a function_call must be the JSON of a name and arguments"):
        load_sft(jsonl(tmp_path, {"conversations": [talk[1], {"from": "function_call", "value": "[1]"}]}))


def test_pairs_with_other_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {"chosen": "a", "rejected": "b"}
    (orca,) = load_preferences(jsonl(tmp_path, base | {"system": "s", "question": "q"}))
    assert (orca.prompt, orca.chosen, orca.rejected) == ((Message("system", "s"), Q), "a", "b")
    (alpaca,) = load_preferences(jsonl(tmp_path, base | {"instruction": "q", "input": "x", "margin": 2}))
    assert (alpaca.prompt, alpaca.columns) == ("q\nx", {"margin": 2})
    whole = {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER | {"content": "b"}]}
    scores = {"score_chosen": 8.0, "score_rejected": 2.0, "messages": [USER, ANSWER]}
    (binarized,) = load_preferences(jsonl(tmp_path, {"prompt": "q"} | whole | scores))
    assert (binarized.prompt, binarized.chosen) == ((Q,), (A,))
    capsys.readouterr()
    dialogue = "\n\nHuman: q\n\nAssistant:"
    (text,) = load_preferences(jsonl(tmp_path, {"chosen": dialogue + " a", "rejected": dialogue + " b"}))
    assert (text.prompt, text.chosen) == (dialogue, " a")
    assert "read as transcripts (prompt = what both begin with" in capsys.readouterr().err
    as_text = {name: json.dumps(value) for name, value in whole.items()}
    (text,) = load_preferences(jsonl(tmp_path, as_text))
    assert (text.prompt, text.chosen) == ((Q,), (A,))


def test_tasks_keep_their_answer_as_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = jsonl(tmp_path, {"question": "6*7?", "answer": "6*7 = <<6*7=42>>42\n#### 42"})
    (task,) = load_tasks(source)
    assert (task.prompt, set(task.columns)) == ("6*7?", {"answer"})
    assert f"{source}: read as tasks (prompt = question)" in capsys.readouterr().err
    assert math("It is \\boxed{42}", task.columns["answer"]) == 1
    assert math("#### 1080", "so\n#### 1,080") == 1 and math("#### 41", task.columns["answer"]) == 0
    # what fits several answers is no completion by itself, and a task for all that
    several = jsonl(tmp_path, {"problem": "q", "solution": "long", "answer": "4"}, name="several.jsonl")
    assert set(load_tasks(several)[0].columns) == {"solution", "answer"}
    with refused("Such rows fit posttrain rl .*--columns completion=COLUMN"):
        load_sft(several)
    assert pairs_of(several, {"prompt": "problem", "completion": "solution"}) == [("q", "long")]
    assert check_data(several).kind == "task"
    for answer in (42, ["a", "b"], {"A": 1}):  # a reference and nothing to write
        assert check_data(jsonl(tmp_path, {"question": "q", "answer": answer}, name="other.jsonl")).kind == "task"
    assert check_data(source).kind == "completion"
    (prompted,) = load_prompts(source)
    assert isinstance(prompted, CompletionRow)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "query": "p", "answer": "a"}, "'question' and 'query' could each be the prompt; say which,"),
        ({"question": "q", "answer": "a", "text": "t"}, "'text' and 'question' and 'answer' could each be the row"),
        ({"question": "q", "context": "c", "answer": "a"}, "'context' beside 'question': write both into one"),
        ({"prompt": "q", "answer": "a"}, "--columns completion=COLUMN"),
        ({"question": "q"}, "fits no method.*--columns prompt=question"),
        ({"messages": [USER, ANSWER], "text": "x"}, "ambiguous.*--columns messages=messages"),
        ({"prompt": "[{'role': 'user', 'content': 'q'}]", "completion": "a"}, "'prompt' holds a Python list as text"),
        ({"messages": "[{'role'"}, "'messages' is not JSON"),
    ],
)
def test_nothing_is_guessed(tmp_path: Path, row: Any, message: str) -> None:
    with refused(rf"d\.jsonl:1: .*{message}"):
        load_sft(jsonl(tmp_path, row))


def test_null_columns_of_other_kinds_say_nothing(tmp_path: Path) -> None:
    nulls = dict.fromkeys(("messages", "prompt", "completion", "text", "chosen", "rejected", "system", "tools"))
    for row, kind in (
        ({"messages": [USER, ANSWER]}, MessagesRow),
        ({"prompt": "q", "completion": "a"}, CompletionRow),
        ({"text": "t"}, TextRow),
    ):
        assert isinstance(load_sft(jsonl(tmp_path, nulls | row))[0], kind)
    with refused("'completion' must be text or a list of messages, not null"):
        load_sft(jsonl(tmp_path, {"prompt": "q", "completion": None, "text": None}))


def test_the_examples_of_the_manual_are_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    examples = re.findall(r"^```json\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(examples) > 9
    path = tmp_path / "d.jsonl"
    for example in examples:
        # conversations alone and as the prompt of a pair are rows of two kinds
        for lines in example.splitlines() if "conversations" in example else [example]:
            path.write_text(lines)
            assert check_data(str(path)).problems == ()


# Messages


def test_fields_of_messages_from_an_api(tmp_path: Path) -> None:
    nulls = dict.fromkeys(("refusal", "audio", "function_call", "tool_calls", "annotations", "weight", "other"))
    kept = {"id": "m1", "annotations": [{"url": "x"}], "refusal": "", "reasoning_content": "r"}
    parts = [{"type": "text", "text": "a", "image_url": None}, {"type": "output_text", "text": "b"}]
    (row,) = load_sft(jsonl(tmp_path, {"messages": [USER | nulls, ANSWER | kept | {"content": parts}]}))
    assert isinstance(row, MessagesRow) and row.messages == (Q, Message("assistant", "ab", reasoning="r"))
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": {}}}
    functions = {"functions": [{"name": "f"}]}
    (row,) = load_sft(
        jsonl(tmp_path, {"messages": [USER, old, {"role": "function", "content": "1"}, ANSWER]} | functions)
    )
    assert isinstance(row, MessagesRow) and row.tools == ({"type": "function", "function": {"name": "f"}},)
    assert [m.role for m in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert row.messages[1].tool_calls == ({"type": "function", "function": old["function_call"]},)
    for field, message in (
        ({"refusal": "no"}, "unknown field 'refusal'"),
        ({"train": False}, "unknown field 'train'"),
        ({"content": [{"type": "image_url", "image_url": {}}]}, "part 1 of the content is of type 'image_url'"),
        ({"content": []}, "no 'content'"),
        ({"weight": 0.5}, "'weight' must be 0 .* or 1, not 0.5"),
    ):
        with refused(rf"d\.jsonl:1: column 'messages', message 2: .*{message}"):
            load_sft(jsonl(tmp_path, {"messages": [USER, ANSWER | field]}))


def test_weight_0_is_not_trained(tmp_path: Path) -> None:
    other = ANSWER | {"content": "b"}
    off, b = {"weight": 0}, Message("assistant", "b")

    def read(*messages: Any) -> Any:
        return load_sft(jsonl(tmp_path, {"messages": messages}))[0]

    row = read(USER, ANSWER | off, USER, other | {"weight": 1})
    assert (row.prompt, row.completion) == ((Q, A, Q), (b,))
    row = read(USER, ANSWER, USER, other | off)
    assert (row.prompt, row.completion) == ((Q,), (A,))
    assert isinstance(read(USER | off, ANSWER), MessagesRow)
    with refused("message 4: has weight 0 between messages that are trained"):
        read(USER, ANSWER, USER, other | off, USER, ANSWER)
    with refused("every message from the assistant has weight 0"):
        read(USER, ANSWER | off)
    with refused("'chosen', message 1: has weight 0"):
        load_preferences(jsonl(tmp_path, {"prompt": "q", "chosen": [ANSWER | off], "rejected": [other]}))
    talk = [USER, ANSWER | off, USER]
    assert pairs_of(jsonl(tmp_path, {"prompt": talk, "completion": [other]})) == [((Q, A, Q), (b,))]


@pytest.mark.parametrize(
    ("label", "meaning"),
    [(1.0, True), (0.0, False), (1, True), (False, False), ("True", True), ("0.0", False), ("1", True)],
)
def test_labels(tmp_path: Path, label: Any, meaning: bool) -> None:
    (row,) = load_feedback(jsonl(tmp_path, {"question": "q", "answer": "a", "label": label}))
    assert isinstance(row, UnpairedRow) and (row.prompt, row.completion, row.label) == ("q", "a", meaning)


@pytest.mark.parametrize("label", [0.5, 2, -1, "yes", "", None, [1]])
def test_labels_that_say_something_else(tmp_path: Path, label: Any) -> None:
    with refused("column 'label' must be true or false"):
        load_feedback(jsonl(tmp_path, {"prompt": "q", "completion": "a", "label": label}))


def test_lists_as_json_text(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["messages", "tools"], [json.dumps([USER, ANSWER]), '[{"name": "f"}]']])
    (row,) = load_sft(str(path))
    assert isinstance(row, MessagesRow) and (row.messages, row.tools) == ((Q, A), ({"name": "f"},))
    _, steps = load_judged(jsonl(tmp_path, {"prompt": "q", "steps": '["x", "y"]', "labels": "[1, 0.5]"}))
    assert steps == [StepwiseRow(str(tmp_path / "d.jsonl") + ":1", "q", ("x", "y"), (1.0, 0.5))]
    with refused("column 'labels' is not JSON: '.1;0.'"):
        load_judged(jsonl(tmp_path, {"prompt": "q", "steps": ["x", "y"], "labels": "[1;0]"}))
    assert constraints("fine", '[{"kind": "no_comma"}]') == 1  # type: ignore[arg-type]
    assert constraints("a, b", None, '["punctuation:no_comma"]', "[{}]") == 0  # type: ignore[arg-type]
    for text in ("2", '["assert f(1)"]', '{"input": []}', "x"):
        with refused("column 'cases'"):
            code("```python\npass\n```", cases=text)  # type: ignore[arg-type]
        with refused("column 'constraints'"):
            constraints("fine", text)  # type: ignore[arg-type]


def test_cases_as_json_text() -> None:
    program = "```python\nprint(2 * int(input()))\n```"
    assert code(program, cases='[{"stdin": "2", "stdout": "4"}, {"stdin": "3", "stdout": "5"}]') == 0.5  # type: ignore[arg-type]


# Names of columns


def test_columns(tmp_path: Path) -> None:
    source = jsonl(tmp_path, {"q": "1+1?", "sol": "2", "prompt": "ignored", "text": "t", "level": 3})
    assert pairs_of(source, {"prompt": "q", "completion": "sol"}) == [("1+1?", "2")]
    (task,) = load_tasks(source, {"prompt": "q", "answer": "sol"})
    assert (task.prompt, task.columns) == ("1+1?", {"level": 3, "answer": "2"})
    assert load_sft(source, {"text": "text"}) == [TextRow(f"{source}:1", "t")]
    with refused(r"--columns: .*d\.jsonl has no column 'levl'; did you mean 'level'\? It has q, sol, prompt, text"):
        load_sft(source, {"prompt": "levl"})
    with refused(r"has no column 'zzz'\. It has q, sol"):
        load_sft(source, {"messages": "zzz"})
    swapped = jsonl(tmp_path, {"prompt": "q", "chosen": "a", "rejected": "b"})
    assert load_preferences(swapped, {"chosen": "rejected", "rejected": "chosen"})[0].chosen == "b"
    both = jsonl(tmp_path, {"messages": [USER, ANSWER], "text": "t", "prompt": "p", "completion": "c"})
    assert isinstance(load_sft(both, {"messages": "messages"})[0], MessagesRow)
    assert pairs_of(both, {"completion": "completion"}) == [("p", "c")]
    alpaca = jsonl(tmp_path, {"instruction": "q", "output": "a", "kto_tag": True})
    assert [row.prompt for row in load_feedback(alpaca, {"label": "kto_tag"})] == ["q"]
    # of several files, and of held-out data, those that have none of the columns are read as they stand
    own = jsonl(tmp_path, {"prompt": "q", "completion": "a"}, name="own.jsonl")
    named = jsonl(tmp_path, {"question": "r", "sol": "b"}, name="named.jsonl")
    names = {"prompt": "question", "completion": "sol"}
    assert pairs_of(f"{own},{named}", names) == [("q", "a"), ("r", "b")]
    assert len(load_sft(own, names, optional=True)) == 1
    with refused(r"own\.jsonl has no column 'question'\. It has prompt, completion"):
        load_sft(own, names)
    with refused(r"named\.jsonl has no column 'soll'; did you mean 'sol'"):
        load_sft(f"{own},{named}", names | {"completion": "soll"}, optional=True)


def test_the_option_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = parse_options(CheckDataConfig, ["F", "--columns", "prompt=a b,completion=x"], "p", {"file": "FILE"})
    assert config.columns == {"prompt": "a b", "completion": "x"}
    given = SftConfig(model="m", data="d", out=Path("o"), columns={"prompt": "q"})  # as recipes and config.yaml say it
    assert given.model_dump(mode="json")["columns"] == {"prompt": "q"}
    assert EvalConfig(model="m", data="d", reward=("math",)).columns is None
    for wrong, said in (
        ("prompt", "must be FIELD=COLUMN"),
        ("a=b,a=c", "must name each field once, and names a twice"),
        ("a=", "must be FIELD"),
    ):
        with refused(f"--columns {said}"):
            parse_options(CheckDataConfig, ["F", "--columns", wrong], "p", {"file": "FILE"})
    source = jsonl(tmp_path, {"q": "1+1?", "a": "\\boxed{2}", "gold": "2"})
    assert main(["check-data", source]) == 1
    assert main(["check-data", source, "--columns", "prompt=q,completion=a", "--against", source]) == 0
    assert "1 completion rows" in capsys.readouterr().out
    names = "prompt=q,completion=a,answer=gold"
    assert main(["score", "--reward", "math", "--data", source, "--columns", names]) == 0
    assert '"score": 1.0' in capsys.readouterr().out
    assert main(["score", "--reward", "math", "--data", source]) == 2
    assert "give --columns prompt=COLUMN" in capsys.readouterr().err


# Sources


def test_what_a_source_says(tmp_path: Path) -> None:
    assert parse_source("owner/name?split=test&revision=v1*0.5").weight == 0.5
    assert parse_source("owner/name?split=test&revision=v1*2").options == {"split": "test", "revision": "v1"}
    odd = jsonl(tmp_path, {"text": "a"}, name="a,b*2.jsonl")
    assert split_sources(odd) == [odd] and parse_source(odd).name == odd
    assert len(read_rows(odd)) == 1
    for wrong, message in (("d.jsonl*0", "must be above 0"), ("o/n?split=a&split=b", "given twice")):
        with refused(message):
            parse_source(wrong)
    with refused("an empty name between commas"):
        split_sources("a.jsonl,,b.jsonl")


def test_a_weight_draws_a_share_without_replacement() -> None:
    share = weighted(100, 0.3)
    assert len(set(share)) == 30 and share == sorted(share) and share == weighted(100, 0.3)
    assert set(share) < set(weighted(100, 0.31))
    taken = weighted(10, 2.5)
    assert taken[:20] == [(i, copy) for copy in (0, 1) for i in range(10)]
    assert taken[20:] == [(i, 2) for i, _ in weighted(10, 0.5)]
    assert len(weighted(3, 0.01)) == 1 and len(weighted(3, 2.01)) == 6


def test_weighed_and_joined_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = jsonl(tmp_path, *({"prompt": f"p{i}", "answer": i} for i in range(10)), name="a.jsonl")
    second = jsonl(tmp_path, {"prompt": "x", "answer": 0, "id": "n"}, name="b.jsonl")
    tasks = load_tasks(f"{first}*0.3")
    assert all(task.id == str(task.columns["answer"]) for task in tasks) and len(tasks) == 3
    assert f"{first}*0.3: 3 rows of the 10 there are" in capsys.readouterr().err
    assert [task.id for task in load_tasks(f"{second}*3")] == ["n", "n#2", "n#3"]
    assert len({task.id for task in load_tasks(f"{first}*2")}) == 20
    joined = f"{first}*0.3, {second}"
    assert [row.where.rpartition("/")[2][:7] for row in iter_rows(joined)] == ["a.jsonl"] * 3 + ["b.jsonl"]
    assert len({task.id for task in load_tasks(joined)}) == 4
    assert data_hash(f"{first}*0.3") == data_hash(first) != data_hash(joined) is not None
    before = data_hash(joined)
    Path(second).write_text('{"prompt": "y", "answer": 0, "id": "n"}\n')
    assert data_hash(joined) != before and data_hash("owner/name*0.5") is None
    with refused("no such file: .*c.jsonl"):
        iter_rows(f"{first},c.jsonl")


def test_pooled_sources_are_written_in_our_columns(tmp_path: Path) -> None:
    alpaca = jsonl(tmp_path, {"instruction": "i", "output": "o"}, name="a.jsonl")
    other = jsonl(tmp_path, *({"task": f"t{i}", "result": "r"} for i in range(4)), name="b.jsonl")
    text = pooled_text([f"{other}*0.5", alpaca], {"prompt": "task", "completion": "result"})
    rows = [json.loads(line) for line in text.splitlines()]
    assert [set(row) for row in rows] == [{"prompt", "completion"}] * 3 and rows[2] == {
        "prompt": "i",
        "completion": "o",
    }


def test_built_in_tasks_can_be_weighed() -> None:
    name = "reasoning-gym:chain_sum?size=6&seed=7&min_terms=2&max_terms=2&max_digits=1"
    whole = builtin_tasks(name)
    assert builtin_tasks(f"{name}*0.5") == [whole[i] for i, _ in weighted(6, 0.5)]
    assert len({task.id for task in builtin_tasks("humaneval*1.5")}) == 164 + 82


# Files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl.gz", '{"a": "1"}\n'),
        ("d.json.gz", '[{"a": "1"}]'),
        ("d.csv.gz", "a\n1\n"),
        ("d.tsv.gz", "a\n1\n"),
        ("d.tsv", "a\n1\n"),
        ("d.json", '{"version": 2, "train": [{"a": "1"}]}'),
    ],
)
def test_files_of_rows(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    assert [columns for columns, _ in read_rows(str(path))] == [{"a": "1"}]


def test_packed_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.jsonl.gz"
    for content in (b"plain", gzip.compress(b'{"a": 1}\n' * 99)[:-9]):
        path.write_bytes(content)
        with refused("not a whole gzip file"):
            read_rows(str(path))
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 99))
    monkeypatch.setattr(raw, "UNPACKED_BYTES", 100)
    with refused("unpacks to more than"):
        read_rows(str(path))
    (tmp_path / "d.parquet.gz").write_bytes(b"")
    with refused("cannot read files ending in '.gz'; use one of .jsonl"):
        read_rows(str(tmp_path / "d.parquet.gz"))


def test_tables(tmp_path: Path) -> None:
    tabs = tmp_path / "d.tsv"
    tabs.write_text('prompt\tcompletion\n"a\tb, c"\td;e\n')
    assert read_rows(str(tabs)) == [({"prompt": "a\tb, c", "completion": "d;e"}, f"{tabs}:2")]
    table = tmp_path / "d.csv"
    for content, word in (("prompt;completion\na,b;c\n", "semicolons"), ("prompt\tcompletion\na\tb\n", "tabs")):
        table.write_text(content)
        with refused(rf"d\.csv:1: the header is one column, .* separated by {word}; save the table with commas"):
            read_rows(str(table))
    tabs.write_text("prompt,completion\na,b\n")
    with refused("separated by commas; save the table with tabs, or name the file .csv"):
        read_rows(str(tabs))
    limit = csv.field_size_limit()
    long = io.StringIO()
    csv.writer(long).writerows([["text"], ["x" * 200_000], ["y"]])
    table.write_text(long.getvalue())
    assert [len(columns["text"]) for columns, _ in read_rows(str(table))] == [200_000, 1]
    assert csv.field_size_limit() == limit


def test_splits_of_a_json_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.json"
    path.write_text('{"n": 1,\n "train": [\n{"a": 1},\n{"a": 2}],\n "test": [{"a": 3}]}')
    assert read_rows(f"{path}?split=train") == [({"a": 1}, f"{path}:3"), ({"a": 2}, f"{path}:4")]
    assert read_rows(f"{path}?split=test*2") == [({"a": 3}, f"{path}:5")] * 2
    assert data_hash(f"{path}?split=test") == data_hash(str(path)) is not None
    for source, message in (
        (f"{path}", r"has several lists, 'train', 'test'; choose one, as in .*d\.json\?split=train"),
        (f"{path}?split=dev", "has no list 'dev', but 'train', 'test'"),
        (f"{path}?config=x", r"unknown option 'config'; a file takes \?split"),
    ):
        with refused(message):
            read_rows(source)
    path.write_text('{"rows": [{"a": 1}]}')
    read_rows(str(path))
    assert "d.json: read the rows of 'rows'" in capsys.readouterr().err
    for content in ('{"messages": [{"role": "user", "content": "q"}]}', "{}", '{"a": [1]}', '{"a": [{"b": 1}]} x'):
        path.write_text(content)
        with refused("must hold one list of objects"):
            read_rows(str(path))
    path.write_text('{"a": [{"b": 1}],\n "c" [1]}')
    with refused(r"d\.json:2: broken JSON: Expecting ':'"):
        read_rows(str(path))


@pytest.mark.parametrize(
    ("split", "taken"),
    [
        ("train[:90%]", [0, 1, 2, 3, 4, 5]),  # 6.3 of 7 rows
        ("train[90%:]", [6]),
        ("[:50%]", [0, 1, 2, 3]),  # 3.5
        ("[-50%:]", [4, 5, 6]),
        ("train[2:4]", [2, 3]),
        ("train[-2:]", [5, 6]),
        ("train[:100]", [0, 1, 2, 3, 4, 5, 6]),
        ("train", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_part_of_a_file(tmp_path: Path, split: str, taken: list[int], kind: str) -> None:
    path = tmp_path / f"d.{kind}"
    rows = [{"text": f"row {i}"} for i in range(7)]
    lines = "\n".join(json.dumps(row) for row in rows)
    path.write_text(
        {"jsonl": lines, "json": json.dumps(rows), "csv": "text\n" + "\n".join(r["text"] for r in rows)}[kind]
    )
    assert [row["text"] for row, _ in read_rows(f"{path}?split={split}")] == [f"row {i}" for i in taken]


def test_the_two_parts_of_a_file_make_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    for count in range(5, 60):
        path.write_text("".join(f'{{"text": "{i}"}}\n' for i in range(count)))
        for share in (50, 75, 37):
            parts = [read_rows(f"{path}?split=train[{part}]") for part in (f":{share}%", f"{share}%:")]
            assert [row["text"] for row, _ in (*parts[0], *parts[1])] == [str(i) for i in range(count)]


def test_a_part_of_a_file_of_which_the_rest_cannot_be_read(tmp_path: Path) -> None:
    """How many rows there are is not known, and so not which are the first half; a bad line of JSONL ends nothing."""
    for name, text in (
        ("d.json", '[{"text": "a"}, {"text": "b"}, {"text"'),
        ("e.json", '[{"text": "a"}, {"text": "b"} {"text": "c"}]'),
        ("d.csv", 'text\na\nb\n"c"x\nd\n'),
    ):
        (tmp_path / name).write_text(text)
        for part in ("[:50%]", "[:1]"):
            with pytest.raises(InputError, match=rf"{name}:\d: broken"):
                read_rows(f"{tmp_path / name}?split=train{part}")
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text"\n{"text": "d"}\n')
    assert [row["text"] for row, _ in read_rows(f"{tmp_path / 'd.jsonl'}?split=train[:50%]")] == ["a", "b"]


def test_a_part_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a"}\n')
    for split, message in (
        ("train[:", r"cannot read split=train\[:; write NAME, NAME\[:90%\]"),
        ("train[:101%]", "cannot read split"),
        ("test", r"a \.jsonl file has no split 'test'; leave \?split= out, or take a part of it as train\[:90%\]"),
        ("train[5:]", "the slice takes none of the 1 rows"),
    ):
        with refused(message):
            read_rows(f"{path}?split={split}")


def test_hub_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load_dataset(path: str, name: str | None = None, *, split: str, revision: str | None = None) -> list[Any]:
        asked.append((path, name, split, revision))
        return [{"question": "q", "answer": "a"}] * 4

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = load_sft("owner/name?config=main&split=train[:4]&revision=abc*0.5")
    assert asked == [("owner/name", "main", "train[:4]", "abc")]
    assert len(rows) == 2 and all(row.where.startswith("owner/name:") for row in rows)
    load_sft("owner/name")
    assert asked[1] == ("owner/name", None, "train", None)
    with refused("unknown option 'rev'; a hub id takes .*&revision=…"):
        load_sft("owner/name?rev=abc")


def test_preferences_keep_their_place(tmp_path: Path) -> None:
    source = jsonl(tmp_path, {"question": "q", "chosen": "a", "rejected": "b"})
    assert load_preferences(source) == [PreferenceRow(f"{source}:1", "q", "a", "b")]


def test_adversarial_rounds_read_the_columns_that_were_named(tmp_path: Path) -> None:
    from posttrain.runs.log import RunLog
    from posttrain.train.reward_model.adversarial import _in_our_columns, _round

    data = jsonl(tmp_path, {"question": "q", "good": "a", "bad": "b"})
    held_out = jsonl(tmp_path, {"prompt": "r", "chosen": "a", "rejected": "b"}, name="held_out.jsonl")
    names = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    config = AdversarialConfig(
        model="m", data=data, out=tmp_path / "run", eval_data=held_out, eval_every=1, columns=names
    )
    with RunLog(config.out, {}, False) as log:
        own = _in_our_columns(config, load_preferences(data, names), log)
    inner = _round(own, 0, own.data)
    assert inner.columns is None and inner.data != data
    assert [row.chosen for row in load_preferences(inner.data)] == ["a"]
    assert [row.prompt for row in load_preferences(str(inner.eval_data))] == ["r"]


def test_recipes_weigh_earlier_stages_and_pool_by_columns(tmp_path: Path) -> None:
    demos = {"method": "sample", "parent": "start", "data": "t.jsonl", "reward": ["math"], "samples": 2}
    sft = {"method": "sft", "parent": "start", "data": ["demos*0.5", "own.jsonl*2"], "columns": {"prompt": "task"}}
    evaluate = {"data": "t.jsonl", "reward": ["math"]}

    def stage(**options: Any) -> Any:
        stages = {"demos": demos, "sft": sft | options}
        return check_stages(Recipe(model="m", evaluate=evaluate, stages=stages), tmp_path)[1]  # type: ignore[arg-type]

    assert [source.path(tmp_path) for source in stage().data] == [
        f"{tmp_path}/demos/sft.jsonl*0.5",
        "own.jsonl*2",
    ]
    assert stage().data_stages == ("demos",) and stage().columns == {"prompt": "task"}
    assert stage().config(tmp_path, "m", 0, None).columns is None  # the pooled file has our columns
    held_out = stage(eval_data="held_out.jsonl", eval_every=1).config(tmp_path, "m", 0, None)
    assert held_out.columns is None and held_out.eval_data == f"{tmp_path}/_pooled/sft-eval_data.jsonl"
    assert stage(data="demos*0.5").config(tmp_path, "m", 0, None).columns == {"prompt": "task"}
    with refused("stage sft: data is demos\\*x; the weight after \\* is a number above 0"):
        stage(data=["demos*x"])
    with refused("stage sft: columns: must be FIELD=COLUMN"):
        stage(columns="task")
