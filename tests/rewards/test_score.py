"""`posttrain score`: rows in, JSONL out."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from posttrain.config import ScoreConfig
from posttrain.console import info_once
from posttrain.rewards.registry import BUILTINS
from posttrain.rewards.score import describe_rewards, run_score, write_scores
from posttrain.types import InputError, RunFailed, Score
from tests.effort import effort

ROOT = str(Path(__file__).parents[2])


def score(reward: str | tuple[str, ...], text: str, timeout: float = 60) -> tuple[list[dict[str, Any]], str]:
    """Rows on standard output, and standard error."""
    out, err = io.StringIO(), io.StringIO()
    rewards = (reward,) if isinstance(reward, str) else reward
    config = ScoreConfig(reward=rewards, data="-", reward_timeout=timeout)
    assert run_score(config, io.BytesIO(text.encode()), out, err) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue()


def rows(*completions: Any, **columns: Any) -> str:
    return "".join(json.dumps({"prompt": "q", "completion": c, **columns}) + "\n" for c in completions)


def test_rows_come_back_in_order_with_parts() -> None:
    text = rows("<think>a</think><answer>4</answer>", "4", "5", answer="4")
    found, err = score(("math=0.8", "format=0.2"), text)
    assert found == [
        {"score": 1.0, "parts": {"math": 1.0, "format": 1.0}, "error": None},
        {"score": 0.8, "parts": {"math": 1.0, "format": 0.0}, "error": None},
        {"score": 0.0, "parts": {"math": 0.0, "format": 0.0}, "error": None},
    ]
    assert "scored 3 of 3 rows" in err


def test_an_expression_scores_rows_as_a_reward_does() -> None:
    found, _ = score("gate(format, weighted_sum(math, clip(math, high=0.5))) as strict=2", rows("4", answer="4"))
    parts = {"strict": 0.0, "strict/format": 0.0, "strict/weighted_sum": 1.5, "strict/weighted_sum/math": 1.0}
    parts |= {"strict/weighted_sum/clip": 0.5, "strict/weighted_sum/clip/math": 1.0}
    assert found == [{"score": 0.0, "parts": parts, "error": None}]


def test_a_failed_row_is_null_with_its_error_and_exit_0() -> None:
    text = rows("4", answer="4") + rows("4", answer="???") + rows("4", answer="4")
    found, err = score("math", text)
    assert [row["score"] for row in found] == [1.0, None, 1.0]
    assert found[1]["error"].startswith("math: ValueError: the reference answer '???' cannot be parsed")
    assert "1 failed" in err and "cannot be parsed: '?' is not expected" in err


def test_completions_may_be_messages_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "2+2"}], "completion": [{"role": "assistant", "content": "4"}]}
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({**row, "answer": 4}) + "\n\n" + rows("5", answer=4))
    out = io.StringIO()
    config = ScoreConfig(reward=("math",), data=str(file))
    assert run_score(config, io.BytesIO(), out, io.StringIO()) == 0
    assert [json.loads(line)["score"] for line in out.getvalue().splitlines()] == [1.0, 0.0]


@pytest.mark.parametrize("name", ["response", "output"])
def test_completions_of_another_name_are_read_and_told(capsys: pytest.CaptureFixture[str], name: str) -> None:
    info_once.cache_clear()
    text = json.dumps({"prompt": "2+2?", name: "4", "answer": "4"}) + "\n"
    assert [row["score"] for row in score("math", text)[0]] == [1.0]
    assert capsys.readouterr().err.splitlines()[0] == f"<stdin>: read as completions: {name}"


def test_completions_that_could_be_two_columns_are_not_guessed() -> None:
    text = json.dumps({"prompt": "2+2?", "response": "4", "output": "5", "answer": "4"})
    with pytest.raises(InputError, match="no 'completion'; the row has prompt, response, output, answer"):
        score("math", text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "<stdin>:2: broken JSON: "),
        ("[1]", "<stdin>:2: a row must be a JSON object like {...}, not a list"),
        ('{"prompt": "q", "completion": "c", "n": NaN}', "<stdin>:2: broken JSON: NaN is not JSON; use null"),
        ('{"prompt": "q", "completion": "\\ud83d"}', "<stdin>:2: column 'completion' holds half a character"),
        ('{"prompt": "q", "completion": "c", "n": ' + "9" * 5000 + "}", "<stdin>:2: broken JSON: a number of 5000"),
        ('{"prompt": "q"}', "<stdin>:2: no 'completion'; the row has prompt"),
        ('{"prompt": "q", "response": "c"}', "give --columns completion=response"),
        ('{"completion": "q"}', "<stdin>:2: no 'prompt'; the row has completion"),
        ('{"prompt": "q", "completion": 3}', "<stdin>:2: completion must be a string or a list of messages"),
        (
            '{"prompt": "q", "completion": [{"role": "bot", "content": ""}]}',
            "<stdin>:2: completion: unknown role 'bot'",
        ),
    ],
)
def test_a_bad_row_stops_before_anything_is_printed(line: str, message: str) -> None:
    out, text = io.StringIO(), rows("a") + line + "\n"
    with pytest.raises(InputError) as caught:
        run_score(ScoreConfig(reward=("format",), data="-"), io.BytesIO(text.encode()), out, io.StringIO())
    assert message in str(caught.value)
    assert out.getvalue() == ""


def test_no_rows_and_no_file() -> None:
    with pytest.raises(InputError, match="<stdin> has no rows"):
        score("format", "\n")
    with pytest.raises(InputError, match="no such file: nowhere.jsonl"):
        run_score(ScoreConfig(reward=("format",), data="nowhere.jsonl"), io.BytesIO(), io.StringIO(), io.StringIO())


def test_files_of_every_form(tmp_path: Path) -> None:
    """As in training, with messages as JSON text in a table."""
    row = {"prompt": "q", "completion": json.dumps([{"role": "assistant", "content": "4"}]), "answer": "4"}
    (tmp_path / "d.csv").write_text("prompt,completion,answer\nq,4,4\n")
    (tmp_path / "rows").write_text(json.dumps(row | {"completion": "4"}))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "d.parquet")
    for name in ("d.csv", "rows", "d.parquet", "d.csv*2"):
        out = io.StringIO()
        config = ScoreConfig(reward=("math",), data=str(tmp_path / name))
        assert run_score(config, io.BytesIO(), out, io.StringIO()) == 0
        assert {json.loads(line)["score"] for line in out.getvalue().splitlines()} == {1.0}


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(b"\xff\xfe\x00")
    config = ScoreConfig(reward=("format",), data=str(tmp_path / "data.jsonl"))
    with pytest.raises(InputError, match=r"data\.jsonl:1: not UTF-8 \(byte 0xff\); save the file as UTF-8"):
        run_score(config, io.BytesIO(), io.StringIO(), io.StringIO())


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(rows("4", answer="4"), encoding="utf-8-sig")
    out = io.StringIO()
    assert run_score(ScoreConfig(reward=("math",), data=str(file)), io.BytesIO(), out, io.StringIO()) == 0
    assert json.loads(out.getvalue())["score"] == 1.0


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [("???", "math: ValueError", r"no row could be scored: math: ValueError"), (None, None, "no reward applied")],
)
def test_when_no_row_has_a_score_the_run_failed_and_every_row_is_answered(
    answer: str | None, error: str | None, said: str
) -> None:
    out = io.StringIO()
    with pytest.raises(RunFailed, match=said):
        run_score(
            ScoreConfig(reward=("math",), data="-"),
            io.BytesIO(rows("4", "5", answer=answer).encode()),
            out,
            io.StringIO(),
        )
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row["score"] for row in found] == [None, None]
    assert all((row["error"] or "").startswith(error or "") and bool(row["error"]) == bool(error) for row in found)


def test_a_nan_is_no_score_and_half_a_character_in_an_error_is_written(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(
        "def f(response):\n"
        "    if response == 'a':\n        return float('nan')\n"
        "    if response == 'b':\n        raise ValueError('\\ud83d')\n"
        "    return 1.0\n"
    )
    found, _ = score(f"{tmp_path}/r.py:f", rows("a", "b", "c"))
    assert [row["score"] for row in found] == [None, None, 1.0]
    assert "nan" in found[0]["error"] and "ValueError: ?" in found[1]["error"]


def test_ten_thousand_rows_take_seconds() -> None:
    def all_rows() -> None:
        found, _ = score("format", rows(*(f"<think>{i}</think><answer>{i}</answer>" for i in range(10_000))))
        assert len(found) == 10_000 and all(row["score"] == 1.0 for row in found)

    assert effort(all_rows) < 5000


PIPE = (
    "import sys; from posttrain.config import ScoreConfig; from posttrain.rewards.score import run_score; "
    "sys.exit(run_score(ScoreConfig(reward=(sys.argv[1],), data='-'), sys.stdin.buffer, sys.stdout, sys.stderr))"
)


def test_in_a_pipe_a_printing_reward_leaves_standard_output_alone(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("print('import')\ndef f(response):\n    print('call')\n    return 1\n")
    done = subprocess.run(
        [sys.executable, "-c", PIPE, "loud.py:f"],
        input=rows("a", "b"), env={**os.environ, "PYTHONPATH": ROOT}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert [json.loads(line)["score"] for line in done.stdout.splitlines()] == [1.0, 1.0]
    assert done.returncode == 0 and "call" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PIPE, "format"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stdin.write(rows(*["a"] * 5000).encode())
    process.stdin.close()
    with process.stderr as stream:
        err = stream.read()
    assert process.wait() == 0, err
    assert b"Traceback" not in err and b"BrokenPipe" not in err


def test_the_built_in_rewards_are_described() -> None:
    described = dict(describe_rewards())
    assert [written.partition("(")[0] for written in described] == list(BUILTINS)
    text = described["format(think_tag='think', answer_tag='answer')"]
    assert text.startswith("1.0 if the response is exactly `<think>…</think><answer>…</answer>`")
    assert "gate(condition, reward, threshold=1.0)" in described
    assert "product(rewards, ...)" in described


@pytest.mark.parametrize(("written", "text"), describe_rewards())
def test_every_built_in_says_its_rule_range_unit_failure_and_source(written: str, text: str) -> None:
    said = " ".join(text.split())
    assert len(said.split(". ")[0]) > 10, "the rule comes first"
    for what in (
        r"\bRange\b",
        r"\bunits?\b|\bcounted in\b|\bshare\b|probability|deviations",
        r"[Ff]ails\b",
        r"\bSource: \w",
    ):
        assert re.search(what, said), f"{written} does not say {what}"


def test_scoring_needs_no_torch() -> None:
    code = "import sys, posttrain.rewards.score, posttrain.rewards.math.reward\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "False\n", done.stderr


def test_control_characters_of_a_reward_are_escapes_in_its_json() -> None:
    reason = "\x1b[31m \x9b2J \u202e é"
    stream = io.StringIO()
    write_scores([Score(None, reason=f"{reason}\ud800")], stream)
    assert not {"\x1b", "\x9b", "\u202e"} & set(stream.getvalue()) and "é" in stream.getvalue()
    assert json.loads(stream.getvalue())["error"] == f"{reason}?"
