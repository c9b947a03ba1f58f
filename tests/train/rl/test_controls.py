"""Controls: what is paid, by hand, and that nothing else in a run differs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from posttrain.config import RlConfig
from posttrain.rollout import rollout_seed
from posttrain.train.rl.controls import coin, controlled, form, majority
from posttrain.train.rl.setup import train_rl
from posttrain.types import Group, InputError, Message, Rollout, Sampling, Score, Segment, Task
from tests.training_helpers import events, metrics, read_rows, write_rows

REWARDS = """
def spread(response):
    return (len(response) * 7 % 11) / 10

def coin(response):
    return 1.0

def short(response):
    if len(response) % 3 == 0:
        raise ValueError("a third")
    return 1.0
"""


def rollout(text: str, seed: int = 0, failed: bool = False) -> Rollout:
    segment = Segment((1, 2), (False, True), (0.0, -1.0), (-1, 0))
    status: Any = ("failed", "it hung") if failed else ("ok", None)
    return Rollout("0", 0, Sampling(8), seed, (Message("assistant", text),), (segment,), *status)


def test_the_majority_by_hand() -> None:
    """Final answers as texts: the last mark after the thinking, else a response of one line. Ties are all paid, no
    answer and a failure never."""
    votes = ["Answer: 4", "<think>Answer: 5</think>\\boxed{4.}", "#### 5", "Two lines\nwithout a mark", " $4$ "]
    assert majority(list(map(rollout, votes))) == [1, 1, 0, 0, 1]
    assert majority(list(map(rollout, ["Answer: a", "Answer: B", "Answer: b", "Answer: A", "c"]))) == [1, 1, 1, 1, 0]
    assert majority([rollout("4", failed=True), rollout("4", failed=True), rollout("5")]) == [0, 0, 1]
    assert majority([rollout("a\nb"), rollout("")]) == [0, 0]


@pytest.mark.parametrize(
    ("text", "paid"),
    [
        ("Answer: 4", 1),
        ("<think>Answer: 5, or \\boxed{3}</think>\nAnswer: 4", 1),
        ("So \\boxed{4}", 1),
        ("4", 0),
        ("Answer: 4\nAnswer: 4", 0),
        ("<answer>4</answer>\nAnswer: 5", 0),
        ("\\boxed{4", 0),
        ("\\boxed{}", 0),
        ("<think>Answer: 4", 0),
        ("<think>Answer: 4</think>", 0),
    ],
)
def test_the_format_by_hand(text: str, paid: float) -> None:
    assert form([rollout(text)]) == [paid]


def test_the_coin_is_fair_and_of_its_rollout() -> None:
    """Of 2,000 rollouts a half, within 4 standard deviations; the neighbour in each of the four numbers is another."""
    seeds = [rollout_seed(0, step, task, index) for step in range(1, 11) for task in range(20) for index in range(10)]
    fell = coin([rollout("", seed) for seed in seeds])
    assert set(fell) == {0.0, 1.0} and abs(sum(fell) - 1000) < 4 * (2000 / 4) ** 0.5
    assert coin([rollout("other", seeds[3])]) == [fell[3]]
    agree = sum(a == b for a, b in pairwise(fell))
    assert abs(agree - 1000) < 4 * (2000 / 4) ** 0.5


def test_what_the_reward_did_not_grade_is_not_paid() -> None:
    scores = (Score(0.25, {"own": 0.5}), Score(None, {"own": None}), Score(None, reason="it raised"))
    group = Group(Task("0", "p"), tuple(rollout("Answer: 4") for _ in scores), scores, {"sealed": (1.0, None, 0.0)})
    paid = controlled("format", group)
    assert paid.scores == (Score(1.0, {"own": 0.5, "true": 0.25, "format": 1.0}), *scores[1:])
    assert paid.scores[0].by_reward == 0.25 and paid.regraded == group.regraded


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Path]:
    (tmp_path / "own.py").write_text(REWARDS)
    data = write_rows(tmp_path / "tasks.jsonl", [{"prompt": p} for p in ("Say a word", "Name a colour", "Count")])

    def run(name: str, reward: str = "spread", **options: Any) -> Path:
        fixed = {"model": "tiny-random", "data": str(data), "out": tmp_path / name, "max_new_tokens": 8}
        sizes = {"group_size": 4, "batch_size": 8, "max_steps": 2, "learning_rate": 1e-3, "reward_workers": 0}
        train_rl(RlConfig(**{**fixed, **sizes, "reward": (f"{tmp_path}/own.py:{reward}",), **options}))
        return tmp_path / name

    return run


def test_a_control_differs_in_its_payment_alone(start: Callable[..., Path]) -> None:
    """The first step samples what the run on the reward samples, and the reward is graded and logged all the same."""
    rewarded, control = start("rewarded"), start("control", control="coin")
    mine, theirs = (read_rows(run / "rollouts.jsonl") for run in (control, rewarded))
    for own, other in zip(mine[:8], theirs[:8], strict=True):
        assert own["text"] == other["text"] and own["segments"] == other["segments"]
        assert own["parts"] == {"spread": other["score"], "true": other["score"], "coin": own["score"]}
        assert own["score"] in (0.0, 1.0)
    first, other = metrics(control)[0], metrics(rewarded)[0]
    assert first["reward/true"] == other["reward"] and first["reward"] == first["reward/coin"]
    assert first["loss"] != other["loss"]


@pytest.mark.parametrize("control", ["majority", "format"])
def test_the_other_controls_train_too(start: Callable[..., Path], control: str) -> None:
    row = metrics(start(control, control=control, max_steps=1))[0]
    assert row["reward"] == row[f"reward/{control}"] and row["reward/true"] is not None


def test_failures_of_the_reward_count_in_a_control(start: Callable[..., Path]) -> None:
    run = start("failing", "short", control="coin", max_unscored_share=1.0)
    unscored = [line for line in read_rows(run / "rollouts.jsonl") if line["score"] is None]
    assert unscored and all("a third" in line["reason"] for line in unscored)
    assert sum(event["count"] for event in events(run, "unscored")) == len(unscored)


def test_what_a_control_refuses(start: Callable[..., Path], tmp_path: Path) -> None:
    for given, message in (
        ({"control": "majority", "group_size": 1, "baseline": "none", "scale": "none"}, "a group_size of at least 2"),
        ({"control": "coin", "constraint": ("spread>=0.5",)}, "neither constraint nor gdpo"),
        ({"control": "coin", "aggregation": "gdpo"}, "neither constraint nor gdpo"),
        ({"control": "dice"}, "coin"),
    ):
        with pytest.raises(ValidationError, match=message):
            start("bad", **given)
    with pytest.raises(InputError, match="'coin' is a name in the scores of control runs; write REWARD as NAME"):
        start("bad", "coin", control="coin")
    with pytest.raises(InputError, match="'true' is a name in the scores of control runs"):
        start("bad", "spread as true")
    assert not (tmp_path / "bad").exists()
