"""Advantages against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.losses.advantages import decoupled, group_normalised


def test_by_hand() -> None:
    """Scores 1, 0, 0, 1: mean ½, population σ ½. Scores 0, 0, 0, 4: mean 1, σ = √((3·1 + 9)/4) = √3."""
    assert group_normalised([1.0, 0.0, 0.0, 1.0]) == [1.0, -1.0, -1.0, 1.0]
    assert group_normalised([0.0, 0.0, 0.0, 4.0]) == pytest.approx([-1 / math.sqrt(3)] * 3 + [3 / math.sqrt(3)])


def test_sigma_is_the_population_one() -> None:
    """Scores 0 and 2: σ = 1 (the sample σ would be √2)."""
    assert group_normalised([0.0, 2.0]) == [-1.0, 1.0]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1 / 3, 1e9 + 0.1, 1e15 + 0.3])
@pytest.mark.parametrize("count", [2, 3, 7, 8])
def test_equal_scores_have_no_signal(value: float, count: int) -> None:
    """Whatever their size: the rounding of their mean is no signal."""
    assert group_normalised([value] * count) == [0.0] * count
    assert not any(group_normalised([value] * count))


def test_differing_scores_have_signal() -> None:
    assert any(group_normalised([0.0, 0.0, 1e-3]))
    assert not any(group_normalised([0.5, 0.5 + 1e-12]))


@pytest.mark.parametrize("scores", [[], [1.0]])
def test_a_group_of_one_has_no_baseline(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two"):
        group_normalised(scores)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12), st.floats(0.5, 20), st.floats(-50, 50))
def test_mean_zero_and_unchanged_by_scale_and_shift(scores: list[float], scale: float, shift: float) -> None:
    mean = sum(scores) / len(scores)
    if math.sqrt(sum((s - mean) ** 2 for s in scores) / len(scores)) < 1e-3:
        return
    advantages = group_normalised(scores)
    assert sum(advantages) == pytest.approx(0.0, abs=1e-6)
    assert sum(a * a for a in advantages) == pytest.approx(len(scores))
    assert group_normalised([scale * s + shift for s in scores]) == pytest.approx(advantages, abs=1e-6)


# GDPO.


def test_decoupled_by_hand() -> None:
    """Two rewards (0, 1), (0, 2) with weight 1 and 0.5: normalised −1, 1 and −1, 1, so the sums are −1.5, 1.5. In the
    other group the second reward does not differ: −1, 1. σ over all four is √((2·2.25 + 2·1)/4) = √1.625."""
    groups = [[[0.0, 0.0], [1.0, 2.0]], [[5.0, 3.0], [7.0, 3.0]]]
    sigma = math.sqrt(1.625)
    found = decoupled(groups, [1.0, 0.5])
    assert found[0] == pytest.approx([-1.5 / sigma, 1.5 / sigma])
    assert found[1] == pytest.approx([-1 / sigma, 1 / sigma])


def test_decoupled_keeps_apart_what_the_sum_does_not() -> None:
    """With weights 2 and 1 the summed rewards of the groups {(0, 0), (0, 1)} and {(0, 0), (1, 1)} both normalise to
    −1, 1, and GDPO gives the second three times as much."""
    one, both = [[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]
    assert group_normalised([0.0, 1.0]) == group_normalised([0.0, 3.0])
    found = decoupled([one, both], [2.0, 1.0])
    assert found[1][1] == pytest.approx(3 * found[0][1])


def test_decoupled_leaves_out_what_does_not_apply() -> None:
    """The second reward of the first rollout is null: the others are −1, 1 and it adds nothing to the first. A reward
    that one rollout alone has adds nothing at all."""
    found = decoupled([[[1.0, None, 3.0], [1.0, 0.0, None], [1.0, 2.0, None]]], [1.0, 1.0, 1.0])
    assert found == [pytest.approx([0.0, -math.sqrt(1.5), math.sqrt(1.5)])]


def test_decoupled_without_signal_is_exactly_zero() -> None:
    assert decoupled([[[0.1, 0.3]] * 3, []], [1.0, 2.0]) == [[0.0] * 3, []]
    assert decoupled([[[0.1, 0.3]] * 3, [[0.0, 1.0], [1.0, 1.0]]], [1.0, 2.0])[0] == [0.0] * 3
    assert decoupled([], [1.0]) == []
    with pytest.raises(ValueError, match="shorter|longer"):
        decoupled([[[1.0], [2.0]]], [1.0, 1.0])


@given(
    st.lists(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=6), min_size=1, max_size=5),
    st.floats(0.1, 10),
)
def test_decoupled_has_mean_zero_and_unit_spread_whatever_the_scale(
    groups: list[list[tuple[float, float]]], scale: float
) -> None:
    found = [a for group in decoupled(groups, [1.0, 0.5]) for a in group]
    assert sum(found) == pytest.approx(0.0, abs=1e-6)
    if any(found):
        assert sum(a * a for a in found) == pytest.approx(len(found))
