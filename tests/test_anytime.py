"""Anytime-valid tests: by definition, by enumeration of all that may happen, beside confseq, and by simulation."""

from __future__ import annotations

import json
import math
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

from posttrain.stats import STAKES, MeanTest, likeliest_beginning, log_growth
from tests.training_helpers import benchmark_module

LOG_20 = math.log(20)


def test_by_hand() -> None:
    """Limit 0.1 and stake 0.5: factors of 0.5 + 0.5·10 = 5.5 for 1, 0.5 for 0, and 0.5 + 0.5·2.5 = 1.75 for a quarter.
    Weights: w₁ = 1 − 1/log₂3 = 0.36907, w₂ = 1/log₂3 − 1/2 = 0.13093, and 1/2 for what comes later."""
    test = MeanTest(0.1, stakes=[0.5])
    assert test.log_wealth == 0
    test.add([1.0, 0.0])
    assert math.exp(test.log_wealth) == pytest.approx(0.36907 * 2.75 + 0.63093, abs=1e-5)
    test.add([0.25])
    assert math.exp(test.log_wealth) == pytest.approx(0.36907 * 2.75 * 1.75 + 0.13093 * 1.75 + 0.5, abs=1e-5)


def plain_wealth(steps: list[list[float]], limit: float) -> float:
    """The definition, bet by bet."""
    total = 1 / math.log2(len(steps) + 2)
    for j in range(1, len(steps) + 1):
        weight = 1 / math.log2(j + 1) - 1 / math.log2(j + 2)
        bets = [math.prod(1 - c + c * x / limit for step in steps[j - 1 :] for x in step) for c in STAKES]
        total += weight * sum(bets) / len(bets)
    return total


def test_the_sum_that_is_kept_is_that_of_all_bets() -> None:
    rng = np.random.default_rng(3)
    for limit in (0.01, 0.1, 0.6):
        steps = [(rng.binomial(8, rng.random() * 2 * limit / (1 + limit), 5) / 8).tolist() for _ in range(30)]
        test = MeanTest(limit)
        for t, step in enumerate(steps, start=1):
            test.add(step)
            assert test.log_wealth == pytest.approx(math.log(plain_wealth(steps[:t], limit)), abs=1e-9)


LONG = [pytest.param(limit, 20, marks=pytest.mark.stress) for limit in (0.02, 0.1, 0.3, 0.5)]


@pytest.mark.parametrize(("limit", "n"), [(0.1, 16), (0.3, 16), (0.5, 16), (0.9, 12), *LONG])
def test_every_sequence_of_zeros_and_ones(limit: float, n: int) -> None:
    """Over all 2ⁿ sequences the wealth has the mean 1 at every step, and is ever at 20 with a probability of at most
    5%, when ones come with the probability of the limit; its mean is below 1 when they are rarer."""
    outcomes = (np.arange(2**n)[:, None] >> np.arange(n)[::-1] & 1).astype(np.float32)
    ones = np.arange(n + 1)
    count = outcomes.sum(axis=1).astype(int)

    def probabilities(p: float) -> Any:
        return (p**ones * (1 - p) ** (n - ones))[count]

    test, crossed = MeanTest(limit), np.zeros(2**n, dtype=bool)
    for t in range(n):
        first = outcomes[:: 2 ** (n - t - 1), t : t + 1]  # each beginning of length t + 1 once
        test = _branched(test, len(first))
        test.add(first)
        crossed |= np.repeat(test.log_wealth >= LOG_20, 2 ** (n - t - 1))
        wealth = np.repeat(np.exp(test.log_wealth), 2 ** (n - t - 1))
        assert wealth @ probabilities(limit) == pytest.approx(1, abs=1e-9)
    assert wealth @ probabilities(0.9 * limit) < 1
    assert crossed @ probabilities(limit) <= 0.05
    assert crossed.any() == (limit < 0.9)  # twelve ones at most triple what is bet on them


def _branched(test: MeanTest, runs: int) -> MeanTest:
    """The same past for the two outcomes that each run may go on with."""
    test._logs = np.repeat(np.atleast_2d(test._logs), runs // len(np.atleast_2d(test._logs)), axis=0)
    return test


def test_every_sequence_of_steps_with_fractions() -> None:
    """Steps of two tasks whose failed shares are 0, a half or 1 with mean 0.2; all 9⁵ sequences of five."""
    shares, chances = np.array([0.0, 0.5, 1.0]), np.array([0.7, 0.2, 0.1])
    indices = np.array(list(product(range(3), repeat=10)))
    probabilities = chances[indices].prod(axis=1)
    test, crossed = MeanTest(0.2), np.zeros(len(indices), dtype=bool)
    for t in range(5):
        test.add(shares[indices[:, 2 * t : 2 * t + 2]])
        assert np.exp(test.log_wealth) @ probabilities == pytest.approx(1, abs=1e-9)
        crossed |= test.log_wealth >= LOG_20
    assert 0 < crossed @ probabilities <= 0.05


@cache
def confseq_values() -> Any:
    return json.loads((Path(__file__).parent / "data" / "confseq_values.json").read_text())


def test_a_single_bet_is_that_of_confseq() -> None:
    for case in confseq_values()["betting_mart"]:
        for n, wealth in enumerate(case["wealth"], start=1):
            (got,) = log_growth(case["x"][:n], case["m"], np.array([case["stake"]]))
            assert got == pytest.approx(math.log(wealth), abs=1e-12)


def test_many_bets_on_zeros_and_ones_are_the_beta_binomial_mixture() -> None:
    """A stake c bets that ones come with the probability θ = m + c(1 − m). With θ drawn from a beta distribution above
    m, the mean over bets has a closed form, confseq's. Its concentration r follows from the two numbers that it is to
    be best at (Howard et al., arXiv:1810.08240, section 3.6)."""
    for case in confseq_values()["beta_binomial_log_mixture"]:
        m, v_opt = case["arguments"]["g"], case["arguments"]["v_opt"]
        log_level = 2 * math.log(1 / (2 * case["arguments"]["alpha_opt"]))
        r = v_opt / (log_level + math.log1p(log_level)) - m * (1 - m)
        a, b = r / (1 - m), r / m
        k, rest = case["k"], case["n"] - case["k"]
        with mpmath.workdps(30):
            beta = [mpmath.betainc(a + i, b + j, m, 1) for i, j in ((k, rest), (0, 0))]
            closed = mpmath.log(beta[0] / beta[1]) - k * mpmath.log(m) - rest * mpmath.log(1 - m)
        assert float(closed) == pytest.approx(case["value"], abs=1e-6)  # far out confseq has 7 digits

        fine = np.linspace(m, 1, 200_001)
        mass = np.cumsum(fine ** (a - 1) * (1 - fine) ** (b - 1))
        shares = np.interp((np.arange(2000) + 0.5) / 2000, mass / mass[-1], fine)
        test = MeanTest(m, stakes=(shares - m) / (1 - m))  # equally likely values of θ
        test.add([1.0] * k + [0.0] * rest)
        first = 1 - 1 / math.log2(3)
        mixture = math.log((math.exp(test.log_wealth) - (1 - first)) / first)
        assert mixture == pytest.approx(case["value"], abs=0.01)


def test_runs_side_by_side_are_runs_alone_and_order_within_a_step_is_free() -> None:
    rng = np.random.default_rng(5)
    steps = rng.binomial(4, 0.3, (6, 3, 10)) / 4  # steps, runs, observations
    together = MeanTest(0.2)
    alone = [MeanTest(0.2) for _ in range(3)]
    for step in steps:
        together.add(step)
        for test, observations in zip(alone, step, strict=True):
            test.add(rng.permutation(observations))
    assert together.log_wealth == pytest.approx([test.log_wealth for test in alone], abs=1e-12)


def test_limits_of_nothing_and_of_everything() -> None:
    nothing, everything = MeanTest(0.0), MeanTest(1.0)
    for test in (nothing, everything):
        test.add(np.zeros(50))
        assert test.log_wealth <= 1e-12
    nothing.add([0.0, 0.125])
    nothing.add([0.0])
    assert nothing.log_wealth == math.inf
    for _ in range(1000):
        everything.add(np.ones(100))
    assert everything.log_wealth <= 1e-12


def test_a_long_run_keeps_its_numbers() -> None:
    """Far below and far above what a float can hold."""
    test = MeanTest(0.001)
    test.add(np.zeros(100_000))
    assert test.log_wealth == pytest.approx(-math.log(math.log2(3)))  # what is not bet yet
    test.add(np.ones(100_000))
    assert math.isfinite(test.log_wealth) and test.log_wealth > 600_000


def test_what_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="every limit must be in"):
        MeanTest(1.5)
    with pytest.raises(ValueError, match="every stake must be in"):
        MeanTest(0.1, stakes=[0.5, -0.1])
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="every observation must be in"):
            MeanTest(0.1).add([0.0, wrong])


def test_where_it_most_likely_began() -> None:
    rng = np.random.default_rng(1)
    steps = [(rng.random(8) < (0.05 if t < 40 else 0.5)).astype(float) for t in range(50)]
    assert abs(likeliest_beginning(steps, 0.1) - 40) <= 1


# The watch over failures, as `benchmarks/failure_watch.py` simulates it.


@pytest.mark.parametrize("kind", ["rollouts", "tasks"])
@pytest.mark.parametrize("tasks", [4, 32])
def test_few_runs_at_the_limit_are_stopped(kind: str, tasks: int) -> None:
    """200 runs of 300 steps and less; the interval that it replaces stops most of them."""
    steps = 300 if tasks == 4 else 60
    found = benchmark_module("failure_watch").stops(kind, 0.1, tasks, runs=200, steps=steps)
    assert np.isfinite(found.watch).mean() <= 0.05
    assert np.isfinite(found.interval).mean() > 0.5


def test_twice_the_limit_and_a_late_failure_are_found() -> None:
    stops = benchmark_module("failure_watch").stops
    for kind in ("rollouts", "tasks"):
        assert np.mean(stops(kind, 0.2, 32, runs=200, steps=30).watch <= 30) >= 0.99
    late = stops("tasks", 1.0, 32, clean=250, runs=1, steps=3).watch
    assert 1 <= late.max() <= 3
