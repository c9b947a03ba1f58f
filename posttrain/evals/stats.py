"""Statistics over tasks: pass@k, and the intervals that go with every number. Intervals cover 95%."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posttrain.comparison import Estimate
from posttrain.numbers import FEW_TASKS, wilson

RESAMPLES = 10_000
SEED = 0
"""Of the resamples behind what is shown."""
CHUNK_ELEMENTS = 4_000_000
"""Resampled values held at once; bounds memory, not the result's quality."""

Transform = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Interval:
    """An estimate from `n` tasks and the bounds of its 95% interval."""

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"an interval needs at least one task, not {self.n}")
        if not self.low <= self.high:
            raise ValueError(f"an interval from {self.low} to {self.high}")


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased pass@k of one task with c right answers among n: 1 - C(n-c, k) / C(n, k) (Chen et al.,
    arXiv:2107.03374, equation 1). The chance that k of the n samples, drawn without putting back, hold a right one.

    Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {c} right among {n}: need 0 <= c <= n and 1 <= k <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def is_binary(values: Sequence[float]) -> bool:
    """Whether every value is 0 or 1, so that Wilson's interval applies."""
    return all(v in (0, 1) for v in values)


def wilson_interval(values: Sequence[float]) -> Interval:
    """The share of ones with Wilson's interval. Raises ValueError unless all values are 0 or 1."""
    if not is_binary(values):
        raise ValueError("Wilson's interval is for values that are 0 or 1")
    successes = int(sum(values))
    low, high = wilson(successes, len(values))
    return Interval(successes / len(values), low, high, len(values))


def bootstrap_mean(
    values: Sequence[float], seed: int, resamples: int = RESAMPLES, transform: Transform | None = None
) -> Interval:
    """The mean over tasks with its percentile bootstrap interval: tasks are drawn with putting back, each with all
    its samples (a value is one task's mean), and the interval spans the 2.5th to 97.5th percentile of the means.

    With `transform` f: f(mean) and percentiles of f over the means (f = exp turns a log-likelihood into a
    perplexity). One task says nothing about the spread: low = high = value. Raises ValueError without values."""
    data = _finite(values)[:, None]
    f = transform or _same
    means = f(_resampled_means(data, seed, resamples)[:, 0])
    return _percentiles(float(f(data.mean(axis=0))[0]), means, len(data))


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    seed: int,
    resamples: int = RESAMPLES,
    transform: Transform | None = None,
    comparisons: int = 1,
) -> Interval:
    """mean(a) - mean(b) with its percentile bootstrap interval; a[i] and b[i] belong to the same task and are drawn
    together, so that how hard the tasks are cancels.

    With `transform` f: f(mean(a)) - f(mean(b)). As one of several `comparisons` it covers 1 - 5%/`comparisons`, so that
    all of them together hold with 95% (Bonferroni). Raises ValueError for lengths that differ or no values."""
    if len(a) != len(b):
        raise ValueError(f"paired values differ in number: {len(a)} and {len(b)}")
    data = np.stack([_finite(a), _finite(b)], axis=1)
    f = transform or _same
    means = f(_resampled_means(data, seed, resamples))
    value = f(data.mean(axis=0))
    return _percentiles(float(value[0] - value[1]), means[:, 0] - means[:, 1], len(data), comparisons)


def estimate(values: Iterable[float | None], transform: Transform | None = None) -> Estimate:
    """The mean of what was scored, as it is shown: with Wilson's interval where all values are 0 or 1, else with the
    bootstrap's from FEW_TASKS values on, and with none below. `transform` as in `bootstrap_mean`."""
    scored = [v for v in values if v is not None]
    if not scored:
        return {"value": None, "low": None, "high": None, "n": 0}
    if transform is None and is_binary(scored):
        return _shown(wilson_interval(scored), True)
    return _shown(bootstrap_mean(scored, SEED, transform=transform), len(scored) >= FEW_TASKS)


def difference(
    a: Sequence[float], b: Sequence[float], transform: Transform | None = None, comparisons: int = 1
) -> Estimate:
    """`paired_bootstrap` as it is shown: without an interval below FEW_TASKS tasks."""
    return _shown(paired_bootstrap(a, b, SEED, transform=transform, comparisons=comparisons), len(a) >= FEW_TASKS)


def _shown(interval: Interval, enough: bool) -> Estimate:
    low, high = (interval.low, interval.high) if enough else (None, None)
    return {"value": interval.value, "low": low, "high": high, "n": interval.n}


def _same(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError("the bootstrap needs at least one value")
    if not np.isfinite(data).all():
        raise ValueError("the bootstrap needs finite values")
    return data


def _resampled_means(data: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    """[n, columns] -> [resamples, columns]: column means of rows drawn with putting back, columns together."""
    n = len(data)
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK_ELEMENTS // n)
    parts = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, n, size=(min(rows, resamples - start), n), dtype=np.uint32)
        parts.append(np.stack([column[drawn].mean(axis=1) for column in data.T], axis=1))
    return np.concatenate(parts)


def _percentiles(value: float, resampled: NDArray[np.float64], n: int, comparisons: int = 1) -> Interval:
    tail = 0.025 / comparisons
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high), n)
