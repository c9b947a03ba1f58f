"""The shipped recipes: every size is right and the tiny one runs; plans and their memory; pooled data; averages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main
from posttrain.config import (
    ModelShape,
    RunConfig,
)
from posttrain.pipeline import run_recipe
from posttrain.recipe import load_recipe
from posttrain.types import InputError
from tests.conftest import ChatServer
from tests.training_helpers import ending_tiny, metrics, read_rows

SIZED = ("constitutional", "deepseek-r1", "instructgpt", "llama3", "tulu3")
LLAMA_8B = ModelShape(layers=32, hidden=4096, intermediate=14336, heads=32, key_heads=8, vocabulary=128256)


# -- the recipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZED)
def test_every_size_is_right_and_planned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for size in ("laptop", "paper", "tiny"):
        assert main(["run", name, "--size", size, "--plan"]) == 0
        shown = capsys.readouterr().out
        assert all(stage in shown for stage in load_recipe(name, size=size).stages)
        assert "Memory in" in shown
    assert not list(tmp_path.iterdir())


def test_the_first_size_is_the_default() -> None:
    for name in SIZED:
        assert load_recipe(name) == load_recipe(name, size="laptop")
        assert load_recipe(name).model == "smollm2-135m"


def run_tiny(name: str, out: Path, *changes: str) -> dict[str, Any]:
    """Run a recipe at its tiny size; what compare.json says of its stages."""
    run_recipe(RunConfig(recipe=name, size="tiny", out=out, set=changes))
    stages: dict[str, Any] = json.loads((out / "compare.json").read_text())["stages"]
    assert all("greedy" in stage["evaluations"] for stage in stages.values())
    return stages


def test_instructgpt(tmp_path: Path) -> None:
    stages = run_tiny("instructgpt", tmp_path / "out")
    assert {name: stage["parent"] for name, stage in stages.items()} == {"start": None, "sft": "start", "ppo": "sft"}
    (row,) = metrics(tmp_path / "out" / "ppo")
    assert row["reward"] == row["reward/learned"] and row["ptx_loss"] > 0
    assert (tmp_path / "out" / "rm" / "model").is_dir()
    run_tiny("instructgpt", tmp_path / "out")  # the folder goes on at the same size
    with pytest.raises(InputError, match="model differs"):
        run_recipe(RunConfig(recipe="instructgpt", size="laptop", out=tmp_path / "out"))


def test_tulu3(tmp_path: Path) -> None:
    stages = run_tiny("tulu3", tmp_path / "out")
    assert {name: stage["parent"] for name, stage in stages.items()} == {
        "start": None,
        "sft": "start",
        "dpo": "sft",
        "rlvr": "dpo",
    }


def test_deepseek_r1(tmp_path: Path) -> None:
    stages = run_tiny("deepseek-r1", tmp_path / "out")
    assert list(stages) == ["start", "cold-start", "reasoning", "sft", "rl"]
    (row,) = metrics(tmp_path / "out" / "rl")
    assert row["reward"] == pytest.approx(row["reward/regex"] + 0.1 * row["reward/learned"])
    costs = [json.loads((tmp_path / "out" / s / "cost.json").read_text())["flops"] for s in ("sft", "rejection")]
    assert stages["sft"]["flops"] == sum(costs)


@pytest.mark.stress
def test_llama3(tmp_path: Path) -> None:
    stages = run_tiny("llama3", tmp_path / "out")
    assert list(stages) == ["start", "annotated", "sft-1", "dpo-1", "sft-2", "dpo-2", "dpo-2-wider", "average"]
    assert stages["average"]["parent"] == "dpo-2" and stages["average"]["flops"] == 0
    pooled = read_rows(tmp_path / "out" / "_pooled" / "sft-2.jsonl")
    parts = [read_rows(tmp_path / "out" / f"rejection-{n}" / "sft.jsonl") for n in (1, 2)]
    assert len(pooled) == 8 + sum(map(len, parts)) and pooled[8:] == [*parts[0], *parts[1]]


@pytest.mark.stress
def test_constitutional(tmp_path: Path, judge_server: ChatServer) -> None:
    """With a judge behind an endpoint for the labels; it likes the longer answer."""
    judge = f'judge_pair(url="{judge_server.url}", model="m", rubric="harmless", clamp=0.4)'
    changes = (f"model={ending_tiny(tmp_path)}", f"labels.reward={json.dumps([judge])}", "labels.samples=2")
    stages = run_tiny("constitutional", tmp_path / "out", *changes)
    assert list(stages) == ["start", "sl", "rl"]
    pairs = read_rows(tmp_path / "out" / "labels" / "pairs.jsonl")
    assert pairs and all((p["chosen_score"], p["rejected_score"]) == (0.6, 0.4) for p in pairs)
    assert all(len(p["chosen"]) > len(p["rejected"]) for p in pairs)
    assert all(row["rounds"] for row in read_rows(tmp_path / "out" / "revised" / "sft.jsonl"))
