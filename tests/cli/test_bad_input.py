"""What a user can get wrong: exit code 2, one message that says where and what to do, no traceback, nothing written."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main as cli
from posttrain.cli.main import main
from tests.processes import launch, steps_written
from tests.training_helpers import events, metrics, pair_rows, read_rows, sft_rows

GOOD_SFT = "".join(json.dumps(row) + "\n" for row in sft_rows(8))
GOOD_PAIRS = "".join(json.dumps(row) + "\n" for row in pair_rows(8))
GOOD_TASKS = "".join(json.dumps({"prompt": r["prompt"], "answer": "4"}) + "\n" for r in sft_rows(8))
REWARDS = """
def plain(response):
    return 1.0

def needs_gold(response, gold):
    return 1.0
"""
RECIPE = """
model: tiny-random
evaluate: {data: tasks.jsonl, reward: [math]}
stages:
  one: %s
"""
FILES: dict[str, str | bytes] = {
    "sft.jsonl": GOOD_SFT,
    "pairs.jsonl": GOOD_PAIRS,
    "tasks.jsonl": GOOD_TASKS,
    "rewards.py": REWARDS,
    "broken_reward.py": "import nothing_of_this_name\n",
    "missing_column.jsonl": GOOD_SFT + '{"prompt": "p"}\n',
    "no_method.jsonl": '{"question": "p", "reply": "r"}\n',
    "empty.jsonl": "",
    "number.jsonl": '{"prompt": "p", "completion": 5}\n',
    "list.jsonl": GOOD_SFT + "[1, 2]\n",
    "broken7.jsonl": "".join(GOOD_SFT.splitlines(keepends=True)[:6]) + '{"prompt": "p", "completion": "c"\n',
    "no_role.jsonl": '{"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}\n',
    "bad_role.jsonl": '{"messages": [{"role": "robot", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
    "no_answer.jsonl": '{"messages": [{"role": "user", "content": "a"}]}\n',
    "latin.jsonl": b'{"prompt": "caf\xe9", "completion": "c"}\n',
    "twice.jsonl": '{"prompt": "p", "prompt": "q", "completion": "c"}\n',
    "nan.jsonl": '{"prompt": "p", "answer": NaN}\n',
    "surrogate.jsonl": GOOD_SFT + r'{"prompt": "\ud83d", "completion": "c"}' + "\n",
    "digits.jsonl": '{"prompt": "p", "answer": ' + "9" * 5000 + "}\n",
    "cells.csv": "prompt,completion\np,c\np,c,d\n",
    "data.txt": "hello",
    "object.json": '{"prompt": "p"}',
    "same.jsonl": '{"prompt": "p", "chosen": "c", "rejected": "c"}\n',
    "one_side.jsonl": '{"prompt": "p", "chosen": "c"}\n',
    "two_ids.jsonl": '{"id": "a", "prompt": "p"}\n{"id": "a", "prompt": "q"}\n',
    "empty_prompt.jsonl": '{"prompt": "  "}\n',
    "all_long.jsonl": json.dumps({"prompt": "x" * 2100}) + "\n",
    "long.jsonl": '{"prompt": "short"}\n' + json.dumps({"prompt": "x" * 2100}) + "\n",
    "a_file": "I am a file",
    "in_use/notes.txt": "mine",
    "a_run/config.yaml": "model: tiny-random\n",
    "folder/x.jsonl": GOOD_SFT,
    "not_a_model/readme.md": "",
    "bad_model/config.json": '{"model_type": "no-such-architecture"}',
    "method.yaml": RECIPE % "{method: magic, parent: start, data: sft.jsonl}",
    "parent.yaml": RECIPE % "{method: sft, parent: nobody, data: sft.jsonl}",
    "option.yaml": RECIPE % "{method: sft, parent: start, data: sft.jsonl, learning_rat: 1e-5}",
    "value.yaml": RECIPE % "{method: sft, parent: start, data: sft.jsonl, learning_rate: -1}",
    "good.yaml": RECIPE % "{method: sft, parent: start, data: sft.jsonl, max_steps: 1}",
    "syntax.yaml": "model: [tiny-random\n",
}
SFT = "sft --model tiny-random --out out"
DPO = "dpo --model tiny-random --out out"
RL = "rl --model tiny-random --out out --max-new-tokens 8 --group-size 2 --batch-size 4"
EVAL = "eval tiny-random --reward math --max-new-tokens 4"
MATH = f"{RL} --reward math"
SAMPLE = "sample --out out --data tasks.jsonl"
DISTILL = "distill --model tiny-random --out out --max-new-tokens 8"

CASES: list[tuple[str, str, list[str]]] = [
    # data
    (
        "missing column",
        f"{SFT} --data missing_column.jsonl",
        ["missing_column.jsonl:9", "completion", "use a file for"],
    ),
    (
        "columns of no method",
        f"{SFT} --data no_method.jsonl",
        ["no_method.jsonl:1", "question", "'completion' columns"],
    ),
    ("empty file", f"{SFT} --data empty.jsonl", ["empty.jsonl is empty"]),
    ("wrong type", f"{SFT} --data number.jsonl", ["number.jsonl:1", "column 'completion'", "must be text", "5"]),
    ("row is a list", f"{SFT} --data list.jsonl", ["list.jsonl:9", "must be a JSON object", "not a list"]),
    ("broken JSON", f"{SFT} --data broken7.jsonl", ["broken7.jsonl:7", "broken JSON", "column"]),
    ("message without role", f"{SFT} --data no_role.jsonl", ["no_role.jsonl:1", "message 2", "no 'role'"]),
    ("unknown role", f"{SFT} --data bad_role.jsonl", ["bad_role.jsonl:1", "'robot'", "use one of system"]),
    ("nothing to train", f"{SFT} --data no_answer.jsonl", ["no_answer.jsonl:1", "no message from the assistant"]),
    ("not UTF-8", f"{SFT} --data latin.jsonl", ["latin.jsonl:1", "0xe9", "save the file as UTF-8"]),
    ("key twice", f"{SFT} --data twice.jsonl", ["twice.jsonl:1", "'prompt' stands twice"]),
    ("NaN in JSON", f"{MATH} --data nan.jsonl", ["nan.jsonl:1", "NaN is not JSON", "use null"]),
    ("half a character", f"{SFT} --data surrogate.jsonl", ["surrogate.jsonl:9", "'prompt'", "U+D83D", "remove it"]),
    ("endless digits", f"{MATH} --data digits.jsonl", ["digits.jsonl:1", "5000 digits", "as text"]),
    ("endless digits to score", "score --reward math --data digits.jsonl", ["digits.jsonl:1", "5000 digits"]),
    ("CSV with a cell too many", f"{SFT} --data cells.csv", ["cells.csv:3", "3 cells", "2 columns", "quote commas"]),
    ("unknown file type", f"{SFT} --data data.txt", ["data.txt", "'.txt'", ".jsonl, .json, .csv, .tsv, .parquet"]),
    ("JSON without a list", f"{SFT} --data object.json", ["object.json", "one list of objects", ".jsonl"]),
    ("folder as data", f"{SFT} --data folder", ["folder is a directory", "name one file"]),
    ("no such file", f"{SFT} --data nowhere.jsonl", ["no such file: nowhere.jsonl", "Give a path"]),
    (
        "no such held-out file",
        f"{SFT} --data sft.jsonl --eval-data no.jsonl --eval-every 1",
        ["no such file: no.jsonl"],
    ),
    ("hub id offline", f"{SFT} --data some-owner/some-data", ["some-owner/some-data", "Check the path", "network"]),
    (
        "preferences given to sft",
        f"{SFT} --data pairs.jsonl",
        ["pairs.jsonl:1", "posttrain sft needs", "posttrain dpo"],
    ),
    ("examples given to dpo", f"{DPO} --data sft.jsonl", ["sft.jsonl:1", "posttrain dpo needs", "posttrain sft"]),
    ("examples given to rl", f"{MATH} --data sft.jsonl", ["sft.jsonl:1", "fit posttrain sft"]),
    ("chosen equals rejected", f"{DPO} --data same.jsonl", ["same.jsonl:1", "are equal", "drop the row"]),
    ("chosen without rejected", f"{DPO} --data one_side.jsonl", ["one_side.jsonl:1", "'chosen' without 'rejected'"]),
    ("id twice", f"{RL} --reward format --data two_ids.jsonl", ["two_ids.jsonl:2", "'a'", "two_ids.jsonl:1", "unique"]),
    ("empty prompt", f"{RL} --reward format --data empty_prompt.jsonl", ["empty_prompt.jsonl:1", "'prompt' is empty"]),
    (
        "prompt beyond the context",
        f"{RL} --reward format --data all_long.jsonl",
        ["all_long.jsonl:1", "none of 1", "context is 2048", "shorten"],
    ),
    (
        "row cut to nothing",
        f"{SFT} --data sft.jsonl --max-length 5",
        ["sft.jsonl:1", "none of 8", "raise --max-length"],
    ),
    (
        "unknown data set of reasoning-gym",
        f"{RL} --reward reasoning-gym --data reasoning-gym:leg_countin",
        ["leg_count"],
    ),
    # options
    ("unknown option", f"{SFT} --data sft.jsonl --learning-rat 1", ["--learning-rat", "did you mean --learning-rate?"]),
    ("option twice", f"{SFT} --data sft.jsonl --seed 1 --seed 2", ["--seed was given 2 times", "once"]),
    ("negative rate", f"{SFT} --data sft.jsonl --learning-rate -1e-5", ["--learning-rate", "greater than 0", "-1e-5"]),
    ("rate is no number", f"{SFT} --data sft.jsonl --learning-rate fast", ["--learning-rate", "number", "'fast'"]),
    ("no data", SFT, ["--data is required"]),
    (
        "group of one",
        f"{MATH} --data tasks.jsonl".replace("--group-size 2", "--group-size 1"),
        ["--group-size", "2", "1"],
    ),
    (
        "batch that does not divide",
        f"{MATH} --data tasks.jsonl".replace("-size 4", "-size 5"),
        ["--batch-size", "5", "2"],
    ),
    (
        "minibatches that do not divide",
        f"{MATH} --data tasks.jsonl --minibatches 3",
        ["minibatches=3 must divide the 2 prompts"],
    ),
    ("evaluations without data", f"{SFT} --data sft.jsonl --eval-every 2", ["--eval-every", "need --eval-data"]),
    (
        "schedule without an end",
        f"{SFT} --data sft.jsonl --max-flops 1e9 --schedule linear",
        ["'linear' needs --max-steps"],
    ),
    ("unknown command", "sftt --model x", ["unknown command 'sftt'", "did you mean sft?"]),
    ("nothing to sample from", f"{SAMPLE} --write all", ["give either model or endpoint"]),
    ("best of what", f"{SAMPLE} --model tiny-random", ["reward is required to write best"]),
    (
        "pairs of one sample",
        f"{SAMPLE} --model tiny-random --reward math --write pairs --samples 1",
        ["samples must be at least 2 to write pairs"],
    ),
    (
        "more to keep than there is",
        f"{SAMPLE} --model tiny-random --reward math --samples 2 --keep 3",
        ["keep=3 is more than the samples=2"],
    ),
    (
        "a threshold for no score",
        f"{SAMPLE} --model tiny-random --write all --threshold 1",
        ["threshold needs a reward"],
    ),
    ("endpoint without a model", f"{SAMPLE} --write all --endpoint http://x", ["endpoint and --endpoint-model need"]),
    (
        "endpoint without a scheme",
        f"{SAMPLE} --write all --endpoint localhost:8000 --endpoint-model m",
        ["endpoint must begin with http://", "'localhost:8000'"],
    ),
    (
        "top-k at an endpoint",
        f"{SAMPLE} --write all --endpoint http://x --endpoint-model m --top-k 5",
        ["endpoint takes no --top-k"],
    ),
    ("examples given to sample", f"{SAMPLE} --model tiny-random --write all".replace("tasks", "sft"), ["sft.jsonl:1"]),
    (
        "sample of a prompt beyond the context",
        f"{SAMPLE} --model tiny-random --write all".replace("tasks", "all_long"),
        ["all_long.jsonl:1", "none of 1", "context is 2048", "shorten"],
    ),
    ("no teacher", f"{DISTILL} --data tasks.jsonl", ["--teacher is required"]),
    (
        "no such teacher",
        f"{DISTILL} --data tasks.jsonl --teacher ./nothing",
        ["--teacher ./nothing", "no such folder", "give a"],
    ),
    (
        "β beyond its end",
        f"{DISTILL} --data tasks.jsonl --teacher tiny-random --jsd-beta 2",
        ["--jsd-beta", "less than or equal to 1", "2"],
    ),
    (
        "given answers that are not given",
        f"{DISTILL} --data tasks.jsonl --teacher tiny-random --on-policy-share 0.5",
        ["tasks.jsonl: task 0 has no completion", "--on-policy-share 0.5"],
    ),
    (
        "preferences given to distill",
        f"{DISTILL} --data pairs.jsonl --teacher tiny-random",
        ["pairs.jsonl:1", "posttrain distill needs", "posttrain dpo"],
    ),
    # rewards
    ("no reward", f"{RL} --data tasks.jsonl", ["reward is required", "environment"]),
    ("unknown reward", f"{RL} --data tasks.jsonl --reward maths", ["unknown reward 'maths'", "built in are math"]),
    ("no reward file", f"{RL} --data tasks.jsonl --reward no.py:f", ["no.py"]),
    ("no function in the file", f"{RL} --data tasks.jsonl --reward rewards.py:nope", ["rewards.py", "nope"]),
    ("reward file that fails", f"{RL} --data tasks.jsonl --reward broken_reward.py:f", ["nothing_of_this_name"]),
    ("no such column", f"{RL} --data tasks.jsonl --reward rewards.py:needs_gold", ["'gold'", "needs_gold", "answer"]),
    ("weight is no number", f"{RL} --data tasks.jsonl --reward math=high", ["'high'", "NAME=0.5"]),
    ("reward without its column", f"{MATH} --data long.jsonl", ["reward math needs a column 'answer'"]),
    # models
    (
        "no such model",
        "sft --model ./nothing --data sft.jsonl --out out",
        ["--model ./nothing", "no such folder", "give a"],
    ),
    ("folder without a model", "sft --model not_a_model --data sft.jsonl --out out", ["not_a_model", "no config.json"]),
    (
        "unknown architecture",
        "sft --model bad_model --data sft.jsonl --out out",
        ["--model bad_model", "cannot be loaded"],
    ),
    ("hub model offline", "sft --model some-owner/m --data sft.jsonl --out out", ["--model some-owner/m", "hub"]),
    # folders
    ("evaluation of bad data", f"{EVAL} --data nan.jsonl --out out", ["nan.jsonl:1", "NaN is not JSON"]),
    (
        "evaluation of a prompt beyond the context",
        f"{EVAL} --data all_long.jsonl --out out".replace("math", "format"),
        ["all_long.jsonl:1", "none of 1", "context is 2048", "shorten"],
    ),
    ("evaluation under a file", f"{EVAL} --data tasks.jsonl --out a_file/x", ["a_file/x", "cannot be made", "another"]),
    ("evaluation into a file", f"{EVAL} --data tasks.jsonl --out a_file", ["a_file", "cannot be made", "another"]),
    (
        "more new tokens than the context",
        f"{EVAL} --data tasks.jsonl --max-new-tokens 9000".replace(" --max-new-tokens 4", ""),
        ["tasks.jsonl", "which leave", "lower --max-new-tokens"],
    ),
    ("output is a file", f"{SFT} --data sft.jsonl".replace("out out", "out a_file"), ["a_file: is a file", "folder"]),
    (
        "output under a file",
        f"{SFT} --data sft.jsonl".replace("out out", "out a_file/x"),
        ["a_file/x", "another folder"],
    ),
    ("output in use", f"{SFT} --data sft.jsonl".replace("out out", "out in_use"), ["in_use", "not empty", "another"]),
    ("output is a run", f"{SFT} --data sft.jsonl".replace("out out", "out a_run"), ["a_run", "add --resume"]),
    (
        "resume of another run",
        f"{SFT} --data sft.jsonl --resume".replace("out out", "out a_run"),
        ["--resume", "a_run"],
    ),
    # recipes
    ("unknown recipe", "run quickstrat --out out", ["quickstrat", "quickstart"]),
    ("unknown method", "run method.yaml --out out", ["one", "magic", "sft"]),
    ("unknown parent", "run parent.yaml --out out", ["one", "nobody", "start"]),
    ("unknown key", "run option.yaml --out out", ["one", "learning_rat"]),
    ("bad value", "run value.yaml --out out", ["stage one", "learning_rate", "greater than 0"]),
    ("broken recipe", "run syntax.yaml --out out", ["syntax.yaml"]),
    ("unknown key in --set", "run good.yaml --out out --set one.learning_rat=1", ["learning_rat"]),
    ("unknown stage in --set", "run good.yaml --out out --set two.seed=1", ["two"]),
    ("--set without a value", "run good.yaml --out out --set one.seed", ["one.seed", "="]),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all the files, made the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def everything(folder: Path) -> dict[str, Any]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in folder.rglob("*") if "__pycache__" not in str(p)}


def assert_one_message(err: str, fragments: Sequence[str]) -> None:
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for fragment in fragments:
        assert fragment in lines[0], f"{fragment!r} is not in: {lines[0]}"


@pytest.mark.parametrize(("command", "fragments"), [pytest.param(c, f, id=name) for name, c, f in CASES])
def test_bad_input(folder: Path, capfd: pytest.CaptureFixture[str], command: str, fragments: list[str]) -> None:
    before = everything(folder)
    assert main(command.split()) == 2
    assert_one_message(capfd.readouterr().err, fragments)
    assert everything(folder) == before


def test_resume_with_another_rate_names_it(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = f"{SFT} --data sft.jsonl --max-steps 1".split()
    assert main(command) == 0
    before = everything(folder)
    capfd.readouterr()
    assert main([*command, "--resume", "--learning-rate", "0.5"]) == 2
    assert_one_message(capfd.readouterr().err, ["--resume: learning-rate was 2e-05", "0.5 now", "another --out"])
    assert everything(folder) == before


def test_a_folder_that_another_process_writes(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The other process is a real one, stopped in the middle of its run."""
    command = f"{SFT} --data sft.jsonl --max-steps 5000 --batch-size 2 --save-every 5000".split()
    other = launch(command, folder / "other.txt")
    try:
        assert wait_for_a_step(other, folder / "out")
        assert other.pid is not None
        os.kill(other.pid, signal.SIGSTOP)
        assert main([*command, "--resume"]) == 2
        assert_one_message(capfd.readouterr().err, ["--out out", "another process is writing", "wait"])
    finally:
        other.kill()
        other.join()
    # the lock went with the process
    (folder / "out" / "lineage.json").write_text("{}")
    assert main([*command, "--resume"]) == 0


def wait_for_a_step(process: BaseProcess, run: Path) -> bool:
    """Wait for the first step. False if the process ended before it."""
    for _ in range(60_000):
        if steps_written(run) or not process.is_alive():
            break
        time.sleep(0.001)
    return process.is_alive()


@pytest.mark.parametrize(
    ("limit", "file", "steps"),
    [
        (1_000, "metrics.jsonl", 6),
        (1_000_000, "checkpoints/step-00000002", 2),
        (6_000_000, "checkpoints/step-00000002", 2),
    ],
)
def test_a_full_disk(folder: Path, limit: int, file: str, steps: int) -> None:
    """A limit on the size of files stands in for the disk: the message names the file, no half is left, and the run
    goes on where there is room again. The weights take 4.8 MB, the optimizer twice that."""
    save_every = "2" if file.startswith("checkpoints") else "100"
    command = [*SFT.split(), "--data", "sft.jsonl", "--max-steps", "8", "--batch-size", "2", "--save-every", save_every]
    messages = folder / "messages.txt"
    done = launch(command, messages, max_file_bytes=limit)
    done.join(60)
    text = messages.read_text()
    assert done.exitcode == 2, text
    assert "Traceback" not in text
    (message,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert f"cannot write {file} (" in message
    assert "make room there, then continue with --resume" in message
    assert not list((folder / "out").rglob("*.partial"))
    assert not (folder / "out" / file).exists() or file == "metrics.jsonl"
    whole = read_rows(folder / "out" / "metrics.jsonl")  # every line is whole
    assert 0 < len(whole) <= steps
    assert main([*command, "--resume"]) == 0
    assert [row["step"] for row in metrics(folder / "out")] == list(range(1, 9))


def test_a_folder_without_permission(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:
        target = "/proc/nothing/out"  # not even root may write there
    else:
        (folder / "closed").mkdir(mode=0o500)
        target = str(folder / "closed" / "out")
    assert main([*SFT.replace("out out", f"out {target}").split(), "--data", "sft.jsonl"]) == 2
    assert_one_message(capfd.readouterr().err, [target, "choose another folder"])


def test_a_reward_that_always_fails_is_a_failed_run(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "rewards.py").write_text("def broken(response):\n    return 1 / 0\n")
    assert (
        main(
            f"{RL} --data tasks.jsonl --reward rewards.py:broken --batch-size 16 --max-steps 3".replace(
                " --batch-size 4", ""
            ).split()
        )
        == 1
    )
    err = capfd.readouterr().err
    assert "failed: 100.0% of the rollouts of 8 tasks since step 1 could not be scored" in err
    assert "ZeroDivisionError: division by zero" in err and "rewards.py" in err
    assert events(folder / "out", "stopped")


def test_a_run_that_diverges_is_a_failed_run(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(f"{SFT} --data sft.jsonl --max-steps 30 --learning-rate 1e30 --batch-size 4".split()) == 1
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert "diverged, lower --learning-rate" in err
    assert not (folder / "out" / "model").exists()
    assert events(folder / "out", "stopped")


def test_a_fault_of_ours_shows_its_traceback(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(config: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("posttrain.train.sft.train_sft", planted)
    assert main(f"{SFT} --data sft.jsonl".split()) == cli.OUR_FAULT == 3
    err = capfd.readouterr().err
    assert "Traceback" in err and "ZeroDivisionError: planted" in err and "fault in posttrain" in err
