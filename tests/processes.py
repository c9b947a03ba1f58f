"""Runs of `posttrain` as processes that a test can kill."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from posttrain.rewards.scorer import Scorer
from posttrain.workers.process import Worker
from posttrain.workers.supervisor import children_of
from tests.training_helpers import read_rows, write_rows

DEADLINE_SECONDS = 300.0
PARENT = multiprocessing.get_context("forkserver")
"""Starts runs as forks of a process that has imported everything: a run begins in a tenth of a second, not in eight."""
PARENT.set_forkserver_preload(["posttrain.train.rl.setup", "posttrain.train.sft", "posttrain.train.dpo.stage", "peft"])


def launch(arguments: Sequence[str], stderr: Path, max_file_bytes: int | None = None) -> BaseProcess:
    """Start `posttrain ARGUMENTS` as a process with its messages in a file, perhaps with a limit on its files."""
    process = PARENT.Process(target=_run, args=(list(arguments), str(stderr), max_file_bytes))
    process.start()
    return process


def _run(arguments: list[str], stderr: str, max_file_bytes: int | None) -> None:
    from posttrain.cli.main import main

    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.exit(main(arguments))


def finish(process: BaseProcess, stderr: Path) -> None:
    """Wait for a process that should end well."""
    process.join(DEADLINE_SECONDS)
    code = process.exitcode
    process.kill()
    process.join()
    assert code == 0, stderr.read_text()


def kill_when(process: BaseProcess, ready: Callable[[], bool], delay_seconds: float = 0.0) -> bool:
    """SIGKILL the process `delay_seconds` after `ready` holds. False if it ended before."""
    until = time.monotonic() + DEADLINE_SECONDS
    try:
        while not ready() and process.is_alive():
            assert time.monotonic() < until, f"waited {DEADLINE_SECONDS} s for the moment to kill"
            time.sleep(0.001)
        time.sleep(delay_seconds)
    finally:
        process.kill()
        process.join()
    return process.exitcode == -signal.SIGKILL


def running(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def with_torch(scorer: Scorer) -> list[bool]:
    """Which workers of a scorer have loaded torch. What a worker runs in is the child of its supervisor."""
    workers = [worker for worker in scorer._pool._slots if isinstance(worker, Worker)]
    children = [child for worker in workers for child in children_of(worker._process.pid)]
    return ["libtorch" in Path(f"/proc/{child}/maps").read_text() for child in children]


def tear_lines(run: Path) -> None:
    """Leave what a kill in the middle of a write does."""
    for file in (run / "metrics.jsonl", run / "rollouts.jsonl"):
        if file.exists():
            with file.open("a") as stream:
                stream.write('{"step": 1, "te')


def cut(run: Path, whole: Path, at: int) -> None:
    """Make `run` what a kill after step `at` of `whole` leaves."""
    shutil.copytree(whole, run)
    for path in run.iterdir():
        if not path.name.startswith(("config", "checkpoints", "reference", "metrics", "rollouts", "events")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for file in run.glob("*.jsonl"):
        rows = [row for row in read_rows(file) if row.get("step", 0) <= at and row.get("event") != "finished"]
        write_rows(file, rows)
    for folder in (run / "checkpoints").glob("step-*"):
        if int(folder.name.removeprefix("step-")) > at:
            shutil.rmtree(folder)
    tear_lines(run)


def steps_written(run: Path) -> int:
    """Whole lines of metrics.jsonl."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def assert_same_run(killed: Path, whole: Path, timeless: Callable[[Path], list[dict[str, object]]]) -> None:
    """Metrics but for the clock, rollouts and final weights are the same, bit for bit."""
    assert timeless(killed) == timeless(whole)
    for weights in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (killed / weights).exists() == (whole / weights).exists()
        if (whole / weights).exists():
            assert (killed / weights).read_bytes() == (whole / weights).read_bytes(), weights
    assert (killed / "rollouts.jsonl").exists() == (whole / "rollouts.jsonl").exists()
    if (whole / "rollouts.jsonl").exists():
        assert read_rows(killed / "rollouts.jsonl") == read_rows(whole / "rollouts.jsonl")
    assert not list(killed.rglob(".*.partial"))
