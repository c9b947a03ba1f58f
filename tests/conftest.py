"""Fixtures every test may use."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from posttrain.data import builtin, gym_items
from tests.servers.chat import ChatServer, serve
from tests.servers.judge import Judge

if TYPE_CHECKING:
    import torch

    from posttrain.models import LanguageModel

# Read when torch is imported, here and in child processes: sums depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # the machine may do other work

ROOT = Path(__file__).parent.parent
MEMORY_KIB = 12 << 20

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=["cpu", "cuda", "mps"],
        default="cpu",
        help="run the tests that hold on every device, those with a `device`, on this one; all others need a CPU",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") != "cpu":
        chosen = [item for item in items if "device" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture(scope="session", autouse=True)
def _compute_of_tests() -> Iterator[None]:
    """Models run on the CPU in float32, also where there is a card, unless a test says where."""
    from posttrain.models.compute import FLOAT32_CPU, use

    with use(FLOAT32_CPU):
        yield


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of `--device`: a test that takes it holds on every one."""
    import torch

    from posttrain.models.compute import Compute

    return Compute(torch.device(request.config.getoption("--device")), torch.float32).device


@pytest.fixture(scope="session")
def tiny(_compute_of_tests: None) -> LanguageModel:
    """The model `tiny-random`, shared: a test that changes its weights loads its own."""
    from posttrain.models import load_model

    return load_model("tiny-random")


@pytest.fixture(scope="session", autouse=True)
def _reasoning_gym_here() -> Iterator[None]:
    """Items of reasoning-gym are drawn in this process, and each list once: the generator's own process takes a second
    to begin. `tests/data/test_data.py` uses the real one."""

    @cache
    def drawn(request: str, _source: str) -> bytes:
        state = random.getstate()
        try:
            return pickle.dumps(gym_items.answer(json.loads(request)))
        finally:
            random.setstate(state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtin, "_drawn", drawn)
        yield


@pytest.fixture
def run_cli(tmp_path: Path) -> RunCli:
    """Run `posttrain ARGS...` as a process of its own in `tmp_path`, bounded in time (seconds) and address space."""

    def run(
        *args: str | Path, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 300.0
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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A running `servers.chat`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    with serve() as running:
        yield running


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A running `servers.judge`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    with serve(Judge) as running:
        yield running
