"""Rows that do not fit, on every command that encodes rows; and what `check-data --model` finds of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.chat import ChatFormat
from posttrain.cli.main import main
from posttrain.config import CheckDataConfig
from posttrain.data.fitting import DoesNotFit, Limit, fit
from posttrain.envs.pool import Reply
from posttrain.models import LanguageModel
from posttrain.models.tiny import tiny_tokenizer
from posttrain.rollout import Limits, RolloutRequest, sample
from posttrain.train.check_data import check_tokens, format_tokens
from posttrain.types import InputError, Sampling, Task
from tests.chat_templates import ScriptedEngine, ScriptedEnvironment
from tests.training_helpers import events, metrics, pair_rows, read_rows, sft_rows, stepwise_rows, write_rows

LONG = "long " * 60
TASKS = [{"prompt": row["prompt"], "answer": "4"} for row in sft_rows(4)]
DATA: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    # rows that fit, and one that does not
    "sft": (sft_rows(4), {"prompt": LONG, "completion": "a"}),
    "pairs": (pair_rows(4), {"prompt": LONG, "chosen": "a", "rejected": "b"}),
    "labels": (
        [{**row, "label": i % 2 > 0} for i, row in enumerate(sft_rows(4))],
        {"prompt": LONG, "completion": "a", "label": True},
    ),
    "steps": (stepwise_rows(4), {"prompt": LONG, "steps": ["a"], "labels": [1]}),
    "tasks": (TASKS, {"prompt": "x" * 2040, "answer": "4"}),
}
TRAIN = "--model tiny-random --max-length 120 --max-steps 1 --batch-size 4"
SAMPLED = "--model tiny-random --max-new-tokens 16"
COMMANDS = {
    "sft": f"sft {TRAIN} --data sft.jsonl",
    "dpo": f"dpo {TRAIN} --data pairs.jsonl",
    "kto": f"dpo {TRAIN} --loss kto --data labels.jsonl",
    "reward-model": f"reward-model {TRAIN} --data pairs.jsonl",
    "process-model": f"reward-model {TRAIN} --data steps.jsonl",
    "adversarial": f"adversarial {TRAIN} --max-new-tokens 4 --data pairs.jsonl",
    "rl": f"rl {TRAIN} --max-new-tokens 16 --group-size 2 --reward length(max_length=3) --data tasks.jsonl",
    "ptx": f"rl {TRAIN} --max-new-tokens 4 --group-size 2 --reward length(max_length=3) --data good.jsonl "
    "--ptx-data sft.jsonl",
    "online-dpo": f"online-dpo {TRAIN} --max-new-tokens 16 --group-size 2 --reward length(max_length=3) "
    "--data tasks.jsonl",
    "distill": f"distill {TRAIN} --max-new-tokens 4 --teacher tiny-random --on-policy-share 0.5 --data sft.jsonl",
    "sample": f"sample {SAMPLED} --write all --truncated keep --samples 1 --data tasks.jsonl",
    "revise": f"revise {SAMPLED} --revisions 1 --data tasks.jsonl",
    "eval": "eval tiny-random --max-new-tokens 16 --samples 1 --reward length(max_length=3) --data tasks.jsonl",
    "held-out": f"sft {TRAIN} --data good_sft.jsonl --eval-data sft.jsonl --eval-every 1",
}
RUN = ("reward-model", "process-model", "kto", "ptx", "distill", "sample", "eval")
"""Those that are run to their end here."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, (rows, unfit) in DATA.items():
        write_rows(tmp_path / f"{name}.jsonl", [rows[0], unfit, *rows[1:]])
    write_rows(tmp_path / "good.jsonl", TASKS)
    write_rows(tmp_path / "good_sft.jsonl", sft_rows(4))
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_strict_stops_before_anything_is_written(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main([*COMMANDS[name].split(), "--out", "out", "--strict"]) == 2
    first, row = capsys.readouterr().err.splitlines()
    assert "1 of 5 rows do not fit" in first and row.strip().partition(": ")[0].endswith(".jsonl:2")
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", RUN)
def test_the_rest_is_used_and_what_was_left_out_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main([*COMMANDS[name].split(), "--out", "out"]) == 0
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if "do not fit and are left out" in line]
    assert "1 of 5 rows" in line and ".jsonl:2 (" in line
    if name == "eval":
        meta = json.loads((folder / "out" / "evaluations" / "held_out.json").read_text())
        assert meta["settings"]["left_out"] == 1
        tasks = [row["task"] for row in read_rows(folder / "out" / "evaluations" / "held_out.jsonl")]
        assert tasks == ["0", "2", "3", "4"]
    else:
        (told,) = events(folder / "out", "left_out")
        assert (told["rows"], told["of"], told["first"][0].partition(": ")[0][-8:]) == (1, 5, ".jsonl:2")


def test_a_run_resumed_sees_the_same_rows(folder: Path) -> None:
    """From a checkpoint in the middle of the data."""
    command = "sft --model tiny-random --max-length 120 --batch-size 1 --save-every 2 --data sft.jsonl"
    assert main([*command.split(), "--out", "whole"]) == 0
    assert main([*command.split(), "--out", "half", "--max-steps", "2"]) == 0
    for gone in ("lineage.json", "report.html"):
        (folder / "half" / gone).unlink()
    config = folder / "half" / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 2", "max_steps: null"))
    assert main([*command.split(), "--out", "half", "--resume"]) == 0
    whole, half = (metrics(folder / run, timeless=True) for run in ("whole", "half"))
    assert len(whole) == 4 and whole == half


def test_where_no_row_fits_the_reasons_are_told() -> None:
    def ready(row: int) -> tuple[list[int], bool]:
        if row > 2:
            raise DoesNotFit(f"f:{row}", "too long", "shorten it")
        return [row, row], row == 2

    fitted = fit([1, 2, 3], ready)
    assert (fitted.rows, fitted.fitting, fitted.cut, fitted.kept) == (3, 2, 1, [1, 1, 2, 2])
    assert fitted.checked("f", strict=False) == [1, 1, 2, 2]
    with pytest.raises(InputError, match=r"^f: 1 of 3 rows do not fit, .*; shorten it:\n  f:3: too long$"):
        fitted.checked("f", strict=True)
    with pytest.raises(InputError, match=r"^f: none of 5 rows fits: f:3 \(too long\), .* and 2 more; shorten it$"):
        fit(range(3, 8), ready).checked("f", strict=False)
    assert fit([], ready).checked("f", strict=True) == []  # no held-out data
    assert "raise --max-length" in Limit.of(10, 20).advice and "--max-length" not in Limit.of(20, 20).advice


def test_strict_names_twenty_rows_and_counts_the_others() -> None:
    def ready(n: int) -> tuple[list[int], bool]:
        raise DoesNotFit(f"f:{n}", "too long", "shorten it")

    with pytest.raises(InputError, match="25 of 25 rows do not fit") as error:
        fit(range(1, 26), ready).checked("f", strict=True)
    _, *lines = str(error.value).splitlines()
    assert lines == [*(f"  f:{n}: too long" for n in range(1, 21)), "  and 5 more"]


def test_wrong_rows_stay_errors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(folder / "wrong.jsonl", [*sft_rows(2), {"prompt": 5, "completion": "a"}])
    assert main(f"sft {TRAIN} --data wrong.jsonl --out out".split()) == 2
    assert "wrong.jsonl:3" in capsys.readouterr().err


def test_an_observation_that_is_far_too_long_fails_its_rollout_alone(tiny: LanguageModel) -> None:
    """It is not tokenised to its end, and the others go on."""
    chat = ChatFormat(tiny_tokenizer(), longest=200)
    answer = (*chat.prompt_ids("x")[:3], tiny.chat.turn_end)
    environment = ScriptedEnvironment({1: [Reply((), True)]}, first={0: "y" * 3_000_000, 1: "z"})
    plans = [RolloutRequest(Task(str(i), "q"), 0, Sampling(8), i) for i in range(2)]
    lost, fine = sample(ScriptedEngine(lambda i, n: answer), chat, plans, None, environment, Limits(2, 200))
    assert lost.status == "failed" and "has more than 200 tokens" in (lost.error or "")
    assert len(lost.segments[0].token_ids) < 20_000
    assert fine.status == "ok"


# check-data --model


def report_of(data: Path, **options: Any) -> Any:
    return check_tokens(CheckDataConfig(file=str(data), model="tiny-random", **{"max_length": 120, **options}))


@pytest.mark.parametrize("name", DATA)
def test_check_data_finds_what_a_run_would_find(folder: Path, name: str) -> None:
    report = report_of(folder / f"{name}.jsonl", max_new_tokens=16)
    assert [row.where for row in report.fitted.left_out] == [f"{folder / name}.jsonl:2"]
    assert report.fitted.rows == 5 and report.ok and not report.cut and not report.problem_count
    assert report.tokens is not None and 20 < report.tokens.least <= report.tokens.median < 120
    text = format_tokens(report)
    assert "left out, as they do not fit: 1 of 5 rows" in text and f"{name}.jsonl:2: " in text
    assert not report_of(folder / f"{name}.jsonl", max_new_tokens=16, strict=True).ok


def test_check_data_names_what_is_cut_lost_or_a_control_token(tmp_path: Path) -> None:
    def talk(question: str, answer: str, **more: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **more}]}

    rows = [
        talk("q", "a"),
        talk("q", "a" * 300),
        talk("q", "a", reasoning="because"),
        talk("p", "a", reasoning="for"),
        talk("<|im_start|>", "a"),
        talk("q", "a" * 9000),
    ]
    file = write_rows(tmp_path / "d.jsonl", rows)
    report = report_of(file)
    assert report.cut == (f"{file}:2", f"{file}:6") and report.special == (f"{file}:5",) and not report.ok
    # before it is cut, up to eight times --max-length
    assert report.tokens is not None and report.tokens.most == 960 and report.tokens.mean > 300
    assert "(longer rows count as 960)" in format_tokens(report)
    assert report.problem_count == 2 and len(report.problems) == 1
    assert report.problems[0].startswith(f"{file}:3: ") and "reasoning" in report.problems[0]
    assert "problems with the model: 2 of 6 rows" in format_tokens(report)


def test_check_data_exits_by_what_it_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = "check-data sft.jsonl --model tiny-random --max-length 120"
    assert main(check.split()) == 0
    assert "tokens of a row: " in capsys.readouterr().out
    assert main([*check.split(), "--strict"]) == 1
    assert main(["check-data", "sft.jsonl"]) == 0
    assert main(["check-data", "sft.jsonl", "--max-length", "7"]) == 2
    assert "--max-length says how a model reads the data; give model" in capsys.readouterr().err
