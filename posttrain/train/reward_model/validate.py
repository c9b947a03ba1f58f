"""How far a reward model can be trusted: what is measured on held-out pairs, or on held-out answers in steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.selection import excess_kurtosis, pearson
from posttrain.stats import Estimate, clustered_share, share
from posttrain.train.reward_model.data import Pair

BINS = 10
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
    excess kurtosis."""
    rho = pearson(scores, gold)
    slope = 0.0 if rho is None else rho * float(gold.std() / scores.std())
    errors = (gold - gold.mean()) - slope * (scores - scores.mean())
    spread = float((errors**2).mean())
    kurtosis = excess_kurtosis(errors)
    return {"n": len(gold), "correlation": rho, "error_std": spread**0.5, "error_kurtosis": kurtosis}


def _first_error(right: NDArray[np.bool_]) -> int | None:
    """The place of the first step that is not right."""
    return None if right.all() else int(right.argmin())


def _harmonic_mean(*found: Sequence[bool]) -> float | None:
    """Of the shares of True; None where there is nothing to take one of."""
    if not all(found):
        return None
    shares = [sum(of) / len(of) for of in found]
    return len(shares) / sum(1 / share for share in shares) if all(shares) else 0.0
