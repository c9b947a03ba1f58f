"""The watch over failures at full size: 2,000 runs of 300 steps for each setting."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training_helpers import benchmark_module

KINDS = ("rollouts", "tasks", "rows")


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tasks", [4, 8, 16, 32])
def test_at_most_a_twentieth_of_the_runs_at_the_limit_is_stopped(kind: str, tasks: int) -> None:
    assert np.isfinite(benchmark_module("failure_watch").stops(kind, 0.1, tasks).watch).mean() <= 0.05


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_twice_the_limit_and_a_late_total_failure_are_found(kind: str) -> None:
    stops = benchmark_module("failure_watch").stops
    assert np.mean(stops(kind, 0.2, 32).watch <= 30) >= 0.99
    late = stops(kind, 1.0, 32, clean=250).watch
    assert late.min() >= 1 and late.max() <= 3
