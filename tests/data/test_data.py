from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from posttrain.cli.main import main
from posttrain.data import builtin
from posttrain.data.builtin import builtin_tasks, drop_overlap, parse_gym
from posttrain.data.check import Overlap, Spread, check_data, format_report
from posttrain.data.formats import load_preferences, load_prompts, load_sft, load_tasks
from posttrain.data.gym_items import distinct_items, make_dataset
from posttrain.data.readers import iter_rows
from posttrain.rows import CompletionRow, MessagesRow, PreferenceRow, TextRow
from posttrain.types import InputError, Message, Task

DRAWN = builtin._drawn


def read_rows(source: str) -> list[tuple[dict[str, Any], str]]:
    """Columns and place of every row."""
    return [(row.checked(), row.where) for row in iter_rows(source)]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def jsonl(folder: Path, *rows: Any, name: str = "d.jsonl") -> str:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def refused(message: str) -> Any:
    return pytest.raises(InputError, match=message)


# Readers


def test_jsonl_skips_blank_lines_counts_them_and_keeps_unicode_line_separators(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n' + '{"a": "x\u2028y"}'.encode())
    assert read_rows(str(path)) == [({"a": 1}, f"{path}:1"), ({"a": "x\u2028y"}, f"{path}:4")]


def test_json_list_names_the_line_each_object_begins_on(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('[\n  {"a": 1},\n\n  {"a":\n 2},\n{"a": 3}]')
    assert read_rows(str(path)) == [({"a": 1}, f"{path}:2"), ({"a": 2}, f"{path}:4"), ({"a": 3}, f"{path}:6")]


def test_csv_names_the_first_line_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('prompt,answer\n"two\nlines",2\n\n"a, b",3\n')
    rows = [({"prompt": "two\nlines", "answer": "2"}, f"{path}:2"), ({"prompt": "a, b", "answer": "3"}, f"{path}:5")]
    assert read_rows(str(path)) == rows


def test_parquet(tmp_path: Path) -> None:
    path = str(tmp_path / "d.parquet")
    messages = [user("q"), assistant("a")]
    table = pyarrow.Table.from_pylist([{"messages": messages}, {"messages": messages}])
    pyarrow.parquet.write_table(table, path)
    assert [row.where for row in load_sft(path) if isinstance(row, MessagesRow)] == [f"{path}:1", f"{path}:2"]
    Path(path).write_bytes(b"PAR?")
    with refused("not a Parquet file"):
        read_rows(path)
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["p", "q"], "x": [0.5, float("nan")]}), path)
    with refused(r"d\.parquet:2: column 'x' holds nan, .* use null"):
        read_rows(path)


@pytest.mark.parametrize(
    ("name", "content"), [("d.jsonl", '{"a": "1"}\n'), ("d.json", '[{"a": "1"}]'), ("d.csv", "a\n1\n")]
)
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert [columns for columns, _ in read_rows(str(tmp_path / name))] == [{"a": "1"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b'{"a": 1}\n{"a": \n', r"d\.jsonl:2: broken JSON: .* column"),
        ("d.jsonl", b'{"a": 1}\n[1]\n', r"d\.jsonl:2: .* must be a JSON object .* not a list"),
        ("d.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n', r"d\.jsonl:2: .*'a' stands twice"),
        ("d.jsonl", b'{"a": NaN}\n', r"d\.jsonl:1: .*NaN is not JSON"),
        ("d.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"d\.jsonl:2: not UTF-8 \(byte 0xff\)"),
        ("d.jsonl", b'{"a": [{"b": "\\ud83d"}]}\n', r"d\.jsonl:1: column 'a' holds half a character .*U\+D83D"),
        ("d.jsonl", b'{"a": 1, "\\udc00": 1}\n', r"d\.jsonl:1: column '\\udc00' holds half a character"),
        ("d.jsonl", b'{"a": 1}\n{"a": %s}\n' % (b"9" * 5000), r"d\.jsonl:2: broken JSON: a number of 5000 digits"),
        ("d.jsonl", b'{"a": 1e999}\n', r"d\.jsonl:1: column 'a' holds inf, .* use null"),
        ("d.jsonl", b" \n", "is empty"),
        ("d.json", b'[{"a": 1},\n{"a": %s}]' % (b"9" * 5000), r"d\.json:2: broken JSON: a number of 5000 digits"),
        ("d.json", b"\xef\xbb\xbf", "must hold one list"),
        ("d.json", b"[]", "has no rows"),
        ("d.json", b'{"a": 1}\n{"a": 2}\n', r"must hold one list .* \.jsonl"),
        ("d.json", b'[{"a": 1},\n{"a" 2}]', r"d\.json:2: broken JSON"),
        ("d.json", b'[{"a": 1},\n"x"]', r"d\.json:2: .* not a string"),
        ("d.json", b'[{"a": 1}\n{"a": 2}]', r"d\.json:2: .*expected ','"),
        ("d.json", b'[{"a": 1},\n', r"d\.json:2: broken JSON"),
        ("d.json", b'[{"a": "\n\xff"}]', r"d\.json:2: not UTF-8"),
        ("d.csv", b"a,b,a\n1,2,3\n", r"d\.csv:1: .* names 'a' twice"),
        ("d.csv", b"a,,b\n1,2,3\n", r"d\.csv:1: column 2 .* no name"),
        ("d.csv", b"a,b\n1,2\n1,2,3\n", r"d\.csv:3: 3 cells, but the header has 2"),
        ("d.csv", b'a,b\n1,"x\n', r"d\.csv:2: broken CSV"),
        ("d.csv", b"a,b\n", "has no rows"),
        ("d.txt", b"a", r"cannot read files ending in '\.txt'"),
    ],
)
def test_unreadable_files_name_file_and_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with refused(message):
        read_rows(str(tmp_path / name))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with refused("is a directory"):
        read_rows(str(tmp_path))
    for missing in ("no/such.jsonl", "nothing", str(tmp_path / "x")):
        with refused("no such file: "):
            read_rows(missing)
    with refused("unknown option 'part'"):
        read_rows("owner/name?part=1")


# Rows


def test_sft_rows_of_every_form(tmp_path: Path) -> None:
    talk = [user("q"), assistant("a")]
    turns = (Message("user", "q"), Message("assistant", "a"))
    tools = [{"name": "add"}]
    messages = jsonl(tmp_path, {"messages": talk, "tools": tools, "id": 7}, {"messages": talk, "tools": None})
    assert load_sft(messages) == [
        MessagesRow(f"{messages}:1", turns, tuple(tools)),
        MessagesRow(f"{messages}:2", turns),
    ]
    pairs = jsonl(
        tmp_path,
        {"prompt": "q", "completion": " a"},
        {"prompt": [user("q")], "completion": "a"},
        {"prompt": "q", "completion": [assistant("a")]},
        {"prompt": "q", "completion": talk},
        {"prompt": "q", "completion": ""},
    )
    assert [(row.prompt, row.completion) for row in load_sft(pairs) if isinstance(row, CompletionRow)] == [
        ("q", " a"),
        (turns[:1], "a"),
        (turns[:1], turns[1:]),
        (turns[:1], turns[1:]),
        ("q", ""),
    ]
    text = jsonl(tmp_path, {"text": "abc", "source": "web"})
    assert load_sft(text) == [TextRow(f"{text}:1", "abc")]
    schema = jsonl(tmp_path, {"messages": talk, "tools": json.dumps(tools)})
    assert load_sft(schema) == [MessagesRow(f"{schema}:1", turns, tuple(tools))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [user("q")]}, "no message from the assistant"),
        ({"messages": [assistant("a")]}, "begins with the assistant"),
        ({"messages": []}, "'messages' is an empty list"),
        ({"messages": None}, "'messages' must be a list of messages, not null"),
        ({"messages": [user("q"), {"role": "bot", "content": "a"}]}, "'messages', message 2: unknown role 'bot'"),
        ({"messages": [user("q"), {"role": "assistant"}]}, "'messages', message 2: .*no 'content'"),
        ({"messages": ["q"]}, "'messages', message 1: must be an object"),
        ({"messages": [user("q"), assistant("a")], "tools": "{"}, "'tools' is not JSON"),
        ({"messages": [user("q"), assistant("a")], "tools": [1]}, "'tools' must be a list of JSON schemas"),
        ({"messages": [user("q"), assistant("a")], "text": "x"}, "ambiguous"),
        ({"prompt": "", "completion": "a"}, "'prompt' is empty"),
        ({"prompt": [user(" ")], "completion": "a"}, "'prompt' ends with an empty message"),
        ({"prompt": "q", "completion": None}, "'completion' must be text .* not null"),
        ({"prompt": "q", "completion": [user("x")]}, "'completion' must go on with a message from the assistant"),
        ({"prompt": [user("q"), assistant("a")], "completion": "b"}, "ends with a message from the assistant"),
        ({"text": ""}, "'text' must be text that is not empty"),
        ({"text": 3}, "'text' must be text"),
        ({"question": "q"}, "fits no method: found the columns question; needed are"),
    ],
)
def test_wrong_sft_rows_name_line_and_column(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with refused(rf"d\.jsonl:1: .*{message}"):
        load_sft(jsonl(tmp_path, row))


def test_one_file_holds_one_kind(tmp_path: Path) -> None:
    with refused(r"d\.jsonl:2: the row has a 'text' column, but .*d\.jsonl:1 has 'prompt' and 'completion'"):
        load_sft(jsonl(tmp_path, {"prompt": "q", "completion": "a"}, {"text": "x"}))


def test_preferences(tmp_path: Path) -> None:
    rows = jsonl(
        tmp_path,
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]},
        {"prompt": "q", "chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]},
        {"chosen": "\n\nHuman: q\n\nAssistant: I am", "rejected": "\n\nHuman: q\n\nAssistant: I was"},
        {"chosen": "Sum: 2 + 2 = four", "rejected": "Sum: 2 + 2 = five"},
    )
    turns, good, bad = (Message("user", "q"),), (Message("assistant", "good"),), (Message("assistant", "bad"),)
    assert load_preferences(rows) == [
        PreferenceRow(f"{rows}:1", "q", "good", "bad"),
        PreferenceRow(f"{rows}:2", turns, good, bad),
        PreferenceRow(f"{rows}:3", turns, good, bad),
        PreferenceRow(f"{rows}:4", "\n\nHuman: q\n\nAssistant:", " I am", " I was"),
        PreferenceRow(f"{rows}:5", "Sum: 2 + 2 =", " four", " five"),
    ]


TALK = [user("q"), assistant("a")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "are equal"),
        ({"chosen": TALK, "rejected": TALK}, "are equal"),
        ({"chosen": "x y", "rejected": "x y"}, "are equal"),
        ({"chosen": "a b", "rejected": "c d"}, "no common text; add a column 'prompt'"),
        ({"chosen": TALK, "rejected": [user("r"), assistant("b")]}, "no common message"),
        ({"chosen": TALK, "rejected": [*TALK, user("r")]}, "one is the beginning of the other"),
        (
            {"chosen": [*TALK, user("r"), assistant("b")], "rejected": [*TALK, user("s"), assistant("b")]},
            "must differ in",
        ),
        (
            {"chosen": [*TALK, user("r"), assistant("b")], "rejected": [user("q"), assistant("c")]},
            "exactly one message",
        ),
        ({"prompt": "q", "chosen": "a", "rejected": TALK}, "both be text or both be lists"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "both be text or both be lists"),
        ({"prompt": "q", "chosen": "a"}, "'chosen' without 'rejected'"),
        *(
            ({"prompt": "q", "chosen": "a", "rejected": "b", "probability": p}, f"'probability' {said}")
            for p, said in (
                (0, "is 0.0; give one above 0 and at most 1 that 'chosen' is the better, and for 0 exchange the two"),
                (1.01, "is 1.01; give one above 0"),
                (-0.5, "is -0.5; give one above 0"),
                ("nan", "is nan; give one above 0"),
                ("likely", "must be a number, how likely 'chosen' is the better, not 'likely'; rename it"),
                (True, "must be a number, .* not True"),
                ([0.6, 0.4], r"must be a number, .* not \[0.6, 0.4\]"),
            )
        ),
    ],
)
def test_wrong_preferences_name_the_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with refused(rf"d\.jsonl:1: .*{message}"):
        load_preferences(jsonl(tmp_path, row))


def test_the_probability_of_a_preference(tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    given = (0.6, "0.25", 1, 1e-3, None, "")
    rows = load_preferences(jsonl(tmp_path, *({**pair, "probability": p, "margin": 2} for p in given)))
    assert [row.probability for row in rows] == [0.6, 0.25, 1.0, 1e-3, 1.0, 1.0]
    assert all(row.columns == {"margin": 2} for row in rows)
    table = tmp_path / "d.csv"
    table.write_text("prompt,chosen,rejected,probability\nq,a,b,0.6\nq,a,b,\n")
    assert [row.probability for row in load_preferences(str(table))] == [0.6, 1.0]
    report = check_data(jsonl(tmp_path, pair | {"probability": 0.6}, pair | {"probability": 6}))
    assert report.valid_rows == 1 and "d.jsonl:2: 'probability' is 6.0" in report.problems[0]


def test_tasks(tmp_path: Path) -> None:
    plain = jsonl(tmp_path, {"prompt": "1+1", "answer": 2}, {"prompt": [user("2+2")], "answer": None})
    assert load_tasks(plain) == [
        Task("0", "1+1", {"answer": 2}),
        Task("1", (Message("user", "2+2"),), {"answer": None}),
    ]
    named = jsonl(tmp_path, {"id": "a", "prompt": "p", "tools": [{"name": "add"}]}, {"id": 3, "prompt": "p"})
    assert load_tasks(named) == [Task("a", "p", {}, ({"name": "add"},)), Task("3", "p")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "prompt": "p"}, {"id": "a", "prompt": "q"}], r":2: the id 'a' was already used at .*:1"),
        ([{"id": None, "prompt": "p"}], ":1: column 'id' must be text or a whole number, not null"),
        ([{"prompt": None}], ":1: column 'prompt' must be text or a list of messages, not null"),
        ([{"prompt": [user("q"), assistant("a")]}], ":1: .*ends with a message from the assistant"),
        ([{"prompt": "p", "answer": 1}, {"prompt": "q"}], ":2: column 'answer' is missing here"),
        ([{"prompt": "p"}, {"prompt": "q", "answer": 1}], ":2: column 'answer' is not in the first row"),
    ],
)
def test_wrong_tasks_name_the_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with refused(message):
        load_tasks(jsonl(tmp_path, *rows))


def test_a_file_for_another_method_says_which(tmp_path: Path) -> None:
    preferences = jsonl(tmp_path, {"prompt": "q", "chosen": "a", "rejected": "b"}, name="p.jsonl")
    tasks = jsonl(tmp_path, {"prompt": "q", "answer": "a"}, name="t.jsonl")
    unpaired = jsonl(tmp_path, {"prompt": "q", "completion": "a", "label": True}, name="u.jsonl")
    with refused(
        r"p\.jsonl:1: posttrain sft needs a 'messages' .* columns are prompt, chosen, rejected\. .*posttrain dpo"
    ):
        load_sft(preferences)
    with refused("fit posttrain rl and posttrain eval"):
        load_sft(tasks)
    with refused("posttrain dpo needs .* fit posttrain rl"):
        load_preferences(tasks)
    with refused("posttrain rl and posttrain eval need .* fit posttrain dpo --loss kto"):
        load_tasks(unpaired)
    with refused("humaneval holds tasks without preferences"):
        load_preferences("humaneval")


# Built in

SUMS = "reasoning-gym:chain_sum?size=6&seed=7&min_terms=2&max_terms=2&max_digits=1"


def test_reasoning_gym_slices_come_from_one_list_and_do_not_overlap() -> None:
    """Of 200 sums (10 · 10 pairs, + or −), the 199 and 200 needed here appear only after many repeats."""
    train = builtin_tasks(SUMS.replace("size=6", "size=150"))
    held_out = builtin_tasks(SUMS.replace("size=6", "size=50&start=150"))
    assert len({task.prompt for task in train + held_out}) == 200
    assert [task.id for task in held_out[:2]] == ["chain_sum/150", "chain_sum/151"]
    assert drop_overlap([task.prompt for task in train], held_out) == (held_out, 0)
    first = train[0]
    assert set(first.columns) == {"answer", "entry", "dataset"} and first.columns["dataset"] == "chain_sum"
    assert first.columns["entry"]["question"] == first.prompt
    assert first.columns["entry"]["answer"] == first.columns["answer"]
    with refused("found only 200 distinct questions, but start . size asks for 201"):
        builtin_tasks(SUMS.replace("size=6", "size=1&start=200"))


@pytest.fixture
def generator_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are drawn in a process of their own, as users have it."""
    monkeypatch.setattr(builtin, "_drawn", DRAWN)


@pytest.mark.usefixtures("generator_process")
def test_reasoning_gym_is_the_same_whatever_the_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ransom_note iterates over a set of letters, so that its items follow Python's hash seed."""
    prompts = set()
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        DRAWN.cache_clear()
        prompts.add(tuple(task.prompt for task in builtin_tasks("reasoning-gym:ransom_note?size=4&seed=1")))
    assert len(prompts) == 1


def test_reasoning_gym_answers_are_completions() -> None:
    rows = load_sft(SUMS + "&instruction=Only+the+number%21")
    assert len(rows) == 6
    for row in rows:
        assert isinstance(row, CompletionRow) and isinstance(row.prompt, str)
        question, instruction = row.prompt.split("\n")
        left, sign, right = question.removesuffix(" =").split(": ")[1].split(" ")
        assert row.completion == str(int(left) + int(right) * (1 if sign == "+" else -1))
        assert instruction == "Only the number!"


class Cycle:
    """Questions 0, 1, …, `period`−1, in turn."""

    def __init__(self, period: int, length: int = 10**9) -> None:
        self.period, self.length = period, length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= self.length:
            raise IndexError(index)
        return {"question": f"{index % self.period}", "index": index}


def test_drawing_stops_when_the_generator_is_exhausted() -> None:
    assert [item["index"] for item in distinct_items(Cycle(5), 3)] == [0, 1, 2]
    assert [item["index"] for item in distinct_items(Cycle(5), 6)] == [0, 1, 2, 3, 4]
    assert [item["index"] for item in distinct_items(Cycle(5, length=4), 6)] == [0, 1, 2, 3]


def test_reasoning_gym_options() -> None:
    config = make_dataset("chain_sum", 3, {"allow_negation": "true", "max_terms": "4"}).config
    assert (config.allow_negation, config.max_terms, config.seed) == (True, 4, 3)
    with refused("no task 'chain_sums'; did you mean chain_sum"):
        make_dataset("chain_sums", 0, {})
    with refused("has no option 'max_term'; did you mean max_terms"):
        make_dataset("chain_sum", 0, {"max_term": "3"})
    with refused("max_terms=many must be of type int, like 6"):
        make_dataset("chain_sum", 0, {"max_terms": "many"})
    with refused("allow_negation=1 must be of type bool"):
        make_dataset("chain_sum", 0, {"allow_negation": "1"})
    with refused("refuses this configuration: max_terms must be >= min_terms"):
        make_dataset("chain_sum", 0, {"min_terms": "9"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("reasoning-gym:", "name a task"),
        ("reasoning-gym:chain_sum?size", "key=value pairs"),
        ("reasoning-gym:chain_sum?size=1&size=2", "size is given twice"),
        ("reasoning-gym:chain_sum?size=0", "size must be at least 1"),
        ("reasoning-gym:chain_sum?seed=-1", "seed must be a whole number, not '-1'"),
    ],
)
def test_malformed_specifications(source: str, message: str) -> None:
    with refused(message):
        parse_gym(source)


@pytest.mark.usefixtures("generator_process")
def test_an_unknown_task_is_bad_input_in_the_parent_too() -> None:
    with refused("no task 'chain_sums'"):
        load_tasks("reasoning-gym:chain_sums")


def test_humaneval() -> None:
    tasks = load_tasks("humaneval")
    assert len(tasks) == 164
    assert tasks[0].id == "HumanEval/0" and isinstance(tasks[0].prompt, str)
    assert "def has_close_elements" in tasks[0].prompt
    assert set(tasks[0].columns) == {"test", "entry_point", "canonical_solution"}
    with refused("takes no options"):
        load_tasks("humaneval?size=3")
    with refused("HumanEval/0 has no answer to imitate"):
        load_sft("humaneval")


def test_drop_overlap_ignores_whitespace_form_and_system_messages() -> None:
    held_out = [
        Task("a", "What is  1+1?\n"),
        Task("b", (Message("system", "Be brief."), Message("user", "What is 2+2?"))),
        Task("c", "What is 3+3?"),
    ]
    train = ["What is 1+1?", (Message("user", "What is 2+2?"),), "What is 3+3"]
    assert drop_overlap(train, held_out) == ([held_out[2]], 2)


# check-data


def test_report_collects_problems_duplicates_and_overlaps(tmp_path: Path) -> None:
    other = jsonl(tmp_path, {"messages": [user("b"), assistant("x"), user("four"), assistant("y")]}, name="o.jsonl")
    source = jsonl(
        tmp_path,
        {"prompt": "a", "completion": "12"},
        '{"prompt": "b"',
        {"prompt": " a ", "completion": "1234"},
        {"prompt": "four", "completion": "", "note": 1},
        {"prompt": "", "completion": "x"},
        {"text": "x"},
    )
    report = check_data(source, (other,))
    assert (report.kind, report.rows, report.valid_rows, report.ok) == ("completion", 6, 3, False)
    assert report.columns == {"prompt": 4, "completion": 4, "note": 1, "text": 1}
    assert report.prompt_chars == Spread(1, 3, 8 / 3, 4)
    assert report.response_chars == Spread(0, 2, 2.0, 4)
    assert (report.duplicates, report.duplicate_of) == (1, (f"{source}:3", f"{source}:1"))
    assert report.overlaps == (Overlap(other, 1, f"{source}:4"),)
    assert report.problem_count == 3 and not report.answers
    assert [problem.removeprefix(f"{source}:")[:8] for problem in report.problems] == [
        "2: broke",
        "5: colum",
        "6: the r",
    ]
    text = format_report(report)
    assert "6 completion rows, for posttrain sft" in text
    assert "note (1 of 6)" in text
    assert f"repeated prompts: 1 rows, the first at {source}:3, as at {source}:1" in text
    assert f"prompts also in {other}: 1 rows, the first at {source}:4" in text
    assert "problems: 3 of 6 rows:" in text and report.problems[0] in text


@pytest.mark.parametrize(
    ("row", "options", "lines"),
    [
        (
            {"question": "6*7?", "answer": "42"},
            "",
            [
                "for posttrain rl and posttrain eval too: they read the rows as tasks, with 'answer' for the reward",
                "columns of the file: question, answer",
                "read as: prompt, completion",
                "next: posttrain sft --model smollm2-135m --data d.jsonl --out runs/sft",
            ],
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            "",
            [
                "columns of the file: conversations",
                "read as: messages",
                "next: posttrain sft --model smollm2-135m --data d.jsonl --out runs/sft",
            ],
        ),
        (
            {"q": "6*7?", "a": "42"},
            "--columns prompt=q,completion=a --model tiny-random --max-length 500 --raw",
            [
                "read as: prompt, completion",
                "next: posttrain sft --model tiny-random --data d.jsonl --columns prompt=q,completion=a"
                " --max-length 500 --raw --out runs/sft",
            ],
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "",
            [
                "columns: prompt, chosen, rejected",
                "next: posttrain dpo --model smollm2-135m --data d.jsonl --out runs/dpo",
            ],
        ),
        (
            {"prompt": "a", "answer": "4"},
            "",
            ["next: posttrain rl --model smollm2-135m --data d.jsonl --reward math --out runs/rl"],
        ),
        (
            {"prompt": "a", "words": 4},
            "",
            ["next: posttrain rl --model smollm2-135m --data d.jsonl --reward FILE.py:FUNCTION --out runs/rl"],
        ),
        (
            {"prompt": "a", "completion": "b", "label": True},
            "",
            ["next: posttrain dpo --model smollm2-135m --data d.jsonl --loss kto --out runs/dpo"],
        ),
    ],
)
def test_check_data_ends_with_the_command_to_run_next(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    row: dict[str, Any],
    options: str,
    lines: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path, row, name="d.jsonl")
    assert main(["check-data", "d.jsonl", *options.split()]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line in lines] == lines and said[-1] == lines[-1]


def test_check_data_names_no_command_for_rows_with_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path, {"prompt": "a", "completion": "b"}, {"prompt": "a"}, name="d.jsonl")
    assert main(["check-data", "d.jsonl"]) == 1
    assert "next:" not in capsys.readouterr().out


def test_report_tells_equal_problems_once_and_twenty_different_ones(tmp_path: Path) -> None:
    source = jsonl(tmp_path, {"prompt": "a"}, *[{"prompt": ""}] * 25, *[{"prompt": i} for i in range(30)])
    report = check_data(source)
    assert not report.empty
    assert (report.kind, report.problem_count, len(report.problems)) == ("task", 55, 20)
    assert report.problems[0] == (
        f"{source}:2: column 'prompt' is empty (and 24 more rows: {source}:3, {source}:4, {source}:5, …)"
    )
    assert report.problems[1].startswith(f"{source}:27: ") and "more rows" not in report.problems[1]
    assert "problems: 55 of 56 rows:" in format_report(report)


def test_tool_calls_are_no_empty_responses(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    called = {"messages": [user("q"), {"role": "assistant", "content": "", "tool_calls": [call]}]}
    silent = {"messages": [user("p"), {"role": "assistant", "content": ""}]}
    source = jsonl(tmp_path, called, silent)
    report = check_data(source)
    assert report.empty == (f"{source}:2",)
    assert report.response_chars is not None and report.response_chars.most == len(json.dumps(call))


def test_columns_of_tasks_that_look_like_answers_are_told(tmp_path: Path) -> None:
    report = check_data(jsonl(tmp_path, {"prompt": "q", "answer": "a", "level": 3}))
    assert report.kind == "task" and report.answers == ("answer",)
    assert "read as tasks: 'answer' goes to the reward and is not trained" in format_report(report)
    several = format_report(check_data(jsonl(tmp_path, {"prompt": "q", "answer": "a", "target": "b"})))
    assert "read as tasks: 'answer' and 'target' go to the reward and are not trained" in several
    assert check_data(jsonl(tmp_path, {"prompt": "q", "level": 3})).answers == ()


def test_soft_labels_are_summarised(tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    report = check_data(jsonl(tmp_path, pair | {"probability": 0.5}, pair | {"probability": 0.9}, pair))
    assert report.probability == Spread(0.5, 0.9, pytest.approx(0.8), 1.0)
    assert "probability: 0.5 to 1, median 0.9, mean 0.8" in format_report(report)
    assert check_data(jsonl(tmp_path, pair)).probability is None


def test_empty_responses_are_told(tmp_path: Path) -> None:
    whole = {"prompt": "a", "chosen": "b", "rejected": "c"}
    report = check_data(str(file := jsonl(tmp_path, whole, whole | {"prompt": "d", "rejected": ""})))
    assert report.ok and f"empty responses: 1 rows, the first at {file}:2" in format_report(report)


def test_unpaired_rows_are_recognised(tmp_path: Path) -> None:
    row = {"prompt": "q", "completion": "a"}
    report = check_data(jsonl(tmp_path, {**row, "label": True}, {**row, "label": 0}, {**row, "label": "spam"}))
    assert (report.kind, report.valid_rows, report.problem_count) == ("unpaired", 2, 1)
    assert "'label' must be true or false, not 'spam'" in report.problems[0]
    assert "unpaired rows, for posttrain dpo --loss kto" in format_report(report)


def test_two_near_seeds_overlap_and_check_data_shows_it() -> None:
    """Items of seeds 7 and 9 are Random(7), Random(8), … and Random(9), Random(10), …: 6 − 2 shared."""
    wide = SUMS.replace("max_digits=1", "min_digits=4")
    report = check_data(wide, (wide.replace("seed=7", "seed=9"),))
    assert (report.kind, report.rows, report.ok) == ("task", 6, True)
    assert report.overlaps[0].rows == 4


def test_importing_the_readers_does_not_import_heavy_libraries() -> None:
    code = (
        "import sys, posttrain.data.check, posttrain.chat\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pyarrow', 'reasoning_gym') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_slices_of_a_shuffled_list_are_alike_and_disjoint() -> None:
    """Without `of` the rare easy questions come first: of one- and two-digit sums the short ones are used up early."""
    base = "reasoning-gym:chain_sum?seed=7&min_terms=2&max_terms=2&min_digits=1&max_digits=2"

    def length(source: str) -> float:
        return sum(len(str(t.prompt)) for t in load_tasks(source)) / 200

    first, last = (f"{base}&start={start}&size=200" for start in (0, 1800))
    assert length(last) - length(first) > 0.5
    first, last = (f"{base}&of=2000&start={start}&size=200" for start in (0, 1800))
    assert abs(length(last) - length(first)) < 0.3
    assert not {t.prompt for t in load_tasks(first)} & {t.prompt for t in load_tasks(last)}
    with pytest.raises(InputError, match="beyond of=2000"):
        load_tasks(f"{base}&of=2000&start=1900&size=200")


def test_prompts_with_or_without_completions(tmp_path: Path) -> None:
    """What distillation reads: tasks, examples, and reasoning-gym tasks with their answers; nothing else."""
    assert load_prompts(jsonl(tmp_path, {"prompt": "p", "level": 3})) == [Task("0", "p", {"level": 3})]
    examples = jsonl(tmp_path, {"prompt": "p", "completion": "c", "score": 1})
    assert load_prompts(examples) == [CompletionRow(f"{examples}:1", "p", "c")]
    assert [type(row) for row in load_prompts("reasoning-gym:chain_sum?size=2")] == [CompletionRow] * 2
    text = jsonl(tmp_path, {"text": "t"})
    with refused(r"d.jsonl:1: posttrain distill needs .*posttrain sft"):
        load_prompts(text)
