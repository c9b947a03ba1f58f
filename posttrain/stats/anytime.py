"""Tests that hold however often one looks: betting against a limit on the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

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

    The `limit` may be another for each step, if it is set before the step is seen: the factors then have a mean of at
    most 1 while each observation stays within the limit of its step.

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


def upper_bound(observations: ArrayLike, level: float, stakes: Floats = STAKES) -> float:
    """A number that the smallest mean of observations in [0, 1] exceeds with a probability of at most `level`.

    It is the smallest m at which a gambler wins who bets that the observations x lie below m: at which
    mean over c of Π (1 − c + c·(1 − x)/(1 − m)) ≥ 1/level. While the mean of each observation, given those before it,
    is at least m, the left side has a mean of at most 1, and Markov's inequality holds (arXiv:2010.09686, section 4).
    1 where too little was observed. Raises ValueError for a stake or observation outside [0, 1]."""
    x = np.atleast_1d(np.asarray(observations, dtype=float))
    low, high = 0.0, 1.0
    for _ in range(40):  # the left side rises with m
        m = (low + high) / 2
        wealth = np.logaddexp.reduce(log_growth(1 - x, 1 - m, stakes)) - math.log(len(stakes))
        low, high = (low, m) if wealth >= math.log(1 / level) else (m, high)
    return high


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
