"""What a finished command says: where things are, what was best, and commands that can be copied."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from posttrain import config as configs
from posttrain.cli import main as cli
from posttrain.cli import next_steps
from posttrain.cli.options import parse_options


def after(config: configs.Config) -> str:
    return next_steps.formatted(next_steps.after(config))


SPENT = {"tokens": 1, "flops": 1.0, "step_seconds": 1.0}


def commands(text: str) -> list[list[str]]:
    """The command lines in a text; each must be one that posttrain takes."""
    found = []
    for line in text.splitlines():
        if "posttrain " in line:
            words = shlex.split(line[line.index("posttrain ") :], comments=True)
            spec = cli._commands()[words[1]]
            parse_options(spec.config, words[2:], "posttrain", spec.positional)
            found.append(words[1:])
    return found


def run_folder(path: Path, metrics: list[dict[str, Any]] | None = None, parent: str | None = None) -> Path:
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row | SPENT) + "\n" for row in metrics or []))
    if parent is not None:
        (path / "lineage.json").write_text(json.dumps({"parents": [parent]}))
    return path


def evaluated(run: Path) -> Path:
    (run / "evaluations").mkdir()
    (run / "evaluations" / "held_out.json").write_text("{}")
    return run


def test_a_trained_model_is_talked_to_and_tested_for_what_it_forgot(tmp_path: Path) -> None:
    rows = [{"step": n, "loss": 1.0, "eval/loss": loss} for n, loss in ((10, 2.0), (20, 1.5), (30, 1.75))]
    run = run_folder(tmp_path / "a b", rows)
    config = configs.SftConfig(model="m", data="d.jsonl", out=run, trust_remote_code=True)
    text = after(config)
    assert f"model:    {run}/model\n" in text and f"report:   {run}/report.html\n" in text
    assert "held out: loss 1.5 at step 20, the lowest; 1.75 at step 30, the last that was evaluated" in text
    assert commands(text) == [
        ["eval", str(run), "--suite", "retention", "--out", str(run), "--trust-remote-code"],
        ["chat", str(run), "--trust-remote-code"],
    ]


def test_a_run_on_rewards_tells_how_they_changed_and_is_measured_by_them(tmp_path: Path) -> None:
    rows = [{"step": n, "reward": value} for n, value in enumerate([0.0, 0.2, None, 0.4, 0.6], start=1)]
    run = run_folder(tmp_path / "rl", rows)
    reward = "clip(f.py:g, low=0)=0.5"
    config = configs.RlConfig(model="m", data="d", out=run, reward=("math", reward), columns={"prompt": "q"})
    text = after(config)
    assert "reward:   mean 0.5 in the last 2 steps, +0.4 against the first 2 steps" in text
    measure = ["eval", str(run), "--data", "d", "--columns", "prompt=q", "--reward", "math", "--reward", reward]
    assert commands(text) == [[*measure, "--out", str(run)], ["chat", str(run)]]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([{"event": "alarm", "monitor": "M1"}, {"event": "finished", "ended_by": "alarm"}], "by M1 at step 2 of 30"),
        ([{"event": "alarm", "monitor": "M7"}, {"event": "finished", "ended_by": "patience"}], "by patience at step 2"),
        ([{"event": "alarm", "monitor": "M7"}, {"event": "finished", "ended_by": "steps"}], ""),
    ],
)
def test_a_run_that_was_stopped_says_by_what(tmp_path: Path, events: list[dict[str, Any]], told: str) -> None:
    run = run_folder(tmp_path / "rl", [{"step": 1, "reward": 0.0}])
    (run / "events.jsonl").write_text("".join(json.dumps(event | {"steps": 2}) + "\n" for event in events))
    text = after(configs.RlConfig(model="m", data="d", out=run, reward=("math",), max_steps=30))
    assert told in text and ("stopped:" in text) == bool(told)


def test_a_reward_model_is_used_as_a_reward(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "rm")
    [command] = commands(after(configs.RewardModelConfig(model="m", data="d", out=run)))
    assert command[0] == "sample" and f"learned({run})" in command


@pytest.mark.parametrize(("write", "method"), [("best", "sft"), ("pairs", "dpo")])
def test_sampled_data_is_trained_on(tmp_path: Path, write: Any, method: str) -> None:
    config = configs.SampleConfig(model="m", data="d", out=tmp_path / "s", reward=("math",), write=write)
    [command] = commands(after(config))
    assert command[:5] == [method, "--model", "m", "--data", str(tmp_path / "s" / config.file)]


def test_data_of_an_endpoint_is_checked(tmp_path: Path) -> None:
    config = configs.SampleConfig(
        endpoint="http://localhost/v1", endpoint_model="x", data="d", out=tmp_path, reward=("math",)
    )
    assert commands(after(config)) == [["check-data", str(tmp_path / "sft.jsonl")]]


def test_an_evaluation_is_compared_with_that_of_the_parent(tmp_path: Path) -> None:
    parent = run_folder(tmp_path / "sft", parent="m")
    run = evaluated(run_folder(tmp_path / "rl", parent=str(parent / "model")))
    config = configs.EvalConfig(model=str(run), data="d", reward=("math",), out=run, samples=2, strict=True)
    same = ["--data", "d", "--reward", "math", "--samples", "2", "--strict"]
    compare = ["compare", str(parent), str(run), "--out", f"{run}-comparison"]
    assert commands(after(config)) == [["eval", f"{parent}/model", *same, "--out", str(parent)], compare]
    evaluated(parent)
    assert commands(after(config)) == [compare]


def test_an_evaluation_that_was_not_kept_says_how_to_keep_it() -> None:
    assert "--out RUN" in after(configs.EvalConfig(model="m", data="d", reward=("math",)))


def test_a_recipe_and_a_comparison_name_a_model_to_talk_to(tmp_path: Path) -> None:
    for name in ("start", "sft", "rl"):
        (tmp_path / name / ("model" if name != "start" else "evaluations")).mkdir(parents=True)
    stage = {"parent": None, "evaluations": {}, "seconds": 1, "tokens": 1, "flops": 1}
    compared = {"stages": dict.fromkeys(("start", "sft", "rl"), stage), "contrasts": []}
    (tmp_path / "compare.json").write_text(json.dumps(compared))
    recipe = configs.RunConfig(recipe="r", out=tmp_path)
    assert commands(after(recipe)) == [["chat", str(tmp_path / "rl")]]
    leads: dict[str, Any] = {"held_out": {"of": "sft", "comparisons": 2, "others": []}}
    (tmp_path / "compare.json").write_text(json.dumps(compared | {"leads": leads}))
    assert commands(after(recipe)) == [["chat", str(tmp_path / "sft")]]  # it scored highest
    (tmp_path / "sft" / "config.yaml").write_text("control: coin\n")
    other = {"of": "sft", "evaluation": "accuracy", "value": 0.1, "low": None, "high": None, "n": 1}
    leads["held_out"]["others"] = [{**other, "against": name} for name in ("start", "rl")]
    (tmp_path / "compare.json").write_text(json.dumps(compared | {"leads": leads}))
    assert commands(after(recipe)) == [["chat", str(tmp_path / "rl")]]  # a control is trained to be compared with
    (tmp_path / "rl" / "config.yaml").write_text("control: majority\n")
    assert commands(after(recipe)) == []
    comparison = configs.CompareConfig(runs=(tmp_path / "sft", tmp_path / "rl"), out=tmp_path / "c")
    assert commands(after(comparison)) == [["chat", str(tmp_path / "rl")]]


@pytest.mark.parametrize(
    ("data", "measured"),
    [
        ("a.json?split=train[:90%]", "a.json?split=train[90%:]"),
        ("a.json?split=test[:100]", "a.json?split=test[100:]"),
        ("a.json", "a.json"),
        ("a.json?split=train[:90%],b.json", "a.json?split=train[:90%],b.json"),
    ],
)
def test_a_run_on_a_part_of_a_file_is_measured_on_the_rest(tmp_path: Path, data: str, measured: str) -> None:
    text = after(configs.RlConfig(model="m", data=data, out=tmp_path, reward=("math",)))
    words = commands(text)[0]
    assert words[words.index("--data") + 1] == measured
    assert ("not trained on" in text) == (data == measured)
