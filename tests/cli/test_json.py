"""`--json`: one object on standard output from every command, whatever happens."""

from __future__ import annotations

import io
import json
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from posttrain import config as configs
from posttrain.cli import main as cli
from posttrain.cli.option_help import help_data
from posttrain.cli.results import trained
from posttrain.runs.records import Cost, Evaluation
from posttrain.runs.table import Table
from posttrain.types import RunFailed, RunPaused
from tests.conftest import serve
from tests.servers.critic import Critic

TINY = "--model tiny-random --max-steps 1 --batch-size 2"
SAMPLED = "--max-new-tokens 2"
REWARD = "--reward length(max_length=3)"
SEARCH = "--rounds 1 --samples 2 --prompts 2 --edit-steps 1 --edit-tries 1"
KEPT = "--truncated keep"
LINES = {
    "sft": f"sft {TINY} --data rows.jsonl --eval-data rows.jsonl --eval-every 1 --out sft",
    "dpo": f"dpo {TINY} --data pairs.jsonl --out dpo",
    "online-dpo": f"online-dpo {TINY} --data tasks.jsonl {REWARD} {SAMPLED} --out online-dpo",
    "reward-model": f"reward-model {TINY} --data pairs.jsonl --out reward-model",
    "adversarial": f"adversarial {TINY} --data pairs.jsonl {SEARCH} --max-new-tokens 2 --out adversarial",
    "rl": f"rl {TINY} --data tasks.jsonl --group-size 2 {REWARD} {SAMPLED} --out rl",
    "distill": f"distill {TINY} --data rows.jsonl --teacher tiny-random --out distill",
    "sample": f"sample --model tiny-random --data tasks.jsonl --samples 1 {KEPT} {SAMPLED} {REWARD} --out sample",
    "revise": "revise --endpoint URL --endpoint-model m --data tasks.jsonl --principles rules.yaml --out revise",
    "average": "average tiny-random tiny-random --out average",
    "eval": f"eval tiny-random --data tasks.jsonl --samples 1 {SAMPLED} {REWARD} --out eval",
    "compare": "compare earlier --out comparison",
    "report": "report earlier",
    "run": "run recipe.yaml --out pipeline",
    "score": f"score --data rows.jsonl {REWARD}",
    "audit": "audit --reward math --data answers.jsonl --only A1 --reward-workers 0 --out audit",
    "check-data": "check-data rows.jsonl --model tiny-random --max-length 30",
    "chat": "chat tiny-random --max-new-tokens 2",
}
"""A line of every command."""
HAS = {
    "sample": {"data", "rows", "of_tasks", "dropped"},
    "revise": {"data", "rows", "of_tasks", "dropped"},
    "eval": {"values", "graded", "settings", "left_out", "file"},
    "compare": {"comparison", "sentences", "report"},
    "run": {"comparison", "sentences", "report"},
    "report": {"report"},
    "score": {"scores", "mean", "failed"},
    "audit": {"out", "findings", "outcomes", "calibration", "thresholds"},
    "check-data": {"ok", "kind", "rows", "problems", "duplicates", "tokens"},
    "chat": {"turns"},
}
TRAINED = {"out", "model", "report", "steps", "metrics", "held_out", "cost", "events", "evaluations"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    prompts = [f"say {n}" for n in range(2)]
    for name, row in {
        "rows": {"completion": "one two"},
        "pairs": {"chosen": "yes", "rejected": "no"},
        "tasks": {"gold": "1"},
        "short": {"completion": "a" * 40},
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"prompt": p, **row}) + "\n" for p in prompts))
    answers = [{"prompt": f"{n} + 1?", "answer": str(n + 1)} for n in range(6)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    (folder / "faulty.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": 3, "completion": "b"}\n')
    (folder / "own.py").write_text("def fails(completions, **columns):\n    raise ValueError('no')\n")
    (folder / "rules.yaml").write_text("criteria:\n  kind: The answer is kind.\n")
    rows = Table([{"task": "t", "prompt": "p", "values": {"accuracy": 1.0}, "samples": []}])
    Evaluation("held_out", rows).write(folder / "earlier", Cost(seconds=1.0, tokens=1, flops=1.0))
    (folder / "recipe.yaml").write_text(
        "model: tiny-random\nstages:\n  sft: {method: sft, data: rows.jsonl, parent: start, max_steps: 1}\n"
    )
    return folder


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a line with `--json` prints, which must be one line with one object."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def answer(line: str) -> dict[str, Any]:
        code = cli.main([*shlex.split(line), "--json"])
        out = capsys.readouterr().out
        assert out.endswith("}\n") and out.count("\n") == 1
        found: dict[str, Any] = json.loads(out)
        assert found["exit_code"] == code
        return found

    return answer


def test_every_command_has_a_line() -> None:
    assert set(LINES) == set(cli._commands())


@pytest.mark.parametrize("name", LINES)
def test_every_command_answers_with_one_object(name: str, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\n/reset\nagain\n")))
    with serve(Critic) if name == "revise" else nullcontext() as critic:
        found = ask(LINES[name].replace("URL", critic.url if critic else ""))
    assert (found["exit_code"], found["error"], found["command"]) == (0, None, name)
    assert HAS.get(name, TRAINED) <= found.keys()
    for command in found["next"]:
        assert shlex.split(command)[1] in LINES and "#" not in command
    if name == "sft":
        assert found["steps"] == found["held_out"]["step"] == found["metrics"]["step"] == 1
        assert found["metrics"]["loss"] > 0 and found["cost"]["steps"] == 1
        assert Path(found["model"]).is_dir() and Path(found["report"]).is_file() and found["next"]
    elif name == "chat":
        assert [turn["question"] for turn in found["turns"]] == ["hello", "again"]
    elif name == "eval":
        assert found["values"]["accuracy"].keys() == {"value", "low", "high", "n"} and found["left_out"] == 0
        assert Path(found["file"]).is_file()
    elif name == "score":
        assert len(found["scores"]) == found["mean"]["n"] == 2 and found["failed"] == 0
    elif name == "check-data":
        assert found["kind"] == "completion" and found["tokens"]["cut"] == ["rows.jsonl:1", "rows.jsonl:2"]
    elif name in ("sample", "revise"):
        assert found["rows"] == len(Path(found["data"]).read_text().splitlines())


def test_findings_and_rows_without_a_score_are_data(ask: Any) -> None:
    found = ask("check-data faulty.jsonl")
    assert (found["exit_code"], found["error"], found["ok"], found["next"]) == (1, None, False, [])
    assert found["problems"][0].startswith("faulty.jsonl:2: ")
    found = ask("score --data rows.jsonl --reward own.py:fails")
    assert found["exit_code"] == 1 and found["error"].startswith("no row could be scored")
    assert [row["score"] for row in found["scores"]] == [None, None] and found["mean"]["value"] is None


def test_lists_plans_and_dry_runs(ask: Any) -> None:
    assert "math" in [reward["reward"].partition("(")[0] for reward in ask("score --list")["rewards"]]
    [stage] = ask("run recipe.yaml --plan")["stages"]
    assert (stage["name"], stage["method"], stage["parent"], stage["data"]) == ("sft", "sft", "start", ["rows.jsonl"])
    assert stage["memory"]["peak"] > stage["memory"]["weights"] > 0
    found = ask(LINES["rl"].replace("--out rl", "--out dry --dry-run"))
    assert "score" in found["text"] and found["next"] == [] and not Path("dry").exists()


@pytest.mark.parametrize(
    ("line", "command", "error"),
    [
        ("", None, "no command was given"),
        ("stf", "stf", "unknown command 'stf'; did you mean sft?"),
        ("sft --batch-sise 2", "sft", "unknown option --batch-sise; did you mean --batch-size?"),
        ("sft --out o --model", "sft", "--model needs a value; posttrain sft --help lists the options"),
        ("report nowhere", "report", "nowhere: no such folder; give a run folder or a pipeline's folder"),
    ],
)
def test_bad_input_is_told_in_the_object_too(line: str, command: str | None, error: str, ask: Any) -> None:
    assert ask(line) == {"command": command, "exit_code": 2, "error": error, "next": []}


@pytest.mark.parametrize(
    ("fault", "code", "error"),
    [
        (RunFailed("it broke"), 1, "it broke"),
        (RunPaused("later"), 4, "later"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "full"), 1, "the disk is full ([Errno 28] full); free some space and run the command again"),
        (ZeroDivisionError("no"), 3, "a fault in posttrain: ZeroDivisionError: no"),
    ],
)
def test_what_ends_a_command_is_told(
    fault: BaseException, code: int, error: str, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: object) -> None:
        print("what is printed before")
        raise fault

    monkeypatch.setattr(cli, "command_help", ends)
    assert ask("sft --help") == {"command": "sft", "exit_code": code, "error": error, "next": []}


def test_damage_beside_finished_work_changes_no_exit_code(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cost.json").write_text("no")
    monkeypatch.setattr(cli, "_report", lambda config: cli.Done(result=lambda _: trained(tmp_path)))
    found = ask(LINES["report"])
    assert found["exit_code"] == 0 and found["error"].startswith(f"{tmp_path}/cost.json: damaged")


def test_the_options_are_data() -> None:
    data = help_data(configs.RlConfig, {})
    options = {option["name"]: option for option in data["options"]}
    assert len(options) == len(configs.RlConfig.model_fields)
    choice, flag, several = (options[f"--{name}"] for name in ("algorithm", "raw", "reward"))
    assert choice["type"] == "choice" and choice["default"] == "grpo" and "gspo" in choice["choices"]
    assert (flag["type"], flag["default"], flag["required"], flag["repeatable"]) == ("flag", False, False, False)
    assert several["repeatable"] and several["help"].startswith("A reward") and several["group"]
    assert options["--batch-size"]["type"] == "int" and options["--data"]["required"]
    number_or_word = options["--micro-batch-tokens"]
    assert number_or_word["type"] == "int" and number_or_word["choices"] == ("auto",)
    assert "--json" in data["everywhere"]
    [run] = help_data(configs.ReportConfig, {"run": "RUN"})["options"]
    assert (run["name"], run["positional"], run["type"]) == ("RUN", True, "path")
