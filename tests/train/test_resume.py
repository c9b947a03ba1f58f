"""A run that is killed and continued equals one that never was, bit for bit."""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.cli.main import main
from posttrain.models import load_model
from tests.processes import assert_same_run, cut, finish, kill_when, launch, steps_written, tear_lines
from tests.training_helpers import (
    ending_tiny,
    events,
    metrics,
    pair_rows,
    read_rows,
    sft_rows,
    stepwise_rows,
    write_rows,
)

REWARD = "def length(response):\n    return (len(response) * 7 % 11) / 10\n"
STEPS, SAVE_EVERY = 11, 4

KINDS: dict[str, str] = {
    "sft": "sft --batch-size 4 --learning-rate 1e-4 --warmup-steps 8",
    "lora": "sft --batch-size 4 --lora-rank 4 --use-rslora --use-dora --schedule cosine",
    "dpo": "dpo --batch-size 3 --learning-rate 1e-5",
    "tr-dpo": "dpo --batch-size 3 --learning-rate 1e-4 --reference-every 3 --reference-mix 0.6",
    "kto": "dpo --batch-size 4 --learning-rate 1e-4 --loss kto --loss sft=0.1",
    "reward-model": "reward-model --batch-size 4 --learning-rate 1e-4 --members 2 --centre-coefficient 0.01",
    "length-head": "reward-model --batch-size 4 --length-head --lora-rank 4",
    "process-model": "reward-model --batch-size 4 --learning-rate 1e-4",
    "rl": "rl --batch-size 8 --group-size 4 --max-new-tokens 6 --updates-per-batch 2 --beta 0.05",
    "ppo": "rl --algorithm ppo --batch-size 8 --max-new-tokens 6 --minibatches 2 --kl-target 1 --reference-every 3",
    "dapo": "rl --algorithm dapo --batch-size 8 --group-size 4 --max-new-tokens 6 --constraint length>=0.9",
    "env": "rl --batch-size 8 --group-size 4 --max-new-tokens 20 --env guess_number(low=1,high=5) --max-turns 3",
    "online-dpo": "online-dpo --batch-size 8 --group-size 4 --max-new-tokens 6 --max-refills 1 --reference-every 3",
    "distill": "distill --batch-size 4 --max-new-tokens 6 --on-policy-share 0.7 --lora-rank 4",
}
KILLED = ("dpo", "ppo")
"""Kinds that are killed for real here: one with a stored reference, one with rollouts and a critic. The stress tests
kill all kinds."""
CUT = ("lora", "reward-model", "rl", "env", "distill")
"""Kinds that resume from a folder as a kill leaves it. What is in neither goes the same way as another one."""
UPDATES = {"rl": 2, "ppo": 2}
"""Optimizer steps of the policy in a step, where that is not one."""


def other_tiny(tmp_path: Path) -> Path:
    """tiny-random with other weights."""
    folder = tmp_path / "teacher"
    if not folder.exists():
        lm = load_model("tiny-random")
        with torch.no_grad():
            for i, parameter in enumerate(lm.module.parameters()):
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
        lm.save(folder)
    return folder


def arguments(tmp_path: Path, kind: str, out: str, steps: int = STEPS) -> list[str]:
    """The command line of a small run. 11 rows and batches of 3 or 4: checkpoints fall inside passes."""
    if kind in ("dpo", "tr-dpo", "reward-model", "length-head"):
        rows: list[dict[str, Any]] = pair_rows(11)
    elif kind == "process-model":
        rows = stepwise_rows(11)
    elif kind == "kto":
        rows = [{**row, "label": i % 2 == 0} for i, row in enumerate(sft_rows(11))]
    else:
        rows = sft_rows(11) if kind in ("sft", "lora", "distill") else [{"prompt": r["prompt"]} for r in sft_rows(11)]
    data = write_rows(tmp_path / f"{kind}.jsonl", rows)
    reward = tmp_path / "reward.py"
    reward.write_text(REWARD)
    model = ending_tiny(tmp_path) if kind == "env" else "tiny-random"
    common = ["--model", model, "--data", str(data), "--out", str(tmp_path / out), "--max-steps", str(steps)]
    rl = KINDS[kind].startswith(("rl ", "online-dpo "))
    extra = ["--reward", f"{reward}:length", "--learning-rate", "1e-4"] if rl else []
    extra += ["--teacher", str(other_tiny(tmp_path))] if kind == "distill" else []
    return [*KINDS[kind].split(), *common, "--save-every", str(SAVE_EVERY), *extra]


@pytest.mark.parametrize("kind", KILLED)
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, kind: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    rng = random.Random(kind)
    at = rng.randint(SAVE_EVERY + 1, STEPS - 3)
    process = launch(arguments(tmp_path, kind, "whole"), tmp_path / "whole.txt")
    finish(process, tmp_path / "whole.txt")
    command = arguments(tmp_path, kind, "killed")
    process = launch(command, tmp_path / "killed.txt")
    assert kill_when(process, lambda: steps_written(killed) >= at, rng.random() * 0.02), "it was not killed in time"
    reached = steps_written(killed)
    assert at <= reached < STEPS
    assert not (killed / "lineage.json").exists()
    tear_lines(killed)

    finish(launch([*command, "--resume"], tmp_path / "resumed.txt"), tmp_path / "resumed.txt")

    assert_same_run(killed, whole, partial(metrics, timeless=True))
    (event,) = events(killed, "resumed_from")
    start = event["resumed_from"]
    assert start % SAVE_EVERY == 0
    assert reached - SAVE_EVERY <= start <= reached
    updates = UPDATES.get(kind, 1)
    assert events(killed, "finished")[0]["optimizer_steps_of_this_process"] == (STEPS - start) * updates
    assert events(whole, "finished")[0]["optimizer_steps_of_this_process"] == STEPS * updates
    assert not events(whole, "resumed_from")


@pytest.mark.parametrize("kind", CUT)
def test_resumed_from_a_cut_folder_equals_uninterrupted(tmp_path: Path, kind: str) -> None:
    """Step 5 was written and its checkpoint was not: it is taken again, on the rollouts that were recorded."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*arguments(tmp_path, kind, "whole", steps=SAVE_EVERY + 2), "--keep", "2"]) == 0
    cut(killed, whole, at=SAVE_EVERY + 1)
    assert main([*arguments(tmp_path, kind, "killed", steps=SAVE_EVERY + 2), "--keep", "2", "--resume"]) == 0
    assert_same_run(killed, whole, partial(metrics, timeless=True))
    assert [e["resumed_from"] for e in events(killed, "resumed_from")] == [SAVE_EVERY]
    taken = [e["optimizer_steps_of_this_process"] for e in events(killed, "finished")]
    assert taken == [2 * UPDATES.get(kind, 1)]


def test_recorded_rollouts_are_not_scored_again(tmp_path: Path) -> None:
    """A step whose rollouts were recorded before the kill keeps its scores, though the reward has changed since."""
    command = arguments(tmp_path, "rl", "run", steps=2)
    assert main(command) == 0
    run = tmp_path / "run"
    before = read_rows(run / "rollouts.jsonl")
    for file in ("lineage.json", "metrics.jsonl"):
        (run / file).unlink()
    (tmp_path / "reward.py").write_text("def length(response):\n    return -5.0\n")
    assert main([*command, "--resume"]) == 0
    assert read_rows(run / "rollouts.jsonl") == before
    assert all(row["reward"] > -5 for row in metrics(run))


def snapshot(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_resume_of_a_finished_run_changes_nothing(tmp_path: Path, kind: str) -> None:
    command = arguments(tmp_path, kind, "run", steps=2)
    assert main(command) == 0
    before = snapshot(tmp_path / "run")
    assert main([*command, "--resume"]) == 0
    assert snapshot(tmp_path / "run") == before


def test_a_changed_argument_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = arguments(tmp_path, "sft", "run", steps=2)
    assert main(command) == 0
    before = snapshot(tmp_path / "run")
    capsys.readouterr()
    assert main([*command, "--resume", "--seed", "5"]) == 2
    message = capsys.readouterr().err
    assert "seed" in message and "0" in message and "5" in message
    assert message.count("\n") == 1
    assert snapshot(tmp_path / "run") == before


@pytest.mark.parametrize("option", ["--data", "--eval-data"])
def test_changed_content_of_a_data_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    held_out = write_rows(tmp_path / "held-out.jsonl", sft_rows(2))
    command = [*arguments(tmp_path, "sft", "run", steps=2), "--eval-data", str(held_out), "--eval-every", "1"]
    assert main(command) == 0
    changed = Path(command[command.index(option) + 1])
    before, content = snapshot(tmp_path / "run"), changed.read_bytes()
    changed.write_bytes(content + b"\n")
    capsys.readouterr()
    assert main([*command, "--resume"]) == 2
    message = capsys.readouterr().err
    assert str(changed) in message and "other content" in message and "put the old file back" in message
    changed.write_bytes(content)
    assert main([*command, "--resume"]) == 0
    assert snapshot(tmp_path / "run") == before


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a lock", "half a configuration", "no checkpoint"])
def test_resume_with_nothing_to_resume_begins(tmp_path: Path, left: str) -> None:
    command = arguments(tmp_path, "sft", "run", steps=2)
    run = tmp_path / "run"
    if left == "no checkpoint":  # killed after the first step
        assert main(command) == 0
        rows = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run / "lineage.json").unlink()
        (run / "metrics.jsonl").write_text(rows[0])
        expected_event = 1
    else:
        expected_event = 0
        if left != "nothing":
            run.mkdir()
        if left in ("a lock", "half a configuration"):
            (run / ".lock").touch()
        if left == "half a configuration":
            (run / ".config.yaml.partial").write_text("model: ti")
    assert main([*command, "--resume"]) == 0
    assert [row["step"] for row in metrics(run)] == [1, 2]
    assert [e["resumed_from"] for e in events(run, "resumed_from")] == [0] * expected_event
    assert events(run, "finished")[-1]["optimizer_steps_of_this_process"] == 2


def test_early_stopping_survives_a_kill(tmp_path: Path) -> None:
    """The best evaluation before the checkpoint is remembered, and its weights come back."""
    held_out = write_rows(tmp_path / "held-out.jsonl", [{"prompt": "Say it", "completion": "apple river"}])
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": "Say it", "completion": c} for c in ("apple stone", "qqq")])
    common = ["sft", "--model", "tiny-random", "--data", str(data), "--batch-size", "2", "--max-steps", "60"]
    options = ["--learning-rate", "3e-3", "--eval-data", str(held_out), "--eval-every", "1", "--patience", "4"]
    command = [*common, *options, "--save-every", "1", "--keep", "100"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    whole = metrics(tmp_path / "whole", timeless=True)
    (best,) = events(tmp_path / "whole", "best_step")
    assert len(whole) == best["step"] + 4

    run = tmp_path / "killed"
    shutil.copytree(tmp_path / "whole", run)
    (run / "lineage.json").unlink()
    for later in range(best["step"] + 3, len(whole) + 1):  # killed two evaluations after the best
        shutil.rmtree(run / f"checkpoints/step-{later:08d}")
    assert main([*command, "--out", str(run), "--resume"]) == 0
    assert metrics(run, timeless=True) == whole
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
