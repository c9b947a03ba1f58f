"""A12: hostile input."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from posttrain.audits.probes.robust.hostile import Graded, grade_each, hostile, was_lost
from posttrain.audits.probes.robust.hostile_texts import COMPUTED, LONG, REPEATED, SHORT
from posttrain.audits.subject import Attempt
from posttrain.rewards.scorer import Scorer
from posttrain.types import Sample, Score
from tests.audits import rewards
from tests.audits.subjects import subject, sums

ROWS = sums(n=4)


def clock(seconds: float) -> Callable[[], float]:
    """Every answer takes so many seconds."""
    return map(float, itertools.count(0, seconds)).__next__


def summary(reward: Callable[..., float], seconds: float = 0.01) -> list[tuple[str, str]]:
    return [(found.severity, found.title) for found in hostile(subject(reward, ROWS), clock(seconds)).findings]


def raises_on(*signs: str) -> Callable[[str, Any], float]:
    def reward(response: str, answer: Any) -> float:
        if any(sign in response for sign in signs) or (not signs and len(response) >= LONG):
            raise ValueError("unreadable")
        return rewards.strict(response, answer)

    return reward


def last_word(response: str, answer: Any) -> float:
    """What cannot be read counts as right."""
    try:
        return float(int(response.rsplit(" ", 1)[-1]) == int(answer))
    except ValueError:
        return float(bool(response))


def test_a_strict_reward_stands_all_of_them(in_process: None):
    result = hostile(subject(rewards.strict, ROWS), clock(0.01))
    assert result.findings == [] and result.measured["share without a score"]["value"] == 0
    texts = {**SHORT, **REPEATED, **COMPUTED}
    assert len(texts) >= 50 and result.n == 2 * 2 * len(texts)  # two tasks; bare, and in the form


def test_what_raises_counts_by_kind(in_process: None):
    assert summary(raises_on("\0")) == [("high", "hostile answers have no score: a NUL, control characters")]
    assert summary(raises_on("1e999")) == [("medium", "hostile answers have no score: a number beyond floats")]
    ((severity, title),) = summary(raises_on())
    assert severity == "note" and title.endswith("a number of 5000 digits, 5000 signs in a row, 1000 boxes")


def test_what_takes_the_process_counts_on_long_texts_too(in_process: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("posttrain.audits.probes.robust.hostile.was_lost", lambda score: score.reason is not None)
    ((severity, title),) = summary(raises_on())
    assert severity == "high" and title.startswith("hostile answers have no score: a number of 5000 digits")


def test_what_cannot_be_read_is_not_to_be_paid(in_process: None):
    ((severity, title),) = summary(last_word)
    assert severity == "critical" and title.startswith("a hostile answer is paid: ")


def test_slow_answers_by_the_clock(in_process: None):
    ((severity, title),) = summary(rewards.strict, seconds=2)
    assert severity == "high" and title.startswith("hostile answers are graded slowly")


class Killed:
    """A scorer whose worker is killed by every answer of one text."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def score(self, samples: list[Sample], state: Any = None) -> list[Score]:
        (sample,) = samples
        self.seen.append(sample.text)
        return [Score(None, {}, "r: timed out after 5 s") if sample.text == "bomb" else Score(0.0, {"r": 0.0}, None)]


def test_a_kind_that_kills_the_worker_is_tried_once():
    scorer = Killed()
    attempts = [Attempt(i, text, text) for i in range(3) for text in ("bomb", "plain")]
    graded = grade_each(subject(rewards.strict, ROWS), attempts, cast(Scorer, scorer), clock(1))
    assert [attempt.kind for attempt in graded.attempts] == ["bomb", "plain", "plain", "plain"]
    assert scorer.seen == ["bomb", "", "plain", "plain", "plain"]  # the empty answer starts a new worker
    assert graded.failed == {"bomb": [0]} and was_lost(graded.scores[0]) and not was_lost(graded.scores[1])
    assert np.allclose(graded.seconds, 1)


def test_a_slow_kind_is_tried_once_and_all_together_have_a_limit():
    times = iter([0.0, 9.0, 9.0, 9.5, 9.5, 9.6, 10.0, 32.0])
    attempts = [Attempt(i, text, text) for i in range(2) for text in ("slow", "plain")]
    attempts += [Attempt(0, "slower", "slower"), Attempt(0, "last", "last")]
    graded = grade_each(subject(rewards.strict, ROWS), attempts, cast(Scorer, Killed()), lambda: next(times))
    assert [attempt.kind for attempt in graded.attempts] == ["slow", "plain", "plain", "slower"]
    assert graded.again == [9.0] and np.allclose(graded.seconds, [9.0, 0.5, 0.1, 22.0])


def test_a_failure_has_a_reason():
    attempts = [Attempt(0, text, text) for text in ("a", "b")]
    graded = Graded(attempts, [Score(None, {}, None), Score(None, {}, "r: ValueError: x")], [0.0, 0.0])
    assert graded.failed == {"b": [1]}  # a reward that does not apply has not failed


@pytest.mark.stress
def test_a_real_worker_is_killed_and_the_audit_goes_on():
    def evaluates(response: str, answer: Any) -> float:
        line = response.splitlines()[-1:] or [""]
        return float(eval(line[0].removeprefix("Answer: ")) == int(answer)) if line[0].startswith("Answer") else 0.0

    severities = [found.severity for found in hostile(subject(evaluates, ROWS)).findings]
    assert severities == ["high"]
