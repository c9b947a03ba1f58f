"""How the true reward goes on rising, or falls, as answers are selected harder by a proxy of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posttrain.arrays import Floats


def distance(n: int) -> float:
    """d = √KL of the best of n draws from the draws themselves, in √nats: KL = ln n − (n − 1)/n (Gao et al. 2022,
    arXiv:2210.10760)."""
    return math.sqrt(max(0.0, math.log(n) - (n - 1) / n))


def best_of(proxy: Floats, gold: Floats, n: int) -> float:
    """The expected gold reward of the answer with the highest proxy among n that are drawn from a pool of m without
    putting back: Σ_i C(i − 1, n − 1)/C(m, n) gold_(i), answers in the order of their proxy; equal proxies share their
    mean gold. Shapes [m]."""
    m = len(proxy)
    order = np.argsort(proxy, kind="stable")
    _, place = np.unique(proxy[order], return_inverse=True)
    means = np.bincount(place, gold[order]) / np.bincount(place)
    weights = np.array([math.comb(i, n - 1) for i in range(m)], dtype=float) / math.comb(m, n)
    return float(weights @ means[place])


@dataclass(frozen=True)
class Fit:
    """gain(d) = d(α − βd): its coefficients, and the share R² of the variance of the gains that it explains."""

    alpha: float
    beta: float
    r2: float

    @property
    def peak(self) -> float | None:
        """d* = α/2β, from which the gain falls; None where it rises for ever."""
        return self.alpha / (2 * self.beta) if self.alpha > 0 and self.beta > 0 else None


def fitted(distances: Sequence[float] | Floats, gains: Sequence[float] | Floats) -> Fit:
    """Least squares of the gains over distances, shapes [points], without a constant: no selection has no gain."""
    d, y = np.asarray(distances, dtype=float), np.asarray(gains, dtype=float)
    (alpha, beta), *_ = np.linalg.lstsq(np.stack([d, -d * d], axis=1), y, rcond=None)
    left, total = float(((y - d * (alpha - beta * d)) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    return Fit(float(alpha), float(beta), 1 - left / total if total > 0 else 0.0)


def excess_kurtosis(values: Floats) -> float:
    """m4/m2² − 3, 0 of a normal distribution: the errors of a reward with heavy tails reward selection for errors."""
    apart = values - values.mean()
    m2 = float((apart**2).mean())
    return float((apart**4).mean()) / m2**2 - 3 if m2 > 0 else 0.0


def chance_above(right: Floats, wrong: Floats) -> float:
    """The chance that a right answer gets more than a wrong one, ties half (AUC)."""
    apart = right[:, None] - wrong[None, :]
    return float((apart > 0).mean() + 0.5 * (apart == 0).mean())
