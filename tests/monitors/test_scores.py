"""The monitors of scores: length, ensembles, equal rewards and parts, by hand and in runs in which they warn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from posttrain.alerts import StepRecord
from posttrain.monitors import scores
from posttrain.types import Group
from tests.monitors.steps import answer, group, lengths, only, steps


def test_m4_warns_where_length_pays_and_the_sealed_reward_is_flat() -> None:
    """Lengths 1, 2, 3, 4 and rewards 0, 0, 1, 1: ranks 1.5, 1.5, 3.5, 3.5 beside 1 to 4, correlation 4/√(4 · 5)."""
    flat = [group(lengths(1, 2, 3, 4), [0, 0, 1, 1], sealed=[0, 1, 0, 0])]
    fields = only(steps(scores.length(None), *[(flat, {})] * 50))
    assert fields["monitor"] == "M4" and fields["step"] == 40
    assert fields["value"] == pytest.approx(2 / math.sqrt(5)) and fields["threshold"] == 0.3
    assert "right answers have 2 tokens (2), wrong ones 3 tokens (3)" in fields["reason"]
    assert "the sealed reward is flat" in fields["reason"]
    assert [w["note"] for w in fields["worst"]] == ["4 tokens", "3 tokens"] * 2 + ["4 tokens"]

    better = [group(lengths(1, 2, 3, 4), [0, 0, 1, 1], sealed=[0, 0, 1, n]) for n in np.linspace(0, 1, 50).tolist()]
    assert not steps(scores.length(None), *[([g], {}) for g in better])
    shorter = [group(lengths(4, 3, 2, 1), [0, 0, 1, 1], sealed=[0, 1, 0, 0])]
    assert not steps(scores.length(None), *[(shorter, {})] * 50)
    constant = [group(lengths(1, 2, 3, 4), [1, 1, 1, 1])]
    assert not steps(scores.length(None), *[(constant, {})] * 50)


def test_m4_without_a_sealed_reward_says_so() -> None:
    paid = [group(lengths(1, 2, 3, 4), [0, 0, 1, None])]
    fields = only(steps(scores.length(None), *[(paid, {})] * 40))
    assert "no sealed reward says" in fields["reason"]
    assert "right answers have 3 tokens (3), wrong ones 2 tokens (2)" in fields["reason"]


def members(*values: Sequence[float | None], total: float | None = 0.0) -> list[Group]:
    """An answer each, with the values of three members of an ensemble."""
    parts = {f"ensemble_min/{name}": [row[i] for row in values] for i, name in enumerate("abc")}
    return [group([answer(index=i) for i in range(len(values))], [total] * len(values), parts)]


def read(spread: scores.Spread, groups: list[Group]) -> list[float]:
    return list(spread(StepRecord(1, None, {}, groups)).values)


def test_the_spread_of_an_ensemble_by_hand() -> None:
    """In the first step a and b are 0 and 2, c is 0 and 20: all are −1 and 1, no spread. Then −1, 1 and 3 have a
    standard deviation of √(8/3); that of an answer with a member that is null is not known."""
    spread = scores.Spread({"ensemble_min"})
    assert read(spread, members([0, 0, 0], [2, 2, 20])) == [0.0]
    assert read(spread, members([0, 2, 40], [2, None, 20])) == [pytest.approx(math.sqrt(8 / 3))]
    learned = [group([answer()] * 2, [1, 1], {"learned/mean": [1, 2], "learned/deviation": [0.5, 1.5], "math": [1, 0]})]
    assert read(scores.Spread({"learned"}), learned) == [1.0]
    assert read(scores.Spread({"ensemble_min"}), learned) == []
    assert scores.ensemble_of("gate/ensemble_min/a", {"ensemble_min"})
    assert not scores.ensemble_of("ensemble_min", {"ensemble_min"})
    assert not scores.ensemble_of("ensemble_min/a/format", {"ensemble_min"})


def test_m6_warns_when_members_fall_apart() -> None:
    first, apart = members([0, 0, 0], [1, 1, 2], [0, 0, 1]), members([0, 0, 3])
    fields = only(steps(scores.spread({"ensemble_min"}), *[(first, {})] * 30, *[(apart, {})] * 10))
    assert fields["monitor"] == "M6" and fields["value"] > fields["threshold"] > 0
    assert "a spread of" in fields["worst"][0]["note"]


def test_m7_warns_of_groups_with_equal_rewards() -> None:
    groups = [group([answer()] * 2, [1, 1]), group([answer()] * 2, [0, 1])]
    fields = only(steps(scores.equal_rewards(), *[(groups, {"zero_variance_groups": s})
                                                  for s in [0.25] * 30 + [0.75] * 9]))  # fmt: skip
    assert fields["monitor"] == "M7" and fields["step"] == 36 and fields["value"] == pytest.approx(0.55)
    assert fields["worst"][0]["note"] == "all of its group get 1"
    always = [(groups, {"zero_variance_groups": 0.75})] * 40
    assert not steps(scores.equal_rewards(), *always, *[(groups, {})] * 3)


def test_m8_warns_when_another_part_makes_the_reward() -> None:
    """At first the reward is a; then another thing of four times its variance is added, so that a explains a fifth.
    The mean over ten steps has changed by more than 0.3 with the fourth of them."""
    before = [group([answer()] * 4, [0, 0, 1, 1], {"a": [0, 0, 1, 1], "b": [0, 0, 0, 0]})]
    after = [group([answer()] * 4, [0, 2, 1, 3], {"a": [0, 0, 1, 1], "b": [0, 0, 0, 0]})]
    fields = only(steps(scores.parts(()), *[(before, {})] * 30, *[(after, {})] * 9))
    assert fields["monitor"] == "M8" and fields["step"] == 34
    assert fields["value"] == pytest.approx(0.68) and fields["threshold"] == pytest.approx(0.7)
    assert "the part a goes with 68% of the reward's variance; at the beginning it was 100%" in fields["reason"]
    assert not steps(scores.parts(()), *[(before, {})] * 90)


def test_the_share_of_a_part_by_hand() -> None:
    """Two independent parts of weight 1 and 2, each 0 or 1: variances 1/4 and 1, shares 1/5 and 4/5."""
    a, b = np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 0, 1])
    assert scores._explained(a, a + 2 * b) == pytest.approx(0.2)
    assert scores._explained(b, a + 2 * b) == pytest.approx(0.8)
    assert scores._explained(np.array([0, 0, 1, math.nan]), a) == pytest.approx(1.0)
    assert scores._explained(a * 0, a) == 0.0 and scores._explained(a, a * 0) is None
    alone = [group([answer()] * 2, [0, 1], {"math": [0, 1], "ensemble_min/a": [0, 1]})]
    assert not scores.Parts({"ensemble_min"})(StepRecord(1, None, {}, alone)).suspects
