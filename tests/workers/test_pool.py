"""How many processes rewards and environments run in: the same numbers whatever it is, and none in this process."""

from __future__ import annotations

import asyncio
import bdb
import os
from pathlib import Path

import pytest

from posttrain import console
from posttrain.config import ScoreConfig
from posttrain.envs.pool import EnvPool
from posttrain.rewards.scorer import Scorer, open_scorer
from posttrain.types import InputError, Message, RunFailed, Sample, Score
from posttrain.workers.pool import say_workers, worker_count

CODE = """
import asyncio, os
SEEN = []
def pid(response):
    return os.getpid()
def each(response, level):
    return {"score": len(response) / level, "level": level}
async def later(response):
    await asyncio.sleep(0.01)
    return 1 / len(response)
def together(completions, log_metric):
    log_metric("mean", sum(map(len, completions)) / len(completions))
    return [len(c) - 1 for c in completions]
def loop(response):
    return later(response)
def stopped(response):
    raise KeyboardInterrupt
def quits(response):
    import bdb
    raise bdb.BdbQuit
def fails(response):
    raise ValueError("no")
def leaves(response):
    raise SystemExit(3)
def kept(response):
    SEEN.append(response)
    return len(SEEN)
"""
SAMPLES = [Sample("q", (Message("assistant", "a" * (i % 7)),), (), {"level": i % 3 + 1}) for i in range(25)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(CODE)
    return path


def scores(
    file: Path, names: str, workers: int, samples: list[Sample] = SAMPLES
) -> tuple[list[Score], dict[str, float]]:
    specs = [f"{file}:{name}" for name in names.split()]
    with Scorer(specs, columns=["level"], timeout_seconds=20, workers=workers) as scorer:
        return scorer.score(samples), scorer.metrics


def test_numbers_do_not_depend_on_the_number_of_workers(file: Path) -> None:
    """`later` divides by 0 for every seventh sample; its reason and the rest are the same too."""
    expected = scores(file, "each later together", 1)
    assert sum(score.failed for score in expected[0]) == 4 and expected[1] == {"mean": 2.76}
    for workers in (0, 2, 5):
        assert scores(file, "each later together", workers) == expected


def test_without_workers_rewards_run_in_this_process(file: Path) -> None:
    assert scores(file, "pid", 0)[0][0].total == os.getpid() != scores(file, "pid", 1)[0][0].total


def test_without_workers_no_time_limit_holds(file: Path) -> None:
    with Scorer([f"{file}:later", f"{file}:each"], columns=["level"], timeout_seconds=1e-9, workers=0) as scorer:
        assert not any(score.failed for score in scorer.score(SAMPLES[1:3]))


@pytest.mark.parametrize(
    ("name", "reason"), [("fails", "ValueError: no at own.py:22"), ("leaves", "SystemExit: 3 at own.py:24")]
)
def test_a_failure_in_this_process_costs_its_sample(file: Path, name: str, reason: str) -> None:
    (score,) = scores(file, name, 0, SAMPLES[:1])[0]
    assert score.reason == f"{name}: {reason}"


@pytest.mark.parametrize(("name", "error"), [("stopped", KeyboardInterrupt), ("quits", bdb.BdbQuit)])
def test_an_interrupt_in_this_process_is_the_users(file: Path, name: str, error: type[BaseException]) -> None:
    """In a worker it is the failure of the sample, as whatever a reward raises."""
    with pytest.raises(error):
        scores(file, name, 0)
    (score,) = scores(file, name, 1, SAMPLES[:1])[0]
    assert score.reason is not None and score.reason.startswith(f"{name}: {error.__name__}")


def test_in_this_process_beside_a_running_loop(file: Path) -> None:
    """As in a notebook, for async functions and plain ones that return an awaitable."""

    async def notebook() -> list[Score]:
        return scores(file, "later loop", 0, SAMPLES[1:4])[0]

    assert [score.total for score in asyncio.run(notebook())] == pytest.approx([2, 1, 2 / 3])


def test_a_closed_scorer_in_this_process(file: Path) -> None:
    scorer = Scorer([f"{file}:each"], columns=["level"], timeout_seconds=1, workers=0)
    scorer.close()
    with pytest.raises(RunFailed, match="the scorer is closed"):
        scorer.score(SAMPLES)


def test_the_default_is_one_less_than_the_cores_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console.info_once.cache_clear()
    for cores, workers in ((1, 1), (2, 1), (64, 63)):
        monkeypatch.setattr("posttrain.workers.pool.usable_cores", lambda cores=cores: cores)
        assert worker_count(None) == workers
        for _ in range(2):
            say_workers("rewards", None)
    assert worker_count(5) == 5 and worker_count(0) == 0
    say_workers("rewards", 5)  # the user knows
    said = ["rewards run in 1 worker process", "rewards run in 63 worker processes"]
    assert capsys.readouterr().err.splitlines() == said


def test_the_option_reaches_the_scorer(file: Path) -> None:
    config = ScoreConfig(reward=(f"{file}:pid",), data="-", reward_workers=0)
    with open_scorer(config, ()) as scorer:
        assert scorer.score(SAMPLES[:1])[0].total == os.getpid()


def test_numbers_of_workers_that_cannot_be(file: Path) -> None:
    with pytest.raises(InputError, match="workers of at least 0 and a timeout above 0"):
        Scorer([f"{file}:each"], columns=["level"], timeout_seconds=1, workers=-1)
    with pytest.raises(InputError, match="at least one worker and a timeout above 0"):
        EnvPool("rooms", columns=None, timeout_seconds=1, workers=0)
