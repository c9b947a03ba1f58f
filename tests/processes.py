"""Runs of `posttrain` as processes that a test can kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.training_helpers import read_rows

ROOT = Path(__file__).parent.parent
ENV = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # sums depend on the number of threads
    "TOKENIZERS_PARALLELISM": "false",
}
DEADLINE_SECONDS = 90.0


def launch(arguments: Sequence[str], stderr: Path) -> subprocess.Popen[bytes]:
    """Start `posttrain ARGUMENTS` with its messages in a file."""
    with stderr.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "posttrain", *arguments], env=ENV, stdout=subprocess.DEVNULL, stderr=stream
        )


def finish(process: subprocess.Popen[bytes], stderr: Path) -> None:
    """Wait for a process that should end well."""
    try:
        code = process.wait(DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert code == 0, stderr.read_text()


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool], delay_seconds: float = 0.0) -> bool:
    """SIGKILL the process `delay_seconds` after `ready` holds. False if it ended before."""
    until = time.monotonic() + DEADLINE_SECONDS
    try:
        while not ready() and process.poll() is None:
            assert time.monotonic() < until, f"waited {DEADLINE_SECONDS} s for the moment to kill"
            time.sleep(0.001)
        time.sleep(delay_seconds)
    finally:
        process.send_signal(signal.SIGKILL)
        code = process.wait()
    return code == -signal.SIGKILL


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
