"""pass@k, and intervals of shares, means and differences: they cover 95%."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict  # the one that pydantic reads before Python 3.12

FEW_TASKS = 10
"""Below this many values that are not all 0 or 1 a mean gets no interval. At 9 values the percentile bootstrap
holds the truth 83 to 92% of the time and Student's t 87 to 95%, at 2 values 36 to 81% and 48 to 91%, by what the values
are like (`tests/stress/test_coverage.py`)."""


def wilson(successes: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, JASA 22), as shares in [0, 1].

    With p = successes/n: (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n). The default z = 1.959964 covers 95%.
    Successes may be a sum of shares in [0, 1], for which the interval is wider than it need be.
    Without observations (n = 0) nothing is known: (0, 1). Raises ValueError unless 0 ≤ successes ≤ n."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    p, z2n = successes / n, z * z / n
    centre = p + z2n / 2
    half = z * math.sqrt(p * (1 - p) / n + z2n / (4 * n))
    low, high = (centre - half) / (1 + z2n), (centre + half) / (1 + z2n)
    # At the ends the exact bound is 0 or 1, which rounding can miss by an ulp.
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


class Estimate(TypedDict):
    """A number with its 95% interval over `n` tasks; None where nothing was scored. A mean of values that are not all
    0 or 1 over fewer than FEW_TASKS tasks has no interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int


RESAMPLES = 10_000
SEED = 0
"""Of the resamples behind what is shown."""
CHUNK_ELEMENTS = 4_000_000
"""Resampled values held at once; bounds memory, not the result's quality."""

Floats = NDArray[np.float64]
Transform = Callable[[Floats], Floats]


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


def share(successes: float, n: int) -> Estimate:
    """successes/n with Wilson's interval; None of no observations, for which the interval is (0, 1)."""
    low, high = wilson(successes, n)
    return {"value": float(successes) / n if n else None, "low": low, "high": high, "n": n}


def clustered_share(successes: Sequence[int], sizes: Sequence[int]) -> Estimate:
    """The share Σ successes / Σ sizes over clusters whose members are not independent, such as the steps of an answer,
    with Wilson's interval for the effective number of observations p(1 − p)/v (Kish 1965).

    v is the variance of the ratio between clusters, C/(C−1) Σ (successes − p · size)² / (Σ sizes)². The number lies
    between that of the clusters that have members, C, and that of the members; it is the former where p is 0 or 1."""
    pairs = [(a, b) for a, b in zip(successes, sizes, strict=True) if b]
    n, clusters = sum(b for _, b in pairs), len(pairs)
    if not n:
        return share(0, 0)
    p = sum(a for a, _ in pairs) / n
    effective = float(clusters)
    if clusters > 1 and 0 < p < 1:
        variance = clusters / (clusters - 1) * sum((a - p * b) ** 2 for a, b in pairs) / n**2
        effective = min(n, max(clusters, p * (1 - p) / variance)) if variance else n
    low, high = wilson(p * effective, effective)
    return {"value": p, "low": low, "high": high, "n": n}


def bootstrap_mean(
    values: Sequence[float] | Floats, seed: int = SEED, resamples: int = RESAMPLES, transform: Transform | None = None
) -> Estimate:
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
    seed: int = SEED,
    resamples: int = RESAMPLES,
    transform: Transform | None = None,
    comparisons: int = 1,
) -> Estimate:
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
        return share(sum(scored), len(scored))
    return shown(bootstrap_mean(scored, transform=transform))


def difference(
    a: Sequence[float], b: Sequence[float], transform: Transform | None = None, comparisons: int = 1
) -> Estimate:
    """`paired_bootstrap` as it is shown: without an interval below FEW_TASKS tasks."""
    return shown(paired_bootstrap(a, b, transform=transform, comparisons=comparisons))


def shown(bootstrapped: Estimate) -> Estimate:
    """The estimate without its interval where it is of fewer than FEW_TASKS tasks."""
    return bootstrapped if bootstrapped["n"] >= FEW_TASKS else {**bootstrapped, "low": None, "high": None}


def _same(x: Floats) -> Floats:
    return x


def _finite(values: Sequence[float] | Floats) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError("the bootstrap needs at least one value")
    if not np.isfinite(data).all():
        raise ValueError("the bootstrap needs finite values")
    return data


def _resampled_means(data: Floats, seed: int, resamples: int) -> Floats:
    """[n, columns] -> [resamples, columns]: column means of rows drawn with putting back, columns together."""
    n = len(data)
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK_ELEMENTS // n)
    parts = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, n, size=(min(rows, resamples - start), n), dtype=np.uint32)
        parts.append(np.stack([column[drawn].mean(axis=1) for column in data.T], axis=1))
    return np.concatenate(parts)


def _percentiles(value: float, resampled: Floats, n: int, comparisons: int = 1) -> Estimate:
    tail = 0.025 / comparisons
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high), "n": n}
