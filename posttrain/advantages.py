"""Advantages as pure functions of scores. Shapes: [groups][rollouts of a group], ragged; plain Python floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

ZERO_VARIANCE = 1e-8
"""A group whose population σ is below this carries no signal."""


def group_normalised(scores: Sequence[float]) -> list[float]:
    """GRPO's advantage within one group (DeepSeekMath, arXiv:2402.03300, section 4.1.2): A_i = (r_i − mean r) / σ.

    σ is the population standard deviation and nothing is added to it; a group with σ < 1e-8 gets zeros. Raises
    ValueError for fewer than two scores: a group of one has no baseline."""
    if len(scores) < 2:
        raise ValueError("a group needs at least two scores for a baseline")
    mean = math.fsum(scores) / len(scores)
    sigma = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / len(scores))
    if sigma < ZERO_VARIANCE or min(scores) == max(scores):  # equal large scores differ from their rounded mean
        return [0.0] * len(scores)
    return [(s - mean) / sigma for s in scores]


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
