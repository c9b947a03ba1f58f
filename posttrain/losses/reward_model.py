"""Losses of reward models as pure functions, and the weights of pairs.

Scores of P pairs are tensors [P, 2, K], the chosen response first, K members of an ensemble. Logs are natural.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

STRATA = 10
"""Groups of similar length difference within which `balanced_weights` balances; merged where one side is missing."""
TINY = 1e-8
"""Added under square roots, so that scores that are all the same have correlation 0 and a finite gradient."""


def bradley_terry(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    margin: torch.Tensor | float = 0.0,
    probability: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """−p log σ(r_w − r_l − m) − (1−p) log σ(r_l − r_w − m), an entry a pair.

    With p = 1 the loss of a certain label, −log σ(r_w − r_l − m) (Bradley and Terry 1952; Stiennon et al. 2020,
    arXiv:2009.01325, equation 1), with the margin m of Llama 2 (arXiv:2307.09288, equation 2). Else its mean over what
    the label may be: the chosen response is the better one with `probability` p (the soft labels of Constitutional AI,
    arXiv:2212.08073, section 4). Whichever is better has to win by m, so that the minimum is on the side of the more
    probable one for every m, and for m = 0 where σ(r_w − r_l) = p. ln 2 where both score the same and m is 0."""
    right, wrong = F.logsigmoid(chosen - rejected - margin), F.logsigmoid(rejected - chosen - margin)
    return -probability * right - (1 - probability) * wrong


def centre(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """(r_w + r_l)², an entry a pair: Bradley–Terry leaves the mean of scores open, and this puts it at 0 (Eisenstein et
    al. 2023, arXiv:2312.09244, section 2)."""
    return (chosen + rejected) ** 2


def pair_loss(
    scores: torch.Tensor,
    margins: torch.Tensor,
    weights: torch.Tensor,
    probabilities: torch.Tensor | None = None,
    *,
    pairs: int,
    centre_coefficient: float = 0.0,
) -> torch.Tensor:
    """What these pairs add to the loss of a step of `pairs` pairs, a mean over pairs and members:
    Σ_ik w_ik [bradley_terry + c · centre]_ik / (pairs · K). `margins` [P], `weights` [P, K] and
    `probabilities` [P] of the labels, without which all are certain."""
    chosen, rejected = scores[:, 0], scores[:, 1]
    p = 1.0 if probabilities is None else probabilities[:, None]
    losses = bradley_terry(chosen, rejected, margins[:, None], p)
    if centre_coefficient:
        losses = losses + centre_coefficient * centre(chosen, rejected)
    return (weights * losses).sum() / (pairs * scores.shape[2])


def odin_loss(
    scores: torch.Tensor, margins: torch.Tensor, lengths: torch.Tensor, probabilities: torch.Tensor | float = 1.0
) -> torch.Tensor:
    """ODIN (Chen et al. 2024, arXiv:2402.07319, equations 6 and 7) on a whole step, with scores [P, 2, 2] of a quality
    head q and a length head l, and `lengths` [P, 2] of the responses:

    mean of −log σ(q_w + l_w − q_l − l_l − m), for soft labels as in `bradley_terry`, plus |ρ(q, length)| −
    ρ(l, length), Pearson's ρ over all 2P responses. Correlations are no sums over pairs: see `head_overlap` for the
    third term."""
    quality, length = scores[..., 0], scores[..., 1]
    total = quality + length
    ranking = bradley_terry(total[:, 0], total[:, 1], margins, probabilities).mean()
    return ranking + correlation(quality, lengths).abs() - correlation(length, lengths)


def head_overlap(head: torch.Tensor) -> torch.Tensor:
    """|cos| of the two rows of a head [2, H]: ODIN's orthogonality term. The paper takes |W_Q W_Lᵀ| of rows that are
    kept at length 1; the cosine is the same without keeping them there."""
    return F.cosine_similarity(head[0], head[1], dim=0).abs()


def stepwise_loss(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Σ_i w_i · −[y_i log σ(s_i) + (1 − y_i) log(1 − σ(s_i))] over the scores, labels and weights [S] of steps: a score
    is the log-odds that its step is right (Math-Shepherd, Wang et al. 2023, arXiv:2312.08935, section 3; Lightman et
    al. 2023, arXiv:2305.20050, section 2). A label is 0, 1 or a probability between. With weights of 1/S it is a mean
    over steps, whichever answers they are of."""
    return (weights * F.binary_cross_entropy_with_logits(scores, labels, reduction="none")).sum()


def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Pearson's ρ over all entries; 0 where either does not vary."""
    x, y = x.flatten() - x.mean(), y.flatten() - y.mean()
    return (x * y).sum() / ((x * x).sum() + TINY).sqrt() / ((y * y).sum() + TINY).sqrt()


def bootstrap_weights(pairs: int, members: int, seed: int) -> NDArray[np.float64]:
    """[P, K]: how often each pair stands in the bootstrap sample of each member, drawn from (seed, member). A single
    member sees every pair once."""
    if members == 1:
        return np.ones((pairs, 1))
    draws = [np.random.default_rng([seed, k]).integers(0, pairs, pairs) for k in range(members)]
    return np.stack([np.bincount(drawn, minlength=pairs) for drawn in draws], axis=1).astype(np.float64)


def balanced_weights(differences: Sequence[int], probabilities: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Weights [P] under which the length difference says nothing about the label, from those differences (chosen less
    rejected, in tokens).

    Pairs are sorted by |difference| into strata. In each the more frequent side, longer or shorter chosen, is weighted
    down to the other's number, as if so many of it had been drawn; pairs of equal length count 1. Then all are scaled
    to a mean of 1. Where every pair has the same side, all weights are 0.

    A label of probability p is |2p − 1| of one on its more probable side, and none at p = 0.5."""
    lead = np.ones(len(differences)) if probabilities is None else 2 * np.asarray(probabilities) - 1
    d, sure = np.asarray(differences) * np.sign(lead), np.abs(lead)
    weights = np.where(d == 0, 1.0, 0.0)
    for stratum in _strata(d):
        longer, shorter = stratum[d[stratum] > 0], stratum[d[stratum] < 0]
        least = min(sure[longer].sum(), sure[shorter].sum())
        for side in (longer, shorter):
            weights[side] = least / sure[side].sum() if len(side) else 0.0
    mean = weights.mean() if len(weights) else 0.0
    return weights / mean if mean else weights


def _strata(d: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Places of the pairs that differ, by |difference| in about STRATA parts; a part that holds one side alone joins
    the next, the last one the part before."""
    order = np.argsort(np.abs(d), kind="stable")
    parts = np.array_split(order[d[order] != 0], STRATA)
    out: list[NDArray[np.int64]] = []
    waiting: list[NDArray[np.int64]] = []
    for part in parts:
        waiting.append(part)
        joined = np.concatenate(waiting)
        if (d[joined] > 0).any() and (d[joined] < 0).any():
            out.append(joined)
            waiting = []
    if waiting:
        before = [out.pop()] if out else []
        out.append(np.concatenate([*before, *waiting]))
    return out
