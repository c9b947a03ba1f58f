"""Fixtures every test may use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from posttrain.models import LanguageModel

# Read when torch is imported, here and in child processes: sums depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parent.parent
MEMORY_KIB = 12 << 20

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    """The model `tiny-random`, shared: a test that changes its weights loads its own."""
    from posttrain.models import load_model

    return load_model("tiny-random")


@pytest.fixture
def run_cli(tmp_path: Path) -> RunCli:
    """Run `posttrain ARGS...` as a process of its own in `tmp_path`, bounded in time (seconds) and address space."""

    def run(
        *args: str | Path, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        bounded = ["sh", "-c", f'ulimit -v {MEMORY_KIB} && exec "$@"', "sh"]
        return subprocess.run(
            [*bounded, sys.executable, "-m", "posttrain", *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


class ChatServer:
    """A chat-completions server (`servers/chat.py`) by its address, and what it was asked."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def serve(script: str, log: Path) -> Iterator[ChatServer]:
    """A running server of a script in `servers`, in a process of its own."""
    command = [sys.executable, "-m", f"tests.servers.{script}", str(log)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield ChatServer(f"http://127.0.0.1:{process.stdout.readline().strip()}/v1", log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A running `chat_server`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    yield from serve("chat", tmp_path / "requests.jsonl")


@pytest.fixture
def judge_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A running `judge_server`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    yield from serve("judge", tmp_path / "requests.jsonl")
