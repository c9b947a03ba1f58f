"""How far a reward model can be trusted: what is measured on held-out pairs, or on held-out answers in steps."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.stats import Estimate, bootstrap_mean, clustered_share, share, shown
from posttrain.train.reward_model.data import Pair

BINS = 10
RESAMPLES = 2000
ROUNDING = 1e-12
"""Variance of standard scores below which members agree but for the rounding of float32."""
RIGHT = 0.5
"""A step is right by a label of at least so much."""

Scores = NDArray[np.float64]


def validation(pairs: Sequence[Pair], scores: Scores) -> dict[str, Any]:
    """Numbers on held-out pairs from scores [P, 2], the chosen response's first:

    - `accuracy`: share of pairs with the chosen one above, with Wilson's interval; a tie is no success. Of a label of
      probability p it counts p, and 1 − p with the rejected one above: what to expect on labels drawn with these
      probabilities, as everything here that asks what a label says
    - `calibration`: see `calibration`
    - `length`: Pearson's ρ of score and response length in tokens, of their differences within a pair, and how often
      the longer one was chosen by the labels and by the model (pairs of equal length left out)
    - `gold`, where pairs have scores that are taken as true: see `gold_errors`"""
    difference = scores[:, 0] - scores[:, 1]
    probability = np.array([pair.probability for pair in pairs])
    lengths = np.array([pair.lengths for pair in pairs], dtype=np.float64)
    longer = lengths[:, 0] - lengths[:, 1]
    known = [i for i, pair in enumerate(pairs) if pair.gold is not None]
    gold = np.array([pairs[i].gold for i in known], dtype=np.float64)
    return {
        "pairs": len(pairs),
        "accuracy": share(agreement_without_ties(difference, probability).sum(), len(pairs)),
        "calibration": calibration(difference, probability),
        "length": {
            "score": pearson(scores.ravel(), lengths.ravel()),
            "difference": pearson(difference, longer),
            "longer_chosen": share(agreement_without_ties(longer, probability).sum(), int((longer != 0).sum())),
            "longer_scored_higher": share(int((longer * difference > 0).sum()), int((longer != 0).sum())),
        },
        "gold": gold_errors(scores[known].ravel(), gold.ravel()) if known else None,
    }


def stepwise_validation(labels: Sequence[Scores], scores: Sequence[Scores]) -> dict[str, Any]:
    """Numbers on held-out answers, of each of which there are a label and a score for every step. A step is right by a
    label of at least 0.5, and by the model with a score (log-odds) of at least 0:

    - `accuracy`: share of steps of which the model says what the label says, and the same of the `right_steps` and of
      the `wrong_steps` by label; see `clustered_share` for the intervals
    - `calibration`: see `calibration`, here of the probability that the model gives to what it says
    - `first_error`: of the answers with a wrong step, the share in which the model has its first one in the same place;
      `no_error`: of those without, the share in which it has none; `f1`: their harmonic mean (ProcessBench, Zheng et
      al. 2024, arXiv:2412.06559)"""
    right = [of >= RIGHT for of in labels]
    said = [of >= 0 for of in scores]
    both = list(zip(right, said, strict=True))

    def accuracy(among: Sequence[NDArray[np.bool_]]) -> Estimate:
        alike = [int(((a == b) & some).sum()) for (a, b), some in zip(both, among, strict=True)]
        return clustered_share(alike, [int(some.sum()) for some in among])

    faulty = [_first_error(a) == _first_error(b) for a, b in both if not a.all()]
    sound = [bool(b.all()) for a, b in both if a.all()]
    return {
        "answers": len(labels),
        "steps": sum(map(len, labels)),
        "accuracy": accuracy([np.ones_like(a) for a in right]),
        "right_steps": accuracy(right),
        "wrong_steps": accuracy([~a for a in right]),
        "calibration": calibration(np.concatenate([np.where(a, s, -s) for a, s in zip(right, scores, strict=True)])),
        "first_error": share(sum(faulty), len(faulty)),
        "no_error": share(sum(sound), len(sound)),
        "f1": _harmonic_mean(faulty, sound),
    }


def agreement_without_ties(difference: Scores, probability: Scores | float) -> Scores:
    """How likely the label of each pair is on the side that `difference` is on, chosen less rejected; 0 on neither."""
    return np.where(difference > 0, probability, np.where(difference < 0, 1 - probability, 0.0))


def calibration(difference: Scores, probability: Scores | float = 1.0) -> dict[str, Any]:
    """Whether σ(|r_w − r_l|), the probability that the model gives to its own choice, is how often it is right.

    Bins of equal width over [0.5, 1] with the mean prediction and the share right; `error` is the mean gap between the
    two, weighted by pairs (Guo et al. 2017, arXiv:1706.04599, equation 3). `probability` is that of the labels."""
    predicted = 1 / (1 + np.exp(-np.abs(difference)))
    agreed = agreement_without_ties(difference, probability)
    place = np.minimum(((predicted - 0.5) * 2 * BINS).astype(int), BINS - 1)
    bins, gap = [], 0.0
    for k in range(BINS):
        inside = place == k
        if not inside.any():
            continue
        right, mean = agreed[inside], float(predicted[inside].mean())
        gap += abs(mean - float(right.mean())) * int(inside.sum())
        bins.append({"predicted": mean, "right": share(right.sum(), int(inside.sum()))})
    return {"error": gap / len(difference), "bins": bins}


def gold_errors(scores: Scores, gold: Scores) -> dict[str, float | int | None]:
    """How scores stand to true ones: Pearson's ρ, and of the errors, gold less its least-squares line in the score, the
    excess kurtosis m4/m2² − 3. Heavy-tailed errors (far above 0) are what optimisation finds even under a KL penalty
    (Kwa et al. 2024, arXiv:2407.14503)."""
    rho = pearson(scores, gold)
    slope = 0.0 if rho is None else rho * float(gold.std() / scores.std())
    errors = (gold - gold.mean()) - slope * (scores - scores.mean())
    spread = float((errors**2).mean())
    kurtosis = float((errors**4).mean()) / spread**2 - 3 if spread > 0 else None
    return {"n": len(gold), "correlation": rho, "error_std": spread**0.5, "error_kurtosis": kurtosis}


def best_of_n(scores: Scores, lengths: Scores) -> dict[str, Any]:
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
    errors = (z - others).ravel()
    spread = float((errors**2).mean())
    return {
        "prompts": len(z),
        "samples": samples,
        "curve": curve,
        "fit": fit_gain([point["d"] for point in curve], [point["cross"]["value"] for point in curve]),
        "error_kurtosis": float((errors**4).mean()) / spread**2 - 3 if spread > ROUNDING else None,
        "length": pearson(z.mean(2).ravel(), lengths.ravel()),
    }


def best_of_n_kl(n: int) -> float:
    """ln n − (n−1)/n, in nats: the KL of the best of n samples from one where no two are alike, else a bound on it from
    above (Beirami et al. 2024, arXiv:2401.01879)."""
    return float(np.log(n)) - (n - 1) / n


def expected_best(selected_by: Scores, values: Scores, n: int) -> Scores:
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


def mean_interval(values: Scores) -> Estimate:
    """The mean with its percentile bootstrap interval of 95%; without one below FEW_TASKS values."""
    return shown(bootstrap_mean(values, resamples=RESAMPLES))


def pearson(x: Scores, y: Scores) -> float | None:
    """Pearson's correlation; None where either does not vary."""
    if len(x) < 2 or not x.std() or not y.std():
        return None
    return float(((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std()))


def _first_error(right: NDArray[np.bool_]) -> int | None:
    """The place of the first step that is not right."""
    return None if right.all() else int(right.argmin())


def _harmonic_mean(*found: Sequence[bool]) -> float | None:
    """Of the shares of True; None where there is nothing to take one of."""
    if not all(found):
        return None
    shares = [sum(of) / len(of) for of in found]
    return len(shares) / sum(1 / share for share in shares) if all(shares) else 0.0
