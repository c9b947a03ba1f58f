"""Intervals and pass@k against numbers worked out by hand or by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from posttrain.stats import (
    FEW_TASKS,
    bootstrap_mean,
    difference,
    estimate,
    is_binary,
    paired_bootstrap,
    pass_at_k,
    share,
    spearman,
)
from tests.effort import effort


@pytest.mark.parametrize(("n", "c", "k"), [(4, 0, 2), (4, 1, 2), (5, 2, 3), (5, 4, 2), (6, 6, 1), (6, 3, 6)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n: int, c: int, k: int) -> None:
    draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(d) for d in draws) / len(draws))


def test_pass_at_k_by_hand() -> None:
    """Of 10 samples 3 right: one misses with 7/10, two with 7/10 · 6/9."""
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(10, 3, 2) == pytest.approx(1 - 7 / 10 * 6 / 9)
    assert 0 < pass_at_k(1000, 1, 500) == pytest.approx(0.5)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_refuses_what_makes_no_sense(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(n, c, k)


def test_wilson_interval_by_hand() -> None:
    """p = 1/2, n = 10, z² = 3.8415: (0.5 + 0.19207 ± 1.95996·√(0.025 + 0.0096036)) / 1.38415 = 0.5 ± 0.26341."""
    interval = share(5, 10)
    assert interval["value"] == 0.5 and interval["n"] == 10
    assert interval["low"] == pytest.approx(0.23659, abs=1e-4)
    assert interval["high"] == pytest.approx(0.76341, abs=1e-4)
    assert share(0, 0) == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_binary() -> None:
    assert is_binary([0, 1, 1.0, False])
    assert not is_binary([0, 0.25])


def test_bootstrap_of_two_tasks_is_the_four_equally_likely_draws() -> None:
    """Draws of {0, 1}: means 0, ½, ½, 1, with probabilities ¼, ½, ¼, so the middle 95% reaches both ends."""
    assert bootstrap_mean([0.0, 1.0], seed=0) == {"value": 0.5, "low": 0.0, "high": 1.0, "n": 2}


def test_bootstrap_approaches_the_normal_interval() -> None:
    """Of many tasks: mean ± 1.96 · standard deviation / √n."""
    values = np.random.default_rng(1).normal(3, 2, size=2000)
    interval = bootstrap_mean(list(values), seed=0)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert interval["value"] == pytest.approx(values.mean())
    assert interval["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_cover_about_95_percent() -> None:
    """Of 300 experiments of 60 tasks about 285 intervals hold the true mean, 0.5 (binomial spread 3.8)."""
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(300):
        interval = bootstrap_mean(list(rng.random(60)), seed=seed, resamples=1000)
        covered += interval["low"] <= 0.5 <= interval["high"]
    assert 268 <= covered <= 297


def test_bootstrap_depends_on_the_seed_alone() -> None:
    values = list(np.random.default_rng(2).random(50))
    assert bootstrap_mean(values, seed=7) == bootstrap_mean(values, seed=7)
    assert bootstrap_mean(values, seed=7) != bootstrap_mean(values, seed=8)


def test_transform_of_the_mean() -> None:
    """exp is monotone: the interval of exp(mean) is exp of the interval (up to interpolation between two draws)."""
    values = list(np.random.default_rng(3).normal(3, 0.2, size=40))
    plain, perplexity = bootstrap_mean(values, seed=0), bootstrap_mean(values, seed=0, transform=np.exp)
    assert perplexity["value"] == pytest.approx(math.exp(plain["value"]))
    assert perplexity["low"] == pytest.approx(math.exp(plain["low"]), rel=1e-4)
    assert perplexity["high"] == pytest.approx(math.exp(plain["high"]), rel=1e-4)


def test_pairing_removes_how_hard_tasks_are() -> None:
    """Task difficulty spreads over 0…1 but every task gains exactly 0.1: the paired difference has no spread."""
    b = list(np.linspace(0, 0.9, 40))
    a = [x + 0.1 for x in b]
    interval = paired_bootstrap(a, b, seed=0)
    assert interval["value"] == pytest.approx(0.1)
    assert interval["high"] - interval["low"] < 1e-9
    unpaired = bootstrap_mean(a, seed=0)["high"] - bootstrap_mean(b, seed=1)["low"]
    assert unpaired > 0.2


def test_paired_bootstrap_is_the_bootstrap_of_differences() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random(80), rng.random(80)
    paired, differences = paired_bootstrap(list(a), list(b), seed=3), bootstrap_mean(list(a - b), seed=3)
    assert (paired["value"], paired["low"], paired["high"]) == pytest.approx(
        (differences["value"], differences["low"], differences["high"])
    )


def test_paired_bootstrap_of_perplexities() -> None:
    interval = paired_bootstrap([2.0] * 5, [1.0] * 5, seed=0, transform=np.exp)
    assert interval["value"] == pytest.approx(math.e**2 - math.e)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        paired_bootstrap([1, 2], [1], seed=0)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([], seed=0)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean([1.0, math.nan], seed=0)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.random.default_rng(6).random(30))
    whole = bootstrap_mean(values, seed=0, resamples=2000)
    monkeypatch.setattr("posttrain.stats.intervals.CHUNK_ELEMENTS", 900)
    assert bootstrap_mean(values, seed=0, resamples=2000) == whole


def test_ten_thousand_resamples_of_300_tasks_are_little_work() -> None:
    values = list(np.random.default_rng(0).random(300))
    assert effort(lambda: paired_bootstrap(values, values[::-1], seed=0)) < 500


def test_fewer_than_ten_values_have_no_interval_unless_they_are_zeros_and_ones() -> None:
    few, enough = [0.25, 0.75] * 4 + [0.5], [0.25, 0.75] * 5
    assert (len(few), len(enough)) == (FEW_TASKS - 1, FEW_TASKS)
    assert estimate(few) == {"value": 0.5, "low": None, "high": None, "n": 9}
    assert estimate(enough)["low"] is not None and estimate([0.0, None, 1.0])["low"] is not None
    assert difference([1.0] * 9, [0.0] * 9) == {"value": 1.0, "low": None, "high": None, "n": 9}
    assert difference([1.0] * 10, [0.0] * 10)["low"] == 1.0
    assert estimate([None]) == {"value": None, "low": None, "high": None, "n": 0}


def test_spearman_by_hand() -> None:
    """Ranks 1.5, 1.5, 3.5, 3.5 beside 1, 2, 3, 4: the sum of products about 2.5 is 4, of squares 4 and 5."""
    assert spearman([0, 0, 1, 1], [10, 20, 30, 1000]) == pytest.approx(4 / math.sqrt(20))
    assert spearman([3, 2, 1], [1, 2, 3]) == pytest.approx(-1.0)
    assert spearman([1, 1], [1, 2]) is None and spearman([1, 2], [1, 1]) is None
    assert spearman([], []) is None and spearman([1], [2]) is None
