"""A16: groups whose rewards are all equal."""

from __future__ import annotations

import pytest

from posttrain.audits.probes.no_variance import equal_groups, no_variance
from tests.audits import rewards
from tests.audits.subjects import subject, sums


def test_equal_groups_by_hand():
    assert equal_groups([1], [0], 0.5) == pytest.approx(2 * 0.5**8)
    assert equal_groups([1], [0], 0.05) == pytest.approx(0.05**8 + 0.95**8)
    assert equal_groups([0], [0], 0.3) == pytest.approx(1)
    # 1 with 1/2 + 1/4, 0 with 1/4, of two
    assert equal_groups([1], [1, 0], 0.5, size=2) == pytest.approx(0.75**2 + 0.25**2)
    assert equal_groups([1], [0.999, 0], 0.5, size=2) == pytest.approx(0.75**2 + 0.25**2)  # equal to 0.01


def test_a_reward_of_0_and_1_is_measured_and_not_noted():
    result = no_variance(subject(rewards.strict, sums()))
    assert not result.findings
    assert result.measured["groups without variance at a pass rate of 0.25"]["value"] == pytest.approx(0.1001, abs=1e-3)


def test_a_reward_that_refuses_right_answers_is_noted():
    def even(response: str, answer: str) -> float:
        return rewards.strict(response, answer) * (int(answer) % 2 == 0)

    (found,) = no_variance(subject(even, sums(n=20))).findings
    assert found.severity == "note" and found.effect["value"] == pytest.approx(0.5, abs=0.01)
