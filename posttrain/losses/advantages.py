"""Advantages as pure functions of scores. Shapes: [groups][rollouts of a group], ragged. A number a
response is a plain float; numbers of tokens are arrays [T], one a response."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from posttrain.arrays import Floats, floats

ZERO_VARIANCE = 1e-8
"""A group whose population σ is below this carries no signal."""


def group_normalised(scores: Sequence[float]) -> list[float]:
    """GRPO's advantage within one group (DeepSeekMath, arXiv:2402.03300, section 4.1.2): A_i = (r_i − mean r) / σ.

    σ is the population standard deviation and nothing is added to it; a group with σ < 1e-8 gets zeros. Raises
    ValueError for fewer than two scores: a group of one has no baseline."""
    centred = group_centred(scores)
    sigma = math.sqrt(math.fsum(a * a for a in centred) / len(centred))
    return [a / sigma if sigma >= ZERO_VARIANCE else 0.0 for a in centred]


def group_centred(scores: Sequence[float]) -> list[float]:
    """Dr. GRPO's advantage (arXiv:2503.20783, section 3.2): A_i = r_i − mean r, without dividing.

    Raises ValueError for fewer than two scores."""
    if len(scores) < 2:
        raise ValueError("a group needs at least two scores for a baseline")
    if min(scores) == max(scores):  # equal large scores differ from their rounded mean
        return [0.0] * len(scores)
    mean = math.fsum(scores) / len(scores)
    return [s - mean for s in scores]


def leave_one_out(scores: Sequence[float]) -> list[float]:
    """RLOO's advantage (arXiv:2402.14740, section 3.2): A_i = r_i − mean of the other scores = G/(G−1)·(r_i − mean r).

    Raises ValueError for fewer than two scores."""
    centred = group_centred(scores)
    return [a * len(centred) / (len(centred) - 1) for a in centred]


def whitened(rows: Sequence[ArrayLike], least: float = 0.0) -> list[Floats]:
    """(x − mean) / σ over all numbers of all rows, with the population σ; zeros where σ < 1e-8 or `least`.

    A row holds the advantages of a rollout's tokens and the rows are those of a whole step, so that the result does
    not depend on micro-batches (REINFORCE++, arXiv:2501.03262, equation 9; PPO's advantage normalisation)."""
    arrays = list(map(floats, rows))
    mean, sigma = _moments(arrays)
    if sigma < max(ZERO_VARIANCE, least) or len({end for x in arrays if len(x) for end in (x.min(), x.max())}) == 1:
        return [np.zeros(len(row)) for row in arrays]
    return [(row - mean) / sigma for row in arrays]


def divided_by_deviation(rows: Sequence[ArrayLike]) -> list[Floats]:
    """x / σ over all numbers of all rows, the mean left in: PPO's reward whitening, which must not make every reward of
    a bad step negative. The rows as they are where σ < 1e-8."""
    arrays = list(map(floats, rows))
    _, sigma = _moments(arrays)
    return [row / sigma if sigma >= ZERO_VARIANCE else row for row in arrays]


def _moments(rows: Sequence[Floats]) -> tuple[float, float]:
    """Mean and population σ over all numbers of all rows; 0 for no numbers."""
    flat = np.concatenate([floats([]), *rows])
    if not len(flat):
        return 0.0, 0.0
    mean = math.fsum(flat.data) / len(flat)
    return mean, math.sqrt(math.fsum(((flat - mean) ** 2).data) / len(flat))


def returns_to_go(rewards: ArrayLike, gamma: float) -> Floats:
    """R_t = Σ_{s≥t} γ^(s−t) r_s for the rewards [T] of one rollout's tokens."""
    out = np.array(rewards, np.float64)
    if gamma == 1:
        return np.cumsum(out[::-1])[::-1] + 0.0
    after = 0.0
    for t, reward in reversed(list(enumerate(out.tolist()))):
        after = out[t] = reward + gamma * after
    return out


def gae(rewards: ArrayLike, values: ArrayLike, gamma: float, gae_lambda: float) -> tuple[Floats, Floats]:
    """Generalised advantage estimation (arXiv:1506.02438, equation 16) and the critic's targets, for one rollout.

    δ_t = r_t + γ V_{t+1} − V_t;  A_t = Σ_{s≥t} (γλ)^(s−t) δ_s;  R_t = A_t + V_t. `rewards` and `values` are [T]; V_t
    is read before token t. After the last token it is 0: a rollout that its token limit ended counts as ended."""
    before = floats(values)
    advantages = np.zeros(len(before))
    after, next_value = 0.0, 0.0
    for t, (reward, value) in reversed(list(enumerate(zip(floats(rewards).tolist(), before.tolist(), strict=True)))):
        after = advantages[t] = reward + gamma * next_value - value + gamma * gae_lambda * after
        next_value = value
    return advantages, advantages + before


def decoupled(groups: Sequence[Sequence[Sequence[float | None]]], weights: Sequence[float]) -> list[list[float]]:
    """GDPO's advantages of a whole step (arXiv:2601.05242, section 3): normalise each reward, then sum.

    `groups` has the shape [groups][rollouts][rewards]. With a_ik the group-normalised k-th reward of rollout i,
    s_i = Σ_k w_k a_ik, and A_i = s_i / σ with σ the population standard deviation of s over all rollouts of the step.
    The paper also subtracts the mean over the step, which is 0, since every reward has mean 0 in every group.

    A reward of None does not apply: it leaves the statistics of its group and adds nothing. A reward that fewer than
    two rollouts of a group have, or that does not differ in it, adds nothing there. Where σ < 1e-8 all are zeros.
    Unlike the advantage of the summed rewards, this keeps apart combinations of rewards that add up to the same, and a
    weight says how much a reward counts whatever its scale. Raises ValueError for a rollout without one value a
    reward."""
    sums = []
    for members in groups:
        by_reward = zip(zip(*members, strict=True), weights, strict=True)
        shares = [_shares(values, weight) for values, weight in by_reward] if members else []
        sums.append([math.fsum(of_rollout) for of_rollout in zip(*shares, strict=True)])
    flat = [s for group in sums for s in group]
    sigma = math.sqrt(math.fsum(s * s for s in flat) / len(flat)) if flat else 0.0
    return [[s / sigma if sigma >= ZERO_VARIANCE else 0.0 for s in group] for group in sums]


def _shares(values: Sequence[float | None], weight: float) -> list[float]:
    """What one reward adds to each rollout of a group."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return [0.0] * len(values)
    normalised = iter(group_normalised(known))
    return [0.0 if v is None else weight * next(normalised) for v in values]
