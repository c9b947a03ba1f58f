"""Control arms and sealed rewards in a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli.main import main
from posttrain.config import RunConfig
from posttrain.recipes.check import read_recipe
from posttrain.recipes.load import load_recipe, read_text
from posttrain.recipes.run import run_recipe
from posttrain.runs.reader import Run
from posttrain.types import InputError
from tests.recipes.test_pipeline import recipe, sums, write
from tests.training_helpers import metrics


def controlled(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """A stage of rl with controls, and a sealed reward that reads the answer."""
    raw = recipe(tmp_path)
    raw["evaluate"]["samples"] = 1
    grpo = {**raw["stages"]["grpo"], "parent": "start", "max_steps": 1, "batch_size": 8}
    grpo |= {
        "controls": ["coin", "majority"],
        "sealed_reward": "math",
        "reward_workers": 0,
        "columns": {"prompt": "question"},
    }
    raw["stages"] = {"grpo": {**grpo, **changes}}
    return raw


def test_a_recipe_with_controls(tmp_path: Path) -> None:
    """Each control is a stage like the others, equal in all but what it is paid; the comparison, its page and its words
    say what the reward was worth."""
    out = tmp_path / "out"
    file = write(tmp_path, controlled(tmp_path))
    run_recipe(RunConfig(recipe=file, out=out))
    comparison = json.loads((out / "compare.json").read_text())
    assert list(comparison["stages"]) == ["start", "grpo", "grpo-coin", "grpo-majority"]
    assert {stage["parent"] for name, stage in comparison["stages"].items() if name != "start"} == {"start"}
    settings = {name: Run(out / name).config for name in ("grpo", "grpo-coin", "grpo-majority")}
    differ = {key for own in settings.values() for key in own if own[key] != settings["grpo"][key]}
    assert differ == {"control", "out"}
    worth = comparison["worth"]
    assert [(c["of"], c["against"], c["control"], c["evaluation"]) for c in worth] == [
        ("grpo", "grpo-coin", "coin", "accuracy"),
        ("grpo", "grpo-majority", "majority", "accuracy"),
    ]
    alike = {(c["of"], c["against"]): c for c in comparison["contrasts"] if c["evaluation"] == "accuracy"}
    assert worth[0]["value"] == -alike["grpo-coin", "grpo"]["value"]
    for name in settings:
        (row,) = metrics(out / name)
        assert row["sealed_gap"] == pytest.approx(row.get("reward/true", row["reward"]) - row["sealed_reward"])
    page = (out / "report.html").read_text()
    assert "What the reward was worth" in page and "grpo-coin, the same run paid by chance" in page
    stamps = {f: f.stat().st_mtime_ns for f in out.glob("*/model/model.safetensors")}
    run_recipe(RunConfig(recipe=file, out=out))
    assert len(stamps) == 3 and stamps == {f: f.stat().st_mtime_ns for f in stamps}


def test_a_budget_is_the_same_for_the_controls(tmp_path: Path) -> None:
    """An arm copies what a stage may spend, also where `--set` or a size changes it."""
    raw = controlled(tmp_path, controls="coin")
    raw["stages"] = {
        "sft": {"method": "sft", "parent": "start", "data": sums(tmp_path, 12, 16), "max_steps": 1},
        "grpo": {**raw["stages"]["grpo"], "flops_of": "sft", "max_steps": None},
    }
    file = write(tmp_path, raw)
    stages = load_recipe(file, ("grpo.batch_size=16",)).stages
    assert list(stages) == ["sft", "grpo", "grpo-coin"]
    assert stages["grpo-coin"] == {**stages["grpo"], "control": "coin"}
    assert stages["grpo-coin"]["flops_of"] == "sft" and stages["grpo-coin"]["batch_size"] == 16
    assert list(load_recipe(file, ("grpo.controls=[]",)).stages) == ["sft", "grpo"]
    lines = read_text(file).lines
    assert lines["stages", "grpo-coin", "reward"] == lines["stages", "grpo", "reward"]


def test_a_plan_shows_controls_and_sealed_rewards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, controlled(tmp_path))
    assert main(["run", file, "--plan"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "rl, paid by coin" in shown and "grpo-majority" in shown
    assert "grpo is graded by math too, which it is not trained on." in shown
    assert main(["run", file, "--plan", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [(s["control"], s["sealed_reward"]) for s in stages][:2] == [(None, ["math"]), ("coin", ["math"])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controls": ["dice"]}, r"stage grpo: controls is \['dice'\]; give a list of coin, majority, format"),
        ({"controls": ["coin", "coin"]}, "each once"),
        ({"controls": 3}, "controls is 3; give a list"),
        ({"control": "coin"}, r"stage grpo: it is a control itself \(control: coin\); leave controls out"),
        ({"group_size": 1, "baseline": "none", "scale": "none"}, "stage grpo-majority: .*a group_size of at least 2"),
        ({"sealed_reward": ["nothing"]}, "unknown reward 'nothing'"),
        ({"sealed_reward": ["regex(digits=1)"]}, "stage grpo: reward regex.* has no option 'digits'"),
        ({"sealed_reward": ["learned({rm})"]}, r"names \{rm\}, and the recipe has no such stage"),
        ({"reward": ["math"], "sealed_reward": ["math=2"]}, "stage grpo: the sealed reward math=2 is the one that is"),
        ({"canaries": 2}, "stage grpo: canaries: the reward reads no column with a reference answer"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(RunConfig(recipe=write(tmp_path, controlled(tmp_path, **changes)), out=tmp_path / "out"))


def test_a_fault_of_a_stage_is_told_once_and_not_of_each_control(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(
            RunConfig(
                recipe=write(tmp_path, controlled(tmp_path, batch_sise=4, reward="nothing")), out=tmp_path / "out"
            )
        )
    text = str(caught.value)
    assert "has 2 faults" in text and text.count("batch_sise") == text.count("unknown reward") == 1, text


def test_controls_are_for_rl_and_take_no_name(tmp_path: Path) -> None:
    raw = controlled(tmp_path)
    raw["stages"]["grpo-coin"] = {"method": "sft", "parent": "start", "data": sums(tmp_path, 12, 4), "controls": "coin"}
    with pytest.raises(InputError) as caught:
        read_text(write(tmp_path, raw))
    assert "stage grpo: controls would make the stage grpo-coin, and the recipe has one" in str(caught.value)
    assert "stage grpo-coin: controls are for stages with method: rl, not 'sft'" in str(caught.value)
