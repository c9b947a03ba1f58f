"""Many kills in one run, at chosen and at random moments: what comes out equals a run that was never killed."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.processes import assert_same_run, finish, kill_when, launch, steps_written
from tests.train.test_resume import KINDS, SAVE_EVERY, arguments
from tests.training_helpers import algorithms, events, metrics, read_rows, write_rows

STEPS, KILLS = 60, 10

pytestmark = [pytest.mark.stress, pytest.mark.timeout(900)]


def moment(run: Path, rng: random.Random, kill: int) -> Callable[[], bool]:
    """When to kill: while a checkpoint is being written, or some steps from now."""
    if kill % 3 == 2:
        return lambda: any((run / "checkpoints").glob(".*.partial"))
    at = steps_written(run) + rng.randint(1, SAVE_EVERY + 2)
    return lambda: steps_written(run) >= at


def last_moments(run: Path) -> list[Callable[[], bool]]:
    """While the model is being written; after it, while the run is not marked as finished."""
    return [
        lambda: (run / ".model.partial").exists(),
        lambda: (run / "model").exists() and (run / "cost.json").exists(),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_again_and_again(tmp_path: Path, kind: str) -> None:
    rng = random.Random(f"kills of {kind}")
    whole, killed, messages = tmp_path / "whole", tmp_path / "killed", tmp_path / "messages.txt"
    finish(launch(arguments(tmp_path, kind, "whole", STEPS), messages), messages)
    command = [*arguments(tmp_path, kind, "killed", STEPS), "--resume"]

    kills = 0
    for kill in range(KILLS):
        ready = moment(killed, rng, kill)
        kills += kill_when(launch(command, messages), ready, rng.random() * 0.03)
    for ready in last_moments(killed):
        kills += kill_when(launch(command, messages), ready)
    finish(launch(command, messages), messages)

    assert kills >= KILLS  # the moments after the last step may be missed, the others not
    assert_same_run(killed, whole, partial(metrics, timeless=True))
    resumed = [event["resumed_from"] for event in events(killed, "resumed_from")]
    assert resumed == sorted(resumed) and resumed[-1] > 0
    assert all(step % SAVE_EVERY == 0 for step in resumed)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_time(tmp_path: Path, kind: str) -> None:
    """Twenty kills for online RL, ten for the others."""
    kills = 2 * KILLS if KINDS[kind].startswith("rl ") else KILLS
    kill_at_any_time(tmp_path, lambda out: arguments(tmp_path, kind, out, STEPS), kills)


def test_a_run_with_tools_killed_at_any_time(tmp_path: Path) -> None:
    """The model of this run calls its tool in about half of the episodes."""
    benchmark = algorithms()
    task = benchmark.tasks(tmp_path / "tool")["tool"]
    start = benchmark.start_of(task, tmp_path / "tool")
    data = write_rows(tmp_path / "tasks.jsonl", task.rows)
    fixed = f"rl --model {start} --data {data} --env {task.options['env']} --batch-size 8 --group-size 4"
    limits = "--max-new-tokens 64 --max-turns 2 --max-steps 30 --save-every 5"
    kill_at_any_time(
        tmp_path, lambda out: [*fixed.split(), *limits.split(), "--out", str(tmp_path / out)], kills=2 * KILLS
    )
    rows = read_rows(tmp_path / "whole" / "rollouts.jsonl")
    assert any(m.get("role") == "tool" for row in rows for m in row["messages"])


def kill_at_any_time(tmp_path: Path, command: Callable[[str], list[str]], kills: int) -> None:
    """Kill a run at moments drawn evenly from the first sixth of a process's life, which moves through the run as it is
    continued, and compare it with one that was left alone. A run that reaches its end is compared and begun anew."""
    rng = random.Random(f"times of {kills}")
    whole, killed, messages = tmp_path / "whole", tmp_path / "killed", tmp_path / "messages.txt"
    begun = time.monotonic()
    finish(launch(command("whole"), messages), messages)
    life = time.monotonic() - begun
    done = 0
    while done < kills:
        done += kill_when(launch([*command("killed"), "--resume"], messages), lambda: True, rng.uniform(0, life / 6))
        if (killed / "lineage.json").exists():
            assert_same_run(killed, whole, partial(metrics, timeless=True))
            shutil.rmtree(killed)
    finish(launch([*command("killed"), "--resume"], messages), messages)
    assert_same_run(killed, whole, partial(metrics, timeless=True))
