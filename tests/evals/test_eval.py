"""`posttrain eval`: what a sample passes with, the suites, and the folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain.cli.main import main
from posttrain.config import EvalConfig
from posttrain.evals.retention.retention import as_tasks, retention_tasks
from posttrain.evals.run import run_eval
from posttrain.evals.settings import differences
from posttrain.runs.reader import Run
from tests.training_helpers import read_rows, write_rows

REWARDS = """
def good(response):
    return 1.0

def half(response):
    return 0.5

def other_half(response):
    return 0.5

def penalty(response):
    return 1.0
"""


@pytest.mark.parametrize(
    ("rewards", "accuracy", "passed"),
    [
        (["good=0.5"], 0.5, 1.0),  # full marks of half a weight
        (["half", "other_half"], 1.0, 0.0),  # two halves are no full marks
        (["half=2"], 1.0, 0.0),
        (["good", "penalty=-0.5"], 0.5, 1.0),  # a penalty has no say
        (["penalty=-1"], -1.0, 0.0),
    ],
)
def test_a_sample_passes_with_full_marks_and_not_with_a_sum_of_one(
    tmp_path: Path, rewards: list[str], accuracy: float, passed: float
) -> None:
    (tmp_path / "rewards.py").write_text(REWARDS)
    data = write_rows(tmp_path / "tasks.jsonl", [{"prompt": "Say"}])
    run_eval(
        EvalConfig(
            model="tiny-random",
            data=str(data),
            reward=tuple(f"{tmp_path}/rewards.py:{r}" for r in rewards),
            out=tmp_path / "out",
            samples=2,
            max_new_tokens=2,
        )
    )
    (row,) = read_rows(tmp_path / "out" / "evaluations" / "held_out.jsonl")
    assert (row["values"]["accuracy"], row["values"]["pass@2"]) == (accuracy, passed)
    assert json.loads((tmp_path / "out" / "evaluations" / "held_out.json").read_text())["suite"] == "held_out"


def test_retention_of_any_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither data nor reward is asked for; what was asked is recorded by its hash."""
    items = retention_tasks()[:2]
    tasks = [task for task in as_tasks() if task.id in {item.id for item in items}]
    monkeypatch.setattr("posttrain.evals.run.retention_tasks", lambda: items)
    monkeypatch.setattr("posttrain.evals.run.as_tasks", lambda: tasks)
    monkeypatch.setattr("posttrain.evals.run.retention_text", lambda: "It was a truth. " * 100)
    assert main(["eval", "tiny-random", "--suite", "retention", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "knowledge" in printed and "perplexity" in printed and "[too few tasks]  n=2" in printed
    meta = json.loads((tmp_path / "evaluations" / "retention.json").read_text())
    assert meta["suite"] == "retention" and meta["settings"]["max_new_tokens"] == 48
    evaluation = Run(tmp_path).evaluations["retention"]
    assert not differences(evaluation, evaluation)
    newer = replace(evaluation, settings={**meta["settings"], "tasks_hash": "h", "max_new_tokens": 64})
    assert [d.partition(" (")[0] for d in differences(evaluation, newer)] == ["tasks", "max_new_tokens"]
    assert main(["eval", "tiny-random", "--suite", "retention", "--out", str(tmp_path)]) == 2
