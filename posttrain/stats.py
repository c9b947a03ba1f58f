"""Statistics: pass@k, intervals (they cover 95%), and tests that hold however often one looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
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


STAKES: Floats = np.array([0.9 * 0.5**k for k in range(7)])
"""The shares of its wealth that a test bets, 0.9 to 0.014: the large ones find a mean far above the limit at once, the
small ones one just above it. Other grids of four to eight stakes stop at nearly the same steps."""


class MeanTest:
    """The wealth of a gambler who bets that observations in [0, 1] have a mean above `limit`: an e-process.

    While the mean of each observation, given those before it, is at most the limit m, the factor 1 − c + c·x/m of an
    observation x has a mean of at most 1 for every stake c in [0, 1]; it is 1 + λ(x − m) with λ = c/m. Observations
    come in steps. A bet that begins with step j has after step t the wealth

        E_j(t) = mean over c of Π (1 − c + c·x/m) over the observations of steps j…t, and 1 for t < j,

    and the whole is W(t) = Σ_j w_j E_j(t), w_j = 1/log₂(j+1) − 1/log₂(j+2), over all steps that may ever come: the
    weights sum to 1. So W starts at 1 and does not grow in the mean, and by Ville's inequality

        P(W(t) ≥ 1/α for any t) ≤ α

    for a run of any length and any rule for when to look or stop. That bets begin with every step keeps the test quick
    after long good stretches: a bet begun at step j pays log(1/w_j), about log(j·log² j), for being one of many.
    With a limit of 0 any observation above 0 ends the test (W = ∞); with a limit of 1 W never grows.

    Several tests share one α if their wealths are averaged. All arrays may have leading dimensions, one for each of
    several runs at once. Raises ValueError for a limit, stake or observation outside [0, 1].

    Sources: Waudby-Smith and Ramdas, arXiv:2010.09686 (bets); Shin, Ramdas and Rinaldo, arXiv:2203.03532 (beginnings);
    Ville 1939 (the bound)."""

    def __init__(self, limit: float, stakes: ArrayLike = STAKES) -> None:
        self.limit = limit
        self.stakes = np.asarray(stakes, dtype=float)
        log_growth(0.0, limit, self.stakes)  # checks both
        self.steps = 0
        self._logs: Floats = np.full(len(self.stakes), -math.inf)
        """log Σ_{j ≤ t} w_j Π… for each stake. A step multiplies every bet that has begun by the same factor, so no bet
        is kept by itself."""

    def add(self, observations: ArrayLike) -> None:
        """The observations of the next step, shape [..., observations]."""
        growth = log_growth(observations, self.limit, self.stakes)
        self.steps += 1
        self._logs = np.logaddexp(self._logs, math.log(_weight(self.steps))) + growth

    @property
    def log_wealth(self) -> Floats:
        """log W, shape [...]. The limit is refuted at level α where it is at least log(1/α)."""
        started = np.logaddexp.reduce(self._logs, axis=-1) - math.log(len(self.stakes))
        return np.logaddexp(started, math.log(_weight_after(self.steps)))


def log_growth(observations: ArrayLike, limit: float, stakes: Floats) -> Floats:
    """Σ log(1 − c + c·x/m) over the last dimension of the observations x, for each stake c: shape [..., stakes]."""
    x = np.atleast_1d(np.asarray(observations, dtype=float))
    for name, values in (("limit", np.asarray(limit)), ("stake", stakes), ("observation", x)):
        if not bool(np.all((values >= 0) & (values <= 1))):
            raise ValueError(f"every {name} must be in [0, 1]")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        multiples = x / limit if limit > 0 else np.where(x > 0, math.inf, 1.0)
        factors = 1 - stakes + np.where(stakes > 0, stakes * multiples[..., None], 0.0)
        return np.asarray(np.log(factors).sum(axis=-2))


def likeliest_beginning(steps: Sequence[ArrayLike], limit: float, stakes: Floats = STAKES) -> int:
    """Index of the step with which the bet began that holds the largest part w_j E_j of the wealth: where a mean above
    the limit most likely set in. Raises ValueError without steps."""
    growth = np.stack([log_growth(observations, limit, stakes) for observations in steps])
    since = growth[::-1].cumsum(axis=0)[::-1]  # from each step to the last
    weights = np.log([_weight(j) for j in range(1, len(steps) + 1)])
    return int(np.argmax(weights + np.logaddexp.reduce(since, axis=1)))


def _weight(j: int) -> float:
    """w_j of the bet that begins with step j ≥ 1."""
    return _weight_after(j - 1) - _weight_after(j)


def _weight_after(t: int) -> float:
    """Σ_{j > t} w_j: a telescoping sum."""
    return 1 / math.log2(t + 2)
