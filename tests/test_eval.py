"""`posttrain eval`: what a sample passes with, and the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.config import EvalConfig
from posttrain.evals.run import run_eval
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
