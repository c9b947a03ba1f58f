"""Advantages against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.advantages import group_normalised


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
