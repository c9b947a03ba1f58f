"""What selecting the best of n answers by a score does to the score and to the truth, and how scores err."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np

from posttrain.arrays import Floats
from posttrain.stats import Estimate, bootstrap_mean, shown

RESAMPLES = 2000
ROUNDING = 1e-12
"""Variance of standard scores below which members agree but for the rounding of float32."""


def best_of_n(scores: Floats, lengths: Floats) -> dict[str, Any]:
    """How far a reward can be optimised before it is worth nothing, without true scores: each member of an ensemble
    selects the best of n answers, and the others say what that gained. From scores [P, N, K] of N answers to each of P
    prompts by K ≥ 2 members, and the answers' lengths [P, N].

    - `curve`: for n = 1, 2, 4, … N the KL distance d = √(ln n − (n−1)/n) of best-of-n, and by how much its score is
      above that of one answer by the member that selects (`own`) and by the mean of the others (`cross`, with its
      bootstrap interval over prompts), averaged over members, in standard deviations of a member's scores
    - `fit`: see `fit_gain`, of `cross`
    - `error_kurtosis`: excess kurtosis of a member's standard score less the mean of the others', None where they agree
    - `length`: Pearson's ρ of the mean standard score and length

    Members that share a trunk and data share errors, which this cannot show: the truth bends earlier than `cross`. The
    law of the curve: Gao et al. 2022, arXiv:2210.10760."""
    members = scores.shape[2]
    z = (scores - scores.mean((0, 1))) / np.maximum(scores.std((0, 1)), 1e-8)
    others = (z.sum(2, keepdims=True) - z) / (members - 1)
    curve, samples = [], z.shape[1]
    for n in [2**k for k in range(samples.bit_length())]:
        own, cross = (
            np.stack([expected_best(z[..., k], by[..., k], n) for k in range(members)]).mean(0) - by.mean((1, 2))
            for by in (z, others)
        )
        curve.append({"n": n, "d": best_of_n_kl(n) ** 0.5, "own": float(own.mean()), "cross": mean_interval(cross)})
    return {
        "prompts": len(z),
        "samples": samples,
        "curve": curve,
        "fit": fit_gain([point["d"] for point in curve], [point["cross"]["value"] for point in curve]),
        "error_kurtosis": excess_kurtosis((z - others).ravel(), ROUNDING),
        "length": pearson(z.mean(2).ravel(), lengths.ravel()),
    }


def best_of_n_kl(n: int) -> float:
    """ln n − (n−1)/n, in nats: the KL of the best of n samples from one where no two are alike, else a bound on it from
    above (Beirami et al. 2024, arXiv:2401.01879)."""
    return float(np.log(n)) - (n - 1) / n


def expected_best(selected_by: Floats, values: Floats, n: int) -> Floats:
    """The expected value [P] of the answer that `selected_by` ranks first among n of the N answers [P, N] drawn without
    putting back: Σ_r C(r−1, n−1) / C(N, n) · value of the r-th from below (the estimator of WebGPT,
    arXiv:2112.09332)."""
    samples = selected_by.shape[1]
    ways = np.array([comb(r, n - 1) for r in range(samples)], dtype=np.float64) / comb(samples, n)
    return np.take_along_axis(values, np.argsort(selected_by, axis=1, kind="stable"), 1) @ ways


def fit_gain(distance: Sequence[float], gain: Sequence[float]) -> dict[str, float | None]:
    """gain = d(α − β d), the law of best-of-n (arXiv:2210.10760), by least squares: `alpha`, `beta`, where it peaks
    `peak` d* = α/2β (None where it bends upwards or falls from the start), and `r2`, the share of the gain's squares
    that it explains. None everywhere for fewer than two distances above 0."""
    d, y = np.asarray(distance), np.asarray(gain)
    if (d > 0).sum() < 2:
        return dict.fromkeys(("alpha", "beta", "peak", "r2"))
    terms = np.stack([d, -(d**2)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(terms, y, rcond=None)
    left, whole = float(((y - terms @ (alpha, beta)) ** 2).sum()), float((y**2).sum())
    peak = float(alpha / (2 * beta)) if beta > 0 and alpha > 0 else None
    return {"alpha": float(alpha), "beta": float(beta), "peak": peak, "r2": 1 - left / whole if whole else None}


def excess_kurtosis(errors: Floats, least: float = 0.0) -> float | None:
    """m4/m2² − 3 of errors with mean 0; None where m2 is not above `least`. Heavy-tailed errors (far above 0) are what
    optimisation finds even under a KL penalty (Kwa et al. 2024, arXiv:2407.14503)."""
    spread = float((errors**2).mean()) if len(errors) else 0.0
    return float((errors**4).mean()) / spread**2 - 3 if spread > least else None


def mean_interval(values: Floats) -> Estimate:
    """The mean with its percentile bootstrap interval of 95%; without one below FEW_TASKS values."""
    return shown(bootstrap_mean(values, resamples=RESAMPLES))


def pearson(x: Floats, y: Floats) -> float | None:
    """Pearson's correlation; None where either does not vary."""
    if len(x) < 2 or not x.std() or not y.std():
        return None
    return float(((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std()))
