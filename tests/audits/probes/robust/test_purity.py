"""A13: whether an answer always gets the same."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from posttrain.audits.probes.robust.purity import Changes, purity
from posttrain.audits.subject import Attempt
from tests.audits import rewards
from tests.audits.subjects import subject, sums

ROWS = sums(n=4)
STRICT = f"{rewards.__file__}:strict"


def forgets_nothing() -> Callable[..., float]:
    seen: Counter[str] = Counter()

    def reward(response: str, answer: Any) -> float:
        seen[response] += 1
        return rewards.strict(response, answer) / (1 + seen[response] // 3)

    return reward


def found(reward: Any) -> list[tuple[str, str, str]]:
    return [(each.severity, each.kind, each.title) for each in purity(subject(reward, ROWS)).findings]


def test_a_pure_reward(in_process: None):
    result = purity(subject(rewards.strict, ROWS))
    assert result.findings == [] and result.n == 12 + 5 * 12 + 6  # three answers to four tasks, and six in a thread
    assert {each["value"] for each in result.measured.values()} == {0.0} and len(result.measured) == 6


def test_a_reward_with_a_memory(in_process: None):
    ((severity, kind, title),) = found(forgets_nothing())
    assert (severity, kind) == ("critical", "graded again")
    assert title == "an answer gets something else when it is graded again"


def test_a_reward_that_looks_at_neighbours(in_process: None):
    def all_or_none(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
        """Alone a wrong answer is paid."""
        right = [rewards.strict(c, a) for c, a in zip(completions, answer, strict=True)]
        return right if len(right) > 1 else [1.0]

    ((severity, kind, title),) = found(all_or_none)
    assert (severity, kind) == ("critical", "graded alone") and title.endswith("graded alone")


def test_a_reward_that_says_so_is_no_fault(in_process: None):
    ((severity, _, title),) = found(f'length_residual({STRICT}, unit="words")')
    assert severity == "note" and title == "what an answer gets depends on its batch, as this reward says"


def main_thread_only(response: str, answer: Any) -> float:
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("signal only works in main thread")
    return rewards.strict(response, answer)


def test_a_reward_that_fails_in_a_thread():
    """In a real worker."""
    ((severity, kind, title),) = found(main_thread_only)
    assert (severity, kind) == ("critical", "graded in a thread")
    assert title == "an answer gets something else when it is graded in a thread"


def test_changes():
    attempts = [Attempt(i, "", "") for i in range(5)]
    first = np.array([1.0, 0.0, 0.2, np.nan, np.nan])
    changes = Changes.between(attempts, first, np.array([1.0, 0.4, 0.6, np.nan, 0.0]), digits=9)
    assert changes.changed.tolist() == [False, True, True, False, True]
    assert changes.moved.tolist() == [False, False, True, False, True]  # across a half, and from no value to one
    assert changes.shown is attempts[2] and changes.share["value"] == pytest.approx(3 / 5)
