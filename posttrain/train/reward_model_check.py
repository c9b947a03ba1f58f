"""How far a reward model can be trusted: what is measured on held-out pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.numbers import wilson
from posttrain.train.reward_model_data import Pair

BINS = 10

Scores = NDArray[np.float64]


def validation(pairs: Sequence[Pair], scores: Scores) -> dict[str, Any]:
    """Numbers on held-out pairs from scores [P, 2], the chosen response's first:

    - `accuracy`: share of pairs with the chosen one above, with Wilson's interval; a tie is no success
    - `calibration`: see `calibration`
    - `length`: Pearson's ρ of score and response length in tokens, of their differences within a pair, and how often
      the longer one was chosen by the labels and by the model (pairs of equal length left out)
    - `gold`, where pairs have scores that are taken as true: see `gold_errors`"""
    difference = scores[:, 0] - scores[:, 1]
    lengths = np.array([pair.lengths for pair in pairs], dtype=np.float64)
    longer = lengths[:, 0] - lengths[:, 1]
    known = [i for i, pair in enumerate(pairs) if pair.gold is not None]
    gold = np.array([pairs[i].gold for i in known], dtype=np.float64)
    return {
        "pairs": len(pairs),
        "accuracy": _share(int((difference > 0).sum()), len(pairs)),
        "calibration": calibration(difference),
        "length": {
            "score": pearson(scores.ravel(), lengths.ravel()),
            "difference": pearson(difference, longer),
            "longer_chosen": _share(int((longer > 0).sum()), int((longer != 0).sum())),
            "longer_scored_higher": _share(int((longer * difference > 0).sum()), int((longer != 0).sum())),
        },
        "gold": gold_errors(scores[known].ravel(), gold.ravel()) if known else None,
    }


def calibration(difference: Scores) -> dict[str, Any]:
    """Whether σ(|r_w − r_l|), the probability that the model gives to its own choice, is how often it is right.

    Bins of equal width over [0.5, 1] with the mean prediction and the share right; `error` is the mean gap between the
    two, weighted by pairs (Guo et al. 2017, arXiv:1706.04599, equation 3)."""
    predicted = 1 / (1 + np.exp(-np.abs(difference)))
    place = np.minimum(((predicted - 0.5) * 2 * BINS).astype(int), BINS - 1)
    bins, gap = [], 0.0
    for k in range(BINS):
        inside = place == k
        if not inside.any():
            continue
        right, mean = difference[inside] > 0, float(predicted[inside].mean())
        gap += abs(mean - float(right.mean())) * int(inside.sum())
        bins.append({"predicted": mean, "right": _share(int(right.sum()), int(inside.sum()))})
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


def pearson(x: Scores, y: Scores) -> float | None:
    """Pearson's correlation; None where either does not vary."""
    if len(x) < 2 or not x.std() or not y.std():
        return None
    return float(((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std()))


def _share(of: int, n: int) -> dict[str, float | int | None]:
    low, high = wilson(of, n)
    return {"value": of / n if n else None, "low": low, "high": high, "n": n}
